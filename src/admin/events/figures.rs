//! The figures of an interval: two readings of the counters, subtracted. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::admin::wire::{Figures, ReleaseFigures};
use crate::telemetry::metrics::ReleaseTotals;

type Totals = BTreeMap<(String, String), ReleaseTotals>;

/// What was counted from `before` to `after`.
pub(super) fn between(before: &Totals, after: &Totals, interval: Duration, revision: u64) -> Figures {
    let mut figures = Figures {
        revision,
        interval_ms: u64::try_from(interval.as_millis()).unwrap_or(u64::MAX),
        rollouts: BTreeMap::new(),
    };
    let none = ReleaseTotals::default();
    for ((rollout, release), now) in after {
        let then = before.get(&(rollout.clone(), release.clone())).unwrap_or(&none);
        let releases = figures.rollouts.entry(rollout.clone()).or_default();
        releases.insert(release.clone(), of(then, now));
    }
    figures
}

fn of(then: &ReleaseTotals, now: &ReleaseTotals) -> ReleaseFigures {
    // A rollout that was deleted and created again counts from nothing.
    let durations = now.durations.saturating_sub(then.durations);
    let mean = (durations > 0).then(|| ((now.seconds - then.seconds) * 1e3 / durations as f64).max(0.0));
    ReleaseFigures {
        requests: now.requests.saturating_sub(then.requests),
        errors: now.errors.saturating_sub(then.errors),
        mean_ms: mean,
        p50_ms: quantile(then, now, durations, 50),
        p99_ms: quantile(then, now, durations, 99),
    }
}

/// The bound that at least so many percent of the durations were below; none above the last bound.
fn quantile(then: &ReleaseTotals, now: &ReleaseTotals, durations: u64, percent: u64) -> Option<f64> {
    if durations == 0 {
        return None;
    }
    let wanted = (durations * percent).div_ceil(100);
    let counted = now.buckets.iter().enumerate().map(|(place, (bound, count))| {
        let before = then.buckets.get(place).map_or(0, |(_, count)| *count);
        (bound, count.saturating_sub(before))
    });
    let mut enough = counted.filter(|(_, count)| *count >= wanted);
    enough.next().map(|(bound, _)| bound * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(requests: u64, errors: u64, seconds: f64, counts: [u64; 2]) -> Totals {
        let total = ReleaseTotals {
            requests,
            errors,
            seconds,
            buckets: vec![(0.001, counts[0]), (0.01, counts[1])],
            durations: requests,
        };
        BTreeMap::from([(("r".to_owned(), "canary".to_owned()), total)])
    }

    #[test]
    fn an_interval_is_the_difference_of_two_readings() {
        let (before, after) = (totals(10, 1, 1.0, [5, 10]), totals(110, 3, 1.5, [55, 110]));
        let figures = between(&before, &after, Duration::from_secs(1), 7);
        let canary = figures.rollouts["r"]["canary"];
        assert_eq!((canary.requests, canary.errors), (100, 2));
        assert_eq!(
            (canary.mean_ms, canary.p50_ms, canary.p99_ms),
            (Some(5.0), Some(1.0), Some(10.0))
        );
        let quiet = between(&after, &after, Duration::from_secs(1), 7).rollouts["r"]["canary"];
        assert_eq!(quiet, ReleaseFigures::default());
    }
}
