//! The tables, and how a file of an older program becomes one of this.

use rusqlite::{Connection, TransactionBehavior};

use super::fault::Fault;

/// Marks a file as a store: `Swyd` in ASCII.
const APPLICATION: i64 = 0x5377_7964;

/// Each brings a file one schema further, in a transaction of its own. An older program may still have the file open
/// during an upgrade: a step changes nothing that this program could misread, or write wrongly.
const STEPS: &[&str] = &["
    CREATE TABLE rollouts (name TEXT NOT NULL PRIMARY KEY, revision INTEGER NOT NULL, spec TEXT NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE users (
        rollout TEXT NOT NULL REFERENCES rollouts (name),
        user TEXT NOT NULL,
        release TEXT NOT NULL,
        until INTEGER,
        PRIMARY KEY (rollout, user)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX users_until ON users (until) WHERE until IS NOT NULL;
    CREATE TABLE segments (name TEXT NOT NULL PRIMARY KEY, revision INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE members (
        segment TEXT NOT NULL REFERENCES segments (name),
        user TEXT NOT NULL,
        PRIMARY KEY (segment, user)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE schedule (id INTEGER PRIMARY KEY, entry TEXT NOT NULL) STRICT;
    CREATE TABLE changes (
        revision INTEGER PRIMARY KEY,
        at INTEGER NOT NULL,
        actor TEXT NOT NULL,
        reason TEXT,
        source TEXT NOT NULL,
        rollouts TEXT NOT NULL,
        summary TEXT NOT NULL,
        diff TEXT NOT NULL,
        mark BLOB NOT NULL,
        forward BLOB NOT NULL,
        inverse BLOB NOT NULL
    ) STRICT;
    CREATE TABLE changes_of (
        rollout TEXT NOT NULL,
        revision INTEGER NOT NULL,
        PRIMARY KEY (rollout, revision)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE answers (
        actor TEXT NOT NULL,
        key TEXT NOT NULL,
        digest BLOB NOT NULL,
        revision INTEGER NOT NULL,
        at INTEGER NOT NULL,
        PRIMARY KEY (actor, key)
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE settled (only INTEGER PRIMARY KEY CHECK (only = 1), times INTEGER NOT NULL) STRICT;
    INSERT INTO settled VALUES (1, 0);
", "
    -- New names: a program of before that still runs does not find the old ones, and refuses changes of segments, which it
    -- would get wrong. Without a roster, `since` has all members.
    CREATE TABLE rolls (
        name TEXT NOT NULL PRIMARY KEY,
        revision INTEGER NOT NULL,
        created INTEGER NOT NULL,
        changed INTEGER NOT NULL,
        roster TEXT,
        listed INTEGER
    ) STRICT, WITHOUT ROWID;
    CREATE TABLE since (
        segment TEXT NOT NULL REFERENCES rolls (name),
        user TEXT NOT NULL,
        is_in INTEGER NOT NULL,
        PRIMARY KEY (segment, user)
    ) STRICT, WITHOUT ROWID;
    -- Rosters that undoing a change needs.
    CREATE TABLE rosters_of (
        revision INTEGER NOT NULL,
        digest TEXT NOT NULL,
        PRIMARY KEY (revision, digest)
    ) STRICT, WITHOUT ROWID;
    INSERT INTO rolls (name, revision, created, changed)
        SELECT name, segments.revision, coalesce(at, 0), coalesce(at, 0)
        FROM segments LEFT JOIN changes ON changes.revision = segments.revision;
    INSERT INTO since (segment, user, is_in) SELECT segment, user, 1 FROM members;
    DROP TABLE members;
    DROP TABLE segments;
", "
    -- A program of before that still runs writes answers of changes only.
    ALTER TABLE answers ADD COLUMN changed INTEGER NOT NULL DEFAULT 1;
"];

/// The schema that this program writes.
const KNOWN: u32 = 3;
const _: () = assert!(STEPS.len() == KNOWN as usize, "one step for each schema");

/// Refuses a file that is newer than this program, or no store.
pub(super) fn check(db: &Connection) -> Result<u32, Fault> {
    let found: u32 = db.query_row("PRAGMA user_version", [], |row| row.get(0))?;
    let application: i64 = db.query_row("PRAGMA application_id", [], |row| row.get(0))?;
    let things: i64 = db.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    let ours = application == APPLICATION && found > 0;
    let new = application == 0 && found == 0 && things == 0;
    if !ours && !new {
        return Err(Fault::Unreadable(
            "the file is a database, but not a store of rollouts".to_owned(),
        ));
    }
    if found > KNOWN {
        return Err(Fault::Newer { found, known: KNOWN });
    }
    Ok(found)
}

/// Brings the file to the schema of this program.
pub(super) fn migrate(db: &mut Connection) -> Result<(), Fault> {
    loop {
        // Another program may be at it: the version is read under the lock.
        let step = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let found = check(&step)?;
        let Some(sql) = STEPS.get(found as usize) else {
            return Ok(());
        };
        step.execute_batch(sql)?;
        step.pragma_update(None, "application_id", APPLICATION)?;
        step.pragma_update(None, "user_version", found + 1)?;
        step.commit()?;
    }
}
