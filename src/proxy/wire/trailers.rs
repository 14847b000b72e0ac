//! HTTP/2 trailers with pseudo fields make a request malformed (RFC 9113, 8.1); the `h2` crate drops such fields and
//! takes the request. They are found here in the frames themselves. Names that a client has put into the dynamic
//! table are not looked up: that would take a second copy of the table, for fields that nobody reads.

use super::Fault;

const FRAME_HEAD: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// The largest frame that is taken without SETTINGS that say otherwise; larger trailers are judged by their start.
const BLOCK_BYTES_MAX: usize = 16 * 1024;
/// Entries 1 to 14 of the static table (RFC 7541, appendix A) are pseudo fields.
const PSEUDO_LAST: usize = 14;

/// Reads the frames of one client along, whatever the pieces in which they come.
#[derive(Debug, Default)]
pub struct Trailers {
    head: Vec<u8>,
    /// Bytes of the current frame still to come.
    left: usize,
    /// Whether they belong to trailers.
    kept: bool,
    /// Flags of the current frame.
    flags: u8,
    last_stream: u32,
    in_trailers: bool,
    block: Vec<u8>,
}

impl Trailers {
    /// Looks at the next bytes after the preface. Tells `seen` the kind of each frame that begins, its length, and
    /// whether it opens a stream.
    ///
    /// # Errors
    /// Once a pseudo field is found in trailers, or what `seen` says.
    pub fn read(
        &mut self,
        mut bytes: &[u8],
        mut seen: impl FnMut(u8, usize, bool) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        while !bytes.is_empty() {
            if self.left == 0 {
                let here = (FRAME_HEAD - self.head.len()).min(bytes.len());
                self.head.extend_from_slice(&bytes[..here]);
                bytes = &bytes[here..];
                if self.head.len() < FRAME_HEAD {
                    return Ok(());
                }
                let (kind, opens) = self.begin();
                seen(kind, self.left, opens)?;
            } else {
                let here = self.left.min(bytes.len());
                if self.kept && self.block.len() < BLOCK_BYTES_MAX {
                    self.block.extend_from_slice(&bytes[..here]);
                }
                self.left -= here;
                bytes = &bytes[here..];
            }
            if self.left == 0 && !self.finish() {
                return Err(Fault::Trailers);
            }
        }
        Ok(())
    }

    /// The head of a frame is there: its kind, and whether it opens a stream.
    fn begin(&mut self) -> (u8, bool) {
        let [a, b, c, kind, flags, d, e, f, g] = self.head[..] else {
            return (CONTINUATION, false);
        };
        self.head.clear();
        self.left = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
        self.flags = flags;
        let stream = u32::from_be_bytes([d & 0x7f, e, f, g]);
        self.kept = match kind {
            HEADERS => {
                self.in_trailers = stream <= self.last_stream;
                self.last_stream = self.last_stream.max(stream);
                self.block.clear();
                self.in_trailers
            }
            CONTINUATION => {
                // Padding and priority are in the first frame only.
                self.flags &= END_HEADERS;
                self.in_trailers
            }
            _ => false,
        };
        (kind, kind == HEADERS && !self.kept)
    }

    /// The frame is over.
    fn finish(&mut self) -> bool {
        if !self.kept {
            return true;
        }
        if self.flags & (PADDED | PRIORITY) != 0 {
            strip(&mut self.block, self.flags);
        }
        if self.flags & END_HEADERS == 0 {
            return true;
        }
        self.in_trailers = false;
        let sound = !has_pseudo(&self.block);
        self.block.clear();
        sound
    }
}

fn strip(block: &mut Vec<u8>, flags: u8) {
    let padded = usize::from(flags & PADDED != 0);
    let padding = if padded == 1 {
        block.first().copied().unwrap_or(0)
    } else {
        0
    };
    let front = padded + if flags & PRIORITY != 0 { 5 } else { 0 };
    block.truncate(block.len().saturating_sub(usize::from(padding)));
    block.drain(..front.min(block.len()));
}

