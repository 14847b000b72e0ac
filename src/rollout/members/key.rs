//! A user id as rosters know it. Numbers and UUIDs are mixed by a bijection: no two ids share a key, and the id can be
//! had back from it. Every other id is known by a keyed fingerprint of 128 bits.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::digits::{number, uuid, written_uuid};
use crate::rollout::users::UserHash;

/// What is added before the high half of a UUID is mixed, so that a high half of zero is no fixed point.
const UUID_ROUND: u64 = 0x9e37_79b9_7f4a_7c15;
/// Of the ids that are neither numbers nor UUIDs: chosen at random where a roster is made, so that nobody can choose ids
/// that share a fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RosterKey(pub [u64; 2]);

/// An id's key, as far as it is the same in all rosters; made once a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rollout) enum UserKey {
    /// A decimal number below 2^64 as a machine writes it: no sign, no leading zero.
    Number(u64),
    /// A UUID in lower case.
    Uuid(u128),
    /// Anything else.
    Text(UserHash),
}

/// What is kept of an id to find it in a roster without the id, as a sample of users does: 64 bits of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyPart {
    /// All of a number's key.
    Number(u64),
    /// Half of a UUID's.
    Uuid(u64),
    /// The hash of any other id.
    Text(UserHash),
}

impl UserKey {
    /// Of an id.
    pub(in crate::rollout) fn of(id: &[u8]) -> Self {
        Self::or_text(id, || UserHash::of(id))
    }

    /// Of an id, which is hashed only if it is neither number nor UUID.
    #[inline] // 27 instructions of a lookup
    pub(super) fn or_text(id: &[u8], hash: impl FnOnce() -> UserHash) -> Self {
        if let Some(number) = number(id) {
            Self::Number(mix(number))
        } else if let Some(uuid) = uuid(id) {
            Self::Uuid(mix_uuid(uuid))
        } else {
            Self::Text(hash())
        }
    }
}

impl KeyPart {
    /// Of an id and its hash.
    #[must_use]
    pub fn of(hash: UserHash, id: &[u8]) -> Self {
        match UserKey::or_text(id, || hash) {
            UserKey::Number(key) => Self::Number(key),
            UserKey::Uuid(key) => Self::Uuid((key >> 64) as u64),
            UserKey::Text(hash) => Self::Text(hash),
        }
    }
}

/// The fingerprint of an id that is neither number nor UUID. Its high half is a bijection of the id's hash, which the
/// request has made already; its low half is keyed. That any of `n` members shares one with any of `m` others comes to
/// `n m / 2^128`: with 100 million members and ten thousand million others 3e-21.
pub(super) fn fingerprint(key: RosterKey, hash: UserHash, id: &[u8]) -> u128 {
    (u128::from(fingerprint_top(key, hash)) << 64) | u128::from(xxh3_64_with_seed(id, key.0[1]))
}

pub(super) fn fingerprint_top(key: RosterKey, hash: UserHash) -> u64 {
    mix(hash.get() ^ key.0[0])
}

/// The id whose key it is.
pub(super) fn number_of(key: u64) -> u64 {
    unmix(key)
}

/// The id whose key it is, as it is written.
pub(super) fn uuid_of(key: u128) -> String {
    let (mut high, mut low) = halves(key);
    high ^= mix(low);
    low ^= mix(high.wrapping_add(UUID_ROUND));
    written_uuid((u128::from(high) << 64) | u128::from(low))
}

fn mix_uuid(uuid: u128) -> u128 {
    let (mut high, mut low) = halves(uuid);
    low ^= mix(high.wrapping_add(UUID_ROUND));
    high ^= mix(low);
    (u128::from(high) << 64) | u128::from(low)
}

fn halves(n: u128) -> (u64, u64) {
    ((n >> 64) as u64, n as u64)
}

/// The finalizer of SplitMix64 (Steele, Lea and Flood 2014): each step can be undone.
const fn mix(mut n: u64) -> u64 {
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// The steps undone: multiplied by the inverses modulo 2^64.
const fn unmix(mut n: u64) -> u64 {
    n = (n ^ (n >> 31) ^ (n >> 62)).wrapping_mul(0x3196_42b2_d24d_8ec3);
    n = (n ^ (n >> 27) ^ (n >> 54)).wrapping_mul(0x96de_1b17_3f11_9089);
    n ^ (n >> 30) ^ (n >> 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_its_id_back() {
        for n in (0..10_000).chain(u64::MAX - 10_000..=u64::MAX) {
            assert_eq!(number_of(mix(n)), n);
            assert_eq!(number(n.to_string().as_bytes()), Some(n));
        }
        for n in 0..10_000u64 {
            let uuid128 = (u128::from(mix(n)) << 64) | u128::from(mix(n ^ 0xabcd));
            for value in [uuid128, u128::from(n), u128::from(n) << 64] {
                let text = uuid_of(mix_uuid(value));
                assert_eq!(uuid(text.as_bytes()), Some(value), "{text}");
            }
        }
    }

    #[test]
    fn only_what_a_machine_would_write_is_a_number_or_a_uuid() {
        let kind = |id: &str| UserKey::of(id.as_bytes());
        for text in [
            "",
            "00",
            "01",
            "+1",
            "-1",
            "1 ",
            "18446744073709551616",
            "99999999999999999999",
            "123456789012345678901",
            "00000000-0000-0000-0000-00000000000A",
            "00000000-0000-0000-0000-00000000000g",
            "000000000000000000000000000000000000",
            "00000000_0000-0000-0000-000000000000",
            "é0000000-0000-0000-0000-0000000000",
        ] {
            assert!(matches!(kind(text), UserKey::Text(_)), "{text}");
        }
        assert!(matches!(kind("0"), UserKey::Number(_)));
        assert!(matches!(kind("18446744073709551615"), UserKey::Number(_)));
        let uuid = "123e4567-e89b-12d3-a456-426614174000";
        assert!(matches!(kind(uuid), UserKey::Uuid(_)));
    }
}
