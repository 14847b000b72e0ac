//! What is over by now: an undo restores what was true then, but for what has come to its end since.

use super::snapshot::Snapshot;
use crate::rollout::{Fact, Moment, UserGroup};

/// Leaves out scheduled changes whose time has come, which would be made at once, and lets go of users whose pin's time
/// is over.
pub(super) fn without(facts: Vec<Fact>, at: Moment, now: &Snapshot) -> Vec<Fact> {
    facts.into_iter().filter_map(|fact| still(fact, at, now)).collect()
}

fn still(fact: Fact, at: Moment, now: &Snapshot) -> Option<Fact> {
    match fact {
        Fact::Scheduled { entry, .. } if entry.at <= at => None,
        Fact::Users {
            rollout,
            replace,
            mut unset,
            set,
        } => {
            let is_over = |group: &UserGroup| group.until.is_some_and(|until| until <= at);
            let (over, set): (Vec<_>, Vec<_>) = set.into_iter().partition(is_over);
            let table = now.named(&rollout).map(|live| live.table());
            let mut users = over.into_iter().flat_map(|group| group.users);
            if let Some(table) = table.filter(|_| !replace) {
                unset.extend(users.by_ref().filter(|user| table.single_user(user).is_some()));
            }
            let says_something = replace || !unset.is_empty() || !set.is_empty();
            says_something.then_some(Fact::Users {
                rollout,
                replace,
                unset,
                set,
            })
        }
        other => Some(other),
    }
}
