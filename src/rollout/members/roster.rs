//! A set of user ids that does not change, over bytes that come from a file or from memory: exact, and about as small as
//! its keys. See [`Shelf`] for the layout.
//!
//! The bytes are a head of 96 bytes, the shelves of numbers, UUIDs and other ids, and a few zeros. All numbers are
//! little-endian.

use std::fmt;
use std::sync::{Arc, Weak};

use thiserror::Error;

use super::digest::{NamesMark, RosterDigest, RosterName, digest_of};
use super::key::{self, KeyPart, RosterKey, UserKey};
use super::merge::{Order, in_both};
use super::outline::Outline;
use super::shelf::{AT_ONCE, Shelf};

const MAGIC: [u8; 8] = *b"SwydRst1";
/// Magic, the two halves of the key, the counts of each kind, and the names' length and digest.
const HEAD: usize = 8 + 16 + 24 + 8 + 16 + 24;
/// Behind the last shelf: what is compared or loaded at once may pass its end.
pub(super) const TAIL: usize = AT_ONCE + 16;
/// A bucket's place is a number of 32 bits.
pub(super) const KEYS_MAX: u64 = u32::MAX as u64;

/// Bytes that are shared and do not change, those of a mapped file among them.
pub type RosterBytes = bytes::Bytes;

/// An immutable set of user ids. Copies are cheap and share the bytes.
#[derive(Clone)]
pub struct Roster(Arc<Inner>);

/// A roster that is known and may be gone.
#[derive(Clone)]
pub struct WeakRoster(Weak<Inner>);

struct Inner {
    bytes: RosterBytes,
    digest: RosterDigest,
    head: Head,
    /// Of numbers, UUIDs and other ids.
    outlines: [Outline; 3],
}

/// What stands in front.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    key: RosterKey,
    pub(super) numbers: Shelf,
    pub(super) uuids: Shelf,
    pub(super) texts: Shelf,
    names: NamesMark,
}

/// Why bytes are no roster.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RosterFault {
    /// Something else, or of another version.
    #[error("it does not begin as a list of a segment's users does")]
    NotARoster,
    /// Of another length than its head says.
    #[error("it has {found} bytes, and should have {wanted}")]
    Length {
        /// Those that it has.
        found: u64,
        /// Those that it should have.
        wanted: u64,
    },
    /// Not what it was when it was written.
    #[error("its contents have the digest {found}, not the one it is named by")]
    Digest {
        /// The one that it has.
        found: RosterDigest,
    },
    /// Its places are out of order.
    #[error("its contents are out of order")]
    Unsound,
}

impl Head {
    pub(super) fn new(key: RosterKey, counts: [u64; 3], names: NamesMark) -> Option<Self> {
        let numbers = Shelf::new::<u64>(counts[0], HEAD);
        let uuids = Shelf::new::<u128>(counts[1], numbers.end()?);
        let texts = Shelf::new::<u128>(counts[2], uuids.end()?);
        texts.end()?.checked_add(TAIL)?;
        Some(Self {
            key,
            numbers,
            uuids,
            texts,
            names,
        })
    }

    pub(super) fn bytes(&self) -> [u8; HEAD] {
        let mut bytes = [0; HEAD];
        bytes[..8].copy_from_slice(&MAGIC);
        let [high, low] = self.key.0;
        let counts = [self.numbers.keys, self.uuids.keys, self.texts.keys];
        let words = [high, low].into_iter().chain(counts).chain([self.names.bytes]);
        for (place, word) in bytes[8..56].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes[56..72].copy_from_slice(&self.names.digest.to_le_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Self, RosterFault> {
        let found = bytes.len() as u64;
        let head = bytes.get(..HEAD).filter(|head| head.starts_with(&MAGIC));
        let head = head.ok_or(RosterFault::NotARoster)?;
        let word = |nth: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&head[8 + 8 * nth..16 + 8 * nth]);
            u64::from_le_bytes(word)
        };
        let counts = [word(2), word(3), word(4)];
        if counts.iter().any(|count| *count > KEYS_MAX) {
            return Err(RosterFault::Unsound);
        }
        let names = NamesMark {
            bytes: word(5),
            digest: u128::from(word(6)) | (u128::from(word(7)) << 64),
        };
        let read = Self::new(RosterKey([word(0), word(1)]), counts, names).ok_or(RosterFault::Unsound)?;
        let wanted = read.texts.end().ok_or(RosterFault::Unsound)? + TAIL;
        if wanted as u64 != found {
            let wanted = wanted as u64;
            return Err(RosterFault::Length { found, wanted });
        }
        let shelves = [read.numbers, read.uuids, read.texts];
        if shelves.iter().all(|shelf| shelf.is_sound(bytes)) {
            Ok(read)
        } else {
            Err(RosterFault::Unsound)
        }
    }
}

impl Roster {
    /// Reads bytes, all of them, and compares their digest with the one that they are named by.
    ///
    /// # Errors
    /// When they are not what was written under that name.
    pub fn open(bytes: RosterBytes, digest: RosterDigest) -> Result<Self, RosterFault> {
        let found = RosterDigest(digest_of(&bytes));
        let head = Head::read(&bytes)?;
        if found != digest {
            return Err(RosterFault::Digest { found });
        }
        Ok(Self::of(bytes, digest, head))
    }

    /// Takes bytes that have just been written under that name, whose digest was made on the way: only the order of their
    /// places is looked at, so that not all of them come into memory beside what they were written from.
    ///
    /// # Errors
    /// When they cannot be what was written.
    pub fn written(bytes: RosterBytes, digest: RosterDigest) -> Result<Self, RosterFault> {
        let head = Head::read(&bytes)?;
        Ok(Self::of(bytes, digest, head))
    }

