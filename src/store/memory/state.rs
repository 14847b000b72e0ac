//! The fold of facts, in maps.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;

use super::segments::Listed;
use crate::rollout::{
    Fact, Moment, Revision, RolloutName, RolloutSpec, Roster, RosterDigest, RosterName, Scheduled, SegmentName,
    UserEntry, UserGroup,
};

use crate::store::Loaded;
use crate::store::piece::UsersPiece;
use crate::store::undo::Present;

/// Rosters by digest.
pub(super) type Opened = HashMap<RosterDigest, Roster>;

/// The state of all rollouts.
#[derive(Default)]
pub(super) struct State {
    pub(super) rollouts: BTreeMap<RolloutName, RolloutSpec>,
    pub(super) users: BTreeMap<RolloutName, BTreeMap<Box<str>, UserEntry>>,
    pub(super) segments: BTreeMap<SegmentName, Listed>,
    /// Of the last change to each.
    rollout_revisions: BTreeMap<RolloutName, Revision>,
    pub(super) schedule: BTreeMap<Revision, Scheduled>,
}

impl State {
    /// All of it as facts.
    pub(super) fn facts(&self) -> Vec<Loaded> {
        let mut loaded = Vec::new();
        let mut add = |revision: Option<&Revision>, facts: Vec<Fact>| {
            let revision = revision.copied().unwrap_or_default();
            loaded.extend(facts.into_iter().map(|fact| Loaded { revision, fact }));
        };
        for (name, members) in &self.segments {
            add(Some(&members.revision), members.whole(name));
        }
        for (name, spec) in &self.rollouts {
            let revision = self.rollout_revisions.get(name);
            add(revision, vec![rollout(name, Some(spec.clone()))]);
            if let Some(users) = self.users.get(name) {
                add(revision, all_users(name, users, false));
            }
        }
        for (id, entry) in &self.schedule {
            add(Some(id), vec![scheduled(*id, Some(entry.clone()))]);
        }
        loaded
    }

    /// Makes a fact true, and yields what would undo that. The rosters that it names are opened.
    pub(super) fn apply(&mut self, (revision, at): (Revision, Moment), fact: &Fact, opened: &Opened) -> Vec<Fact> {
        match fact {
            Fact::Rollout { rollout, .. } | Fact::Users { rollout, .. } => {
                self.rollout_revisions.insert(rollout.clone(), revision);
            }
            Fact::Segment { .. }
            | Fact::Roster { .. }
            | Fact::Merged { .. }
            | Fact::NoSegment { .. }
            | Fact::Scheduled { .. }
            | Fact::NotScheduled { .. } => {}
        }
        match fact {
            Fact::Rollout { rollout: name, spec } => self.set_rollout(name, spec.as_deref()),
            Fact::Users {
                rollout,
                replace,
                unset,
                set,
            } => self.set_users(rollout, *replace, unset, set),
            Fact::Segment {
                segment,
                replace,
                remove,
                add,
            } => self.segment(segment, revision, at, |listed| {
                let undo = if *replace {
                    listed.whole(segment)
                } else {
                    vec![listed.touched(segment, remove, add)]
                };
                if *replace {
                    listed.stand_on(None);
                }
                listed.edit(remove, add);
                undo
            }),
            Fact::Roster { segment, roster } => self.segment(segment, revision, at, |listed| {
                let undo = listed.whole(segment);
                listed.stand_on(opened.get(&roster.digest).cloned());
                undo
            }),
            Fact::Merged {
                segment,
                roster,
                remove,
                add,
            } => {
                if let Some(listed) = self.segments.get_mut(segment) {
                    listed.stand_on(opened.get(&roster.digest).cloned());
                    listed.edit(remove, add);
                }
                Vec::new()
            }
            Fact::NoSegment { segment } => {
                let before = self.segments.remove(segment);
                before.map(|listed| listed.whole(segment)).unwrap_or_default()
            }
            Fact::Scheduled { id, entry } => {
                let before = self.schedule.insert(*id, (**entry).clone());
                vec![scheduled(*id, before)]
            }
            Fact::NotScheduled { id } => {
                let before = self.schedule.remove(id);
                before.map(|entry| scheduled(*id, Some(entry))).into_iter().collect()
            }
        }
    }

    fn set_rollout(&mut self, name: &RolloutName, spec: Option<&RolloutSpec>) -> Vec<Fact> {
        let Some(spec) = spec else {
            let Some(before) = self.rollouts.remove(name) else {
                return Vec::new();
            };
            let users = self.users.remove(name).unwrap_or_default();
            let mut undo = vec![rollout(name, Some(before))];
            undo.extend(all_users(name, &users, false));
            return undo;
        };
        vec![rollout(name, self.rollouts.insert(name.clone(), spec.clone()))]
    }

