//! Users and what each of them gets: hash maps in shards that copies share, so that moving one user copies one shard
//! and not a table of a million.

use std::sync::Arc;

use hashbrown::HashTable;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64;

use crate::prefetch::prefetch;

/// Shards of a large map, a power of two: a million users make shards of a thousand, which are copied in microseconds.
const SHARDS: usize = 1024;
/// A map of as many users or fewer is one shard: it fits a cache where the heads of so many shards would not.
const ONE_SHARD_MAX: usize = 1024;
/// The longest id that stands in its entry, in bytes; a longer one is reached by a pointer, at the price of one more
/// cache miss.
const INLINE_MAX: usize = 16;

/// A user id's hash for looking it up; made once a request, whatever the number of maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UserHash(u64);

impl UserHash {
    /// Hashes an id.
    #[must_use]
    pub fn of(id: &[u8]) -> Self {
        Self(xxh3_64(id))
    }

    /// Takes a hash that [`UserHash::get`] gave.
    #[must_use]
    pub const fn from_number(hash: u64) -> Self {
        Self(hash)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    fn shard(self, shards: usize) -> usize {
        // The high bits: the low ones place an entry inside its shard, and the highest seven tell entries apart there.
        (self.0 >> 44) as usize & (shards - 1)
    }
}

type Id = SmallVec<[u8; INLINE_MAX]>;
type Shard<V> = HashTable<(Id, V)>;

/// A map from user ids.
#[derive(Debug, Clone)]
pub struct UserMap<V> {
    /// None, one, or `SHARDS` of them.
    shards: Vec<Arc<Shard<V>>>,
    length: usize,
}

impl<V: Copy> UserMap<V> {
    pub fn new() -> Self {
        Self {
            shards: Vec::new(),
            length: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.length
    }

    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The value of the user with that hash; a user whose hash is another's is as rare as 64 bits make it.
    pub fn get_by_hash(&self, hash: UserHash) -> Option<V> {
        let same = |known: &[u8]| UserHash::of(known).0 == hash.0;
        self.find(hash, |(known, _)| same(known))
    }

    pub fn get(&self, hash: UserHash, id: &[u8]) -> Option<V> {
        self.find(hash, |(known, _)| known.as_slice() == id)
    }

    /// That user will be asked for soon.
    pub fn fetch_for(&self, hash: UserHash) {
        if self.length != 0 {
            prefetch(&*self.shards[hash.shard(self.shards.len())]);
        }
    }

    fn find(&self, hash: UserHash, same: impl FnMut(&(Id, V)) -> bool) -> Option<V> {
        if self.length == 0 {
            return None;
        }
        let shard = &self.shards[hash.shard(self.shards.len())];
        shard.find(hash.0, same).map(|(_, value)| *value)
    }

    /// Sets a user's value, unless there is one and `keep` says to keep the first.
    pub fn set(&mut self, id: &[u8], value: V, keep: bool) {
        self.make_room(self.length + 1);
        let hash = UserHash::of(id);
        let place = hash.shard(self.shards.len());
        let shard = Arc::make_mut(&mut self.shards[place]);
        match shard.find_mut(hash.0, |(known, _)| known.as_slice() == id) {
            Some((_, present)) => {
                if !keep {
                    *present = value;
                }
            }
            None => {
                shard.insert_unique(hash.0, (Id::from_slice(id), value), |(known, _)| xxh3_64(known));
                self.length += 1;
            }
        }
    }

    /// Room for so many users, so that a long list is not moved while it grows.
    pub fn reserve(&mut self, users: usize) {
        self.make_room(users);
        // A quarter more than the mean: shards differ.
        let each = users / self.shards.len();
        for shard in &mut self.shards {
            Arc::make_mut(shard).reserve(each + each / 4, |(known, _)| xxh3_64(known));
        }
    }

    /// As many shards as so many users need.
    fn make_room(&mut self, users: usize) {
        let wanted = if users > ONE_SHARD_MAX { SHARDS } else { 1 };
        if self.shards.len() >= wanted {
            return;
        }
        let before = std::mem::take(&mut self.shards);
        self.shards = (0..wanted).map(|_| Arc::new(HashTable::new())).collect();
        self.length = 0;
        for (id, value) in before.iter().flat_map(|shard| shard.iter()) {
            self.set(id, *value, false);
        }
    }

    /// The same users, with values that `to` yields of theirs, and those for whom it yields none, who are left out.
    pub fn mapped(&self, to: &dyn Fn(V) -> Option<V>) -> (Self, Vec<Box<str>>) {
        let mut next = Self::new();
        let mut left = Vec::new();
        for (id, value) in self.iter() {
            match to(value) {
                Some(value) => next.set(id, value, false),
                // They came as text.
                None => left.push(String::from_utf8_lossy(id).into()),
            }
        }
        (next, left)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], V)> {
        let shards = self.shards.iter();
        shards.flat_map(|shard| shard.iter().map(|(id, value)| (id.as_slice(), *value)))
    }