/// Whether a block of fields names a pseudo field. What is not HPACK at all is for the decoder to refuse.
fn has_pseudo(mut block: &[u8]) -> bool {
    while let Some(first) = block.first().copied() {
        let (bits, literal) = match first {
            0x80.. => (7, false),
            0x40.. => (6, true),
            0x20.. => (5, false),
            _ => (4, true),
        };
        let Some((index, rest)) = integer(block, bits) else {
            return false;
        };
        let is_size = (0x20..0x40).contains(&first);
        if !is_size && (1..=PSEUDO_LAST).contains(&index) {
            return true;
        }
        block = rest;
        if literal {
            if index == 0 {
                if names_pseudo(block) {
                    return true;
                }
                block = after_string(block);
            }
            block = after_string(block);
        }
    }
    false
}

/// Whether a string begins with a colon, plain or in Huffman's code (1011100).
fn names_pseudo(string: &[u8]) -> bool {
    let huffman = string.first().is_some_and(|b| b & 0x80 != 0);
    let first = integer(string, 7).and_then(|(_, rest)| rest.first().copied());
    first.is_some_and(|b| if huffman { b >> 1 == 0b101_1100 } else { b == b':' })
}

fn after_string(string: &[u8]) -> &[u8] {
    integer(string, 7)
        .and_then(|(length, rest)| rest.get(length..))
        .unwrap_or_default()
}

/// An integer of RFC 7541, 5.1, and what follows it; `None` if it is not whole or larger than any length here.
fn integer(bytes: &[u8], bits: u32) -> Option<(usize, &[u8])> {
    let (first, mut rest) = bytes.split_first()?;
    let most = (1_usize << bits) - 1;
    let mut value = usize::from(*first) & most;
    if value < most {
        return Some((value, rest));
    }
    for shift in [0, 7, 14] {
        let (byte, more) = rest.split_first()?;
        rest = more;
        value += (usize::from(*byte) & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value, rest));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        let length = u8::try_from(payload.len()).expect("short");
        let mut frame = vec![0, 0, length, kind, flags, 0, 0, 0, stream];
        frame.extend_from_slice(payload);
        frame
    }

    fn sound(frames: &[Vec<u8>]) -> bool {
        let all = frames.concat();
        let any = |_, _, _| Ok(());
        let whole = Trailers::default().read(&all, any).is_ok();
        let mut pieces = Trailers::default();
        assert_eq!(all.iter().all(|byte| pieces.read(&[*byte], any).is_ok()), whole);
        whole
    }

    #[test]
    fn pseudo_fields_are_found_in_trailers_and_not_in_heads() {
        let start = frame(HEADERS, END_HEADERS, 1, &[0x83, 0x84, 0x41, 1, b'a']);
        let data = frame(0, 0, 1, b"hi");
        let trailers = |block: &[u8]| frame(HEADERS, END_HEADERS | 1, 1, block);
        let plain = b"\x40\x05x-sum\x01\x31";
        assert!(sound(&[start.clone(), data.clone(), trailers(plain)]));
        assert!(sound(&[
            start.clone(),
            frame(HEADERS, END_HEADERS | 1, 3, &[0x83, 0x84])
        ]));
        for block in [
            &b"\x84"[..],
            b"\x44\x09/smuggled",
            b"\x00\x05:path\x01/",
            b"\x40\x84\xb9\x58\xd3\x3f\x01/",
            b"\x10\x01:\x00",
            b"\x3f\xe1\x1f\x84",
        ] {
            assert!(!sound(&[start.clone(), data.clone(), trailers(block)]), "{block:?}");
            let behind = [&plain[..], block].concat();
            assert!(!sound(&[start.clone(), trailers(&behind)]), "{block:?}");
        }
    }

    #[test]
    fn padding_priority_and_continuations_are_no_hiding_place() {
        let start = frame(HEADERS, END_HEADERS, 1, &[0x83, 0x84]);
        let padded = frame(
            HEADERS,
            END_HEADERS | PADDED | PRIORITY,
            1,
            &[2, 0, 0, 0, 0, 1, 0x84, 0, 0],
        );
        assert!(!sound(&[start.clone(), padded]));
        let honest = frame(HEADERS, END_HEADERS | PADDED, 1, &[1, 0xbe, 0x84]);
        assert!(sound(&[start.clone(), honest]), "padding is no field");
        let first = frame(HEADERS, 0, 1, b"\x44");
        let second = frame(CONTINUATION, END_HEADERS, 1, b"\x01/");
        assert!(!sound(&[start, first, second]));
    }
}
