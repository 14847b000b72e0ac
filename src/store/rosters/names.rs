//! Ids that are neither numbers nor UUIDs, in the order of their fingerprints, for listing them: blocks of so many ids,
//! each compressed by itself, the places of the blocks behind them, and the number of blocks at the end.

use std::io::{self, Write};

use xxhash_rust::xxh3::{Xxh3Default, xxh3_128};
use zstd::bulk::{Compressor, Decompressor};

use crate::rollout::{NamesMark, RosterBytes};

const IDS_IN_A_BLOCK: usize = 1024;
/// An id of 1,024 bytes, the longest, behind its length, so many times.
const BLOCK_BYTES_MAX: usize = IDS_IN_A_BLOCK * (1024 + LENGTH);
const LENGTH: usize = 2;
const LEVEL: i32 = 1;
/// Bytes of a block's place.
const PLACE: usize = 8;

/// Writes ids.
pub(super) struct NamesWriter<'a> {
    out: &'a mut dyn Write,
    pack: Compressor<'static>,
    digest: Box<Xxh3Default>,
    block: Vec<u8>,
    in_block: usize,
    /// Where each block begins.
    places: Vec<u64>,
    bytes: u64,
}

impl<'a> NamesWriter<'a> {
    /// Writes what `names` adds, which is nothing at all if it adds none.
    pub(super) fn write(
        out: &'a mut dyn Write,
        names: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<NamesMark> {
        let mut writer = Self {
            out,
            pack: Compressor::new(LEVEL)?,
            digest: Box::new(Xxh3Default::new()),
            block: Vec::new(),
            in_block: 0,
            places: Vec::new(),
            bytes: 0,
        };
        names(&mut writer)?;
        writer.finish()
    }

    pub(super) fn add(&mut self, name: &str) -> io::Result<()> {
        let length = u16::try_from(name.len()).map_err(io::Error::other)?;
        self.block.extend_from_slice(&length.to_le_bytes());
        self.block.extend_from_slice(name.as_bytes());
        self.in_block += 1;
        if self.in_block == IDS_IN_A_BLOCK {
            self.end_block()?;
        }
        Ok(())
    }

    fn end_block(&mut self) -> io::Result<()> {
        let packed = self.pack.compress(&self.block)?;
        self.places.push(self.bytes);
        self.put(&packed)?;
        self.block.clear();
        self.in_block = 0;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        self.digest.update(bytes);
        Ok(())
    }

    fn finish(mut self) -> io::Result<NamesMark> {
        if self.in_block > 0 {
            self.end_block()?;
        }
        if self.places.is_empty() {
            return Ok(NamesMark::default());
        }
        let mut tail: Vec<u8> = self.places.iter().flat_map(|place| place.to_le_bytes()).collect();
        tail.extend_from_slice(&(self.places.len() as u64).to_le_bytes());
        self.put(&tail)?;
        Ok(NamesMark {
            bytes: self.bytes,
            digest: self.digest.digest128(),
        })
    }
}

/// Reads ids.
pub(super) struct Names {
    bytes: RosterBytes,
    /// Where each block begins, and where the last one ends.
    places: Vec<usize>,
}

impl Names {
    /// No ids.
    pub(super) fn none() -> Self {
        Self {
            bytes: RosterBytes::new(),
            places: vec![0],
        }
    }

    /// Reads all bytes, and compares them with what was written.
    pub(super) fn open(bytes: RosterBytes, mark: NamesMark) -> io::Result<Self> {
        let all = &bytes[..];
        if all.len() as u64 != mark.bytes {
            return Err(wrong(&format!(
                "it has {} bytes, and should have {}",
                all.len(),
                mark.bytes
            )));
        }
        if xxh3_128(all) != mark.digest {
            return Err(wrong("its contents are not those that were written"));
        }
        let word = |at: usize| -> io::Result<usize> {
            let word = all.get(at..at + PLACE).and_then(|word| word.first_chunk::<PLACE>());
            let word = word.ok_or_else(|| wrong("its places are out of order"))?;
            usize::try_from(u64::from_le_bytes(*word)).map_err(io::Error::other)
        };
        let count_at = all.len().saturating_sub(PLACE);
        let end = word(count_at)?
            .checked_mul(PLACE)
            .and_then(|tail| count_at.checked_sub(tail));
        let end = end.ok_or_else(|| wrong("its places are out of order"))?;
        let mut places: Vec<usize> = (end..count_at).step_by(PLACE).map(word).collect::<Result<_, _>>()?;
        places.push(end);
        Ok(Self { bytes, places })
    }

    /// The ids from the `nth` on, in order. Ends with the first that cannot be read.
    pub(super) fn from(&self, nth: usize) -> impl Iterator<Item = io::Result<Box<str>>> + '_ {
        let first = nth / IDS_IN_A_BLOCK;
        let blocks = self.places.windows(2).skip(first);
        let ids = blocks.flat_map(|ends| match self.block(ends[0], ends[1]) {
            Ok(ids) => ids.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        });
        ids.skip(nth % IDS_IN_A_BLOCK)
    }

    fn block(&self, from: usize, to: usize) -> io::Result<Vec<Box<str>>> {
        let packed = self.bytes.get(from..to);
        let packed = packed.ok_or_else(|| wrong("its places are out of order"))?;
        let block = Decompressor::new()?.decompress(packed, BLOCK_BYTES_MAX)?;
        let (mut rest, mut ids) = (block.as_slice(), Vec::with_capacity(IDS_IN_A_BLOCK));
        while let Some((length, after)) = rest.split_first_chunk::<LENGTH>() {
            let length = usize::from(u16::from_le_bytes(*length));
            let (id, after) = after
                .split_at_checked(length)
                .ok_or_else(|| wrong("a block ends early"))?;
            let id = std::str::from_utf8(id).map_err(io::Error::other)?;
            ids.push(id.into());
            rest = after;
        }
        Ok(ids)
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
