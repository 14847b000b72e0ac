//! A user id as rosters know it. Numbers and UUIDs are mixed by a bijection: no two ids share a key, and the id can be
//! had back from it. Every other id is known by a keyed fingerprint of 128 bits.

use wide::{bytemuck, i8x16, i16x8, u8x16, u16x8};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::rollout::users::UserHash;

/// What is added before the high half of a UUID is mixed, so that a high half of zero is no fixed point.
const UUID_ROUND: u64 = 0x9e37_79b9_7f4a_7c15;
/// The most digits that a number of 64 bits has.
const DIGITS_MAX: usize = 20;
const UUID_LEN: usize = 36;
const DASHES: [usize; 4] = [8, 13, 18, 23];
/// Eight zeros, as text.
const ZEROS: u64 = 0x3030_3030_3030_3030;
const TEN_TO_16: u64 = 10_000_000_000_000_000;

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

/// Sixteen digits at once and up to four before them, without a branch for each: the processor, which is to go on while a
/// lookup waits for memory, would guess wrong where ids differ in length. And nothing is put together in memory: a read that
/// spans several writes is not served before these have left the core, which is behind the lookup that waits.
#[inline(never)] // or its constants are made ready for every id: 9 to 18 instructions of a lookup
fn number(id: &[u8]) -> Option<u64> {
    if id.is_empty() || id.len() > DIGITS_MAX || (id[0] == b'0' && id.len() > 1) {
        return None;
    }
    let (mut most, mut wrong) = (0, 0);
    let last: u8x16 = match (id.first_chunk::<8>(), id.last_chunk::<8>(), id.last_chunk::<16>()) {
        (Some(first), _, Some(last)) => {
            let first = (behind_zeros(*first, id.len() - 16) >> 32) as u32;
            (most, wrong) = (four_digits(first), not_digits(first));
            u8x16::new(*last)
        }
        (Some(first), Some(last), _) => bytemuck::cast([behind_zeros(*first, id.len() - 8), u64::from_le_bytes(*last)]),
        _ => {
            let last = |text, byte: &u8| (text >> 8) | (u64::from(*byte) << 56);
            bytemuck::cast([ZEROS, id.iter().fold(ZEROS, last)])
        }
    };
    let (least, past) = sixteen_digits(last);
    let value = most.checked_mul(TEN_TO_16)?.checked_add(least)?;
    (wrong == 0 && past == u8x16::ZERO).then_some(value)
}

/// So many of the first of eight bytes, fewer than eight, and zeros before them.
fn behind_zeros(text: [u8; 8], taken: usize) -> u64 {
    // Two steps: none may be taken, and no word is shifted by all of its bits.
    (u64::from_le_bytes(text) << 1 << (63 - 8 * taken)) | (ZEROS >> (8 * taken))
}

/// A high bit for each of four bytes that is no decimal digit, or for one above it.
fn not_digits(text: u32) -> u32 {
    let digits = text.wrapping_sub(ZEROS as u32);
    // Above 9 or below 0 sets a high bit here or there.
    (digits | digits.wrapping_add(0x7676_7676) | text) & 0x8080_8080
}

/// Four digits as a number, all at once: pairs, then the four.
fn four_digits(text: u32) -> u64 {
    let digits = text & 0x0f0f_0f0f;
    let pairs = (digits * 10 + (digits >> 8)) & 0x00ff_00ff;
    u64::from((pairs * 100 + (pairs >> 16)) & 0xffff)
}

/// Sixteen digits as a number, all at once: pairs, fours, eights; and how far each is past the last digit, which is not 0
/// where it is none.
fn sixteen_digits(text: u8x16) -> (u64, u8x16) {
    let digits = text - u8x16::splat(b'0');
    let words: i16x8 = bytemuck::cast(digits);
    let pairs: i16x8 = (words & i16x8::splat(0xff)) * i16x8::splat(10) + (words >> 8);
    let fours = pairs.dot(i16x8::new([100, 1, 100, 1, 100, 1, 100, 1]));
    let fours = i16x8::from_i32x8_saturate(bytemuck::cast([fours, fours]));
    let eights = fours.dot(i16x8::new([10_000, 1, 10_000, 1, 10_000, 1, 10_000, 1]));
    let [eights, _]: [u64; 2] = bytemuck::cast(eights);
    let value = (eights & 0xffff_ffff) * 100_000_000 + (eights >> 32);
    (value, digits.saturating_sub(u8x16::splat(9)))
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
    let [(high, past), (low, past_too)] = digits.map(nibbles);
    // Each byte is two digits, of which the first counts sixteenfold.
    let firsts = u8x16::narrow_i16x8(high & i16x8::splat(0xff), low & i16x8::splat(0xff));
    let (high, low): (u16x8, u16x8) = (bytemuck::cast(high), bytemuck::cast(low));
    let seconds = u8x16::narrow_i16x8(bytemuck::cast(high >> 8), bytemuck::cast(low >> 8));
    let firsts: u16x8 = bytemuck::cast(firsts);
    let firsts: u8x16 = bytemuck::cast(firsts << 4);
    let value = u128::from_be_bytes((firsts | seconds).to_array());
    (past | past_too == u8x16::ZERO).then_some(value)
}

/// What sixteen bytes are worth as digits of a UUID, each, two by two; and how far each is past the last digit or letter,
/// which is not 0 where it is none.
fn nibbles(text: [u8; 16]) -> (i16x8, u8x16) {
    let text: i8x16 = bytemuck::cast(text);
    // What is no ASCII is below, and no digit.
    let letters: u8x16 = bytemuck::cast(text.simd_gt(i8x16::splat(b'9' as i8)));
    let text: u8x16 = bytemuck::cast(text);
    let nth = text - u8x16::splat(b'0') - (letters & u8x16::splat(b'a' - b'0'));
    let past = nth.saturating_sub(u8x16::splat(9) - (letters & u8x16::splat(4)));
    (bytemuck::cast(nth + (letters & u8x16::splat(10))), past)
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
