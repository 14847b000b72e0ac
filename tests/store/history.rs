//! Random histories: every kind of fact, on few names, so that they meet.

use switchyard::rollout::{Fact, Revision};

use crate::dice::Dice;
use crate::make::{delete, group, pins, put, scheduled, segment};
use crate::model::Model;

/// One change that fits the state.
pub fn roll(dice: &mut Dice, state: &Model, revision: u64) -> Vec<Fact> {
    let mut state = state.clone();
    let mut facts = Vec::new();
    for _ in 0..=dice.below(3) {
        let fact = one(dice, &state, revision);
        state.apply(&fact);
        facts.push(fact);
    }
    facts
}

fn one(dice: &mut Dice, state: &Model, revision: u64) -> Fact {
    let name = ["a", "b", "c"][index(dice, 3)];
    let exists = state.rollouts.contains_key(name);
    match dice.below(10) {
        0..=4 if exists => {
            let (unset, first, second) = (users(dice), users(dice), users(dice));
            let until = dice.chance(2).then(|| dice.below(3));
            let set = vec![group("canary", until, &first), group("stable", None, &second)];
            pins(name, dice.chance(5), &unset, set)
        }
        0..=5 => put(name, &dice.below(3).to_string()),
        6 => delete(name),
        7 => Fact::Segment {
            segment: segment(name),
            replace: dice.chance(4),
            remove: users(dice).into_iter().map(Into::into).collect(),
            add: users(dice).into_iter().map(Into::into).collect(),
        },
        8 if dice.chance(2) => Fact::NoSegment { segment: segment(name) },
        8 => scheduled(revision, dice.below(3)),
        _ => Fact::NotScheduled {
            id: Revision(1 + dice.below(revision)),
        },
    }
}

fn users(dice: &mut Dice) -> Vec<&'static str> {
    const USERS: [&str; 8] = ["u1", "u2", "u3", "u4", "u5", "\u{e9}", "with \"quotes\"", ""];
    (0..dice.below(5)).map(|_| USERS[index(dice, 8)]).collect()
}

fn index(dice: &mut Dice, below: u64) -> usize {
    usize::try_from(dice.below(below)).expect("fits")
}
