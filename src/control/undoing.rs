//! What undoes changes, as of now: what has come to its end since, and rollouts that routes lead to, are left as they are.

use super::snapshot::Snapshot;
use crate::rollout::{Fact, Moment, RolloutName, UserGroup};

/// Leaves out scheduled changes whose time has come, which would be made at once, and the end of rollouts that are `routed`,
/// most likely seeded since, unless that is all; and lets go of users whose pin's time is over.
pub(super) fn still_to_be_made(facts: Vec<Fact>, at: Moment, now: &Snapshot, routed: &[RolloutName]) -> Vec<Fact> {
    let facts: Vec<Fact> = facts.into_iter().filter_map(|fact| still(fact, at, now)).collect();
    let ends_routed = |fact: &Fact| matches!(fact, Fact::Rollout { rollout, spec: None } if routed.contains(rollout));
    if facts.iter().all(ends_routed) {
        // It is refused, with the reason.
        return facts;
    }
    facts.into_iter().filter(|fact| !ends_routed(fact)).collect()
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
