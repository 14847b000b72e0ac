//! What requests with an idempotency key were answered, for a day.

use rusqlite::{Connection, OptionalExtension, params};

use crate::rollout::Revision;
use crate::store::{ANSWERS_KEPT_MILLIS, Answered, Idempotency};

use super::column::{self, stored};
use super::fault::Fault;

/// Keeps the answer of a request that was committed, within the transaction that commits it. `at` in milliseconds.
pub(super) fn changed(db: &Connection, asked: &Idempotency, revision: Revision, at: u64) -> Result<(), Fault> {
    keep(db, asked, revision, at, true)
}

/// Keeps the answer of a request that had nothing to change, unless the key is known. `now` in milliseconds.
pub(super) fn unchanged(db: &mut Connection, asked: &Idempotency, at: Revision, now: u64) -> Result<(), Fault> {
    let tx = db.transaction()?;
    if answered(&tx, asked, now)?.is_none() {
        keep(&tx, asked, at, now, false)?;
    }
    Ok(tx.commit()?)
}

fn keep(db: &Connection, asked: &Idempotency, revision: Revision, at: u64, changed: bool) -> Result<(), Fault> {
    let sql =
        "INSERT OR REPLACE INTO answers (actor, key, digest, revision, at, changed) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let mut answer = db.prepare_cached(sql)?;
    answer.execute(params![
        asked.actor,
        asked.key,
        asked.digest,
        stored(revision.0),
        stored(at),
        changed
    ])?;
    Ok(())
}

/// What the request was answered. `now` in milliseconds.
pub(super) fn answered(db: &Connection, asked: &Idempotency, now: u64) -> Result<Option<Answered>, Fault> {
    // A copy that an older program made is read as it is: all that it knows was changed.
    let told = "SELECT 1 FROM pragma_table_info('answers') WHERE name = 'changed'";
    let sql = if db.prepare_cached(told)?.exists([])? {
        "SELECT digest, revision, changed FROM answers WHERE actor = ?1 AND key = ?2 AND at > ?3"
    } else {
        "SELECT digest, revision, 1 FROM answers WHERE actor = ?1 AND key = ?2 AND at > ?3"
    };
    let since = stored(now.saturating_sub(ANSWERS_KEPT_MILLIS));
    let mut query = db.prepare_cached(sql)?;
    let answer = query.query_row(params![asked.actor, asked.key, since], |row| {
        let same = row.get_ref(0)?.as_blob().is_ok_and(|digest| digest == asked.digest);
        let revision = column::revision(row, 1)?;
        Ok(match (same, row.get(2)?) {
            (true, true) => Answered::Same(revision),
            (true, false) => Answered::Unchanged(revision),
            (false, _) => Answered::Other,
        })
    });
    Ok(answer.optional()?)
}
