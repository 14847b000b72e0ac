//! The one connection that writes. A commit is one transaction: compare the revision, apply the facts, write the change
//! and the answer, and make it durable.
//!
//! When `COMMIT` fails, SQLite says that nothing was committed, and its index of the log agrees. But the frames may lie
//! in the log complete, only not known to be on the disk; were all programs killed now, the next one would find them
//! there and take them for committed. So they are overwritten at once, by a small commit that begins at the same place
//! of the log: that is what settling means here. If that fails too, the next commit settles first.

use std::sync::Arc;

use rusqlite::{Connection, TransactionBehavior, params};

use crate::precedence;
use crate::rollout::Revision;
use crate::store::{Commit, Committed, Rosters, standing};

use super::column::stored;
use super::fault::Fault;
use super::feed::Feed;
use super::file::StoreFile;
use super::members::{Segments, When};
use super::{answers, apply, packed, read, schema};

/// Writes to the file.
pub(super) struct Writer {
    file: StoreFile,
    rosters: Arc<Rosters>,
    /// None after a failure: opened again by the next who writes.
    db: Option<Connection>,
    in_doubt: bool,
}

/// Tells a change from another one that got the same revision.
type Mark = Vec<u8>;

impl Writer {
    pub(super) fn open(file: StoreFile, rosters: Arc<Rosters>) -> Result<Self, Fault> {
        let mut db = file.open_to_write()?;
        schema::migrate(&mut db)?;
        Ok(Self {
            file,
            rosters,
            db: Some(db),
            in_doubt: false,
        })
    }

    /// Commits if the store stands at `base`, and hands the facts to the watchers.
    pub(super) fn commit(&mut self, base: Revision, commit: Commit, feed: &Feed) -> Result<Committed, Fault> {
        let next = Revision(base.0 + 1);
        let mut db = self.connection()?;
        let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let segments = Segments {
            db: &tx,
            rosters: &self.rosters,
        };
        let mark = match write(segments, base, &commit, self.file.place()) {
            Ok(mark) => mark,
            Err(fault) => {
                if tx.rollback().is_ok() && !matches!(fault, Fault::Database(_)) {
                    self.db = Some(db);
                }
                return Err(fault);
            }
        };
        precedence::give_way();
        let delivery = feed.begin();
        match tx.commit() {
            Ok(()) => self.db = Some(db),
            Err(error) => {
                drop(db);
                if !self.settle(next, &mark) {
                    return Err(error.into());
                }
            }
        }
        let committed = Committed {
            revision: next,
            at: commit.record.at,
            facts: commit.facts,
        };
        delivery.deliver(&committed);
        Ok(committed)
    }

    /// Lends the connection for work that is no commit.
    pub(super) fn with<T>(&mut self, work: impl FnOnce(&mut Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let mut db = self.connection()?;
        let done = work(&mut db)?;
        self.db = Some(db);
        Ok(done)
    }

    /// Takes the connection; who fails with it does not put it back.
    fn connection(&mut self) -> Result<Connection, Fault> {
        if self.in_doubt {
            overwrite(&self.file, None)?;
            self.in_doubt = false;
        }
        match self.db.take() {
            Some(db) => Ok(db),
            None => self.file.open_to_write(),
        }
    }

    /// Finds out whether a commit that failed is there after all, and sees to it that it is not found later if not.
    fn settle(&mut self, revision: Revision, mark: &Mark) -> bool {
        match overwrite(&self.file, Some((revision, mark))) {
            Ok(there) => there,
            Err(_again) => {
                self.in_doubt = true;
                false
            }
        }
    }
}

/// Commits something small. Says whether the change in doubt was there.
fn overwrite(file: &StoreFile, doubted: Option<(Revision, &Mark)>) -> Result<bool, Fault> {
    let mut db = file.open_to_write()?;
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let there = match doubted {
        Some((revision, mark)) => tx
            .prepare_cached("SELECT 1 FROM changes WHERE revision = ?1 AND mark = ?2")?
            .exists(params![stored(revision.0), mark])?,
        None => false,
    };
    tx.execute("UPDATE settled SET times = times + 1", [])?;
    tx.commit()?;
    Ok(there)
}

fn write(segments: Segments<'_>, base: Revision, commit: &Commit, place: &str) -> Result<Mark, Fault> {
    let tx = segments.db;
    let present = read::revision(tx)?;
    if present != base {
        return Err(Fault::Moved(present));
    }
    standing::check(&commit.facts, place, |rollout| {
        let spec = apply::spec(tx, rollout).map_err(|fault| fault.told(place))?;
        Ok(spec.is_some())
    })?;
    let forward = packed::pack(&commit.facts)?;
    let when = When {
        revision: Revision(base.0 + 1),
        at: commit.record.at,
    };
    let undoing = apply::apply(segments, when, &commit.facts)?;
    let next = stored(base.0 + 1);
    let record = &commit.record;
    let at = stored(record.at.0);
    let mark = tx
        .prepare_cached("SELECT randomblob(16)")?
        .query_row([], |row| row.get(0))?;
    tx.prepare_cached(
        "INSERT INTO changes (revision, at, actor, reason, source, rollouts, summary, diff, mark, forward, inverse)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
    )?
    .execute(params![
        next,
        at,
        record.actor,
        record.reason,
        serde_json::to_string(&record.source)?,
        serde_json::to_string(&record.rollouts)?,
        record.summary,
        serde_json::to_string(&record.diff)?,
        mark,
        forward,
        undoing.facts,
    ])?;
    let mut needs = tx.prepare_cached("INSERT OR IGNORE INTO rosters_of (revision, digest) VALUES (?1, ?2)")?;
    for digest in &undoing.rosters {
        needs.execute(params![next, digest.to_string()])?;
    }
    let mut about = tx.prepare_cached("INSERT OR IGNORE INTO changes_of (rollout, revision) VALUES (?1, ?2)")?;
    for rollout in &record.rollouts {
        about.execute(params![rollout.as_str(), next])?;
    }
    if let Some(asked) = &commit.idempotency {
        answers::changed(tx, asked, Revision(base.0 + 1), record.at.0)?;
    }
    Ok(mark)
}