    pub fn remove(&mut self, id: &[u8]) {
        let hash = UserHash::of(id);
        if self.get(hash, id).is_none() {
            return;
        }
        let place = hash.shard(self.shards.len());
        let shard = Arc::make_mut(&mut self.shards[place]);
        if let Ok(entry) = shard.find_entry(hash.0, |(known, _)| known.as_slice() == id) {
            entry.remove();
            self.length -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_holds_the_same_users_while_it_grows_past_one_shard_and_shrinks() {
        let mut map = UserMap::new();
        let id = |n: usize| format!("{n}{}", "x".repeat(n % 2 * INLINE_MAX));
        let all = |map: &UserMap<usize>, from: usize, to: usize| {
            (0..to + 5).all(|n| {
                let id = id(n);
                let hash = UserHash::of(id.as_bytes());
                let wanted = (from..to).contains(&n).then_some(n);
                map.get(hash, id.as_bytes()) == wanted && map.get_by_hash(hash) == wanted
            })
        };
        let most = 2 * ONE_SHARD_MAX;
        for n in 0..most {
            map.set(id(n).as_bytes(), n, false);
            if n.abs_diff(ONE_SHARD_MAX) < 3 || n < 3 {
                assert!(all(&map, 0, n + 1), "{n}");
                assert_eq!(map.shards.len(), if n < ONE_SHARD_MAX { 1 } else { SHARDS });
            }
        }
        for n in 0..most - 7 {
            map.remove(id(n).as_bytes());
        }
        assert!(all(&map, most - 7, most));
        assert_eq!((map.len(), map.iter().count()), (7, 7));
        map.set(id(most).as_bytes(), 1, true);
        map.set(id(most).as_bytes(), 2, true);
        assert_eq!(
            map.iter()
                .find(|(found, _)| *found == id(most).as_bytes())
                .map(|(_, v)| v),
            Some(1)
        );
    }

    #[test]
    fn copies_share_all_shards_but_the_one_that_changed() {
        let mut first = UserMap::new();
        for n in 0..10_000u32 {
            first.set(n.to_string().as_bytes(), n, false);
        }
        let mut second = first.clone();
        second.set(b"42", 7, false);
        second.remove(b"43");
        let shared = first
            .shards
            .iter()
            .zip(&second.shards)
            .filter(|(a, b)| Arc::ptr_eq(a, b));
        assert!(shared.count() >= SHARDS - 2);
        let get = |map: &UserMap<u32>, id: &[u8]| map.get(UserHash::of(id), id);
        assert_eq!((get(&first, b"42"), get(&second, b"42")), (Some(42), Some(7)));
        assert_eq!((get(&first, b"43"), get(&second, b"43")), (Some(43), None));
        assert_eq!((first.len(), second.len()), (10_000, 9_999));
    }
}
