//! Users and what each of them gets: hash maps in shards that copies share, so that moving one user copies one shard
//! and not a table of a million.

use std::sync::Arc;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

const SHARDS: usize = 1024;

/// A user id's hash for looking it up; made once a request, whatever the number of maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

    fn shard(self) -> usize {
        // The high bits: the low ones place an entry inside its shard.
        (self.0 >> 54) as usize % SHARDS
    }
}

type Shard<V> = HashTable<(Box<[u8]>, V)>;

/// A map from user ids.
#[derive(Debug, Clone)]
pub struct UserMap<V> {
    /// Empty, or `SHARDS` of them.
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

    /// The value of the user with that hash; a user whose hash is another's is as rare as 64 bits make it.
    pub fn get_by_hash(&self, hash: UserHash) -> Option<V> {
        let shard = self.shards.get(hash.shard())?;
        let same = |known: &[u8]| UserHash::of(known).0 == hash.0;
        shard.find(hash.0, |(known, _)| same(known)).map(|(_, value)| *value)
    }

    pub fn get(&self, hash: UserHash, id: &[u8]) -> Option<V> {
        if self.length == 0 {
            return None;
        }
        let shard = &self.shards[hash.shard()];
        shard.find(hash.0, |(known, _)| &**known == id).map(|(_, value)| *value)
    }

    /// Sets a user's value, unless there is one and `keep` says to keep the first.
    pub fn set(&mut self, id: &[u8], value: V, keep: bool) {
        if self.shards.is_empty() {
            self.shards = (0..SHARDS).map(|_| Arc::new(HashTable::new())).collect();
        }
        let hash = UserHash::of(id);
        let shard = Arc::make_mut(&mut self.shards[hash.shard()]);
        match shard.find_mut(hash.0, |(known, _)| &**known == id) {
            Some((_, present)) => {
                if !keep {
                    *present = value;
                }
            }
            None => {
                shard.insert_unique(hash.0, (id.into(), value), |(known, _)| xxh3_64(known));
                self.length += 1;
            }
        }
    }

    /// Room for so many users, so that a long list is not moved while it grows.
    pub fn reserve(&mut self, users: usize) {
        if self.shards.is_empty() {
            self.shards = (0..SHARDS).map(|_| Arc::new(HashTable::new())).collect();
        }
        // A quarter more than the mean: shards differ.
        let each = users / SHARDS + users / SHARDS / 4;
        for shard in &mut self.shards {
            Arc::make_mut(shard).reserve(each, |(known, _)| xxh3_64(known));
        }
    }

    /// The same users, with values that `to` yields of theirs; those for which it yields none are counted and left out.
    pub fn mapped(&self, to: &dyn Fn(V) -> Option<V>) -> (Self, usize) {
        let mut next = Self::new();
        let mut lost = 0;
        for (id, value) in self.iter() {
            match to(value) {
                Some(value) => next.set(id, value, false),
                None => lost += 1,
            }
        }
        (next, lost)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&[u8], V)> {
        let shards = self.shards.iter();
        shards.flat_map(|shard| shard.iter().map(|(id, value)| (&**id, *value)))
    }

    pub fn remove(&mut self, id: &[u8]) {
        let hash = UserHash::of(id);
        if self.get(hash, id).is_none() {
            return;
        }
        let shard = Arc::make_mut(&mut self.shards[hash.shard()]);
        if let Ok(entry) = shard.find_entry(hash.0, |(known, _)| &**known == id) {
            entry.remove();
            self.length -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
