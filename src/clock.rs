//! The only reader of time. Two clocks: a monotonic one for everything that waits, expires or is measured, and the
//! wall clock for what people read. Everything else takes time as an argument.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use once_cell::sync::Lazy;

static START: Lazy<Instant> = Lazy::new(Instant::now);
static START_MILLIS: Lazy<u64> = Lazy::new(coarse_millis);

/// A moment on the monotonic clock.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since the first call in this process, as of the kernel's last tick: up to 10 ms late, at a quarter of the
/// price of [`now`]. Never 0, so that 0 can stand for "not set" in an atomic.
#[must_use]
pub fn tick() -> Tick {
    Tick(coarse_millis().saturating_sub(*START_MILLIS) + 1)
}

fn coarse_millis() -> u64 {
    // invariant: Linux has had this clock since 2.6.32
    let time = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE).expect("a coarse clock");
    // Neither is ever negative.
    time.tv_sec().unsigned_abs() * 1000 + time.tv_nsec().unsigned_abs() / 1_000_000
}

/// Time since the first call in this process.
#[must_use]
pub fn uptime() -> Duration {
    START.elapsed()
}

/// Microseconds since 1970-01-01T00:00:00Z on the wall clock; 0 if that clock stands before it.
#[must_use]
pub fn unix_micros() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
}

/// A monotonic moment in milliseconds that fits an atomic; at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(u64);

impl Tick {
    /// The moment `after` this one.
    #[must_use]
    pub fn after(self, after: Duration) -> Self {
        let millis = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// For storing in an atomic.
    #[must_use]
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// The same moment `n` milliseconds after the first tick, for tests and for reading an atomic back.
    #[must_use]
    pub const fn from_millis(n: u64) -> Self {
        Self(n)
    }
}

/// Milliseconds since 1970-01-01T00:00:00Z on the wall clock.
#[must_use]
pub fn unix_millis() -> u64 {
    unix_micros() / 1000
}

/// `2026-11-24T15:30:00Z` of Unix milliseconds; of what no calendar has, the number.
#[must_use]
pub fn rfc3339(unix_millis: u64) -> String {
    let stamp = i64::try_from(unix_millis)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    stamp.map_or_else(|| unix_millis.to_string(), |stamp| stamp.to_string())
}

/// The latest moment that can be told, 9999-12-30T22:00:00Z: the calendar's last day is not whole, so that it has an end at
/// every offset.
pub const LATEST_MILLIS: u64 = 253_402_207_200_000;

/// Unix milliseconds of `2026-11-24T15:30:00Z`, of any offset. Of `9999-12-31T23:59:59Z`, by which many mean for ever, and of
/// others as late, the latest that can be told.
///
/// # Errors
/// When the text is no moment with an offset, or before 1970.
pub fn parse_rfc3339(text: &str) -> Result<u64, String> {
    let stamp: Result<jiff::Timestamp, _> = text.parse();
    let millis = match stamp {
        Ok(stamp) => u64::try_from(stamp.as_millisecond()).ok(),
        Err(_) => is_past_telling(text).then_some(LATEST_MILLIS),
    };
    let told = millis.map(|millis| millis.min(LATEST_MILLIS));
    told.ok_or_else(|| format!("{text:?} is no time: write one such as 2026-11-24T15:30:00Z"))
}

/// Whether it is a moment, but of the end of the last year.
fn is_past_telling(text: &str) -> bool {
    let Ok(pieces) = jiff::fmt::temporal::Pieces::parse(text) else {
        return false;
    };
    let is_last = pieces.date() >= jiff::civil::date(9999, 12, 30);
    is_last && pieces.time().is_some() && pieces.offset().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_time_is_the_latest_that_can_be_told() {
        let latest = rfc3339(LATEST_MILLIS);
        assert_eq!(latest, "9999-12-30T22:00:00Z");
        assert_eq!(LATEST_MILLIS, jiff::Timestamp::MAX.as_second().unsigned_abs() * 1000);
        for text in [
            "9999-12-31T23:59:59Z",
            "9999-12-31T23:59:59.999+14:00",
            "9999-12-30T22:00:00.999Z",
            &latest,
        ] {
            assert_eq!(parse_rfc3339(text), Ok(LATEST_MILLIS), "{text}");
        }
        assert_eq!(parse_rfc3339("9999-12-30T21:59:59Z"), Ok(LATEST_MILLIS - 1_000));
        for bad in [
            "9999-12-31",
            "9999-12-31T23:59:59",
            "9999-12-32T00:00:00Z",
            "10000-01-01T00:00:00Z",
        ] {
            assert!(parse_rfc3339(bad).is_err(), "{bad}");
        }
    }
}
