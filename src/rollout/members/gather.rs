//! Gathers the ids of a list while it is read, in little more memory than the roster that comes of it, and sorts them.

use super::key::{RosterKey, UserKey, fingerprint, number_of, uuid_of};
use super::roster::Draft;
use crate::rollout::users::UserHash;

/// Parts by a key's top eight bits: each is sorted by itself, and small enough for a cache.
const PARTS: usize = 256;
/// Keys that a part takes room for at a time; a vector that doubles would take half again as much as it needs.
const KEYS_IN_A_CHUNK: usize = 1024;
/// Bytes of ids that a part takes room for at a time.
const TEXT_IN_A_CHUNK: usize = 16 * 1024;
/// Bytes of an id's length.
const LENGTH: usize = 2;
/// Fewer are sorted by one thread.
const ALONE_MAX: u64 = 100_000;

/// Ids as they come, in any order, some of them more than once.
pub struct Gathered {
    key: RosterKey,
    numbers: Vec<Chunks<u64>>,
    uuids: Vec<Chunks<u128>>,
    texts: Vec<Texts>,
    count: u64,
}

/// Ids in the order of their keys, each once.
pub struct Sorted {
    key: RosterKey,
    numbers: Vec<Vec<u64>>,
    uuids: Vec<Vec<u128>>,
    texts: Vec<SortedTexts>,
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

#[derive(Default)]
struct SortedTexts {
    fingerprints: Vec<u128>,
    texts: Vec<u8>,
}

impl Gathered {
    /// Nobody yet; the key is for fingerprints.
    #[must_use]
    pub fn new(key: RosterKey) -> Self {
        Self {
            key,
            numbers: fresh(),
            uuids: fresh(),
            texts: fresh(),
            count: 0,
        }
    }

    /// Takes an id, which is at most 65,535 bytes long; no user's id is longer.
    pub fn add(&mut self, id: &str) {
        let bytes = id.as_bytes();
        let hash = UserHash::of(bytes);
        self.count += 1;
        match UserKey::of(hash, bytes) {
            UserKey::Number(key) => self.numbers[part(u128::from(key) << 64)].push(key),
            UserKey::Uuid(key) => self.uuids[part(key)].push(key),
            UserKey::Text(hash) => {
                let key = fingerprint(self.key, hash, bytes);
                self.texts[part(key)].push(bytes);
            }
        }
    }

    /// How many ids have come, those that came before included.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sorts them on so many threads; blocks while it does.
    #[must_use]
    pub fn sorted(self, threads: usize) -> Sorted {
        let threads = if self.count < ALONE_MAX { 1 } else { threads };
        let key = self.key;
        Sorted {
            key,
            numbers: each_part(self.numbers, threads, Chunks::sorted),
            uuids: each_part(self.uuids, threads, Chunks::sorted),
            texts: each_part(self.texts, threads, move |texts| texts.sorted(key)),
        }
    }
}

fn fresh<T: Default>() -> Vec<T> {
    std::iter::repeat_with(T::default).take(PARTS).collect()
}

fn part(key: u128) -> usize {
    (key >> 120) as usize
}

fn each_part<A: Send, B: Send>(parts: Vec<A>, threads: usize, work: impl Fn(A) -> B + Sync) -> Vec<B> {
    let work = &work;
    let mut parts = parts.into_iter();
    let each = PARTS.div_ceil(threads.max(1));
    std::thread::scope(|scope| {
        let mut running = Vec::new();
        loop {
            let mine: Vec<A> = parts.by_ref().take(each).collect();
            if mine.is_empty() {
                break;
            }
            running.push(scope.spawn(move || mine.into_iter().map(work).collect::<Vec<B>>()));
        }
        let done = running.into_iter().map(|thread| match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        done.flatten().collect()
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

    fn sorted(mut self) -> Vec<T> {
        self.full.push(self.open);
        let mut all = self.full.concat();
        drop(self.full);
        all.sort_unstable();
        all.dedup();
        all
    }
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

    fn sorted(mut self, key: RosterKey) -> SortedTexts {
        self.full.push(self.open);
        let texts = self.full.iter().flat_map(|chunk| each_text(chunk));
        let mut all: Vec<(u128, &[u8])> = texts.map(|id| (fingerprint(key, UserHash::of(id), id), id)).collect();
        all.sort_unstable_by_key(|(fingerprint, _)| *fingerprint);
        all.dedup_by_key(|(fingerprint, _)| *fingerprint);
        let mut texts = Vec::with_capacity(all.iter().map(|(_, id)| LENGTH + id.len()).sum());
        for (_, id) in &all {
            push_text(&mut texts, id);
        }
        SortedTexts {
            fingerprints: all.iter().map(|(fingerprint, _)| *fingerprint).collect(),
            texts,
        }
    }
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
        let texts = self.texts.iter().flat_map(|part| each_text(&part.texts));
        // They came as text.
        texts.map(|id| std::str::from_utf8(id).unwrap_or_default())
    }

    /// All ids, for a list that is short.
    #[must_use]
    pub fn ids(&self) -> Vec<Box<str>> {
        let numbers = self.numbers.iter().flatten().map(|key| number_of(*key).to_string());
        let uuids = self.uuids.iter().flatten().map(|key| uuid_of(*key));
        let texts = self.names().map(ToOwned::to_owned);
        numbers.chain(uuids).chain(texts).map(String::into_boxed_str).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn users(&self) -> u64 {
        self.counts().iter().sum()
    }
}

impl Draft for Sorted {
    fn counts(&self) -> [u64; 3] {
        let sum = |lengths: &mut dyn Iterator<Item = usize>| lengths.map(|n| n as u64).sum();
        [
            sum(&mut self.numbers.iter().map(Vec::len)),
            sum(&mut self.uuids.iter().map(Vec::len)),
            sum(&mut self.texts.iter().map(|part| part.fingerprints.len())),
        ]
    }

    fn key(&self) -> RosterKey {
        self.key
    }

    fn numbers(&self, each: &mut dyn FnMut(u64)) {
        self.numbers.iter().flatten().for_each(|key| each(*key));
    }

    fn uuids(&self, each: &mut dyn FnMut(u128)) {
        self.uuids.iter().flatten().for_each(|key| each(*key));
    }

    fn texts(&self, each: &mut dyn FnMut(u128)) {
        let texts = self.texts.iter().flat_map(|part| &part.fingerprints);
        texts.for_each(|key| each(*key));
    }
}
