//! Gathers the ids of a list while it is read, in little more memory than the roster that comes of it, and sorts them.

use thiserror::Error;

use super::draft::Draft;
use super::key::{RosterKey, UserKey, fingerprint, number_of, uuid_of};
use crate::precedence;
use crate::rollout::users::UserHash;

/// Parts by a key's top eight bits: each is sorted by itself, and small enough for a cache.
const PARTS: usize = 256;
/// Keys that a part takes room for at a time; a vector that doubles would take half again as much as it needs.
const KEYS_IN_A_CHUNK: usize = 1024;
/// Bytes of ids that a part takes room for at a time.
const TEXT_IN_A_CHUNK: usize = 16 * 1024;
/// Keys that are sorted before requests go first.
const KEYS_SORTED_AT_ONCE: usize = 1024;
/// Bytes of an id's length.
const LENGTH: usize = 2;
/// Fewer are sorted by one thread.
const ALONE_MAX: u64 = 100_000;
/// What a list of a segment's users may take.
const OF_A_SEGMENT: Bounds = Bounds {
    unlooked_min: 256 << 20,
    unlooked_max: 1 << 30,
    users: 100_000_000,
    text: 4 << 30,
};

#[derive(Debug, Clone, Copy)]
struct Bounds {
    /// Bytes of ids that come until those that came before are looked for, at least and at most: a list of one user a
    /// hundred million times packs into next to nothing, and a list of many different ones is not to be sorted often.
    unlooked_min: usize,
    unlooked_max: usize,
    users: u64,
    /// Bytes of the ids that are neither numbers nor UUIDs.
    text: usize,
}

/// Ids as they come, in any order, some of them more than once.
pub struct Gathered {
    key: RosterKey,
    bounds: Bounds,
    threads: usize,
    numbers: Vec<Chunks<u64>>,
    uuids: Vec<Chunks<u128>>,
    texts: Vec<Texts>,
    /// Ids and their bytes, those that came before included unless they have been thrown out.
    count: u64,
    bytes: usize,
    /// At so many bytes those are thrown out.
    look_at: usize,
    too_many: Option<TooMany>,
}

/// Why a list is none of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum TooMany {
    /// More users than a segment has.
    #[error("the list has more than {0} different users: make two segments of it")]
    Users(u64),
    /// Their ids are too long.
    #[error(
        "ids that are neither numbers nor UUIDs have more than {0} bytes together: write shorter ids, or make two segments"
    )]
    Bytes(usize),
}

/// Ids in the order of their keys, each once.
pub struct Sorted {
    key: RosterKey,
    counts: [u64; 3],
    numbers: Vec<Chunks<u64>>,
    uuids: Vec<Chunks<u128>>,
    texts: Vec<Texts>,
}

#[derive(Default)]
struct Chunks<T> {
    full: Vec<Vec<T>>,
    open: Vec<T>,
}

/// Ids one after the other, each behind its length.
#[derive(Default)]
struct Texts {
    full: Vec<Vec<u8>>,
    open: Vec<u8>,
}

impl Gathered {
    /// Nobody yet; the key is for fingerprints. Sorts on so many threads.
    #[must_use]
    pub fn new(key: RosterKey, threads: usize) -> Self {
        Self::within(OF_A_SEGMENT, key, threads)
    }

    fn within(bounds: Bounds, key: RosterKey, threads: usize) -> Self {
        Self {
            key,
            bounds,
            threads,
            numbers: fresh(),
            uuids: fresh(),
            texts: fresh(),
            count: 0,
            bytes: 0,
            look_at: bounds.unlooked_min,
            too_many: None,
        }
    }

