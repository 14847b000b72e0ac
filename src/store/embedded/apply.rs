//! Makes facts true in the tables, and packs what would undo that, made from what the tables held before.

use rusqlite::{Connection, OptionalExtension, params};

use crate::rollout::{Fact, Revision, RolloutName, RolloutSpec, RosterDigest, Scheduled};

use super::column::{stored, text};
use super::fault::Fault;
use super::members::{Edit, Segments, When};
use super::packed::Packer;
use super::pins;

/// What undoes facts.
pub(super) struct Undoing {
    /// Packed, in the order in which to apply them.
    pub(super) facts: Vec<u8>,
    /// The rosters that they name.
    pub(super) rosters: Vec<RosterDigest>,
}

/// Applies facts in their order; yields what undoes them.
pub(super) fn apply(segments: Segments<'_>, when: When, facts: &[Fact]) -> Result<Undoing, Fault> {
    let (mut undoing, mut rosters) = (Vec::with_capacity(facts.len()), Vec::new());
    for fact in facts {
        let mut undo = Packer::new();
        one(segments, when, fact, &mut undo)?;
        rosters.append(&mut undo.rosters);
        undoing.push(undo.finish()?);
    }
    undoing.reverse();
    Ok(Undoing {
        facts: undoing.concat(),
        rosters,
    })
}

fn one(segments: Segments<'_>, when: When, fact: &Fact, undo: &mut Packer) -> Result<(), Fault> {
    let (db, revision) = (segments.db, when.revision);
    match fact {
        Fact::Rollout {
            rollout,
            spec: Some(spec),
        } => set_rollout(db, revision, rollout, spec, undo),
        Fact::Rollout { rollout, spec: None } => remove_rollout(db, rollout, undo),
        Fact::Users {
            rollout,
            replace,
            unset,
            set,
        } => {
            touch(
                db,
                "UPDATE rollouts SET revision = ?1 WHERE name = ?2",
                revision,
                rollout.as_str(),
            )?;
            let pins = pins::Pins {
                rollout,
                replace: *replace,
                unset,
                set,
            };
            pins::apply(db, &pins, undo)
        }
        Fact::Segment {
            segment,
            replace,
            remove,
            add,
        } => {
            let edit = Edit {
                segment,
                replace: *replace,
                remove,
                add,
            };
            segments.edit(when, &edit, undo)
        }
        Fact::Roster { segment, roster } => segments.replace(when, segment, *roster, undo),
        Fact::Merged {
            segment,
            roster,
            remove,
            add,
        } => {
            let edit = Edit {
                segment,
                replace: false,
                remove,
                add,
            };
            segments.merge(&edit, *roster)
        }
        Fact::NoSegment { segment } => segments.remove(segment, undo),
        Fact::Scheduled { id, entry } => schedule(db, *id, entry, undo),
        Fact::NotScheduled { id } => unschedule(db, *id, undo),
    }
}

fn touch(db: &Connection, sql: &str, revision: Revision, name: &str) -> Result<(), Fault> {
    db.prepare_cached(sql)?.execute(params![stored(revision.0), name])?;
    Ok(())
}

/// The spec of a rollout.
pub(super) fn spec(db: &Connection, rollout: &RolloutName) -> Result<Option<RolloutSpec>, Fault> {
    let mut query = db.prepare_cached("SELECT spec FROM rollouts WHERE name = ?1")?;
    let mut rows = query.query([rollout.as_str()])?;
    match rows.next()? {
        Some(row) => Ok(Some(serde_json::from_str(text(row, 0)?)?)),
        None => Ok(None),
    }
}

fn set_rollout(
    db: &Connection,
    revision: Revision,
    rollout: &RolloutName,
    new: &RolloutSpec,
    undo: &mut Packer,
) -> Result<(), Fault> {
    undo.add(&Fact::Rollout {
        rollout: rollout.clone(),
        spec: spec(db, rollout)?.map(Box::new),
    })?;
    // Not REPLACE: that deletes the row first, which its users refer to.
    let sql = "INSERT INTO rollouts (name, revision, spec) VALUES (?1, ?2, ?3)
        ON CONFLICT (name) DO UPDATE SET revision = excluded.revision, spec = excluded.spec";
    db.prepare_cached(sql)?.execute(params![
        rollout.as_str(),
        stored(revision.0),
        serde_json::to_string(new)?
    ])?;
    Ok(())
}

fn remove_rollout(db: &Connection, rollout: &RolloutName, undo: &mut Packer) -> Result<(), Fault> {
    let Some(before) = spec(db, rollout)? else {
        return Ok(());
    };
    undo.add(&Fact::Rollout {
        rollout: rollout.clone(),
        spec: Some(Box::new(before)),
    })?;
    pins::each_piece(db, rollout, false, |fact| undo.add(&fact))?;
    pins::clear(db, rollout)?;
    db.prepare_cached("DELETE FROM rollouts WHERE name = ?1")?
        .execute([rollout.as_str()])?;
    Ok(())
}

/// A change that waits.
pub(super) fn waiting(db: &Connection, id: Revision) -> Result<Option<Scheduled>, Fault> {
    let mut query = db.prepare_cached("SELECT entry FROM schedule WHERE id = ?1")?;
    let entry: Option<String> = query.query_row([stored(id.0)], |row| row.get(0)).optional()?;
    Ok(entry.as_deref().map(serde_json::from_str).transpose()?)
}

fn schedule(db: &Connection, id: Revision, entry: &Scheduled, undo: &mut Packer) -> Result<(), Fault> {
    undo.add(&match waiting(db, id)? {
        Some(before) => Fact::Scheduled {
            id,
            entry: Box::new(before),
        },
        None => Fact::NotScheduled { id },
    })?;
    let sql = "INSERT OR REPLACE INTO schedule (id, entry) VALUES (?1, ?2)";
    db.prepare_cached(sql)?
        .execute(params![stored(id.0), serde_json::to_string(entry)?])?;
    Ok(())
}

fn unschedule(db: &Connection, id: Revision, undo: &mut Packer) -> Result<(), Fault> {
    if let Some(before) = waiting(db, id)? {
        undo.add(&Fact::Scheduled {
            id,
            entry: Box::new(before),
        })?;
        db.prepare_cached("DELETE FROM schedule WHERE id = ?1")?
            .execute([stored(id.0)])?;
    }
    Ok(())
}
