//! Where every eighth bucket of a shelf begins, small enough to stay in the near caches: who asks for a key has its
//! bucket fetched by it while the place of that is still being read. Keys are spread evenly, so that a bucket begins about
//! where its share of the keys between two that are known says. One wait for memory instead of two, one behind the other.

use super::shelf::Shelf;
use crate::precedence::GivingWay;
use crate::prefetch::prefetch;

/// So many bits of a bucket's number are left out. The keys of so many buckets differ from their even share by about five,
/// which is half a line.
const LEFT_OUT: u32 = 3;
/// A smaller shelf is in the near caches itself.
const KEYS_MIN: u64 = 64 * 1024;
const LINE: usize = 64;
/// Places that are looked at before requests go first.
const PLACES_AT_ONCE: usize = 2 * 1024;

/// Guesses where buckets begin.
#[derive(Debug, Default)]
pub(super) struct Outline(Box<[u32]>);

impl Outline {
    /// Of a shelf whose places are known to be sound.
    pub(super) fn of(shelf: &Shelf, bytes: &[u8]) -> Self {
        if shelf.keys < KEYS_MIN {
            return Self::default();
        }
        let mut giving_way = GivingWay::default();
        let numbers = (0..=shelf.buckets()).step_by(1 << LEFT_OUT);
        let place = |number| {
            giving_way.after(PLACES_AT_ONCE);
            shelf.place(bytes, number)
        };
        Self(numbers.map(place).collect())
    }

    /// Has the lines fetched in which that bucket is, most likely; one of UUIDs is two lines long.
    pub(super) fn fetch(&self, shelf: &Shelf, bytes: &[u8], number: usize) {
        let Some(at) = self.guess(shelf, number) else {
            return;
        };
        if let Some(lines) = bytes.get(at..=at + 2 * LINE) {
            prefetch(&lines[0]);
            prefetch(&lines[LINE]);
            prefetch(&lines[2 * LINE]);
        }
    }

    /// Where that bucket is, about; none where it need not be guessed.
    fn guess(&self, shelf: &Shelf, number: usize) -> Option<usize> {
        let known = number >> LEFT_OUT;
        // The later one first: if it is there, so is the other, and nobody looks again.
        let (to, from) = (*self.0.get(known + 1)? as usize, *self.0.get(known)? as usize);
        let share = number & ((1 << LEFT_OUT) - 1);
        Some(shelf.at(from + (((to - from) * share) >> LEFT_OUT)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shelf of keys that are spread as mixed ones are, and its places.
    fn spread(count: u64) -> (Shelf, Vec<u8>) {
        let mut keys: Vec<u64> = (0..count)
            .map(|n| xxhash_rust::xxh3::xxh3_64(&n.to_le_bytes()))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        let shelf = Shelf::new::<u64>(keys.len() as u64, 0);
        let mut places = Vec::new();
        let all = |each: &mut dyn FnMut(u64)| keys.iter().for_each(|key| each(*key));
        shelf.write_places(&mut places, all).expect("memory");
        (shelf, places)
    }

    #[test]
    fn nearly_every_bucket_begins_within_a_line_of_where_it_is_guessed() {
        let (shelf, places) = spread(300_000);
        let outline = Outline::of(&shelf, &places);
        let near = |number: &usize| {
            let guess = outline.guess(&shelf, *number).expect("large enough");
            guess.abs_diff(shelf.at(shelf.place(&places, *number) as usize)) < LINE
        };
        let (found, all) = ((0..shelf.buckets()).filter(near).count(), shelf.buckets());
        assert!(found * 100 > all * 95, "{found} of {all}");
    }

    #[test]
    fn a_small_shelf_has_none() {
        let (shelf, places) = spread(KEYS_MIN / 2);
        assert_eq!(Outline::of(&shelf, &places).guess(&shelf, 0), None);
    }
}
