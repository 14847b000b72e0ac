//! Numbers and UUIDs as ids have them, read sixteen digits at once and without a branch for each: the processor, which is to go on
//! while a lookup waits for memory, would guess wrong where ids differ. Only what a machine would write is one.

use wide::{bytemuck, i8x16, i16x8, u8x16, u16x8};

/// The most digits that a number of 64 bits has.
const DIGITS_MAX: usize = 20;
/// Eight zeros, as text.
const ZEROS: u64 = 0x3030_3030_3030_3030;
const TEN_TO_16: u64 = 10_000_000_000_000_000;
const UUID_LEN: usize = 36;
const DASHES: [usize; 4] = [8, 13, 18, 23];

/// A decimal number below 2^64 without sign or leading zero. Nothing is put together in memory: a read that spans several
/// writes is not served before these have left the core, which is behind the lookup that waits.
#[inline(never)] // or its constants are made ready for every id: 9 to 18 instructions of a lookup
pub(super) fn number(id: &[u8]) -> Option<u64> {
    if id.is_empty() || id.len() > DIGITS_MAX || (id[0] == b'0' && id.len() > 1) {
        return None;
    }
    let (mut upper, mut past_upper) = (0, u8x16::ZERO);
    let last: u8x16 = match (id.first_chunk::<8>(), id.last_chunk::<8>(), id.last_chunk::<16>()) {
        (Some(first), _, Some(last)) => {
            let first = bytemuck::cast([ZEROS, behind_zeros(*first, id.len() - 16)]);
            (upper, past_upper) = decimal(first);
            u8x16::new(*last)
        }
        (Some(first), Some(last), _) => bytemuck::cast([behind_zeros(*first, id.len() - 8), u64::from_le_bytes(*last)]),
        _ => {
            let last = |text, byte: &u8| (text >> 8) | (u64::from(*byte) << 56);
            bytemuck::cast([ZEROS, id.iter().fold(ZEROS, last)])
        }
    };
    let (lower, past_lower) = decimal(last);
    let value = upper.checked_mul(TEN_TO_16)?.checked_add(lower)?;
    (past_upper | past_lower == u8x16::ZERO).then_some(value)
}

/// So many of the first of eight bytes, fewer than eight, and zeros before them.
fn behind_zeros(text: [u8; 8], taken: usize) -> u64 {
    // Two steps: none may be taken, and no word is shifted by all of its bits.
    (u64::from_le_bytes(text) << 1 << (63 - 8 * taken)) | (ZEROS >> (8 * taken))
}

/// Sixteen digits as a number: pairs, fours, eights; and how far each is past the last digit, which is not 0 where it is
/// none.
fn decimal(text: u8x16) -> (u64, u8x16) {
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

/// A UUID in lower case.
pub(super) fn uuid(id: &[u8]) -> Option<u128> {
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
    let [(upper, past_upper), (lower, past_lower)] = digits.map(hexadecimal);
    // Each byte is two digits, of which the first counts sixteenfold.
    let firsts = u8x16::narrow_i16x8(upper & i16x8::splat(0xff), lower & i16x8::splat(0xff));
    let (upper, lower): (u16x8, u16x8) = (bytemuck::cast(upper), bytemuck::cast(lower));
    let seconds = u8x16::narrow_i16x8(bytemuck::cast(upper >> 8), bytemuck::cast(lower >> 8));
    let firsts: u16x8 = bytemuck::cast(firsts);
    let firsts: u8x16 = bytemuck::cast(firsts << 4);
    let value = u128::from_be_bytes((firsts | seconds).to_array());
    (past_upper | past_lower == u8x16::ZERO).then_some(value)
}

/// What sixteen digits of a UUID are worth, each, two by two; and how far each is past the last digit or letter, which is
/// not 0 where it is none.
fn hexadecimal(text: [u8; 16]) -> (i16x8, u8x16) {
    let text: i8x16 = bytemuck::cast(text);
    // What is no ASCII is below, and no digit.
    let letters: u8x16 = bytemuck::cast(text.simd_gt(i8x16::splat(b'9' as i8)));
    let text: u8x16 = bytemuck::cast(text);
    let nth = text - u8x16::splat(b'0') - (letters & u8x16::splat(b'a' - b'0'));
    let past = nth.saturating_sub(u8x16::splat(9) - (letters & u8x16::splat(4)));
    (bytemuck::cast(nth + (letters & u8x16::splat(10))), past)
}

/// A UUID as it is written, in lower case.
pub(super) fn written_uuid(value: u128) -> String {
    let digits = format!("{value:032x}");
    let (a, b, c) = (&digits[..8], &digits[8..12], &digits[12..16]);
    format!("{a}-{b}-{c}-{}-{}", &digits[16..20], &digits[20..])
}

#[cfg(test)]
mod tests {
    use super::*;

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
            (written_uuid(value).as_bytes() == id).then_some(value)
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
}
