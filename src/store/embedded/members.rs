//! Segments and their members in their tables: who came in or went out since the roster was made, or all members where
//! there is none.

use rusqlite::{Connection, OptionalExtension, params};

use crate::rollout::{Fact, Moment, Revision, Roster, RosterName, SegmentName};
use crate::store::{Most, Rosters, SegmentRecord, USERS_IN_A_FACT};

use super::column::{limit, number, stored, text};
use super::fault::Fault;
use super::packed::Packer;

/// The change that segments are changed by.
#[derive(Clone, Copy)]
pub(super) struct When {
    pub(super) revision: Revision,
    pub(super) at: Moment,
}

/// What a fact says about a segment.
pub(super) struct Edit<'a> {
    pub(super) segment: &'a SegmentName,
    pub(super) replace: bool,
    pub(super) remove: &'a [Box<str>],
    pub(super) add: &'a [Box<str>],
}

/// The segments of a store.
#[derive(Clone, Copy)]
pub(super) struct Segments<'a> {
    pub(super) db: &'a Connection,
    pub(super) rosters: &'a Rosters,
}

impl Segments<'_> {
    pub(super) fn edit(&self, when: When, edit: &Edit<'_>, undo: &mut Packer) -> Result<(), Fault> {
        let segment = edit.segment;
        let is_new = self.begin(when, segment, undo)?;
        if edit.replace && !is_new {
            self.each_piece(segment, |fact| undo.add(&fact))?;
        }
        if edit.replace {
            self.stand_on(segment, None)?;
        } else if !is_new {
            self.keep_touched(edit, undo)?;
        }
        self.put(segment, edit.remove, edit.add)
    }

    /// The members are those of a roster from now on.
    pub(super) fn replace(
        &self,
        when: When,
        segment: &SegmentName,
        roster: RosterName,
        undo: &mut Packer,
    ) -> Result<(), Fault> {
        if !self.begin(when, segment, undo)? {
            self.each_piece(segment, |fact| undo.add(&fact))?;
        }
        self.stand_on(segment, Some(roster))
    }

    /// The members stand on another roster, beside which those came in or went out; they are the same as before, so that
    /// there is nothing to undo.
    pub(super) fn merge(&self, edit: &Edit<'_>, roster: RosterName) -> Result<(), Fault> {
        self.stand_on(edit.segment, Some(roster))?;
        self.put(edit.segment, edit.remove, edit.add)
    }

    pub(super) fn remove(&self, segment: &SegmentName, undo: &mut Packer) -> Result<(), Fault> {
        if !self.exists(segment)? {
            return Ok(());
        }
        self.each_piece(segment, |fact| undo.add(&fact))?;
        self.stand_on(segment, None)?;
        let mut delete = self.db.prepare_cached("DELETE FROM rolls WHERE name = ?1")?;
        delete.execute([segment.as_str()])?;
        Ok(())
    }

    /// Sees to it that a segment exists; true if it did not, which is what undoing comes to then.
    fn begin(&self, when: When, segment: &SegmentName, undo: &mut Packer) -> Result<bool, Fault> {
        let is_new = !self.exists(segment)?;
        if is_new {
            undo.add(&Fact::NoSegment {
                segment: segment.clone(),
            })?;
        }
        let sql = "INSERT INTO rolls (name, revision, created, changed) VALUES (?1, ?2, ?3, ?3)
            ON CONFLICT (name) DO UPDATE SET revision = excluded.revision, changed = excluded.changed";
        let mut put = self.db.prepare_cached(sql)?;
        put.execute(params![segment.as_str(), stored(when.revision.0), stored(when.at.0)])?;
        Ok(is_new)
    }

    fn stand_on(&self, segment: &SegmentName, roster: Option<RosterName>) -> Result<(), Fault> {
        let mut clear = self.db.prepare_cached("DELETE FROM since WHERE segment = ?1")?;
        clear.execute([segment.as_str()])?;
        let sql = "UPDATE rolls SET roster = ?2, listed = ?3 WHERE name = ?1";
        let (digest, users) = (
            roster.map(|name| name.digest.to_string()),
            roster.map(|name| stored(name.users)),
        );
        self.db
            .prepare_cached(sql)?
            .execute(params![segment.as_str(), digest, users])?;
        Ok(())
    }

    fn put(&self, segment: &SegmentName, remove: &[Box<str>], add: &[Box<str>]) -> Result<(), Fault> {
        let roster = self.opened(segment)?;
        let sql = "DELETE FROM since WHERE segment = ?1 AND user = ?2";
        let mut delete = self.db.prepare_cached(sql)?;
        let sql = "INSERT OR REPLACE INTO since (segment, user, is_in) VALUES (?1, ?2, ?3)";
        let mut insert = self.db.prepare_cached(sql)?;
        for (users, is_in) in [(remove, false), (add, true)] {
            // In the order of the table, as single users are.
            let mut sorted: Vec<&str> = users.iter().map(AsRef::as_ref).collect();
            sorted.sort_unstable();
            for user in sorted {
                if roster.as_ref().is_some_and(|roster| roster.contains(user)) == is_in {
                    delete.execute([segment.as_str(), user])?;
                } else {
                    insert.execute(params![segment.as_str(), user, is_in])?;
                }
            }
        }
        Ok(())
    }

    /// A segment and its members, in pieces; the first replaces what there is, and comes even if there are no members.
    pub(super) fn each_piece(
        &self,
        segment: &SegmentName,
        mut piece: impl FnMut(Fact) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let mut first = true;
        if let Some(roster) = self.roster(segment)? {
            let segment = segment.clone();
            piece(Fact::Roster { segment, roster })?;
            first = false;
        }
        let mut users = Vec::new();
        self.each_since(segment, |user, is_in| {
            users.push((user.into(), is_in));
            if users.len() < USERS_IN_A_FACT {
                return Ok(());
            }
            piece(edited(segment, std::mem::take(&mut first), std::mem::take(&mut users)))
        })?;
        if first || !users.is_empty() {
            piece(edited(segment, first, users))?;
        }
        Ok(())
    }

    /// Who came in (true) and who went out (false) since the roster was made, in their order.
    pub(super) fn each_since(
        &self,
        segment: &SegmentName,
        mut each: impl FnMut(&str, bool) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let sql = "SELECT user, is_in FROM since WHERE segment = ?1 ORDER BY user";
        let mut query = self.db.prepare_cached(sql)?;
        let mut rows = query.query([segment.as_str()])?;
        while let Some(row) = rows.next()? {
            each(text(row, 0)?, row.get(1)?)?;
        }
        Ok(())
    }

    /// Members after one.
    pub(super) fn page(&self, segment: &SegmentName, after: Option<&str>, most: Most) -> Result<Vec<Box<str>>, Fault> {
        if let Some(roster) = self.opened(segment)? {
            let mut since: Vec<(Box<str>, bool)> = Vec::new();
            self.each_since(segment, |user, is_in| {
                since.push((user.into(), is_in));
                Ok(())
            })?;
            let since = since.iter().map(|(user, is_in)| (&**user, *is_in));
            return Ok(self.rosters.page(&roster, since, after, most)?);
        }
        let sql = "SELECT user FROM since WHERE segment = ?1 AND (?2 IS NULL OR user > ?2) ORDER BY user LIMIT ?3";
        let mut query = self.db.prepare_cached(sql)?;
        let users = query.query_map(params![segment.as_str(), after, limit(most.users)], |row| row.get(0))?;
        Ok(most.of(users)?)
    }

    /// Whether a user is in a segment.
    pub(super) fn is_in(&self, segment: &SegmentName, user: &str) -> Result<bool, Fault> {
        let roster = self.opened(segment)?;
        self.is_in_beside(roster.as_ref(), segment, user)
    }

    fn is_in_beside(&self, roster: Option<&Roster>, segment: &SegmentName, user: &str) -> Result<bool, Fault> {
        let sql = "SELECT is_in FROM since WHERE segment = ?1 AND user = ?2";
        let mut query = self.db.prepare_cached(sql)?;
        let since = query.query_row([segment.as_str(), user], |row| row.get(0)).optional()?;
        Ok(since.unwrap_or_else(|| roster.is_some_and(|roster| roster.contains(user))))
    }

    /// Whether there is such a segment.
    pub(super) fn exists(&self, segment: &SegmentName) -> Result<bool, Fault> {
        let mut query = self.db.prepare_cached("SELECT 1 FROM rolls WHERE name = ?1")?;
        Ok(query.exists([segment.as_str()])?)
    }

    /// When a segment was created and changed.
    pub(super) fn record(&self, segment: &SegmentName) -> Result<Option<SegmentRecord>, Fault> {
        let mut query = self
            .db
            .prepare_cached("SELECT created, changed FROM rolls WHERE name = ?1")?;
        let record = query.query_row([segment.as_str()], |row| {
            Ok(SegmentRecord {
                created: Moment(number(row.get(0)?)),
                changed: Moment(number(row.get(1)?)),
            })
        });
        Ok(record.optional()?)
    }

    /// The roster that a segment stands on.
    pub(super) fn roster(&self, segment: &SegmentName) -> Result<Option<RosterName>, Fault> {
        let sql = "SELECT roster, listed FROM rolls WHERE name = ?1 AND roster IS NOT NULL";
        let mut query = self.db.prepare_cached(sql)?;
        let mut rows = query.query([segment.as_str()])?;
        let Some(row) = rows.next()? else {
            return Ok(None);
        };
        Ok(Some(RosterName {
            digest: text(row, 0)?.parse().map_err(Fault::Unreadable)?,
            users: number(row.get(1)?),
        }))
    }

    fn opened(&self, segment: &SegmentName) -> Result<Option<Roster>, Fault> {
        let roster = self.roster(segment)?;
        Ok(roster.map(|name| self.rosters.open(segment, &name)).transpose()?)
    }

    /// As with single users: all are looked at before any is changed.
    fn keep_touched(&self, edit: &Edit<'_>, undo: &mut Packer) -> Result<(), Fault> {
        let roster = self.opened(edit.segment)?;
        for touched in [edit.remove, edit.add] {
            for piece in touched.chunks(USERS_IN_A_FACT) {
                let mut users = Vec::with_capacity(piece.len());
                for user in piece {
                    users.push((user.clone(), self.is_in_beside(roster.as_ref(), edit.segment, user)?));
                }
                undo.add(&edited(edit.segment, false, users))?;
            }
        }
        Ok(())
    }
}

fn edited(segment: &SegmentName, replace: bool, users: Vec<(Box<str>, bool)>) -> Fact {
    let (mut add, mut remove) = (Vec::new(), Vec::new());
    for (user, is_in) in users {
        if is_in { &mut add } else { &mut remove }.push(user);
    }
    Fact::Segment {
        segment: segment.clone(),
        replace,
        remove,
        add,
    }
}
