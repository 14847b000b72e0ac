//! Users seen lately, as `plan` needs them: hashes and decisions in a fixed table, never an id. A request writes three
//! words without a lock; of two users in one place the later one is kept, so the table is a rolling sample.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::clock::Tick;
use crate::prefetch::prefetch;
use crate::rollout::{Bucket, Decision, KeyPart, Reason, ReleaseIdx, Seen, SeenUser, UserHash};

/// Places: enough for a sample of 100,000 users, and 4 MiB of a rollout that has them.
const PLACES: usize = 1 << 17;
/// Places that are made together, when the first of them is needed: a rollout with few users, or none, takes little.
const TOGETHER: usize = 128;

/// What counts as lately.
const LATELY: Duration = Duration::from_secs(3600);

/// Places that are made when the first of them is needed.
type Part = OnceLock<Box<[Place; TOGETHER]>>;

/// A rolling sample.
pub struct SeenUsers {
    places: OnceLock<Box<[Part]>>,
}

/// The hash, the part of the key that segments know, and what was decided: minute (30 bits), the key's kind (2), release
/// (8), reason (3), lists apply (1), bucket (20).
/// None of them lies in two cache lines.
#[derive(Default)]
#[repr(align(32))]
struct Place {
    hash: AtomicU64,
    part: AtomicU64,
    decided: AtomicU64,
}

impl SeenUsers {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            places: OnceLock::new(),
        })
    }

    /// Notes a decision for a user or visitor. Two threads in one place may mix two users; a sample bears that.
    pub fn note(&self, id: &[u8], user: bool, decision: &Decision, now: Tick) {
        let (Some(bucket), Ok(release)) = (decision.bucket, u8::try_from(decision.release.0)) else {
            return;
        };
        let SeenUser { hash, part } = SeenUser::of(id);
        let (kind, part) = match part {
            KeyPart::Text(_) => (0, 0),
            KeyPart::Number(part) => (1, part),
            KeyPart::Uuid(part) => (2, part),
        };
        let place = self.place(nth(hash));
        let decided = (minute(now) << 34)
            | (kind << 32)
            | (u64::from(release) << 24)
            | ((decision.reason.index() as u64) << 21)
            | (u64::from(user) << 20)
            | u64::from(bucket.get());
        place.hash.store(hash.get(), Ordering::Relaxed);
        place.part.store(part, Ordering::Relaxed);
        place.decided.store(decided, Ordering::Relaxed);
    }

    /// A decision for that user or visitor will be noted soon.
    pub fn fetch_for(&self, id: &[u8]) {
        let nth = nth(UserHash::of(id));
        let part = self.places.get().and_then(|parts| parts[nth / TOGETHER].get());
        if let Some(part) = part {
            prefetch(&part[nth % TOGETHER]);
        }
    }

    fn place(&self, nth: usize) -> &Place {
        let parts = self.places.get_or_init(|| {
            let parts = std::iter::repeat_with(OnceLock::new).take(PLACES / TOGETHER);
            parts.collect()
        });
        let part = parts[nth / TOGETHER].get_or_init(|| Box::new(std::array::from_fn(|_| Place::default())));
        &part[nth % TOGETHER]
    }

    /// The users of the last hour.
    #[must_use]
    pub fn lately(&self, now: Tick) -> Vec<Seen> {
        let first = minute(now).saturating_sub(LATELY.as_secs() / 60);
        let parts = self.places.get().into_iter().flatten().filter_map(OnceLock::get);
        let places = parts.flat_map(|part| part.iter());
        places.filter_map(|place| place.read(first)).collect()
    }
}

impl Place {
    fn read(&self, first_minute: u64) -> Option<Seen> {
        let decided = self.decided.load(Ordering::Relaxed);
        if decided == 0 || decided >> 34 < first_minute {
            return None;
        }
        let user = (decided >> 20) & 1 == 1;
        let hash = UserHash::from_number(self.hash.load(Ordering::Relaxed));
        let part = self.part.load(Ordering::Relaxed);
        let part = match (decided >> 32) & 3 {
            1 => KeyPart::Number(part),
            2 => KeyPart::Uuid(part),
            _ => KeyPart::Text(hash),
        };
        Some(Seen {
            user: user.then_some(SeenUser { hash, part }),
            bucket: Bucket::new((decided & 0xf_ffff) as u32)?,
            release: ReleaseIdx(((decided >> 24) & 0xff) as u16),
            reason: *Reason::ALL.get(((decided >> 21) & 7) as usize)?,
        })
    }
}

/// The place of a user. Below `PLACES`, which fits.
fn nth(hash: UserHash) -> usize {
    (hash.get() % PLACES as u64) as usize
}

/// At least 1, so that a place that was written is not 0.
fn minute(now: Tick) -> u64 {
    (now.millis() / 60_000 + 1) & 0x3fff_ffff
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(bucket: u32) -> Decision {
        Decision {
            release: ReleaseIdx(1),
            bucket: Bucket::new(bucket),
            reason: Reason::Split,
        }
    }

    #[test]
    fn what_was_noted_within_the_hour_is_found_once() {
        let seen = SeenUsers::new();
        let start = Tick::from_millis(5);
        seen.note(b"42", true, &decision(999_999), start);
        seen.note(b"42", true, &decision(999_999), start);
        seen.note(b"visitor", false, &decision(0), start);
        let found = seen.lately(start.after(Duration::from_secs(3600)));
        assert_eq!(found.len(), 2);
        let user = found.iter().find(|s| s.user.is_some()).expect("the user");
        assert_eq!(user.user, Some(SeenUser::of(b"42")));
        assert_eq!(
            (user.bucket.get(), user.release, user.reason),
            (999_999, ReleaseIdx(1), Reason::Split)
        );
        assert!(seen.lately(start.after(Duration::from_secs(3720))).is_empty());
    }

    #[test]
    fn decisions_without_a_bucket_are_not_noted() {
        let seen = SeenUsers::new();
        let killed = Decision {
            bucket: None,
            ..decision(0)
        };
        seen.note(b"42", true, &killed, Tick::from_millis(1));
        assert!(seen.lately(Tick::from_millis(1)).is_empty());
    }
}