    /// Takes an id, which is at most 65,535 bytes long; no user's id is longer. Blocks now and then, for as long as it takes
    /// to sort what has come.
    pub fn add(&mut self, id: &str) {
        let bytes = id.as_bytes();
        self.count += 1;
        self.bytes += match UserKey::of(bytes) {
            UserKey::Number(key) => {
                self.numbers[part(u128::from(key) << 64)].push(key);
                size_of::<u64>()
            }
            UserKey::Uuid(key) => {
                self.uuids[part(key)].push(key);
                size_of::<u128>()
            }
            UserKey::Text(hash) => {
                let key = fingerprint(self.key, hash, bytes);
                self.texts[part(key)].push(bytes);
                LENGTH + bytes.len()
            }
        };
        if self.bytes >= self.look_at {
            self.throw_out();
        }
    }

    /// Why no more can be taken, once it has been found out: now and then while ids come.
    #[must_use]
    pub fn too_many(&self) -> Option<TooMany> {
        self.too_many
    }

    /// Sorts what has come and throws out those that came before; yields how many of each kind there are.
    fn throw_out(&mut self) -> [u64; 3] {
        let (key, threads) = (self.key, if self.count < ALONE_MAX { 1 } else { self.threads });
        let counts = [
            each_part(&mut self.numbers, threads, Chunks::sort),
            each_part(&mut self.uuids, threads, Chunks::sort),
            each_part(&mut self.texts, threads, |part, ()| part.sort(key)),
        ];
        let text: usize = self.texts.iter().map(Texts::bytes).sum();
        self.count = counts.iter().sum();
        self.bytes = counts[0] as usize * size_of::<u64>() + counts[1] as usize * size_of::<u128>() + text;
        let bounds = self.bounds;
        self.look_at = self.bytes + (2 * self.bytes).clamp(bounds.unlooked_min, bounds.unlooked_max);
        self.too_many = if self.count > bounds.users {
            Some(TooMany::Users(bounds.users))
        } else {
            (text > bounds.text).then_some(TooMany::Bytes(bounds.text))
        };
        counts
    }

    /// Sorts them; blocks while it does.
    ///
    /// # Errors
    /// When there are more than a segment has.
    pub fn sorted(mut self) -> Result<Sorted, TooMany> {
        let counts = self.throw_out();
        match self.too_many {
            Some(too_many) => Err(too_many),
            None => Ok(Sorted {
                key: self.key,
                counts,
                numbers: self.numbers,
                uuids: self.uuids,
                texts: self.texts,
            }),
        }
    }
}

fn fresh<T: Default>() -> Vec<T> {
    std::iter::repeat_with(T::default).take(PARTS).collect()
}

fn part(key: u128) -> usize {
    (key >> 120) as usize
}

