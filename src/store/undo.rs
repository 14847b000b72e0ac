//! What it takes to get from the present state to a former one: the facts that undo each change, latest first, come to a
//! state of each thing they name; what is so already is left out.

mod segments;
mod users;

use std::collections::BTreeMap;

use crate::rollout::{Fact, Revision, RolloutName, RolloutSpec, RosterName, Scheduled, SegmentName, UserEntry};

use self::segments::Members;
use self::users::Pins;

/// The state as it is.
pub(super) trait Present {
    /// Why it cannot be read.
    type Error;
    /// A rollout's spec.
    fn spec(&self, rollout: &RolloutName) -> Result<Option<RolloutSpec>, Self::Error>;
    /// Where a user is pinned.
    fn user(&self, rollout: &RolloutName, user: &str) -> Result<Option<UserEntry>, Self::Error>;
    /// All single users of a rollout.
    fn each_user(&self, rollout: &RolloutName, each: &mut dyn FnMut(&str, UserEntry)) -> Result<(), Self::Error>;
    /// Whether a segment exists.
    fn has_segment(&self, segment: &SegmentName) -> Result<bool, Self::Error>;
    /// Whether a user is in a segment.
    fn is_member(&self, segment: &SegmentName, user: &str) -> Result<bool, Self::Error>;
    /// The roster that a segment stands on.
    fn roster(&self, segment: &SegmentName) -> Result<Option<RosterName>, Self::Error>;
    /// Who came into a segment (true) or went out of it (false) since its roster was made; all members, where it has none.
    fn each_since(&self, segment: &SegmentName, each: &mut dyn FnMut(&str, bool)) -> Result<(), Self::Error>;
    /// A change that waits.
    fn scheduled(&self, id: Revision) -> Result<Option<Scheduled>, Self::Error>;
}

/// What facts come to, for each thing that they name.
#[derive(Default)]
pub(super) struct Undo {
    specs: BTreeMap<RolloutName, Option<Box<RolloutSpec>>>,
    users: BTreeMap<RolloutName, Pins>,
    segments: BTreeMap<SegmentName, Members>,
    schedule: BTreeMap<Revision, Option<Box<Scheduled>>>,
}

impl Undo {
    /// Adds the next fact.
    pub(super) fn add(&mut self, fact: Fact) {
        match fact {
            Fact::Rollout { rollout, spec } => {
                if spec.is_none() {
                    self.users.entry(rollout.clone()).or_default().clear();
                }
                self.specs.insert(rollout, spec);
            }
            Fact::Users {
                rollout,
                replace,
                unset,
                set,
            } => self.users.entry(rollout).or_default().add(replace, unset, set),
            Fact::Segment {
                segment,
                replace,
                remove,
                add,
            } => self.segments.entry(segment).or_default().edit(replace, remove, add),
            Fact::Roster { segment, roster } => self.segments.entry(segment).or_default().stand_on(roster),
            // Says nothing of who is a member, and is undone by nothing.
            Fact::Merged { .. } => {}
            Fact::NoSegment { segment } => self.segments.entry(segment).or_default().end(),
            Fact::Scheduled { id, entry } => {
                self.schedule.insert(id, Some(entry));
            }
            Fact::NotScheduled { id } => {
                self.schedule.insert(id, None);
            }
        }
    }

    /// What differs from the present, as facts.
    pub(super) fn beside<P: Present>(mut self, present: &P) -> Result<Vec<Fact>, P::Error> {
        let mut facts = Vec::new();
        for (segment, members) in self.segments {
            members.beside(present, &segment, &mut facts)?;
        }
        for (rollout, spec) in self.specs {
            if present.spec(&rollout)?.as_ref() == spec.as_deref() {
                continue;
            }
            if spec.is_none() {
                // Its users go with it.
                self.users.remove(&rollout);
            }
            facts.push(Fact::Rollout { rollout, spec });
        }
        for (rollout, pins) in self.users {
            pins.beside(present, &rollout, &mut facts)?;
        }
        for (id, entry) in self.schedule {
            if present.scheduled(id)?.as_ref() == entry.as_deref() {
                continue;
            }
            facts.push(match entry {
                Some(entry) => Fact::Scheduled { id, entry },
                None => Fact::NotScheduled { id },
            });
        }
        Ok(facts)
    }
}
