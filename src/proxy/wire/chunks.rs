//! The strict reading of chunked framing (RFC 9112, 7.1). Pingora takes what follows a chunk's size for whatever it
//! is, and no size at all for 0, so that another parser on the way could see the body end elsewhere.

/// Of one chunk's line or of all trailer fields; more is no message that anyone needs.
const LINE_BYTES_MAX: u32 = 4 * 1024;
/// Hexadecimal digits of a size: 2^60 bytes are never sent, and no sum of such sizes overflows.
const DIGITS_MAX: u32 = 15;

/// The body is not framed as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// Where in a body the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// In the size of a chunk, after so many digits.
    Size { digits: u32, value: u64 },
    /// In blanks between a size and its extension.
    Blank { value: u64 },
    /// In an extension; `named` once it has begun.
    Extension { value: u64, bytes: u32, named: bool },
    /// Behind the CR of a chunk's line.
    SizeEnd { value: u64 },
    /// In the bytes themselves.
    Bytes { left: u64 },
    /// Behind them.
    BytesEnd,
    /// Behind their CR.
    BytesLf,
    /// At the start of a trailer field, or of the empty line.
    Trailers { bytes: u32 },
    /// In the name of a trailer field.
    Name { bytes: u32 },
    /// In its value.
    Value { bytes: u32 },
    /// Behind the CR of a trailer field.
    ValueLf { bytes: u32 },
    /// Behind the CR of the empty line.
    LastLf,
    /// The body is over.
    Over,
}

/// Reads along, whatever the pieces in which a body comes.
#[derive(Debug)]
pub struct Chunks {
    at: At,
}

impl Chunks {
    /// At the start of a body.
    pub const fn new() -> Self {
        Self {
            at: At::Size { digits: 0, value: 0 },
        }
    }

    /// Looks at the next bytes: so many of them, from the first on, are the body's.
    ///
    /// # Errors
    /// At the first byte that no sound body has there; the rest is not looked at.
    pub fn read(&mut self, new: &[u8]) -> Result<usize, Broken> {
        let mut bytes = new;
        while let Some((first, rest)) = bytes.split_first() {
            if let At::Bytes { left } = self.at {
                let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                bytes = &bytes[here..];
                self.at = after_bytes(left - here as u64);
                continue;
            }
            if self.is_over() {
                break;
            }
            self.at = next(self.at, *first)?;
            bytes = rest;
        }
        Ok(new.len() - bytes.len())
    }

    /// Whether the body has come to its end.
    pub fn is_over(&self) -> bool {
        self.at == At::Over
    }
}

const fn after_bytes(left: u64) -> At {
    if left == 0 { At::BytesEnd } else { At::Bytes { left } }
}

fn next(at: At, byte: u8) -> Result<At, Broken> {
    match (at, byte) {
        (At::Size { digits, value }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < DIGITS_MAX => Ok(At::Size {
            digits: digits + 1,
            value: value << 4 | u64::from(digit(byte)),
        }),
        (At::Size { digits: 1.., value }, b'\r') => Ok(At::SizeEnd { value }),
        (At::Size { digits: 1.., value } | At::Blank { value }, b';') => Ok(At::Extension {
            value,
            bytes: 0,
            named: false,
        }),
        (At::Size { digits: 1.., value } | At::Blank { value }, b' ' | b'\t') => Ok(At::Blank { value }),
        (At::Extension { value, named: true, .. }, b'\r') => Ok(At::SizeEnd { value }),
        (At::Extension { value, bytes, named }, _) if is_text(byte) && bytes < LINE_BYTES_MAX => Ok(At::Extension {
            value,
            bytes: bytes + 1,
            named: named || is_token(byte),
        }),
        (At::SizeEnd { value: 0 }, b'\n') => Ok(At::Trailers { bytes: 0 }),
        (At::SizeEnd { value }, b'\n') => Ok(At::Bytes { left: value }),
        (At::BytesEnd, b'\r') => Ok(At::BytesLf),
        (At::BytesLf, b'\n') => Ok(At::Size { digits: 0, value: 0 }),
        (at, byte) => next_trailer(at, byte),
    }
}

fn next_trailer(at: At, byte: u8) -> Result<At, Broken> {
    match (at, byte) {
        (At::Trailers { .. }, b'\r') => Ok(At::LastLf),
        (At::LastLf, b'\n') => Ok(At::Over),
        (At::Trailers { bytes } | At::Name { bytes }, _) if is_token(byte) && bytes < LINE_BYTES_MAX => {
            Ok(At::Name { bytes: bytes + 1 })
        }
        (At::Name { bytes }, b':') => Ok(At::Value { bytes }),
        (At::Value { bytes }, b'\r') => Ok(At::ValueLf { bytes }),
        (At::Value { bytes }, _) if is_text(byte) && bytes < LINE_BYTES_MAX => Ok(At::Value { bytes: bytes + 1 }),
        (At::ValueLf { bytes }, b'\n') => Ok(At::Trailers { bytes }),
        _ => Err(Broken),
    }
}

const fn digit(byte: u8) -> u8 {
    match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => byte - b'A' + 10,
    }
}

