//! What an operator asks for ([`Change`]) and what is true afterwards ([`Fact`]). The state of all rollouts is the fold
//! of facts: a store keeps them, a follower applies them in order. Pure values; deciding what a change means for the
//! present state is `control`'s.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::members::RosterName;
use super::name::{ReleaseName, RolloutName, SegmentName};
use super::patch::RolloutPatch;
use super::spec::RolloutSpec;
use super::weight::Weight;

/// The store's number for a committed change; only grows. 0 is the empty store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Revision(pub u64);

/// A moment on the wall clock, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Moment(pub u64);

/// One requested edit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// Creates or replaces rollouts, all in one. A spec without `users` leaves the single users as they are; one
    /// without `ranges` moves only who must move.
    Apply {
        /// Each rollout once.
        rollouts: Vec<(RolloutName, RolloutSpec)>,
    },
    /// Changes parts of a rollout.
    Patch {
        /// Which.
        rollout: RolloutName,
        /// What becomes of them.
        patch: Box<RolloutPatch>,
    },
    /// Removes a rollout, its single users, and the changes that wait for it alone.
    Delete {
        /// Which.
        rollout: RolloutName,
    },
    /// Sets the shares; what is not named gets nothing, the rest is stable's.
    Split {
        /// Of which rollout.
        rollout: RolloutName,
        /// Shares by release.
        split: BTreeMap<ReleaseName, Weight>,
    },
    /// Every user to stable, now.
    Kill {
        /// Of which rollout.
        rollout: RolloutName,
    },
    /// Ends a kill.
    Resume {
        /// Of which rollout.
        rollout: RolloutName,
    },
    /// No new users enter a release, as far as ids tell; those in it stay.
    Freeze {
        /// Of which rollout.
        rollout: RolloutName,
    },
    /// Ends a freeze.
    Unfreeze {
        /// Of which rollout.
        rollout: RolloutName,
    },
    /// Pins one user.
    SetUser {
        /// Of which rollout.
        rollout: RolloutName,
        /// The user id.
        user: Box<str>,
        /// What the user gets.
        release: ReleaseName,
        /// When that ends; never where left out.
        until: Option<Moment>,
    },
    /// Unpins one user.
    UnsetUser {
        /// Of which rollout.
        rollout: RolloutName,
        /// The user id.
        user: Box<str>,
    },
    /// Unpins users, those whose pin's time is over.
    Expire {
        /// Of which rollout.
        rollout: RolloutName,
        /// The user ids.
        users: Vec<Box<str>>,
    },
    /// Pins many users.
    ImportUsers {
        /// Of which rollout.
        rollout: RolloutName,
        /// Whether all others are unpinned first.
        replace: bool,
        /// Who gets what; no user is in two groups.
        groups: Vec<UserGroup>,
    },
    /// Creates a segment, or replaces its members.
    PutSegment {
        /// Which.
        segment: SegmentName,
        /// Its users.
        users: Vec<Box<str>>,
    },
    /// Creates a segment, or replaces its members, by a roster that the store keeps already.
    PutRoster {
        /// Which.
        segment: SegmentName,
        /// Its users.
        roster: RosterName,
    },
    /// Adds users to a segment, and removes others.
    EditSegment {
        /// Which.
        segment: SegmentName,
        /// Who comes in.
        add: Vec<Box<str>>,
        /// Who goes out.
        remove: Vec<Box<str>>,
    },
    /// Removes a segment.
    DeleteSegment {
        /// Which.
        segment: SegmentName,
    },
    /// Takes a scheduled change back.
    Unschedule {
        /// Its number: the revision at which it was scheduled.
        id: Revision,
    },
    /// Restores the state as it was at a revision.
    Undo {
        /// The revision to go back to.
        to: Revision,
    },
}

/// A list of more users is not copied for the sake of a second attempt: so many take less than a millisecond.
const BULK_USERS: usize = 10_000;

impl Change {
    /// Whether it is about a list of users, however long.
    #[must_use]
    pub fn is_of_a_list(&self) -> bool {
        matches!(
            self,
            Self::ImportUsers { .. } | Self::PutSegment { .. } | Self::PutRoster { .. } | Self::EditSegment { .. }
        )
    }

    /// Whether it carries so many users that it is not to be copied.
    #[must_use]
    pub fn is_bulk(&self) -> bool {
        let users = match self {
            Self::ImportUsers { groups, .. } => groups.iter().map(|group| group.users.len()).sum(),
            Self::PutSegment { users, .. } | Self::Expire { users, .. } => users.len(),
            Self::EditSegment { add, remove, .. } => add.len() + remove.len(),
            // In a spec they come one by one; a roster is named.
            Self::Apply { .. }
            | Self::Patch { .. }
            | Self::Delete { .. }
            | Self::Split { .. }
            | Self::Kill { .. }
            | Self::Resume { .. }
            | Self::Freeze { .. }
            | Self::Unfreeze { .. }
            | Self::SetUser { .. }
            | Self::UnsetUser { .. }
            | Self::PutRoster { .. }
            | Self::DeleteSegment { .. }
            | Self::Unschedule { .. }
            | Self::Undo { .. } => 0,
        };
        users > BULK_USERS
    }
}