/// Works on all parts, on so many threads, each of which has room of its own to work in; yields the sum.
fn each_part<A: Send, R: Default>(parts: &mut [A], threads: usize, work: impl Fn(&mut A, &mut R) -> u64 + Sync) -> u64 {
    let work = &work;
    let each = PARTS.div_ceil(threads.max(1));
    std::thread::scope(|scope| {
        let running: Vec<_> = parts
            .chunks_mut(each)
            .map(|mine| {
                scope.spawn(move || {
                    let mut room = R::default();
                    let one = |part: &mut A| {
                        precedence::give_way();
                        work(part, &mut room)
                    };
                    mine.iter_mut().map(one).sum::<u64>()
                })
            })
            .collect();
        let done = running.into_iter().map(|thread| match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        done.sum()
    })
}

impl<T: Copy + Ord> Chunks<T> {
    fn push(&mut self, key: T) {
        if self.open.len() == self.open.capacity() {
            let next = Vec::with_capacity(KEYS_IN_A_CHUNK);
            let full = std::mem::replace(&mut self.open, next);
            if !full.is_empty() {
                self.full.push(full);
            }
        }
        self.open.push(key);
    }

    /// Sorts them within their chunks: freed chunks, among those of other parts, would be of no use to a copy. Yields how
    /// many are left.
    fn sort(&mut self, room: &mut Vec<T>) -> u64 {
        self.full.push(std::mem::take(&mut self.open));
        room.clear();
        self.full.iter().for_each(|chunk| room.extend_from_slice(chunk));
        sort_in_pieces(room);
        room.dedup();
        let mut rest = room.as_slice();
        for chunk in &mut self.full {
            let (here, after) = rest.split_at(rest.len().min(chunk.len()));
            chunk.clear();
            chunk.extend_from_slice(here);
            rest = after;
        }
        self.full.retain(|chunk| !chunk.is_empty());
        room.len() as u64
    }

    fn each(&self, each: &mut dyn FnMut(T)) {
        self.full.iter().flatten().for_each(|key| each(*key));
    }

    /// The same, and frees each chunk behind it.
    fn drain(&mut self, each: &mut dyn FnMut(T)) {
        self.full
            .drain(..)
            .for_each(|chunk| chunk.iter().for_each(|key| each(*key)));
    }
}

/// Sorts keys so that requests go first every now and then: by halves around a key, down to pieces that are sorted at
/// once. Halving a large one takes longer than it should, but is a small part of the work.
fn sort_in_pieces<T: Copy + Ord>(keys: &mut [T]) {
    if keys.len() <= KEYS_SORTED_AT_ONCE {
        keys.sort_unstable();
        precedence::give_way();
        return;
    }
    let middle = keys.len() / 2;
    let (below, _, above) = keys.select_nth_unstable(middle);
    precedence::give_way();
    sort_in_pieces(below);
    sort_in_pieces(above);
}

impl Texts {
    fn push(&mut self, id: &[u8]) {
        if self.open.len() + LENGTH + id.len() > self.open.capacity() {
            let next = Vec::with_capacity(TEXT_IN_A_CHUNK.max(LENGTH + id.len()));
            let full = std::mem::replace(&mut self.open, next);
            if !full.is_empty() {
                self.full.push(full);
            }
        }
        push_text(&mut self.open, id);
    }

    /// As [`Chunks::sort`].
    fn sort(&mut self, key: RosterKey) -> u64 {
        self.full.push(std::mem::take(&mut self.open));
        let before = std::mem::take(&mut self.full);
        let texts = before.iter().flat_map(|chunk| each_text(chunk));
        let mut all: Vec<(u128, &[u8])> = texts.map(|id| (of_text(key, id), id)).collect();
        all.sort_unstable_by_key(|(fingerprint, _)| *fingerprint);
        all.dedup_by_key(|(fingerprint, _)| *fingerprint);
        all.iter().for_each(|(_, id)| self.push(id));
        self.full.push(std::mem::take(&mut self.open));
        all.len() as u64
    }

    fn bytes(&self) -> usize {
        self.full.iter().map(Vec::len).sum()
    }

    fn each(&self) -> impl Iterator<Item = &[u8]> {
        self.full.iter().flat_map(|chunk| each_text(chunk))
    }
}

fn of_text(key: RosterKey, id: &[u8]) -> u128 {
    fingerprint(key, UserHash::of(id), id)
}

fn push_text(texts: &mut Vec<u8>, id: &[u8]) {
    // invariant: an id is at most 1,024 bytes long, which `UserId` sees to.
    let length = u16::try_from(id.len()).expect("a short id");
    texts.extend_from_slice(&length.to_le_bytes());
    texts.extend_from_slice(id);
}

fn each_text(mut texts: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = texts.split_first_chunk::<LENGTH>()?;
        let (id, after) = rest.split_at(usize::from(u16::from_le_bytes(*length)));
        texts = after;
        Some(id)
    })
}

impl Sorted {
    /// The ids that are neither numbers nor UUIDs, in the order of their fingerprints.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let texts = self.texts.iter().flat_map(Texts::each);
        // They came as text.
        texts.map(|id| std::str::from_utf8(id).unwrap_or_default())
    }

    /// All ids, for a list that is short.
    #[must_use]
    pub fn ids(&self) -> Vec<Box<str>> {
        let mut ids = Vec::new();
        self.numbers(&mut |key| ids.push(number_of(key).to_string().into()));
        self.uuids(&mut |key| ids.push(uuid_of(key).into()));
        ids.extend(self.names().map(Box::from));
        ids
    }

    /// How many there are.
    #[must_use]
    pub fn users(&self) -> u64 {
        self.counts().iter().sum()
    }
}

