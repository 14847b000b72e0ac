//! The meaning of facts, written a second time and simply, to compare stores with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use switchyard::rollout::{Fact, Moment, RosterDigest, RosterName};

/// The users of each roster that a test has made.
pub static LISTS: Mutex<BTreeMap<RosterDigest, BTreeSet<String>>> = Mutex::new(BTreeMap::new());

fn listed(roster: RosterName) -> BTreeSet<String> {
    LISTS.lock().expect("no panic")[&roster.digest].clone()
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Model {
    pub rollouts: BTreeMap<String, String>,
    pub users: BTreeMap<(String, String), (String, Option<Moment>)>,
    pub segments: BTreeMap<String, BTreeSet<String>>,
    pub schedule: BTreeMap<u64, String>,
}

impl Model {
    pub fn of(facts: &[Fact]) -> Self {
        let mut model = Self::default();
        model.apply_all(facts);
        model
    }

    pub fn apply_all(&mut self, facts: &[Fact]) {
        for fact in facts {
            self.apply(fact);
        }
    }

    pub fn apply(&mut self, fact: &Fact) {
        match fact {
            Fact::Rollout {
                rollout,
                spec: Some(spec),
            } => {
                let text = serde_json::to_string(spec).expect("text");
                self.rollouts.insert(rollout.to_string(), text);
            }
            Fact::Rollout { rollout, spec: None } => {
                self.rollouts.remove(rollout.as_str());
                self.users.retain(|(of, _), _| of != rollout.as_str());
            }
            Fact::Users {
                rollout,
                replace,
                unset,
                set,
            } => {
                let of = rollout.to_string();
                if *replace {
                    self.users.retain(|(other, _), _| *other != of);
                }
                for user in unset {
                    self.users.remove(&(of.clone(), user.to_string()));
                }
                for group in set {
                    for user in &group.users {
                        let entry = (group.release.to_string(), group.until);
                        self.users.insert((of.clone(), user.to_string()), entry);
                    }
                }
            }
            Fact::Segment {
                segment,
                replace,
                remove,
                add,
            } => {
                let members = self.segments.entry(segment.to_string()).or_default();
                if *replace {
                    members.clear();
                }
                for user in remove {
                    members.remove(&**user);
                }
                members.extend(add.iter().map(ToString::to_string));
            }
            Fact::Roster { segment, roster } => {
                self.segments.insert(segment.to_string(), listed(*roster));
            }
            Fact::Merged {
                segment,
                roster,
                remove,
                add,
            } => {
                let mut members = listed(*roster);
                members.retain(|user| !remove.iter().any(|gone| **gone == **user));
                members.extend(add.iter().map(ToString::to_string));
                // That is what merging promises.
                assert_eq!(self.segments.get(segment.as_str()), Some(&members));
            }
            Fact::NoSegment { segment } => {
                self.segments.remove(segment.as_str());
            }
            Fact::Scheduled { id, entry } => {
                self.schedule.insert(id.0, serde_json::to_string(entry).expect("text"));
            }
            Fact::NotScheduled { id } => {
                self.schedule.remove(&id.0);
            }
        }
    }
}