/// Users that are pinned to one release until one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserGroup {
    /// What they get.
    pub release: ReleaseName,
    /// When that ends; never where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Moment>,
    /// Their ids.
    pub users: Vec<Box<str>>,
}

/// Where a single user is pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserEntry {
    /// What the user gets.
    pub release: ReleaseName,
    /// When that ends.
    pub until: Option<Moment>,
}

/// Something that is true from a revision on. Facts of one change are applied in their order; a fact is idempotent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "fact", rename_all = "snake_case")]
pub enum Fact {
    /// A rollout's spec, its `users` left out and its `ranges` filled in; `None` removes it with its single users.
    Rollout {
        /// Which.
        rollout: RolloutName,
        /// What is true of it.
        spec: Option<Box<RolloutSpec>>,
    },
    /// Single users: first all are unpinned if `replace`, then those in `unset`, then `set` pins.
    Users {
        /// Of which rollout.
        rollout: RolloutName,
        /// Whether all are unpinned first.
        replace: bool,
        /// Who is unpinned.
        #[serde(default)]
        unset: Vec<Box<str>>,
        /// Who is pinned.
        #[serde(default)]
        set: Vec<UserGroup>,
    },
    /// A segment's members: first all go out if `replace`, then those in `remove`, then `add` come in.
    Segment {
        /// Which; it exists from now on.
        segment: SegmentName,
        /// Whether all go out first.
        replace: bool,
        /// Who goes out.
        #[serde(default)]
        remove: Vec<Box<str>>,
        /// Who comes in.
        #[serde(default)]
        add: Vec<Box<str>>,
    },
    /// A segment's members: those of a roster, and nobody else.
    Roster {
        /// Which; it exists from now on.
        segment: SegmentName,
        /// The roster.
        roster: RosterName,
    },
    /// A segment's members, none more and none fewer than before: those of a roster, without those in `remove`, and with
    /// those in `add`.
    Merged {
        /// Which.
        segment: SegmentName,
        /// The roster.
        roster: RosterName,
        /// Who went out while the roster was written.
        #[serde(default)]
        remove: Vec<Box<str>>,
        /// Who came in while the roster was written.
        #[serde(default)]
        add: Vec<Box<str>>,
    },
    /// A segment is no more.
    NoSegment {
        /// Which.
        segment: SegmentName,
    },
    /// A change waits for its time.
    Scheduled {
        /// Its number: the revision at which it was scheduled.
        id: Revision,
        /// What waits.
        entry: Box<Scheduled>,
    },
    /// A scheduled change waits no longer.
    NotScheduled {
        /// Its number.
        id: Revision,
    },
}

impl Fact {
    /// The roster that it names, and of which segment.
    #[must_use]
    pub fn roster(&self) -> Option<(&SegmentName, RosterName)> {
        match self {
            Self::Roster { segment, roster } | Self::Merged { segment, roster, .. } => Some((segment, *roster)),
            Self::Rollout { .. }
            | Self::Users { .. }
            | Self::Segment { .. }
            | Self::NoSegment { .. }
            | Self::Scheduled { .. }
            | Self::NotScheduled { .. } => None,
        }
    }
}

/// A change that waits for its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Scheduled {
    /// When it is made.
    pub at: Moment,
    /// What is made.
    pub change: Change,
    /// Who asked.
    pub actor: String,
    /// Why.
    pub reason: Option<String>,
    /// Whether users may move backwards out of a growing release.
    pub allow_flips: bool,
    /// Whether it was said, by a revision, that what is replaced or deleted is known to exist.
    #[serde(default)]
    pub replaces: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_bulk_by_its_length() {
        let users = |n: usize| (0..n).map(|n| n.to_string().into()).collect::<Vec<Box<str>>>();
        let segment = SegmentName::parse("testers").expect("name");
        let edit = |add: usize, remove: usize| Change::EditSegment {
            segment: segment.clone(),
            add: users(add),
            remove: users(remove),
        };
        for (change, bulk) in [
            (edit(1, 0), false),
            (edit(0, 1), false),
            (edit(BULK_USERS / 2, BULK_USERS / 2), false),
            (edit(BULK_USERS, 1), true),
        ] {
            assert!(change.is_of_a_list());
            assert_eq!(change.is_bulk(), bulk);
        }
    }
}