impl Draft for Sorted {
    fn counts(&self) -> [u64; 3] {
        self.counts
    }

    fn key(&self) -> RosterKey {
        self.key
    }

    fn numbers(&self, each: &mut dyn FnMut(u64)) {
        self.numbers.iter().for_each(|part| part.each(each));
    }

    fn uuids(&self, each: &mut dyn FnMut(u128)) {
        self.uuids.iter().for_each(|part| part.each(each));
    }

    fn texts(&self, each: &mut dyn FnMut(u128)) {
        // Made again rather than kept: they take as much room as a short id.
        let texts = self.texts.iter().flat_map(Texts::each);
        texts.for_each(|id| each(of_text(self.key, id)));
    }

    fn drain_numbers(&mut self, each: &mut dyn FnMut(u64)) {
        self.numbers.drain(..).for_each(|mut part| part.drain(each));
    }

    fn drain_uuids(&mut self, each: &mut dyn FnMut(u128)) {
        self.uuids.drain(..).for_each(|mut part| part.drain(each));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const SMALL: Bounds = Bounds {
        unlooked_min: 10_000,
        unlooked_max: 40_000,
        users: 5_000,
        text: 50_000,
    };

    fn small() -> Gathered {
        Gathered::within(SMALL, RosterKey([1, 2]), 2)
    }

    fn ids(of: u64) -> [String; 3] {
        [
            of.to_string(),
            format!("00000000-0000-4000-8000-{of:012x}"),
            format!("user {of}"),
        ]
    }

    #[test]
    fn ids_that_come_again_and_again_take_no_room() {
        let mut gathered = small();
        for round in 0..50_000u64 {
            ids(round % 7).iter().for_each(|id| gathered.add(id));
            assert!(gathered.bytes <= SMALL.unlooked_min + 3_000, "{}", gathered.bytes);
        }
        assert_eq!(gathered.too_many(), None);
        let sorted = gathered.sorted().expect("few");
        let (found, wanted): (BTreeSet<_>, BTreeSet<_>) = (
            sorted.ids().into_iter().map(String::from).collect(),
            (0..7).flat_map(ids).collect(),
        );
        assert_eq!((found, sorted.users()), (wanted, 21));
    }

    #[test]
    fn what_was_sorted_on_the_way_is_what_comes_of_it() {
        let mut gathered = small();
        let mut wanted = BTreeSet::new();
        for n in 0..6_000u64 {
            // Some come a second time, much later.
            for id in ids(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 1_500) {
                gathered.add(&id);
                wanted.insert(id);
            }
        }
        let sorted = gathered.sorted().expect("few");
        let names: Vec<u128> = sorted.names().map(|id| of_text(sorted.key, id.as_bytes())).collect();
        assert!(names.is_sorted());
        let found: BTreeSet<String> = sorted.ids().into_iter().map(String::from).collect();
        assert_eq!(found, wanted);
    }

    #[test]
    fn more_than_a_segment_has_is_told_while_it_comes() {
        let mut users = small();
        let mut came = 0;
        while users.too_many().is_none() {
            users.add(&came.to_string());
            came += 1;
            assert!(came < 100_000, "never told");
        }
        assert_eq!(users.sorted().err(), Some(TooMany::Users(SMALL.users)));
        let mut long = small();
        (0..60).for_each(|n| long.add(&format!("{n:01000}x")));
        assert_eq!(long.sorted().err(), Some(TooMany::Bytes(SMALL.text)));
        let mut all = small();
        (0..SMALL.users).for_each(|n| all.add(&n.to_string()));
        assert_eq!(all.sorted().map(|sorted| sorted.users()).ok(), Some(SMALL.users));
    }
}
