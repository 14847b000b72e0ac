//! Facts as they are kept in a change: one JSON text a line, compressed where they are long. Pieces that are packed
//! apart can be joined (RFC 1952, 2.2: members), which is how the undoing of several facts is put in reverse without
//! packing it again.

use std::io::{self, BufRead, BufReader, BufWriter, Write};

use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;
use flate2::{Compression, Crc};

use crate::rollout::{Fact, RosterDigest};

use super::fault::Fault;

/// Serialising writes a few bytes at a time; the compressor wants more.
const BUFFER_BYTES: usize = 16 * 1024;
/// Less is kept as it is: a compressor clears 300 KiB before it begins, which is a tenth of the work of one user's move.
const SMALL_BYTES: usize = 4 * 1024;
/// RFC 1952, 2.3: deflate, no further fields, no time, system unknown.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// RFC 1951, 3.2.3 and 3.2.4: the last block, not compressed.
const LAST_STORED: u8 = 1;

/// Packs facts one by one.
pub(super) struct Packer {
    text: Text,
    /// Those that the facts name.
    pub(super) rosters: Vec<RosterDigest>,
}

impl Packer {
    pub(super) fn new() -> Self {
        Self {
            text: Text::Small(Vec::new()),
            rosters: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, fact: &Fact) -> Result<(), Fault> {
        self.rosters.extend(fact.roster().map(|(_, name)| name.digest));
        serde_json::to_writer(&mut self.text, fact)?;
        self.text.write_all(b"\n")?;
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, Fault> {
        match self.text {
            Text::Small(text) => Ok(uncompressed(&text)),
            Text::Large(pack) => {
                let pack = pack.into_inner().map_err(io::IntoInnerError::into_error)?;
                Ok(pack.finish()?)
            }
        }
    }
}

/// The lines of a packer.
enum Text {
    Small(Vec<u8>),
    Large(BufWriter<GzEncoder<Vec<u8>>>),
}

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Small(text) if text.len() + bytes.len() <= SMALL_BYTES => text.write(bytes),
            Self::Small(text) => {
                let pack = GzEncoder::new(Vec::new(), Compression::fast());
                let mut pack = BufWriter::with_capacity(BUFFER_BYTES, pack);
                pack.write_all(text)?;
                let written = pack.write(bytes)?;
                *self = Self::Large(pack);
                Ok(written)
            }
            Self::Large(pack) => pack.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Small(_) => Ok(()),
            Self::Large(pack) => pack.flush(),
        }
    }
}

/// A member of one block that is not compressed.
fn uncompressed(text: &[u8]) -> Vec<u8> {
    // invariant: a small text is far below the 64 KiB of a block
    let length = u16::try_from(text.len()).expect("a small text");
    let mut crc = Crc::new();
    crc.update(text);
    let mut member = HEADER.to_vec();
    member.push(LAST_STORED);
    member.extend(length.to_le_bytes());
    member.extend((!length).to_le_bytes());
    member.extend(text);
    member.extend(crc.sum().to_le_bytes());
    member.extend(u32::from(length).to_le_bytes());
    member
}

/// Packs all of them.
pub(super) fn pack(facts: &[Fact]) -> Result<Vec<u8>, Fault> {
    let mut packer = Packer::new();
    for fact in facts {
        packer.add(fact)?;
    }
    packer.finish()
}

/// The facts again, in their order.
pub(super) fn unpack(packed: &[u8], mut each: impl FnMut(Fact)) -> Result<(), Fault> {
    let mut text = BufReader::new(MultiGzDecoder::new(packed));
    let mut line = Vec::new();
    loop {
        line.clear();
        let read = text.read_until(b'\n', &mut line);
        if read.map_err(|error| Fault::Unreadable(error.to_string()))? == 0 {
            return Ok(());
        }
        each(serde_json::from_slice(&line)?);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::RolloutName;

    fn removed(users: usize) -> Fact {
        Fact::Users {
            rollout: RolloutName::parse("checkout").expect("a name"),
            replace: false,
            unset: (0..users).map(|user| format!("user-{user}").into()).collect(),
            set: Vec::new(),
        }
    }

    fn text(fact: &Fact) -> String {
        serde_json::to_string(fact).expect("JSON")
    }

    #[test]
    fn pieces_of_any_size_are_read_again_in_the_order_that_they_are_joined_in() {
        let pieces = [
            vec![removed(1)],
            vec![],
            vec![removed(1_000), removed(2)],
            (0..100).map(removed).collect(),
            vec![removed(3)],
        ];
        let packed: Vec<_> = pieces.iter().map(|piece| pack(piece).expect("packed")).collect();
        let mut read = Vec::new();
        unpack(&packed.concat(), |fact| read.push(fact)).expect("facts");
        assert_eq!(read, pieces.concat());
        assert!(
            packed[2].len() < text(&removed(1_000)).len() / 2,
            "a long one is compressed"
        );
        let short = text(&removed(1));
        assert!(
            packed[0].windows(short.len()).any(|part| part == short.as_bytes()),
            "a short one is not"
        );
    }

    #[test]
    fn a_damaged_piece_is_not_read_whether_it_is_compressed_or_not() {
        for users in [1, 1_000] {
            let mut packed = pack(&[removed(users)]).expect("packed");
            let middle = packed.len() / 2;
            packed[middle] ^= 1;
            assert!(unpack(&packed, |_| ()).is_err(), "{users} users");
        }
    }
}