const fn is_text(byte: u8) -> bool {
    byte >= 0x20 && byte != 0x7f || byte == b'\t'
}

/// `tchar` of RFC 9110, 5.6.2.
const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &[u8]) -> Result<bool, Broken> {
        let mut chunks = Chunks::new();
        chunks.read(text)?;
        Ok(chunks.is_over())
    }

    #[test]
    fn sound_bodies_pass_whatever_the_pieces() {
        for text in [
            &b"0\r\n\r\n"[..],
            b"5\r\nhello\r\n0\r\n\r\n",
            b"5;name=value\r\nhello\r\n0;last\r\n\r\n",
            b"5 ; a=\"b;c\"\r\nhello\r\n0\r\n\r\n",
            b"00a\r\n0123456789\r\n00\r\nX-Sum: 1\r\nY:\r\n\r\n",
            b"A\r\n\r\n\r\n\r\n\r\n\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
        ] {
            assert_eq!(whole(text), Ok(true), "{}", text.escape_ascii());
            let mut chunks = Chunks::new();
            let own = text.iter().try_fold(0, |own, byte| Ok(own + chunks.read(&[*byte])?));
            assert_eq!(own, Chunks::new().read(text), "{}", text.escape_ascii());
            assert!(chunks.is_over());
        }
        assert_eq!(whole(b"5\r\nhello\r\n"), Ok(false));
    }

    #[test]
    fn doubtful_framing_is_broken_at_its_byte() {
        for text in [
            &b"\r\nhello\r\n0\r\n\r\n"[..],
            b"2;\nxx\r\n0\r\n\r\n",
            b"2;\r\nxx\r\n0\r\n\r\n",
            b"2;a\x0b\r\nxx\r\n0\r\n\r\n",
            b"2\nxx\r\n0\r\n\r\n",
            b"2\r\nxx\n0\r\n\r\n",
            b"2\r\nxxx\r\n0\r\n\r\n",
            b"2\r\rxx\r\n0\r\n\r\n",
            b"2 \r\nxx\r\n0\r\n\r\n",
            b" 2\r\nxx\r\n0\r\n\r\n",
            b"+2\r\nxx\r\n0\r\n\r\n",
            b"-2\r\nxx\r\n0\r\n\r\n",
            b"0x2\r\nxx\r\n0\r\n\r\n",
            b"2_0\r\nxx",
            b"ffffffffffffffff\r\n",
            b"0000000000000000000002\r\nxx",
            b"0\r\n\n",
            b"0\n\n",
            b"0\r\nX : 1\r\n\r\n",
            b"0\r\n folded\r\n\r\n",
            b"0\r\nX: a\nY: b\r\n\r\n",
            b"0\r\n\rX",
        ] {
            assert_eq!(whole(text), Err(Broken), "{}", text.escape_ascii());
        }
        let long = [b"1;", &b"a".repeat(5_000)[..], b"\r\n"].concat();
        assert_eq!(whole(&long), Err(Broken));
        let trailers = [b"0\r\n", &b"A: b\r\n".repeat(2_000)[..]].concat();
        assert_eq!(whole(&trailers), Err(Broken));
    }
}
