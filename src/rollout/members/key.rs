//! A user id as rosters know it. Numbers and UUIDs are mixed by a bijection: no two ids share a key, and the id can be
//! had back from it. Every other id is known by a keyed fingerprint of 128 bits.

use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::rollout::users::UserHash;

/// What is added before the high half of a UUID is mixed, so that a high half of zero is no fixed point.
const UUID_ROUND: u64 = 0x9e37_79b9_7f4a_7c15;
/// The most digits that a number of 64 bits has.
const DIGITS_MAX: usize = 20;
const UUID_LEN: usize = 36;
const DASHES: [usize; 4] = [8, 13, 18, 23];

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
    /// Of an id and its hash.
    pub(in crate::rollout) fn of(hash: UserHash, id: &[u8]) -> Self {
        if let Some(number) = number(id) {
            Self::Number(mix(number))
        } else if let Some(uuid) = uuid(id) {
            Self::Uuid(mix_uuid(uuid))
        } else {
            Self::Text(hash)
        }
    }
}

impl KeyPart {
    /// Of an id and its hash.
    #[must_use]
    pub fn of(hash: UserHash, id: &[u8]) -> Self {
        match UserKey::of(hash, id) {
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
    let digits = format!("{high:016x}{low:016x}");
    let (a, b, c) = (&digits[..8], &digits[8..12], &digits[12..16]);
    format!("{a}-{b}-{c}-{}-{}", &digits[16..20], &digits[20..])
}

fn number(id: &[u8]) -> Option<u64> {
    if id.is_empty() || id.len() > DIGITS_MAX || (id[0] == b'0' && id.len() > 1) {
        return None;
    }
    let (eights, rest) = id.as_chunks::<8>();
    let mut value: u64 = 0;
    for eight in eights {
        value = value * 100_000_000 + eight_digits(*eight)?;
    }
    // At most 16 digits are in it, which fit; the last ones may not.
    for byte in rest {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value = value.checked_mul(10)?.checked_add(u64::from(digit))?;
    }
    Some(value)
}

/// Eight digits as a number, all at once: pairs, then fours, then the eight.
fn eight_digits(text: [u8; 8]) -> Option<u64> {
    let text = u64::from_le_bytes(text);
    let digits = text.wrapping_sub(0x3030_3030_3030_3030);
    // Above 9 or below 0 sets a high bit here or there.
    if (digits | digits.wrapping_add(0x7676_7676_7676_7676) | text) & 0x8080_8080_8080_8080 != 0 {
        return None;
    }
    let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours * 10_000 + (fours >> 32)) & 0xffff_ffff)
}

/// What a byte is worth as a digit of a UUID; 0xff where it is none.
const NIBBLES: [u8; 256] = {
    let mut table = [0xff; 256];
    let mut n = 0;
    while n < 16 {
        table[b"0123456789abcdef"[n as usize] as usize] = n;
        n += 1;
    }
    table
};

fn uuid(id: &[u8]) -> Option<u128> {
    if id.len() != UUID_LEN || DASHES.iter().any(|dash| id[*dash] != b'-') {
        return None;
    }
    let (mut value, mut wrong) = (0u128, 0u8);
    for part in [&id[..8], &id[9..13], &id[14..18], &id[19..23], &id[24..]] {
        let mut digits: u64 = 0;
        for byte in part {
            let nibble = NIBBLES[usize::from(*byte)];
            wrong |= nibble;
            digits = (digits << 4) | u64::from(nibble & 0xf);
        }
        value = (value << (4 * part.len())) | u128::from(digits);
    }
    (wrong < 16).then_some(value)
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
        let kind = |id: &str| UserKey::of(UserHash::of(id.as_bytes()), id.as_bytes());
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
