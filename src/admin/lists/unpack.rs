//! Lists that come compressed: gzip and Zstandard, by what the request says or by how they begin. No list of users begins
//! so: neither is UTF-8.

use std::io::{self, Write};

use axum::http::{HeaderMap, header};
use flate2::write::MultiGzDecoder;
use zstd::stream::raw::{Decoder, InBuffer, Operation, OutBuffer};

use super::{Reading, Sink};
use crate::admin::refusal::{Kind, Refusal};

const GZIP: [u8; 2] = [0x1f, 0x8b];
const ZSTD: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
/// Unpacked bytes that are read at once.
const UNPACKED_AT_ONCE: usize = 32 * 1024;

/// How a list is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// As its first bytes say.
    Untold,
    Gzip,
    Zstd,
}

impl Packing {
    /// As the request says.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let mut values = headers.get_all(header::CONTENT_ENCODING).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return if headers.contains_key(header::CONTENT_ENCODING) {
                Err(Refusal::at(
                    Kind::Malformed,
                    "Content-Encoding",
                    "is there twice: pack the list once",
                ))
            } else {
                Ok(Self::Untold)
            };
        };
        match value.to_str().unwrap_or_default().trim().to_ascii_lowercase().as_str() {
            "identity" | "" => Ok(Self::Untold),
            "gzip" | "x-gzip" => Ok(Self::Gzip),
            "zstd" => Ok(Self::Zstd),
            other => {
                let text = format!("{other:?} is none of gzip, zstd and identity");
                Err(Refusal::at(Kind::MediaType, "Content-Encoding", text))
            }
        }
    }
}

/// A list that is being unpacked and read.
pub(super) struct Unpacking<S: Sink>(Stage<S>);

enum Stage<S: Sink> {
    /// It has not been seen yet how it begins.
    Begun(Vec<u8>, Feeding<S>),
    Plain(Feeding<S>),
    Gzip(Box<MultiGzDecoder<Feeding<S>>>),
    Zstd(Box<Frames<S>>),
    /// It cannot be read on.
    Over,
}

struct Frames<S> {
    decoder: Decoder<'static>,
    feeding: Feeding<S>,
    unpacked: Vec<u8>,
    /// Whether the last frame is whole.
    whole: bool,
}

/// Where unpacked bytes go.
struct Feeding<S> {
    reading: Reading<S>,
    bytes: u64,
    /// Why no more are taken.
    refused: Option<Refusal>,
}

impl<S: Sink> Unpacking<S> {
    pub(super) fn new(packing: Packing, reading: Reading<S>) -> Result<Self, Refusal> {
        let feeding = Feeding {
            reading,
            bytes: 0,
            refused: None,
        };
        Ok(Self(match packing {
            Packing::Untold => Stage::Begun(Vec::new(), feeding),
            Packing::Gzip => gzip(feeding),
            Packing::Zstd => zstd(feeding)?,
        }))
    }

    /// Takes the next piece.
    pub(super) fn feed(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        match &mut self.0 {
            Stage::Plain(feeding) => feeding.feed(piece),
            Stage::Gzip(decoder) => {
                let done = decoder.write_all(piece);
                done.map_err(|error| decoder.get_mut().because("gzip", &error))
            }
            Stage::Zstd(frames) => frames.feed(piece),
            Stage::Over => Ok(()),
            Stage::Begun(begin, _) => {
                begin.extend_from_slice(piece);
                if begin.len() < ZSTD.len() {
                    return Ok(());
                }
                self.begin()
            }
        }
    }

    fn begin(&mut self) -> Result<(), Refusal> {
        let Stage::Begun(begin, feeding) = std::mem::replace(&mut self.0, Stage::Over) else {
            return Ok(());
        };
        self.0 = if begin.starts_with(&GZIP) {
            gzip(feeding)
        } else if begin.starts_with(&ZSTD) {
            zstd(feeding)?
        } else {
            Stage::Plain(feeding)
        };
        self.feed(&begin)
    }

    /// The list is all there.
    pub(super) fn end(mut self) -> Result<S, Refusal> {
        self.begin_if_short()?;
        let feeding = match self.0 {
            Stage::Plain(feeding) => feeding,
            Stage::Gzip(mut decoder) => {
                let done = decoder.try_finish();
                done.map_err(|error| decoder.get_mut().because("gzip", &error))?;
                let done = decoder.finish();
                done.map_err(|error| Refusal::new(Kind::Malformed, format!("the list is no gzip: {error}")))?
            }
            Stage::Zstd(frames) if !frames.whole => {
                return Err(Refusal::new(Kind::Malformed, "the list is no zstd: it ends early"));
            }
            Stage::Zstd(frames) => frames.feeding,
            Stage::Begun(..) | Stage::Over => {
                return Err(Refusal::new(Kind::Malformed, "the list cannot be read"));
            }
        };
        feeding.reading.end()
    }

    fn begin_if_short(&mut self) -> Result<(), Refusal> {
        match self.0 {
            Stage::Begun(..) => self.begin(),
            Stage::Plain(_) | Stage::Gzip(_) | Stage::Zstd(_) | Stage::Over => Ok(()),
        }
    }
}

fn gzip<S: Sink>(feeding: Feeding<S>) -> Stage<S> {
    Stage::Gzip(Box::new(MultiGzDecoder::new(feeding)))
}

