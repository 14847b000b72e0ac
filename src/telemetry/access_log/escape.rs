//! Makes bytes from outside harmless inside a quoted field.

/// A longer field is cut, and `...` says so. It keeps a hostile request from filling the log: as much as nginx accepts
/// in one header line.
pub(super) const FIELD_BYTES_MAX: usize = 8 * 1024;

const CUT_MARK: &[u8] = b"...";

/// Appends `bytes` as the inside of a JSON string. What is not UTF-8 becomes U+FFFD; control characters are escaped.
pub(super) fn push_json(out: &mut Vec<u8>, bytes: &[u8]) {
    push_bounded(out, bytes, push_json_whole);
}

/// Appends `bytes` as nginx and Apache write a quoted field of the combined format: `"`, `\` and all that is not
/// printable ASCII become `\xHH`. With `bare` a space does too, for a field that stands without quotes.
pub(super) fn push_combined(out: &mut Vec<u8>, bytes: &[u8], bare: bool) {
    push_bounded(out, bytes, |out, bytes| {
        for &byte in bytes {
            let unsafe_byte = !(0x20..0x7f).contains(&byte) || byte == b'"' || byte == b'\\' || (bare && byte == b' ');
            if unsafe_byte {
                out.extend_from_slice(&[
                    b'\\',
                    b'x',
                    HEX_UPPER[usize::from(byte >> 4)],
                    HEX_UPPER[usize::from(byte & 15)],
                ]);
            } else {
                out.push(byte);
            }
        }
    });
}

/// Appends 16 lowercase hexadecimal digits.
pub(super) fn push_hex(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0; 16];
    for (place, digit) in digits.iter_mut().enumerate() {
        *digit = HEX_LOWER[(number >> (60 - 4 * place)) as usize & 15];
    }
    out.extend_from_slice(&digits);
}

const HEX_LOWER: &[u8; 16] = b"0123456789abcdef";
const HEX_UPPER: &[u8; 16] = b"0123456789ABCDEF";

fn push_bounded(out: &mut Vec<u8>, bytes: &[u8], push: impl FnOnce(&mut Vec<u8>, &[u8])) {
    if bytes.len() <= FIELD_BYTES_MAX {
        push(out, bytes);
    } else {
        push(out, &bytes[..FIELD_BYTES_MAX]);
        out.extend_from_slice(CUT_MARK);
    }
}

fn push_json_whole(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes;
    loop {
        let (plain, special) = rest.split_at(plain_prefix(rest));
        out.extend_from_slice(plain);
        let Some(&first) = special.first() else {
            return;
        };
        let used = if first.is_ascii() {
            push_json_ascii(out, first);
            1
        } else {
            push_json_beyond_ascii(out, special)
        };
        rest = &special[used..];
    }
}

/// How many bytes from the start stand in JSON as they are.
fn plain_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    // "Determine if a word has a byte less than n" of Bit Twiddling Hacks; the lowest byte found is always a true one.
    let below = |word: u64, limit: u64| word.wrapping_sub(ONES * limit) & !word;
    let equal = |word: u64, byte: u64| below(word ^ (ONES * byte), 1);

    let (words, tail) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let word = u64::from_le_bytes(*word);
        let special = (word | below(word, 0x20) | equal(word, 0x22) | equal(word, 0x5c) | equal(word, 0x7f)) & HIGH;
        if special != 0 {
            return index * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let plain_tail = tail
        .iter()
        .position(|&byte| !(0x20..0x7f).contains(&byte) || byte == b'"' || byte == b'\\');
    words.len() * 8 + plain_tail.unwrap_or(tail.len())
}

fn push_json_ascii(out: &mut Vec<u8>, byte: u8) {
    match byte {
        b'"' => out.extend_from_slice(b"\\\""),
        b'\\' => out.extend_from_slice(b"\\\\"),
        b'\n' => out.extend_from_slice(b"\\n"),
        b'\r' => out.extend_from_slice(b"\\r"),
        b'\t' => out.extend_from_slice(b"\\t"),
        other => push_unicode_escape(out, u16::from(other)),
    }
}

/// Appends the run of bytes above ASCII that `bytes` begins with, and returns its length.
fn push_json_beyond_ascii(out: &mut Vec<u8>, bytes: &[u8]) -> usize {
    let length = bytes.iter().position(u8::is_ascii).unwrap_or(bytes.len());
    for chunk in bytes[..length].utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                // C1 controls drive terminals; the two separators end lines for some readers.
                '\u{80}'..='\u{9f}' | '\u{2028}' | '\u{2029}' => push_unicode_escape(out, character as u32 as u16),
                other => out.extend_from_slice(other.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !chunk.invalid().is_empty() {
            push_unicode_escape(out, 0xfffd);
        }
    }
    length
}

fn push_unicode_escape(out: &mut Vec<u8>, unit: u16) {
    out.extend_from_slice(b"\\u");
    for shift in [12, 8, 4, 0] {
        out.push(HEX_LOWER[usize::from(unit >> shift) & 15]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(bytes: &[u8]) -> String {
        let mut out = vec![b'"'];
        push_json(&mut out, bytes);
        out.push(b'"');
        String::from_utf8(out).expect("JSON text is UTF-8")
    }

    fn combined(bytes: &[u8], bare: bool) -> String {
        let mut out = Vec::new();
        push_combined(&mut out, bytes, bare);
        String::from_utf8(out).expect("the combined format is ASCII")
    }

    #[test]
    fn json_reads_back_as_the_lossy_text() {
        for length in 0..20 {
            for byte in 0..=255 {
                for place in 0..length {
                    let mut bytes = b"abcdefghijklmnopqrst"[..length].to_vec();
                    bytes[place] = byte;
                    let read: String = serde_json::from_str(&json(&bytes)).expect("valid JSON");
                    assert_eq!(read, String::from_utf8_lossy(&bytes));
                }
            }
        }
    }

    #[test]
    fn text_beyond_ascii_stays_readable() {
        assert_eq!(json("zażółć/日本/🦀".as_bytes()), "\"zażółć/日本/🦀\"");
        assert_eq!(json(b"a\xffb\xe2\x82"), "\"a\\ufffdb\\ufffd\"");
        assert_eq!(json("\u{9b}31m\u{2028}".as_bytes()), "\"\\u009b31m\\u2028\"");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(json(b"\"\\\n\r\t\0\x1b\x7f"), r#""\"\\\n\r\t\u0000\u001b\u007f""#);
    }

    #[test]
    fn combined_quotes_as_nginx_does() {
        assert_eq!(
            combined(b"a \"b\" \\ \n\x7f\xc3\xa9~", false),
            r"a \x22b\x22 \x5C \x0A\x7F\xC3\xA9~"
        );
        assert_eq!(combined(b"two words", true), r"two\x20words");
    }

    #[test]
    fn a_field_that_is_too_long_is_cut_and_says_so() {
        let long = vec![b'a'; FIELD_BYTES_MAX + 1];
        assert!(json(&long).ends_with("aaa...\""));
        assert_eq!(json(&long).len(), FIELD_BYTES_MAX + CUT_MARK.len() + 2);
        assert_eq!(combined(&long, false).len(), FIELD_BYTES_MAX + CUT_MARK.len());
        assert!(!json(&long[1..]).contains('.'));
    }

    #[test]
    fn hexadecimal_has_sixteen_digits() {
        let mut out = Vec::new();
        push_hex(&mut out, 0x0123_4567_89ab_cdef);
        assert_eq!(out, b"0123456789abcdef");
    }
}