    fn set_users(&mut self, name: &RolloutName, replace: bool, unset: &[Box<str>], set: &[UserGroup]) -> Vec<Fact> {
        let users = self.users.entry(name.clone()).or_default();
        let undo = if replace {
            let undo = all_users(name, users, true);
            users.clear();
            undo
        } else {
            touched_users(name, users, unset, set)
        };
        for user in unset {
            users.remove(user);
        }
        for group in set {
            for user in &group.users {
                let entry = UserEntry {
                    release: group.release.clone(),
                    until: group.until,
                };
                users.insert(user.clone(), entry);
            }
        }
        undo
    }

    /// Changes a segment, which exists from now on; `change` yields what would undo that.
    fn segment(
        &mut self,
        name: &SegmentName,
        revision: Revision,
        at: Moment,
        change: impl FnOnce(&mut Listed) -> Vec<Fact>,
    ) -> Vec<Fact> {
        let is_new = !self.segments.contains_key(name);
        let listed = self.segments.entry(name.clone());
        let listed = listed.or_insert_with(|| Listed::new(revision, at));
        let undo = change(listed);
        (listed.revision, listed.changed) = (revision, at);
        if is_new {
            return vec![Fact::NoSegment { segment: name.clone() }];
        }
        undo
    }
}

impl Present for State {
    type Error = Infallible;

    fn spec(&self, rollout: &RolloutName) -> Result<Option<RolloutSpec>, Infallible> {
        Ok(self.rollouts.get(rollout).cloned())
    }

    fn user(&self, rollout: &RolloutName, user: &str) -> Result<Option<UserEntry>, Infallible> {
        Ok(self.users.get(rollout).and_then(|all| all.get(user)).cloned())
    }

    fn each_user(&self, rollout: &RolloutName, each: &mut dyn FnMut(&str, UserEntry)) -> Result<(), Infallible> {
        for (user, entry) in self.users.get(rollout).into_iter().flatten() {
            each(user, entry.clone());
        }
        Ok(())
    }

    fn has_segment(&self, segment: &SegmentName) -> Result<bool, Infallible> {
        Ok(self.segments.contains_key(segment))
    }

    fn is_member(&self, segment: &SegmentName, user: &str) -> Result<bool, Infallible> {
        Ok(self.segments.get(segment).is_some_and(|listed| listed.holds(user)))
    }

    fn roster(&self, segment: &SegmentName) -> Result<Option<RosterName>, Infallible> {
        let listed = self.segments.get(segment);
        Ok(listed.and_then(|listed| listed.roster.as_ref()).map(Roster::name))
    }

    fn each_since(&self, segment: &SegmentName, each: &mut dyn FnMut(&str, bool)) -> Result<(), Infallible> {
        for (user, is_in) in self.segments.get(segment).iter().flat_map(|listed| &listed.since) {
            each(user, *is_in);
        }
        Ok(())
    }

    fn scheduled(&self, id: Revision) -> Result<Option<Scheduled>, Infallible> {
        Ok(self.schedule.get(&id).cloned())
    }
}

fn rollout(name: &RolloutName, spec: Option<RolloutSpec>) -> Fact {
    Fact::Rollout {
        rollout: name.clone(),
        spec: spec.map(Box::new),
    }
}

fn scheduled(id: Revision, entry: Option<Scheduled>) -> Fact {
    match entry {
        Some(entry) => Fact::Scheduled {
            id,
            entry: Box::new(entry),
        },
        None => Fact::NotScheduled { id },
    }
}

fn all_users(name: &RolloutName, users: &BTreeMap<Box<str>, UserEntry>, replace: bool) -> Vec<Fact> {
    let mut piece = UsersPiece::new(name, replace);
    let mut facts: Vec<Fact> = users
        .iter()
        .filter_map(|(user, entry)| piece.pin(user, &entry.release, entry.until))
        .collect();
    facts.extend(piece.finish());
    facts
}

fn touched_users(
    name: &RolloutName,
    users: &BTreeMap<Box<str>, UserEntry>,
    unset: &[Box<str>],
    set: &[UserGroup],
) -> Vec<Fact> {
    let mut piece = UsersPiece::new(name, false);
    let touched = unset.iter().chain(set.iter().flat_map(|group| &group.users));
    let mut facts: Vec<Fact> = touched
        .filter_map(|user| match users.get(user) {
            Some(entry) => piece.pin(user, &entry.release, entry.until),
            None => piece.unpin(user),
        })
        .collect();
    facts.extend(piece.finish());
    facts
}