    fn of(bytes: RosterBytes, digest: RosterDigest, head: Head) -> Self {
        let outlines = [head.numbers, head.uuids, head.texts].map(|shelf| Outline::of(&shelf, &bytes));
        Self(Arc::new(Inner {
            bytes,
            digest,
            head,
            outlines,
        }))
    }

    fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// What facts call it.
    #[must_use]
    pub fn name(&self) -> RosterName {
        let head = &self.0.head;
        RosterName {
            digest: self.0.digest,
            users: head.numbers.keys + head.uuids.keys + head.texts.keys,
        }
    }

    /// The bytes that it takes, in memory and on the disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.bytes().len() as u64
    }

    /// The key of its fingerprints.
    #[must_use]
    pub fn key(&self) -> RosterKey {
        self.0.head.key
    }

    /// Where the ids of the third kind are kept for listing.
    #[must_use]
    pub fn names(&self) -> NamesMark {
        self.0.head.names
    }

    /// How many numbers, UUIDs and other ids.
    #[must_use]
    pub fn counts(&self) -> [u64; 3] {
        let head = &self.0.head;
        [head.numbers.keys, head.uuids.keys, head.texts.keys]
    }

    pub(in crate::rollout) fn holds(&self, key: UserKey, id: &[u8]) -> bool {
        let (head, bytes) = (&self.0.head, self.bytes());
        let [numbers, uuids, texts] = &self.0.outlines;
        match key {
            UserKey::Number(key) => head.numbers.holds(bytes, numbers, key),
            UserKey::Uuid(key) => head.uuids.holds(bytes, uuids, key),
            UserKey::Text(hash) => head.texts.holds(bytes, texts, key::fingerprint(head.key, hash, id)),
        }
    }

    /// Whether an id is in it.
    #[must_use]
    pub fn contains(&self, id: &str) -> bool {
        let id = id.as_bytes();
        self.holds(UserKey::of(id), id)
    }

    /// Whether an id of which only a part of the key is known is in it.
    #[must_use]
    pub fn holds_part(&self, part: KeyPart) -> bool {
        let (head, bytes) = (&self.0.head, self.bytes());
        match part {
            KeyPart::Number(key) => head.numbers.holds(bytes, &self.0.outlines[0], key),
            KeyPart::Uuid(upper) => head.uuids.holds_upper(bytes, upper),
            KeyPart::Text(hash) => head.texts.holds_upper(bytes, key::fingerprint_top(head.key, hash)),
        }
    }

    /// The mixed numbers from one on, in order.
    pub fn numbers(&self, from: Option<u64>) -> impl Iterator<Item = u64> {
        self.0.head.numbers.keys(self.bytes(), from).map(|(_, key)| key)
    }

    /// The mixed UUIDs from one on, in order.
    pub fn uuids(&self, from: Option<u128>) -> impl Iterator<Item = u128> {
        self.0.head.uuids.keys(self.bytes(), from).map(|(_, key)| key)
    }

    /// The fingerprints of the other ids from one on, in order, and the number of each.
    pub fn texts(&self, from: Option<u128>) -> impl Iterator<Item = (usize, u128)> {
        self.0.head.texts.keys(self.bytes(), from)
    }

    /// How many ids are in both; none where both have fingerprints, made with different keys.
    pub(super) fn shared(&self, other: &Self) -> Option<u64> {
        let texts = |roster: &Self| roster.0.head.texts.keys > 0;
        if texts(self) && texts(other) && self.key() != other.key() {
            return None;
        }
        let numbers = in_both(self.numbers(None), other.numbers(None));
        let uuids = in_both(self.uuids(None), other.uuids(None));
        let texts = in_both(
            self.texts(None).map(|(_, key)| key),
            other.texts(None).map(|(_, key)| key),
        );
        Some(numbers + uuids + texts)
    }

    /// All after one, in order, and the number of each among its kind.
    pub fn listed(&self, after: Option<Order>) -> impl Iterator<Item = (Order, usize)> {
        let (head, bytes) = (&self.0.head, self.bytes());
        let (mut from, mut begun) = ((None, None, None), [true; 3]);
        match after {
            None => {}
            Some(Order::Number(key)) => from.0 = Some(key),
            Some(Order::Uuid(key)) => (from.1, begun) = (Some(key), [false, true, true]),
            Some(Order::Text(key)) => (from.2, begun) = (Some(key), [false, false, true]),
        }
        let numbers = begun[0].then(|| head.numbers.keys(bytes, from.0)).into_iter().flatten();
        let uuids = begun[1].then(|| head.uuids.keys(bytes, from.1)).into_iter().flatten();
        let texts = head.texts.keys(bytes, from.2);
        let numbers = numbers.map(|(nth, key)| (Order::Number(key), nth));
        let uuids = uuids.map(|(nth, key)| (Order::Uuid(key), nth));
        let texts = texts.map(|(nth, key)| (Order::Text(key), nth));
        let all = numbers.chain(uuids).chain(texts);
        all.skip_while(move |(order, _)| after.is_some_and(|after| *order <= after))
    }

    /// For a list of what is open: it does not keep the bytes.
    #[must_use]
    pub fn downgrade(&self) -> WeakRoster {
        WeakRoster(Arc::downgrade(&self.0))
    }
}

impl WeakRoster {
    /// The roster, if anybody has it.
    #[must_use]
    pub fn upgrade(&self) -> Option<Roster> {
        self.0.upgrade().map(Roster)
    }
}

impl fmt::Debug for Roster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Roster").field(&self.name()).finish()
    }
}

impl PartialEq for Roster {
    fn eq(&self, other: &Self) -> bool {
        self.0.digest == other.0.digest
    }
}
