//! The keys of one kind inside a roster's bytes: buckets by a key's top bits, about a dozen keys each, in order. A bucket
//! begins with the low byte of each of its keys, which are compared sixteen at a time; what is left of each key follows, so
//! that a key that is not there costs one cache line beside the bucket's place, and one that is there mostly two.

use std::io::{self, Write};

use wide::u8x16;

use super::outline::Outline;
use crate::precedence::GivingWay;

/// A bucket has at least so many keys on average, and fewer than twice as many.
const KEYS_IN_A_BUCKET: u64 = 8;
/// A bucket's number has at most so many: there are no more keys than that, and a bucket has several.
const TOP_BITS_MAX: u32 = 32;
/// Low bytes that are compared at once. A roster ends with so many zeros, so that reading never passes its end.
pub(super) const AT_ONCE: usize = 16;
/// Bytes of a bucket's place.
const PLACE: usize = 4;
/// Places that are looked at before requests go first.
const PLACES_AT_ONCE: usize = 8 * 1024;
/// Keys that are counted before requests go first.
const KEYS_COUNTED_AT_ONCE: usize = 2 * 1024;

/// A key: 64 or 128 bits.
pub(super) trait Word: Copy + Ord {
    const BITS: u32;
    fn wide(self) -> u128;
    fn narrow(wide: u128) -> Self;
    /// The word whose lowest bytes are there; reads the bytes of a whole word.
    fn load(bytes: &[u8], at: usize) -> Self;
    /// The top bits, as a number.
    fn top(self, bits: u32) -> usize;
    /// All between the top bits and the low byte; [`Shelf::rest_mask`] says how much that is.
    fn rest(self, mask: u128) -> Self;
    /// The bits that the mask has.
    fn masked(self, mask: u128) -> Self;
    fn low(self) -> u8;
}

macro_rules! word {
    ($word:ty) => {
        impl Word for $word {
            const BITS: u32 = <$word>::BITS;
            fn wide(self) -> u128 {
                u128::from(self)
            }
            fn narrow(wide: u128) -> Self {
                wide as $word
            }
            fn load(bytes: &[u8], at: usize) -> Self {
                let mut word = [0; size_of::<$word>()];
                word.copy_from_slice(&bytes[at..at + size_of::<$word>()]);
                <$word>::from_le_bytes(word)
            }
            fn top(self, bits: u32) -> usize {
                // Two steps: there may be no top bits, and no word is shifted by all of its bits.
                let most = (self >> (Self::BITS - TOP_BITS_MAX)) as u64;
                (most >> (TOP_BITS_MAX - bits)) as usize
            }
            fn rest(self, mask: u128) -> Self {
                (self >> 8) & (mask as $word)
            }
            fn masked(self, mask: u128) -> Self {
                self & (mask as $word)
            }
            fn low(self) -> u8 {
                self as u8
            }
        }
    };
}
word!(u64);
word!(u128);

/// Where the keys of one kind are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shelf {
    pub(super) keys: u64,
    /// Top bits that are a bucket's number.
    bits: u32,
    /// Bytes of a key beside its bucket's number; at least one.
    width: u32,
    /// As many low bits as a key has beside its bucket's number and its low byte; kept, as each lookup wants it twice.
    rest_mask: u128,
    places_at: usize,
    keys_at: usize,
}

impl Shelf {
    /// For so many keys of so many bits, from a place of the bytes on.
    pub(super) fn new<W: Word>(keys: u64, at: usize) -> Self {
        let bits = (keys / KEYS_IN_A_BUCKET).checked_ilog2().unwrap_or(0);
        let width = (W::BITS - bits).div_ceil(8);
        Self {
            keys,
            bits,
            width,
            rest_mask: u128::MAX >> (u128::BITS - (W::BITS - bits - 8)),
            places_at: at,
            keys_at: at + PLACE * (Self::buckets_of(bits) + 1),
        }
    }

    fn buckets_of(bits: u32) -> usize {
        1 << bits
    }

    pub(super) fn buckets(&self) -> usize {
        Self::buckets_of(self.bits)
    }

    /// Where it ends; none where no memory reaches so far.
    pub(super) fn end(&self) -> Option<usize> {
        let keys = usize::try_from(self.keys).ok()?;
        keys.checked_mul(self.width as usize)?.checked_add(self.keys_at)
    }

    /// Whether the places of the buckets are those of so many keys. The bytes reach to [`Shelf::end`].
    pub(super) fn is_sound(&self, bytes: &[u8]) -> bool {
        let places = &bytes[self.places_at..self.keys_at];
        let mut before = 0;
        let mut giving_way = GivingWay::default();
        for place in places.chunks_exact(PLACE) {
            giving_way.after(PLACES_AT_ONCE);
            let place = u32::from_le_bytes([place[0], place[1], place[2], place[3]]);
            if place < before {
                return false;
            }
            before = place;
        }
        self.place(bytes, 0) == 0 && u64::from(before) == self.keys
    }

    /// The number of a bucket's first key.
    pub(super) fn place(&self, bytes: &[u8], number: usize) -> u32 {
        let at = self.places_at + PLACE * number;
        u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    }

    /// Where a bucket is whose first key has that number.
    pub(super) fn at(&self, first: usize) -> usize {
        self.keys_at + first * self.width as usize
    }

