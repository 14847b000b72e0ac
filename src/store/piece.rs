//! Cuts users into facts of at most [`USERS_IN_A_FACT`], so that nothing holds a million ids twice.

use std::collections::HashMap;

use crate::rollout::{Fact, Moment, ReleaseName, RolloutName, UserGroup};

use super::USERS_IN_A_FACT;

/// Gathers single users of one rollout until they make a fact.
pub(super) struct UsersPiece {
    rollout: RolloutName,
    replace: bool,
    unset: Vec<Box<str>>,
    groups: Vec<UserGroup>,
    places: HashMap<(ReleaseName, Option<Moment>), usize>,
    count: usize,
}

impl UsersPiece {
    /// Begins; `replace` is said by the first fact only.
    pub(super) fn new(rollout: &RolloutName, replace: bool) -> Self {
        Self {
            rollout: rollout.clone(),
            replace,
            unset: Vec::new(),
            groups: Vec::new(),
            places: HashMap::new(),
            count: 0,
        }
    }

    /// Adds a pinned user; yields a fact when there are enough.
    pub(super) fn pin(&mut self, user: &str, release: &ReleaseName, until: Option<Moment>) -> Option<Fact> {
        let last = self.groups.last();
        let at = if last.is_some_and(|group| group.until == until && group.release == *release) {
            self.groups.len() - 1
        } else {
            let groups = &mut self.groups;
            *self.places.entry((release.clone(), until)).or_insert_with(|| {
                groups.push(UserGroup {
                    release: release.clone(),
                    until,
                    users: Vec::new(),
                });
                groups.len() - 1
            })
        };
        self.groups[at].users.push(user.into());
        self.counted()
    }

    /// Adds an unpinned user; yields a fact when there are enough.
    pub(super) fn unpin(&mut self, user: &str) -> Option<Fact> {
        self.unset.push(user.into());
        self.counted()
    }

    /// What is left, if anything is.
    pub(super) fn finish(mut self) -> Option<Fact> {
        (self.count > 0 || self.replace).then(|| self.take())
    }

    fn counted(&mut self) -> Option<Fact> {
        self.count += 1;
        (self.count == USERS_IN_A_FACT).then(|| self.take())
    }

    fn take(&mut self) -> Fact {
        self.count = 0;
        self.places.clear();
        Fact::Users {
            rollout: self.rollout.clone(),
            replace: std::mem::take(&mut self.replace),
            unset: std::mem::take(&mut self.unset),
            set: std::mem::take(&mut self.groups),
        }
    }
}
