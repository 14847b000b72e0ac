//! The bucket of a user: fixed for a user and a salt. The formula is the same in every client of it:
//! `seed = XXH3_64(salt)`, `bucket = (XXH3_64_with_seed(id, seed) × 1 000 000) >> 64`.

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// How many buckets there are.
pub(super) const BUCKETS: u32 = 1_000_000;

/// A number in 0..1 000 000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bucket(u32);

/// What makes rollouts independent of each other, hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Salt {
    seed: u64,
}

impl Salt {
    /// From the written salt.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self {
            seed: xxh3_64(text.as_bytes()),
        }
    }

    /// The bucket of a user id.
    #[must_use]
    pub fn bucket(self, id: &[u8]) -> Bucket {
        let hash = xxh3_64_with_seed(id, self.seed);
        let bucket = (u128::from(hash) * u128::from(BUCKETS)) >> 64;
        // Less than BUCKETS, for the hash is less than 2^64.
        Bucket(bucket as u32)
    }
}

impl Bucket {
    /// Takes a bucket's number.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        if number < BUCKETS { Some(Self(number)) } else { None }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}