    fn bucket(&self, bytes: &[u8], number: usize) -> Bucket {
        // Two places at once: its own, and the next one's.
        let places = u64::load(bytes, self.places_at + PLACE * number);
        let (first, next) = ((places & 0xffff_ffff) as usize, (places >> 32) as usize);
        Bucket {
            first,
            keys: next - first,
            at: self.at(first),
        }
    }

    /// Whether the key is there.
    pub(super) fn holds<W: Word>(&self, bytes: &[u8], outline: &Outline, key: W) -> bool {
        let number = key.top(self.bits);
        outline.fetch(self, bytes, number);
        let bucket = self.bucket(bytes, number);
        let rest_at = bucket.at + bucket.keys;
        let (width, rest) = (self.width as usize - 1, key.rest(self.rest_mask));
        let mut from = 0;
        while from < bucket.keys {
            let mut alike = same(bytes, bucket.at + from, key.low());
            // What follows the last low byte is none.
            alike &= 1u32.unbounded_shl((bucket.keys - from) as u32).wrapping_sub(1);
            while alike != 0 {
                let nth = from + alike.trailing_zeros() as usize;
                let found = W::load(bytes, rest_at + nth * width).masked(self.rest_mask);
                if found == rest {
                    return true;
                }
                alike &= alike - 1;
            }
            from += AT_ONCE;
        }
        false
    }

    /// Whether there is a key with that upper half.
    pub(super) fn holds_upper(&self, bytes: &[u8], upper: u64) -> bool {
        let from = u128::from(upper) << 64;
        let next = self.keys::<u128>(bytes, Some(from)).next();
        next.is_some_and(|(_, key)| (key >> 64) as u64 == upper)
    }

    /// The keys from one on, in order, and the number of each.
    pub(super) fn keys<'a, W: Word + 'a>(
        &self,
        bytes: &'a [u8],
        from: Option<W>,
    ) -> impl Iterator<Item = (usize, W)> + 'a {
        let shelf = *self;
        let first = from.map_or(0, |key| key.top(shelf.bits));
        let all = (first..shelf.buckets()).flat_map(move |number| {
            let bucket = shelf.bucket(bytes, number);
            (0..bucket.keys).map(move |nth| (bucket.first + nth, shelf.key::<W>(bytes, number, &bucket, nth)))
        });
        all.skip_while(move |(_, key)| from.is_some_and(|from| *key < from))
    }

    fn key<W: Word>(&self, bytes: &[u8], number: usize, bucket: &Bucket, nth: usize) -> W {
        let width = self.width as usize - 1;
        let rest = W::load(bytes, bucket.at + bucket.keys + nth * width).masked(self.rest_mask);
        let below = (rest.wide() << 8) | u128::from(bytes[bucket.at + nth]);
        let top = if self.bits == 0 {
            0
        } else {
            (number as u128) << (W::BITS - self.bits)
        };
        W::narrow(top | below)
    }

    /// Writes the places of the keys, which `each` yields in order.
    pub(super) fn write_places<W: Word>(
        &self,
        out: &mut impl Write,
        each: impl FnOnce(&mut dyn FnMut(W)),
    ) -> io::Result<()> {
        let (mut done, mut bucket, mut seen) = (Ok(()), 0, 0u32);
        let mut put = |done: &mut io::Result<()>, place: u32| {
            if done.is_ok() {
                *done = out.write_all(&place.to_le_bytes());
            }
        };
        let mut giving_way = GivingWay::default();
        each(&mut |key| {
            giving_way.after(KEYS_COUNTED_AT_ONCE);
            while bucket <= key.top(self.bits) {
                put(&mut done, seen);
                bucket += 1;
            }
            seen += 1;
        });
        for _ in bucket..=self.buckets() {
            put(&mut done, seen);
        }
        debug_assert_eq!(u64::from(seen), self.keys, "as many keys as were said");
        done
    }

    /// Writes the keys, which `each` yields in order.
    pub(super) fn write_keys<W: Word>(
        &self,
        out: &mut impl Write,
        each: impl FnOnce(&mut dyn FnMut(W)),
    ) -> io::Result<()> {
        let (mut done, mut bucket, mut keys) = (Ok(()), 0, Vec::<W>::new());
        each(&mut |key| {
            let of = key.top(self.bits);
            if of != bucket {
                if done.is_ok() {
                    done = self.write_bucket(out, &keys);
                }
                keys.clear();
                bucket = of;
            }
            keys.push(key);
        });
        done?;
        self.write_bucket(out, &keys)
    }

    fn write_bucket<W: Word>(&self, out: &mut impl Write, keys: &[W]) -> io::Result<()> {
        for key in keys {
            out.write_all(&[key.low()])?;
        }
        let width = self.width as usize - 1;
        for key in keys {
            out.write_all(&key.rest(self.rest_mask).wide().to_le_bytes()[..width])?;
        }
        Ok(())
    }
}

struct Bucket {
    /// The number of its first key.
    first: usize,
    keys: usize,
    at: usize,
}

/// Which of the bytes there are that one, a bit each.
fn same(bytes: &[u8], at: usize, low: u8) -> u32 {
    let mut some = [0; AT_ONCE];
    some.copy_from_slice(&bytes[at..at + AT_ONCE]);
    u8x16::new(some).simd_eq(u8x16::splat(low)).to_bitmask()
}
