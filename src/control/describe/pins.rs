//! Single users in a diff: few are listed one by one, with where they were; many are counted.

use std::collections::BTreeMap;

use super::line;
use crate::control::snapshot::Snapshot;
use crate::rollout::{Fact, ReleaseName, RolloutName, UserEntry, UserGroup};
use crate::store::Diff;

/// More users than so many are counted, not listed.
const USERS_LISTED: usize = 20;

/// Where single users are pinned.
pub(in crate::control) type Pins = BTreeMap<(RolloutName, Box<str>), UserEntry>;

/// The single users that a diff lists one by one.
pub(in crate::control) fn listed_users(facts: &[Fact]) -> Vec<(RolloutName, Box<str>)> {
    let pinning = Pinning::by_rollout(facts).into_iter();
    let listed = pinning.filter(|(_, pins)| pins.are_listed());
    listed
        .flat_map(|(rollout, pins)| {
            pins.users()
                .map(|user| (rollout.clone(), user.into()))
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Whether facts pin and unpin a few single users, all of whom are where they are to be.
pub(in crate::control) fn is_so_already(facts: &[Fact], pins: &Pins) -> bool {
    facts.iter().all(|fact| {
        let Fact::Users {
            rollout,
            replace: false,
            unset,
            set,
        } = fact
        else {
            return false;
        };
        let pinned = |user: &str| pins.get(&(rollout.clone(), user.into()));
        let is_so = |group: &UserGroup| {
            let is = |entry: &UserEntry| entry.release == group.release && entry.until == group.until;
            group.users.iter().all(|user| pinned(user).is_some_and(is))
        };
        unset.is_empty() && set.iter().all(is_so)
    })
}

/// What facts change of where single users are pinned; told together, whatever the number of pieces.
pub(super) fn of_users(facts: &[Fact], before: &Pins, now: &Snapshot) -> Vec<Diff> {
    let pinning = Pinning::by_rollout(facts);
    let each = pinning.iter();
    each.flat_map(|(rollout, pins)| of_rollout(rollout, pins, before, now))
        .collect()
}

/// What all pieces of a change say of the single users of a rollout.
#[derive(Default)]
struct Pinning<'a> {
    replace: bool,
    unset: Vec<&'a str>,
    set: Vec<&'a UserGroup>,
}

impl<'a> Pinning<'a> {
    fn by_rollout(facts: &'a [Fact]) -> BTreeMap<&'a RolloutName, Self> {
        let mut all: BTreeMap<&RolloutName, Self> = BTreeMap::new();
        for fact in facts {
            if let Fact::Users {
                rollout,
                replace,
                unset,
                set,
            } = fact
            {
                let pins = all.entry(rollout).or_default();
                pins.replace |= replace;
                pins.unset.extend(unset.iter().map(AsRef::as_ref));
                pins.set.extend(set);
            }
        }
        all
    }

    fn are_listed(&self) -> bool {
        let set: usize = self.set.iter().map(|group| group.users.len()).sum();
        !self.replace && self.unset.len() + set <= USERS_LISTED
    }

    fn users(&self) -> impl Iterator<Item = &'a str> {
        let set = self.set.iter().flat_map(|group| &group.users);
        self.unset.iter().copied().chain(set.map(AsRef::as_ref))
    }
}

fn of_rollout(rollout: &RolloutName, pins: &Pinning<'_>, known: &Pins, now: &Snapshot) -> Vec<Diff> {
    let live = now.named(rollout);
    let pinned = |user: &str| live.and_then(|live| live.table().single_user(user));
    let total: usize = pins.set.iter().map(|group| group.users.len()).sum();
    if pins.are_listed() {
        let out = pins.unset.iter().map(|user| (*user, None));
        let into = pins.set.iter().flat_map(|group| {
            let text = pin_text(&group.release, group.until.map(|m| m.0));
            group.users.iter().map(move |user| (user.as_ref(), Some(text.clone())))
        });
        let each = out.chain(into).map(|(user, after)| {
            let entry = known.get(&(rollout.clone(), user.into()));
            let before = entry.map(|entry| pin_text(&entry.release, entry.until.map(|m| m.0)));
            line(format!("{rollout}.users.{user}"), before, after)
        });
        return each.filter(|d| d.before != d.after).collect();
    }
    let before = live.map_or(0, |live| live.table().single_users());
    let new = pins
        .set
        .iter()
        .flat_map(|group| &group.users)
        .filter(|user| pinned(user).is_none());
    let gone = pins.unset.iter().filter(|user| pinned(user).is_some());
    let after = if pins.replace {
        total
    } else {
        before + new.count() - gone.count()
    };
    let set = if total > 0 {
        format!(", {total} of them set")
    } else {
        String::new()
    };
    vec![line(
        format!("{rollout}.users"),
        Some(format!("{before} pinned")),
        Some(format!("{after} pinned{set}")),
    )]
}

fn pin_text(release: &ReleaseName, until: Option<u64>) -> String {
    until.map_or_else(
        || release.to_string(),
        |until| format!("{release} until {}", crate::clock::rfc3339(until)),
    )
}
