//! Everything that is read, each within one read transaction: readers see one revision, and wait for no writer.

use std::collections::HashSet;

use rusqlite::{Connection, Row, params};
use tokio::sync::mpsc;

use crate::rollout::{Fact, Moment, Revision, RolloutName, RosterDigest, SegmentName, UserEntry};
use crate::store::undo::Undo;
use crate::store::{Committed, Expired, HistoryEntry, HistoryQuery, Loaded, OURSELVES, Record, StoreError, UserPage};

use super::column::{self, Releases, limit, number, stored, text};
use super::fault::Fault;
use super::members::Segments;
use super::present::Tables;
use super::{packed, pins};

/// Commits that are read at once, and packed bytes: a watcher that is far behind reads on in steps.
const COMMITS_AT_ONCE: usize = 64;
const PACKED_AT_ONCE: usize = 1 << 20;

pub(super) fn revision(db: &Connection) -> Result<Revision, Fault> {
    let mut query = db.prepare_cached("SELECT coalesce(max(revision), 0) FROM changes")?;
    Ok(query.query_row([], |row| column::revision(row, 0))?)
}

/// Why loading stopped.
enum Stop {
    Gone,
    Fault(Fault),
}

impl<E: Into<Fault>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Fault(error.into())
    }
}

/// Sends the whole state; ends early when nobody receives.
pub(super) fn load(segments: Segments<'_>, facts: &mpsc::Sender<Loaded>) -> Result<Revision, Fault> {
    let revision = revision(segments.db)?;
    match send_all(segments, facts) {
        Ok(()) | Err(Stop::Gone) => Ok(revision),
        Err(Stop::Fault(fault)) => Err(fault),
    }
}

fn send_all(segments: Segments<'_>, facts: &mpsc::Sender<Loaded>) -> Result<(), Stop> {
    let mut gone = false;
    let mut send = |revision, fact| {
        gone = facts.blocking_send(Loaded { revision, fact }).is_err();
        if gone { Err(StoreError::Ending.into()) } else { Ok(()) }
    };
    let sent = send_each(segments, &mut send);
    match sent {
        Err(_) if gone => Err(Stop::Gone),
        Err(fault) => Err(Stop::Fault(fault)),
        Ok(()) => Ok(()),
    }
}

fn send_each(segments: Segments<'_>, send: &mut impl FnMut(Revision, Fact) -> Result<(), Fault>) -> Result<(), Fault> {
    let db = segments.db;
    for (name, revision) in names(db, "SELECT name, revision FROM rolls ORDER BY name")? {
        let segment = parsed(SegmentName::parse(&name))?;
        segments.each_piece(&segment, |fact| send(revision, fact))?;
    }
    for (name, revision) in names(db, "SELECT name, revision FROM rollouts ORDER BY name")? {
        let rollout = parsed(RolloutName::parse(&name))?;
        let spec = super::apply::spec(db, &rollout)?.map(Box::new);
        let fact = Fact::Rollout {
            rollout: rollout.clone(),
            spec,
        };
        send(revision, fact)?;
        pins::each_piece(db, &rollout, false, |fact| send(revision, fact))?;
    }
    let mut query = db.prepare_cached("SELECT id, entry FROM schedule ORDER BY id")?;
    let mut rows = query.query([])?;
    while let Some(row) = rows.next()? {
        let id = column::revision(row, 0)?;
        let entry = Box::new(serde_json::from_str(text(row, 1)?)?);
        send(id, Fact::Scheduled { id, entry })?;
    }
    Ok(())
}

fn names(db: &Connection, sql: &str) -> Result<Vec<(String, Revision)>, Fault> {
    let mut query = db.prepare_cached(sql)?;
    let names = query.query_map([], |row| Ok((row.get(0)?, column::revision(row, 1)?)))?;
    Ok(names.collect::<Result<_, _>>()?)
}

fn parsed<T>(name: Result<T, crate::rollout::NameError>) -> Result<T, Fault> {
    name.map_err(|error| Fault::Unreadable(error.to_string()))
}

/// Some commits after `from`, in order.
pub(super) fn commits(db: &Connection, from: Revision) -> Result<Vec<Committed>, Fault> {
    let sql = "SELECT revision, at, forward FROM changes WHERE revision > ?1 ORDER BY revision";
    let mut query = db.prepare_cached(sql)?;
    let mut rows = query.query([stored(from.0)])?;
    let (mut commits, mut read) = (Vec::new(), 0);
    while commits.len() < COMMITS_AT_ONCE && read < PACKED_AT_ONCE {
        let Some(row) = rows.next()? else { break };
        let forward = blob(row, 2)?;
        read += forward.len();
        let mut facts = Vec::new();
        packed::unpack(forward, |fact| facts.push(fact))?;
        commits.push(Committed {
            revision: column::revision(row, 0)?,
            at: Moment(number(row.get(1)?)),
            facts: facts.into(),
        });
    }
    Ok(commits)
}

fn blob<'a>(row: &'a Row<'_>, at: usize) -> Result<&'a [u8], Fault> {
    let value = row.get_ref(at)?;
    value.as_blob().map_err(|error| Fault::Unreadable(error.to_string()))
}

