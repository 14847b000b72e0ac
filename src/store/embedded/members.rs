//! Segments and their members in their tables.

use rusqlite::Connection;

use crate::rollout::{Fact, SegmentName};
use crate::store::USERS_IN_A_FACT;

use super::column::text;
use super::fault::Fault;
use super::packed::Packer;

/// What a fact says about a segment.
pub(super) struct Edit<'a> {
    pub(super) segment: &'a SegmentName,
    pub(super) replace: bool,
    pub(super) remove: &'a [Box<str>],
    pub(super) add: &'a [Box<str>],
}

pub(super) fn apply(db: &Connection, edit: &Edit<'_>, undo: &mut Packer) -> Result<(), Fault> {
    let segment = edit.segment;
    if !exists(db, segment)? {
        undo.add(&Fact::NoSegment {
            segment: segment.clone(),
        })?;
        db.prepare_cached("INSERT INTO segments (name, revision) VALUES (?1, 0)")?
            .execute([segment.as_str()])?;
    } else if edit.replace {
        each_piece(db, segment, |fact| undo.add(&fact))?;
        clear(db, segment)?;
    } else {
        keep_touched(db, edit, undo)?;
    }
    let mut delete = db.prepare_cached("DELETE FROM members WHERE segment = ?1 AND user = ?2")?;
    for user in edit.remove {
        delete.execute([segment.as_str(), user])?;
    }
    let mut insert = db.prepare_cached("INSERT OR IGNORE INTO members (segment, user) VALUES (?1, ?2)")?;
    // In the order of the table, as single users are.
    let mut sorted: Vec<&str> = edit.add.iter().map(AsRef::as_ref).collect();
    sorted.sort_unstable();
    for user in sorted {
        insert.execute([segment.as_str(), user])?;
    }
    Ok(())
}

pub(super) fn remove_segment(db: &Connection, segment: &SegmentName, undo: &mut Packer) -> Result<(), Fault> {
    if !exists(db, segment)? {
        return Ok(());
    }
    each_piece(db, segment, |fact| undo.add(&fact))?;
    clear(db, segment)?;
    db.prepare_cached("DELETE FROM segments WHERE name = ?1")?
        .execute([segment.as_str()])?;
    Ok(())
}

/// A segment and its members, in pieces; the first replaces what there is, and comes even if there are no members.
pub(super) fn each_piece(
    db: &Connection,
    segment: &SegmentName,
    mut piece: impl FnMut(Fact) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let (mut add, mut first) = (Vec::new(), true);
    each(db, segment, |user| {
        add.push(user.into());
        if add.len() < USERS_IN_A_FACT {
            return Ok(());
        }
        piece(came_in(segment, std::mem::take(&mut first), std::mem::take(&mut add)))
    })?;
    if first || !add.is_empty() {
        piece(came_in(segment, first, add))?;
    }
    Ok(())
}

/// All members of a segment, in their order.
pub(super) fn each(
    db: &Connection,
    segment: &SegmentName,
    mut each: impl FnMut(&str) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let mut query = db.prepare_cached("SELECT user FROM members WHERE segment = ?1 ORDER BY user")?;
    let mut rows = query.query([segment.as_str()])?;
    while let Some(row) = rows.next()? {
        each(text(row, 0)?)?;
    }
    Ok(())
}

/// Whether a user is in a segment.
pub(super) fn is_in(db: &Connection, segment: &SegmentName, user: &str) -> Result<bool, Fault> {
    let mut query = db.prepare_cached("SELECT 1 FROM members WHERE segment = ?1 AND user = ?2")?;
    Ok(query.exists([segment.as_str(), user])?)
}

fn came_in(segment: &SegmentName, replace: bool, add: Vec<Box<str>>) -> Fact {
    Fact::Segment {
        segment: segment.clone(),
        replace,
        remove: Vec::new(),
        add,
    }
}

/// Whether there is such a segment.
pub(super) fn exists(db: &Connection, segment: &SegmentName) -> Result<bool, Fault> {
    Ok(db
        .prepare_cached("SELECT 1 FROM segments WHERE name = ?1")?
        .exists([segment.as_str()])?)
}

fn clear(db: &Connection, segment: &SegmentName) -> Result<(), Fault> {
    db.prepare_cached("DELETE FROM members WHERE segment = ?1")?
        .execute([segment.as_str()])?;
    Ok(())
}

/// As with single users: all are looked at before any is changed.
fn keep_touched(db: &Connection, edit: &Edit<'_>, undo: &mut Packer) -> Result<(), Fault> {
    for touched in [edit.remove, edit.add] {
        for piece in touched.chunks(USERS_IN_A_FACT) {
            let (mut add, mut remove) = (Vec::new(), Vec::new());
            for user in piece {
                let side = if is_in(db, edit.segment, user)? {
                    &mut add
                } else {
                    &mut remove
                };
                side.push(user.clone());
            }
            undo.add(&Fact::Segment {
                segment: edit.segment.clone(),
                replace: false,
                remove,
                add,
            })?;
        }
    }
    Ok(())
}