fn zstd<S: Sink>(feeding: Feeding<S>) -> Result<Stage<S>, Refusal> {
    let decoder = Decoder::new().map_err(|error| Refusal::new(Kind::Broken, error.to_string()))?;
    Ok(Stage::Zstd(Box::new(Frames {
        decoder,
        feeding,
        unpacked: vec![0; UNPACKED_AT_ONCE],
        whole: false,
    })))
}

impl<S: Sink> Frames<S> {
    fn feed(&mut self, piece: &[u8]) -> Result<(), Refusal> {
        let mut packed = InBuffer::around(piece);
        loop {
            let mut unpacked = OutBuffer::around(self.unpacked.as_mut_slice());
            let before = packed.pos();
            let left = self.decoder.run(&mut packed, &mut unpacked);
            let left = left.map_err(|error| self.feeding.because("zstd", &error))?;
            let filled = unpacked.pos();
            self.whole = left == 0;
            self.feeding.feed(&self.unpacked[..filled])?;
            let stuck = packed.pos() == before && filled == 0;
            if stuck || (packed.pos() == piece.len() && filled < UNPACKED_AT_ONCE) {
                return Ok(());
            }
        }
    }
}

impl<S: Sink> Feeding<S> {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.bytes += bytes.len() as u64;
        if self.bytes > S::BYTES_MAX {
            let text = format!("the list is larger than {} bytes", S::BYTES_MAX);
            return Err(Refusal::new(Kind::TooLarge, text));
        }
        self.reading.feed(bytes)
    }

    /// Why unpacking ended: what was refused, or what is wrong with the packing.
    fn because(&mut self, packing: &str, error: &io::Error) -> Refusal {
        let wrong = || Refusal::new(Kind::Malformed, format!("the list is no {packing}: {error}"));
        self.refused.take().unwrap_or_else(wrong)
    }
}

impl<S: Sink> Write for Feeding<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.feed(bytes) {
            Ok(()) => Ok(bytes.len()),
            Err(refusal) => {
                self.refused = Some(refusal);
                Err(io::Error::other("refused"))
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::lists::Format;
    use crate::rollout::{Gathered, RosterKey};

    fn reading() -> Reading<Gathered> {
        Reading::of_members(Format::Plain, RosterKey([1, 2]), 1)
    }

    fn unpacked(packing: Packing, packed: &[u8], at_once: usize) -> Result<u64, Refusal> {
        let mut unpacking = Unpacking::new(packing, reading())?;
        packed.chunks(at_once).try_for_each(|piece| unpacking.feed(piece))?;
        Ok(unpacking.end()?.sorted().expect("few").users())
    }

    fn gzipped(text: &[u8]) -> Vec<u8> {
        let mut pack = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        pack.write_all(text).expect("memory");
        pack.finish().expect("memory")
    }

    fn zstandard(text: &[u8]) -> Vec<u8> {
        zstd::bulk::compress(text, 1).expect("memory")
    }

    #[test]
    fn a_list_is_the_same_packed_and_plain_in_pieces_of_any_size() {
        let text: String = (0..50_000).map(|n| format!("{n}\n")).collect();
        let (front, back) = text.as_bytes().split_at(text.len() / 2);
        for (packing, packed) in [
            (Packing::Untold, text.clone().into_bytes()),
            (Packing::Gzip, gzipped(text.as_bytes())),
            (Packing::Zstd, zstandard(text.as_bytes())),
            // As `cat` joins them.
            (Packing::Gzip, [gzipped(front), gzipped(back)].concat()),
            (Packing::Zstd, [zstandard(front), zstandard(back)].concat()),
        ] {
            for at_once in [1, 7, 1 << 14, packed.len()] {
                for packing in [packing, Packing::Untold] {
                    assert_eq!(
                        unpacked(packing, &packed, at_once).expect("read"),
                        50_000,
                        "{packing:?}"
                    );
                }
            }
        }
        for short in ["", "1", "1\n2"] {
            let users = short.lines().count() as u64;
            assert_eq!(unpacked(Packing::Untold, short.as_bytes(), 1).expect("read"), users);
        }
    }

    #[test]
    fn what_is_cut_short_or_no_packing_is_refused() {
        let text: String = (0..9_000).map(|n| format!("user {n}\n")).collect();
        for packed in [gzipped(text.as_bytes()), zstandard(text.as_bytes())] {
            for cut in [1, 5, packed.len() / 2] {
                let told = unpacked(Packing::Untold, &packed[..packed.len() - cut], 1000);
                assert!(told.is_err(), "{cut} bytes are missing");
            }
        }
        for packing in [Packing::Gzip, Packing::Zstd] {
            let told = unpacked(packing, text.as_bytes(), 1000).expect_err("plain");
            assert!(told.problem().detail.starts_with("the list is no "), "{told:?}");
        }
    }

    #[test]
    fn a_bad_line_is_told_with_its_number_however_it_comes() {
        let text = [b"1\n2\n".as_slice(), &[0xff], b"\n4\n"].concat();
        for packed in [text.clone(), gzipped(&text), zstandard(&text)] {
            let told = unpacked(Packing::Untold, &packed, 3).expect_err("no UTF-8");
            assert_eq!(told.problem().problems[0].key, "line 3");
        }
    }
}