pub(super) fn undoing(segments: Segments<'_>, to: Revision) -> Result<Vec<Fact>, Fault> {
    let db = segments.db;
    let mut first = db.prepare_cached("SELECT min(revision) FROM changes")?;
    let first: Option<i64> = first.query_row([], |row| row.get(0))?;
    let begins_after = Revision(first.map_or(0, |first| number(first).saturating_sub(1)));
    if to < begins_after {
        return Err(Fault::Forgotten(begins_after));
    }
    let mut query = db.prepare_cached("SELECT inverse FROM changes WHERE revision > ?1 ORDER BY revision DESC")?;
    let mut rows = query.query([stored(to.0)])?;
    let mut undo = Undo::default();
    while let Some(row) = rows.next()? {
        packed::unpack(blob(row, 0)?, |fact| undo.add(fact))?;
    }
    undo.beside(&Tables(segments))
}

pub(super) fn history(db: &Connection, wanted: &HistoryQuery) -> Result<Vec<HistoryEntry>, Fault> {
    const COLUMNS: &str = "changes.revision, at, actor, reason, source, rollouts, summary, diff";
    const WHICH: &str = "revision < ?1 AND actor IS NOT ?4 ORDER BY revision DESC LIMIT ?2";
    let before = wanted.before.map_or(i64::MAX, |before| stored(before.0));
    let at_most = limit(wanted.limit);
    let nobody = wanted.asked_for.then_some(OURSELVES);
    let mut entries = Vec::new();
    let (sql, rollout) = match &wanted.rollout {
        None => (format!("SELECT {COLUMNS} FROM changes WHERE ?3 = '' AND {WHICH}"), ""),
        Some(rollout) => (
            format!("SELECT {COLUMNS} FROM changes_of JOIN changes USING (revision) WHERE rollout = ?3 AND {WHICH}"),
            rollout.as_str(),
        ),
    };
    let mut query = db.prepare_cached(&sql)?;
    let mut rows = query.query(params![before, at_most, rollout, nobody])?;
    while let Some(row) = rows.next()? {
        entries.push(entry(row)?);
    }
    Ok(entries)
}

fn entry(row: &Row<'_>) -> Result<HistoryEntry, Fault> {
    Ok(HistoryEntry {
        revision: column::revision(row, 0)?,
        record: Record {
            at: Moment(number(row.get(1)?)),
            actor: row.get(2)?,
            reason: row.get(3)?,
            source: serde_json::from_str(text(row, 4)?)?,
            rollouts: serde_json::from_str(text(row, 5)?)?,
            summary: row.get(6)?,
            diff: serde_json::from_str(text(row, 7)?)?,
        },
    })
}

pub(super) fn users(
    db: &Connection,
    rollout: &RolloutName,
    after: Option<&str>,
    at_most: usize,
) -> Result<UserPage, Fault> {
    // No user's id is empty text, or the page begins with it.
    let sql = "SELECT user, release, until FROM users WHERE rollout = ?1 AND (?2 IS NULL OR user > ?2)
               ORDER BY user LIMIT ?3";
    let mut query = db.prepare_cached(sql)?;
    let mut rows = query.query(params![rollout.as_str(), after, limit(at_most.saturating_add(1))])?;
    let (mut page, mut releases) = (UserPage::default(), Releases::default());
    while let Some(row) = rows.next()? {
        if page.users.len() == at_most {
            page.next = page
                .users
                .last()
                .map(|(user, _): &(Box<str>, UserEntry)| user.to_string());
            break;
        }
        page.users.push((text(row, 0)?.into(), releases.entry(row, 1)?));
    }
    Ok(page)
}

pub(super) fn user(db: &Connection, rollout: &RolloutName, user: &str) -> Result<Option<UserEntry>, Fault> {
    pins::find(db, rollout, user, &mut Releases::default())
}

pub(super) fn expired(db: &Connection, now: Moment, at_most: usize) -> Result<Expired, Fault> {
    let sql = "SELECT rollout, user, until FROM users WHERE until IS NOT NULL ORDER BY until, rollout, user LIMIT ?1";
    let mut query = db.prepare_cached(sql)?;
    let mut rows = query.query([limit(at_most.saturating_add(1))])?;
    let mut expired = Expired::default();
    while let Some(row) = rows.next()? {
        let until = Moment(number(row.get(2)?));
        if until > now || expired.users.len() == at_most {
            expired.next = Some(until);
            break;
        }
        expired
            .users
            .push((parsed(RolloutName::parse(text(row, 0)?))?, text(row, 1)?.into()));
    }
    Ok(expired)
}

/// The rosters that segments stand on, and those that undoing needs.
pub(super) fn rosters(db: &Connection) -> Result<HashSet<RosterDigest>, Fault> {
    let sql = "SELECT roster FROM rolls WHERE roster IS NOT NULL UNION SELECT digest FROM rosters_of";
    let mut query = db.prepare_cached(sql)?;
    let mut rows = query.query([])?;
    let mut named = HashSet::new();
    while let Some(row) = rows.next()? {
        named.insert(text(row, 0)?.parse().map_err(Fault::Unreadable)?);
    }
    Ok(named)
}
