//! Tokens that were verified, by their hash. What is here was verified with the keys of the set that the cache belongs
//! to; nothing is given out from its `exp` on.

use std::collections::HashMap;
use std::mem;
use std::sync::Arc;

use parking_lot::Mutex;
use ring::digest;

use super::claims::Token;

/// Few threads meet in one of them.
const SHARDS: usize = 16;
/// What one generation of one shard may hold: 32 MiB in all, some 50,000 tokens of usual size.
const GENERATION_BYTES_MAX: usize = (32 << 20) / SHARDS / 2;

/// SHA-256 of a token: nobody can make two tokens with one, and no token is kept.
pub(super) type Hash = [u8; 32];

pub(super) fn hash(token: &[u8]) -> Hash {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, token).as_ref());
    hash
}

#[derive(Default)]
pub(super) struct Cache {
    shards: [Mutex<Shard>; SHARDS],
}

/// Two generations: when the young one is full it becomes the old one, and what was in that and not asked for since is
/// gone. This costs nothing for each use, and forgets what is not used.
#[derive(Default)]
struct Shard {
    young: HashMap<Hash, Arc<Token>>,
    young_bytes: usize,
    old: HashMap<Hash, Arc<Token>>,
}

impl Cache {
    /// The token with that hash, if it was verified and is still valid.
    pub(super) fn get(&self, hash: &Hash, now: u64) -> Option<Arc<Token>> {
        let mut shard = self.shard(hash).lock();
        if let Some(token) = shard.young.get(hash) {
            if token.expires > now {
                return Some(Arc::clone(token));
            }
            shard.young.remove(hash);
            return None;
        }
        let token = shard.old.remove(hash).filter(|token| token.expires > now)?;
        shard.insert(*hash, Arc::clone(&token));
        Some(token)
    }

    /// Keeps a token that was verified.
    pub(super) fn insert(&self, hash: Hash, token: Arc<Token>) {
        self.shard(&hash).lock().insert(hash, token);
    }

    /// Takes over what another one has and `keep` wants.
    pub(super) fn take_over(&self, other: &Self, keep: impl Fn(&Token) -> bool) {
        for (own, other) in self.shards.iter().zip(&other.shards) {
            let kept: Vec<_> = {
                let other = other.lock();
                let all = other.old.iter().chain(&other.young);
                let kept = all.filter(|(_, token)| keep(token));
                kept.map(|(hash, token)| (*hash, Arc::clone(token))).collect()
            };
            let mut own = own.lock();
            for (hash, token) in kept {
                own.insert(hash, token);
            }
        }
    }

    fn shard(&self, hash: &Hash) -> &Mutex<Shard> {
        &self.shards[usize::from(hash[31]) % SHARDS]
    }
}

impl Shard {
    fn insert(&mut self, hash: Hash, token: Arc<Token>) {
        let bytes = token.bytes();
        if self.young_bytes + bytes > GENERATION_BYTES_MAX {
            self.old = mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        if self.young.insert(hash, token).is_none() {
            self.young_bytes += bytes;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::claims::Claims;
    use super::*;
    use crate::identity::UserId;

    fn token(expires: u64, filling: usize) -> Arc<Token> {
        Arc::new(Token {
            id: UserId::new(b"1").expect("id"),
            claims: Claims::of([("filling".to_owned(), "x".repeat(filling))]),
            expires,
            key: [0; 32],
        })
    }

    #[test]
    fn a_token_is_gone_from_its_expiry_on() {
        let cache = Cache::default();
        let key = hash(b"a");
        cache.insert(key, token(100, 1));
        assert!(cache.get(&key, 99).is_some());
        assert!(cache.get(&key, 100).is_none());
        // Even if the clock goes back.
        assert!(cache.get(&key, 99).is_none());
        assert!(cache.get(&hash(b"b"), 99).is_none());
    }

    #[test]
    fn what_is_used_stays_and_the_whole_is_bounded() {
        let cache = Cache::default();
        let kept = hash(b"kept");
        cache.insert(kept, token(u64::MAX, 1));
        for n in 0..200_000_u32 {
            cache.insert(hash(&n.to_be_bytes()), token(u64::MAX, 1_000));
            assert!(cache.get(&kept, 0).is_some(), "{n}");
        }
        let shards = cache.shards.iter().map(Mutex::lock);
        let bytes: usize = shards
            .map(|shard| {
                shard
                    .young
                    .values()
                    .chain(shard.old.values())
                    .map(|t| t.bytes())
                    .sum::<usize>()
            })
            .sum();
        assert!((16 << 20..=32 << 20).contains(&bytes), "{bytes}");
        assert!(cache.get(&hash(&0_u32.to_be_bytes()), 0).is_none());
    }

    #[test]
    fn only_what_is_wanted_is_taken_over() {
        let (before, after) = (Cache::default(), Cache::default());
        before.insert(hash(b"a"), token(5, 1));
        before.insert(hash(b"b"), token(9, 1));
        after.take_over(&before, |token| token.expires == 9);
        assert!(after.get(&hash(b"a"), 0).is_none());
        assert!(after.get(&hash(b"b"), 0).is_some());
    }
}
