//! Single users in their table.

use rusqlite::{Connection, params};

use crate::rollout::{Fact, RolloutName, UserEntry, UserGroup};
use crate::store::USERS_IN_A_FACT;
use crate::store::piece::UsersPiece;

use super::column::{Releases, stored, text};
use super::fault::Fault;
use super::packed::Packer;

/// What a fact says about single users.
pub(super) struct Pins<'a> {
    pub(super) rollout: &'a RolloutName,
    pub(super) replace: bool,
    pub(super) unset: &'a [Box<str>],
    pub(super) set: &'a [UserGroup],
}

impl Pins<'_> {
    fn touched(&self) -> impl Iterator<Item = &Box<str>> {
        self.unset.iter().chain(self.set.iter().flat_map(|group| &group.users))
    }

    fn are_many(&self) -> bool {
        let users = self.set.iter().map(|group| group.users.len()).sum::<usize>();
        users + self.unset.len() > USERS_IN_A_FACT
    }
}

pub(super) fn apply(db: &Connection, pins: &Pins<'_>, undo: &mut Packer) -> Result<(), Fault> {
    if pins.replace || (pins.are_many() && !any(db, pins.rollout)?) {
        each_piece(db, pins.rollout, true, |fact| undo.add(&fact))?;
    } else {
        keep_touched(db, pins, undo)?;
    }
    if pins.replace {
        clear(db, pins.rollout)?;
    }
    unset(db, pins)?;
    for group in pins.set {
        set(db, pins.rollout, group)?;
    }
    Ok(())
}

/// All users of a rollout, in pieces; the first replaces what there is, if that is wished.
pub(super) fn each_piece(
    db: &Connection,
    rollout: &RolloutName,
    replace: bool,
    mut piece: impl FnMut(Fact) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut users = UsersPiece::new(rollout, replace);
    each(db, rollout, |user, entry| {
        let full = users.pin(user, &entry.release, entry.until);
        full.map_or(Ok(()), &mut piece)
    })?;
    users.finish().map_or(Ok(()), piece)
}

/// All users of a rollout, in their order.
pub(super) fn each(
    db: &Connection,
    rollout: &RolloutName,
    mut each: impl FnMut(&str, UserEntry) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut query = db.prepare_cached("SELECT user, release, until FROM users WHERE rollout = ?1 ORDER BY user")?;
    let mut rows = query.query([rollout.as_str()])?;
    let mut releases = Releases::default();
    while let Some(row) = rows.next()? {
        each(text(row, 0)?, releases.entry(row, 1)?)?;
    }
    Ok(())
}

/// Where a user is pinned.
pub(super) fn find(
    db: &Connection,
    rollout: &RolloutName,
    user: &str,
    releases: &mut Releases,
) -> Result<Option<UserEntry>, Fault> {
    let mut query = db.prepare_cached("SELECT release, until FROM users WHERE rollout = ?1 AND user = ?2")?;
    let mut rows = query.query([rollout.as_str(), user])?;
    rows.next()?.map(|row| releases.entry(row, 0)).transpose()
}

/// Unpins all.
pub(super) fn clear(db: &Connection, rollout: &RolloutName) -> Result<(), Fault> {
    db.prepare_cached("DELETE FROM users WHERE rollout = ?1")?
        .execute([rollout.as_str()])?;
    Ok(())
}

fn any(db: &Connection, rollout: &RolloutName) -> Result<bool, Fault> {
    Ok(db
        .prepare_cached("SELECT 1 FROM users WHERE rollout = ?1 LIMIT 1")?
        .exists([rollout.as_str()])?)
}

/// Looks at all before any is changed: a user who is named twice is restored as before the first time.
fn keep_touched(db: &Connection, pins: &Pins<'_>, undo: &mut Packer) -> Result<(), Fault> {
    let (mut users, mut releases) = (UsersPiece::new(pins.rollout, false), Releases::default());
    for user in pins.touched() {
        let full = match find(db, pins.rollout, user, &mut releases)? {
            Some(entry) => users.pin(user, &entry.release, entry.until),
            None => users.unpin(user),
        };
        if let Some(fact) = full {
            undo.add(&fact)?;
        }
    }
    users.finish().map_or(Ok(()), |fact| undo.add(&fact))
}

fn unset(db: &Connection, pins: &Pins<'_>) -> Result<(), Fault> {
    let mut delete = db.prepare_cached("DELETE FROM users WHERE rollout = ?1 AND user = ?2")?;
    for user in pins.unset {
        delete.execute([pins.rollout.as_str(), user])?;
    }
    Ok(())
}

fn set(db: &Connection, rollout: &RolloutName, group: &UserGroup) -> Result<(), Fault> {
    let mut insert = db.prepare_cached(
        "INSERT INTO users (rollout, user, release, until) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (rollout, user) DO UPDATE SET release = excluded.release, until = excluded.until",
    )?;
    let until = group.until.map(|until| stored(until.0));
    // In the order of the table: a million in random order touch every page again and again.
    let mut sorted: Vec<&str> = group.users.iter().map(AsRef::as_ref).collect();
    sorted.sort_unstable();
    for user in sorted {
        insert.execute(params![rollout.as_str(), user, group.release.as_str(), until])?;
    }
    Ok(())
}
