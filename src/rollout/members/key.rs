//! A user id as rosters know it. Numbers and UUIDs are mixed by a bijection: no two ids share a key, and the id can be
//! had back from it. Every other id is known by a keyed fingerprint of 128 bits.

use wide::{bytemuck, i16x8, u8x16};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::rollout::users::UserHash;

/// What is added before the high half of a UUID is mixed, so that a high half of zero is no fixed point.
const UUID_ROUND: u64 = 0x9e37_79b9_7f4a_7c15;
/// The most digits that a number of 64 bits has.
const DIGITS_MAX: usize = 20;
const UUID_LEN: usize = 36;
const DASHES: [usize; 4] = [8, 13, 18, 23];
const TENS: [u64; 8] = [1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000];
/// Eight bytes of one value.
const EACH: u64 = 0x0101_0101_0101_0101;

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
    let digits = format!("{high:016x}{low:016x}");
    let (a, b, c) = (&digits[..8], &digits[8..12], &digits[12..16]);
    format!("{a}-{b}-{c}-{}-{}", &digits[16..20], &digits[20..])
}

/// Eight digits at a time, the last ones with zeros before them, and wrong ones are found out at the end: with a branch for
/// each digit the processor, which is to go on while a lookup waits for memory, guesses wrong where ids differ in length.
fn number(id: &[u8]) -> Option<u64> {
    if id.is_empty() || id.len() > DIGITS_MAX || (id[0] == b'0' && id.len() > 1) {
        return None;
    }
    let (eights, rest) = id.as_chunks::<8>();
    let (mut value, mut wrong) = (0u64, 0);
    let mut take = |text: u64| {
        wrong |= not_digits(text);
        eight_digits(text)
    };
    for eight in eights {
        // At most 16 digits are in it, which fit; the last ones may not.
        value = value
            .wrapping_mul(100_000_000)
            .wrapping_add(take(u64::from_le_bytes(*eight)));
    }
    let last = match id.last_chunk::<8>() {
        Some(last) => u64::from_le_bytes(*last),
        None => rest.iter().fold(0, |text, byte| (text >> 8) | (u64::from(*byte) << 56)),
    };
    // Zeros for what the eights had already, or what is not there.
    let taken = u64::MAX >> (8 * rest.len());
    let last = take((last & !taken) | ((u64::from(b'0') * EACH) & taken));
    let value = value.checked_mul(TENS[rest.len()])?.checked_add(last)?;
    (wrong == 0).then_some(value)
}

/// A high bit for each of eight bytes that is no decimal digit, or for one above it.
fn not_digits(text: u64) -> u64 {
    let digits = text.wrapping_sub(u64::from(b'0') * EACH);
    // Above 9 or below 0 sets a high bit here or there.
    (digits | digits.wrapping_add(0x76 * EACH) | text) & (0x80 * EACH)
}

/// Eight digits as a number, all at once: pairs, then fours, then the eight.
fn eight_digits(text: u64) -> u64 {
    let digits = text & (0x0f * EACH);
    let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    (fours * 10_000 + (fours >> 32)) & 0xffff_ffff
}

fn uuid(id: &[u8]) -> Option<u128> {
    let id: &[u8; UUID_LEN] = id.try_into().ok()?;
    if DASHES.iter().any(|dash| id[*dash] != b'-') {
        return None;
    }
    let mut digits = [[0; 16]; 2];
    digits[0][..8].copy_from_slice(&id[..8]);
    digits[0][8..12].copy_from_slice(&id[9..13]);
    digits[0][12..].copy_from_slice(&id[14..18]);
    digits[1][..4].copy_from_slice(&id[19..23]);
    digits[1][4..].copy_from_slice(&id[24..]);
    let mut wrong = u8x16::ZERO;
    let [high, low] = digits.map(|digits| {
        let (nibbles, past) = nibbles(digits);
        wrong |= past;
        let pairs: i16x8 = bytemuck::cast(nibbles);
        ((pairs << 4) | (pairs >> 8)) & i16x8::splat(0xff)
    });
    let value = u128::from_be_bytes(u8x16::narrow_i16x8(high, low).to_array());
    (wrong == u8x16::ZERO).then_some(value)
}

/// What sixteen bytes are worth as digits of a UUID, each; and how far each is past the last digit or letter, which is not
/// 0 where it is none.
fn nibbles(text: [u8; 16]) -> (u8x16, u8x16) {
    let text = u8x16::new(text);
    let letters = text.simd_gt(u8x16::splat(b'9'));
    let of = |digit: u8, letter: u8| u8x16::splat(digit) ^ (letters & u8x16::splat(digit ^ letter));
    let nth = text - of(b'0', b'a');
    (nth + of(0, 10), nth.saturating_sub(of(9, 5)))
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
    fn any_byte_in_any_place_is_read_as_the_standard_library_reads_it() {
        let plain = |id: &[u8]| {
            let text = std::str::from_utf8(id).ok()?;
            let value: u64 = text.parse().ok()?;
            (value.to_string() == text).then_some(value)
        };
        let hexadecimal = |id: &[u8]| {
            let digits: String = std::str::from_utf8(id).ok()?.split('-').collect();
            let value = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
            (uuid_of(mix_uuid(value)).as_bytes() == id).then_some(value)
        };
        let numbers = (1..=DIGITS_MAX).map(|digits| "98765432109876543210"[DIGITS_MAX - digits..].to_owned());
        let uuids = ["01234567-89ab-cdef-0123-456789abcdef".to_owned()];
        for id in numbers.chain(uuids) {
            for place in 0..id.len() {
                for byte in 0..=u8::MAX {
                    let mut id = id.clone().into_bytes();
                    id[place] = byte;
                    assert_eq!(number(&id), plain(&id), "{}", id.escape_ascii());
                    assert_eq!(uuid(&id), hexadecimal(&id), "{}", id.escape_ascii());
                }
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
