//! Writes a roster, of whatever yields its keys in order.

use std::io::{self, Write};

use xxhash_rust::xxh3::Xxh3Default;

use super::digest::{NamesMark, RosterDigest, RosterName};
use super::key::RosterKey;
use super::roster::{Head, KEYS_MAX, TAIL};
use crate::precedence;

/// What a roster is written from: each kind's keys in order, each once. Each is asked for twice, and need not be kept after
/// the second time.
pub trait Draft {
    /// How many numbers, UUIDs and other ids.
    fn counts(&self) -> [u64; 3];
    /// The key that the fingerprints were made with.
    fn key(&self) -> RosterKey;
    /// The mixed numbers.
    fn numbers(&self, each: &mut dyn FnMut(u64));
    /// The mixed UUIDs.
    fn uuids(&self, each: &mut dyn FnMut(u128));
    /// The fingerprints of the others.
    fn texts(&self, each: &mut dyn FnMut(u128));
    /// The mixed numbers, for the last time.
    fn drain_numbers(&mut self, each: &mut dyn FnMut(u64)) {
        self.numbers(each);
    }
    /// The mixed UUIDs, for the last time.
    fn drain_uuids(&mut self, each: &mut dyn FnMut(u128)) {
        self.uuids(each);
    }
}

/// Writes a roster's bytes and yields its name.
///
/// # Errors
/// When they cannot be written, or there are more than 2^32 ids of a kind.
pub fn write_roster(draft: &mut impl Draft, names: NamesMark, out: &mut impl Write) -> io::Result<RosterName> {
    let counts = draft.counts();
    if counts.iter().any(|count| *count > KEYS_MAX) {
        return Err(io::Error::other("there are more than 4,294,967,295 users of a kind"));
    }
    let head = Head::new(draft.key(), counts, names).ok_or_else(|| io::Error::other("it is too large"))?;
    let mut out = Digested {
        out,
        digest: Box::new(Xxh3Default::new()),
        waiting: Vec::with_capacity(Digested::<Vec<u8>>::AT_ONCE),
    };
    out.write_all(&head.bytes())?;
    head.numbers.write_places(&mut out, |each| draft.numbers(each))?;
    head.numbers.write_keys(&mut out, |each| draft.drain_numbers(each))?;
    head.uuids.write_places(&mut out, |each| draft.uuids(each))?;
    head.uuids.write_keys(&mut out, |each| draft.drain_uuids(each))?;
    head.texts.write_places(&mut out, |each| draft.texts(each))?;
    head.texts.write_keys(&mut out, |each| draft.texts(each))?;
    out.write_all(&[0; TAIL])?;
    Ok(RosterName {
        digest: RosterDigest(out.finish()?),
        users: counts.iter().sum(),
    })
}

/// Gathers small writes, and makes the digest of what is written.
struct Digested<'a, T> {
    out: &'a mut T,
    digest: Box<Xxh3Default>,
    waiting: Vec<u8>,
}

impl<T: Write> Digested<'_, T> {
    /// Gathered, digested and written in about 15 µs, after which requests go first.
    const AT_ONCE: usize = 8 * 1024;

    fn finish(mut self) -> io::Result<u128> {
        self.flush()?;
        Ok(self.digest.digest128())
    }
}

impl<T: Write> Write for Digested<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(bytes);
        if self.waiting.len() >= Self::AT_ONCE {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.digest.update(&self.waiting);
        self.out.write_all(&self.waiting)?;
        self.waiting.clear();
        precedence::give_way();
        Ok(())
    }
}
