//! Forgets what is old, in small transactions, so that who commits waits for none of them long.

use rusqlite::{Connection, TransactionBehavior, params};

use crate::rollout::Moment;
use crate::store::ANSWERS_KEPT_MILLIS;

use super::column::stored;
use super::fault::Fault;

/// Changes and answers that are forgotten in one transaction.
const AT_ONCE: i64 = 64;

/// Forgets some of what is older; true if there may be more. The latest change stays, for its revision. `now` in
/// milliseconds.
pub(super) fn some(db: &mut Connection, before: Moment, now: u64) -> Result<bool, Fault> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    // All that is kept must be without a gap: what follows the first that stays, stays.
    let stays = "SELECT coalesce(
        (SELECT min(revision) FROM changes WHERE at >= ?1), (SELECT max(revision) FROM changes))";
    let stays: Option<i64> = tx
        .prepare_cached(stays)?
        .query_row([stored(before.0)], |row| row.get(0))?;
    let Some(stays) = stays else {
        return Ok(false);
    };
    let first: i64 = tx.query_row("SELECT min(revision) FROM changes", [], |row| row.get(0))?;
    let upto = stays.min(first.saturating_add(AT_ONCE));
    let changes = tx.execute("DELETE FROM changes WHERE revision < ?1", [upto])?;
    tx.execute("DELETE FROM changes_of WHERE revision < ?1", [upto])?;
    tx.execute("DELETE FROM rosters_of WHERE revision < ?1", [upto])?;
    let old = stored(now.saturating_sub(ANSWERS_KEPT_MILLIS));
    let answers = tx.execute(
        "DELETE FROM answers WHERE (actor, key) IN (SELECT actor, key FROM answers WHERE at <= ?1 LIMIT ?2)",
        params![old, AT_ONCE],
    )?;
    tx.commit()?;
    Ok(changes + answers > 0)
}
