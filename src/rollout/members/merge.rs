//! A roster and what changed since, as one: what a new roster is written from, and in what order members are listed.

use super::draft::Draft;
use super::key::{RosterKey, UserKey, fingerprint, number_of, uuid_of};
use super::roster::Roster;
use crate::precedence::GivingWay;

/// Keys that are compared before requests go first.
const KEYS_COMPARED_AT_ONCE: usize = 512;

/// A member's place in a list: by kind, then by key. It is the same before and after a merge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Order {
    /// A number's.
    Number(u64),
    /// A UUID's.
    Uuid(u128),
    /// Any other's.
    Text(u128),
}

impl Order {
    /// Of an id, beside a roster with that key.
    #[must_use]
    pub fn of(id: &str, key: RosterKey) -> Self {
        let id = id.as_bytes();
        match UserKey::of(id) {
            UserKey::Number(number) => Self::Number(number),
            UserKey::Uuid(uuid) => Self::Uuid(uuid),
            UserKey::Text(hash) => Self::Text(fingerprint(key, hash, id)),
        }
    }

    /// The id, where it can be had back.
    #[must_use]
    pub fn id(self) -> Option<String> {
        match self {
            Self::Number(key) => Some(number_of(key).to_string()),
            Self::Uuid(key) => Some(uuid_of(key)),
            Self::Text(_) => None,
        }
    }
}

/// Who is in a roster, or came in since, and did not go out.
pub struct Merged<'a> {
    roster: &'a Roster,
    numbers: Changed<u64>,
    uuids: Changed<u128>,
    texts: Changed<u128>,
    /// The ids of the other kind that came in, by fingerprint.
    names: Vec<(u128, Box<str>)>,
}

/// Keys in order.
#[derive(Default)]
struct Changed<T> {
    came: Vec<T>,
    went: Vec<T>,
}

impl<'a> Merged<'a> {
    /// `since` says who came in and who went out: nobody for whom the roster is right already, nobody twice.
    pub fn new<'b>(roster: &'a Roster, since: impl Iterator<Item = (&'b str, bool)>) -> Self {
        let mut merged = Self {
            roster,
            numbers: Changed::default(),
            uuids: Changed::default(),
            texts: Changed::default(),
            names: Vec::new(),
        };
        for (id, is_in) in since {
            match Order::of(id, roster.key()) {
                Order::Number(key) => merged.numbers.put(key, is_in),
                Order::Uuid(key) => merged.uuids.put(key, is_in),
                Order::Text(key) => {
                    merged.texts.put(key, is_in);
                    if is_in {
                        merged.names.push((key, id.into()));
                    }
                }
            }
        }
        merged.numbers.sort();
        merged.uuids.sort();
        merged.texts.sort();
        merged.names.sort_unstable();
        merged
    }

    /// The ids of the other kind, in order, with those of the roster as they are kept beside it.
    pub fn names<E>(
        &self,
        kept: impl Iterator<Item = Result<Box<str>, E>>,
        mut each: impl FnMut(&str) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut came = self.names.iter().peekable();
        for (name, (_, key)) in kept.zip(self.roster.texts(None)) {
            let name = name?;
            while let Some((_, new)) = came.next_if(|(new, _)| *new < key) {
                each(new)?;
            }
            if self.texts.went.binary_search(&key).is_err() {
                each(&name)?;
            }
        }
        came.try_for_each(|(_, new)| each(new))
    }
}

/// How many keys are in both of two rows of keys, each in order.
pub(super) fn in_both<T: Ord>(mut one: impl Iterator<Item = T>, mut other: impl Iterator<Item = T>) -> u64 {
    let (mut count, mut left, mut right) = (0, one.next(), other.next());
    let mut giving_way = GivingWay::default();
    while let (Some(a), Some(b)) = (&left, &right) {
        giving_way.after(KEYS_COMPARED_AT_ONCE);
        let order = a.cmp(b);
        count += u64::from(order.is_eq());
        if order.is_le() {
            left = one.next();
        }
        if order.is_ge() {
            right = other.next();
        }
    }
    count
}

impl<T: Copy + Ord> Changed<T> {
    fn put(&mut self, key: T, is_in: bool) {
        if is_in { &mut self.came } else { &mut self.went }.push(key);
    }

    fn sort(&mut self) {
        self.came.sort_unstable();
        self.went.sort_unstable();
    }

    fn each(&self, listed: impl Iterator<Item = T>, each: &mut dyn FnMut(T)) {
        let (mut came, mut went) = (self.came.iter().peekable(), self.went.iter().peekable());
        for key in listed {
            while let Some(new) = came.next_if(|new| **new < key) {
                each(*new);
            }
            if went.next_if(|gone| **gone == key).is_none() {
                each(key);
            }
        }
        came.for_each(|new| each(*new));
    }

    fn count(&self, listed: u64) -> u64 {
        listed + self.came.len() as u64 - self.went.len() as u64
    }
}

impl Draft for Merged<'_> {
    fn counts(&self) -> [u64; 3] {
        let [numbers, uuids, texts] = self.roster.counts();
        [
            self.numbers.count(numbers),
            self.uuids.count(uuids),
            self.texts.count(texts),
        ]
    }

    fn key(&self) -> RosterKey {
        self.roster.key()
    }

    fn numbers(&self, each: &mut dyn FnMut(u64)) {
        self.numbers.each(self.roster.numbers(None), each);
    }

    fn uuids(&self, each: &mut dyn FnMut(u128)) {
        self.uuids.each(self.roster.uuids(None), each);
    }

    fn texts(&self, each: &mut dyn FnMut(u128)) {
        self.texts.each(self.roster.texts(None).map(|(_, key)| key), each);
    }
}
