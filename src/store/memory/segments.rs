//! Segments, in maps: who came in or went out since the roster was made, or all members where there is none.

use std::collections::BTreeMap;

use crate::rollout::{Fact, Moment, Revision, Roster, SegmentName};
use crate::store::USERS_IN_A_FACT;

/// A segment.
#[derive(Default)]
pub(super) struct Listed {
    pub(super) roster: Option<Roster>,
    pub(super) since: BTreeMap<Box<str>, bool>,
    /// Of the last change.
    pub(super) revision: Revision,
    pub(super) created: Moment,
    pub(super) changed: Moment,
}

impl Listed {
    pub(super) fn new(revision: Revision, at: Moment) -> Self {
        Self {
            revision,
            created: at,
            changed: at,
            ..Self::default()
        }
    }

    pub(super) fn holds(&self, user: &str) -> bool {
        let since = self.since.get(user).copied();
        since.unwrap_or_else(|| self.is_listed(user))
    }

    fn is_listed(&self, user: &str) -> bool {
        self.roster.as_ref().is_some_and(|roster| roster.contains(user))
    }

    /// Lets all go out, and those of a roster come in.
    pub(super) fn stand_on(&mut self, roster: Option<Roster>) {
        self.roster = roster;
        self.since.clear();
    }

    pub(super) fn edit(&mut self, remove: &[Box<str>], add: &[Box<str>]) {
        for (users, is_in) in [(remove, false), (add, true)] {
            for user in users {
                if self.is_listed(user) == is_in {
                    self.since.remove(user);
                } else {
                    self.since.insert(user.clone(), is_in);
                }
            }
        }
    }

    /// It and its members; the first fact replaces what there is.
    pub(super) fn whole(&self, name: &SegmentName) -> Vec<Fact> {
        let all: Vec<(&str, bool)> = self.since.iter().map(|(user, is_in)| (&**user, *is_in)).collect();
        let mut pieces = all.chunks(USERS_IN_A_FACT);
        let first = match &self.roster {
            Some(roster) => Fact::Roster {
                segment: name.clone(),
                roster: roster.name(),
            },
            None => edited(name, true, pieces.next().unwrap_or_default()),
        };
        std::iter::once(first)
            .chain(pieces.map(|piece| edited(name, false, piece)))
            .collect()
    }

    /// What undoes an edit.
    pub(super) fn touched(&self, name: &SegmentName, remove: &[Box<str>], add: &[Box<str>]) -> Fact {
        let touched = remove.iter().chain(add);
        let touched: Vec<(&str, bool)> = touched.map(|user| (&**user, self.holds(user))).collect();
        edited(name, false, &touched)
    }
}

fn edited(name: &SegmentName, replace: bool, users: &[(&str, bool)]) -> Fact {
    let side = |wanted: bool| {
        let users = users.iter().filter(|(_, is_in)| *is_in == wanted);
        users.map(|(user, _)| (*user).into()).collect()
    };
    Fact::Segment {
        segment: name.clone(),
        replace,
        remove: side(false),
        add: side(true),
    }
}
