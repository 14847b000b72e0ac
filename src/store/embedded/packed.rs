//! Facts as they are kept in a change: one JSON text a line, compressed. Pieces that are packed apart can be joined
//! (RFC 1952, 2.2: members), which is how the undoing of several facts is put in reverse without packing it again.

use std::io::{BufRead, BufReader, BufWriter, Write};

use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::GzEncoder;

use crate::rollout::{Fact, RosterDigest};

use super::fault::Fault;

/// Serialising writes a few bytes at a time; the compressor wants more.
const BUFFER_BYTES: usize = 16 * 1024;

/// Packs facts one by one.
pub(super) struct Packer {
    pack: BufWriter<GzEncoder<Vec<u8>>>,
    /// Those that the facts name.
    pub(super) rosters: Vec<RosterDigest>,
}

impl Packer {
    pub(super) fn new() -> Self {
        let pack = GzEncoder::new(Vec::new(), Compression::fast());
        Self {
            pack: BufWriter::with_capacity(BUFFER_BYTES, pack),
            rosters: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, fact: &Fact) -> Result<(), Fault> {
        self.rosters.extend(fact.roster().map(|(_, name)| name.digest));
        serde_json::to_writer(&mut self.pack, fact)?;
        self.pack.write_all(b"\n")?;
        Ok(())
    }

    pub(super) fn finish(self) -> Result<Vec<u8>, Fault> {
        let pack = self.pack.into_inner().map_err(std::io::IntoInnerError::into_error)?;
        Ok(pack.finish()?)
    }
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
