//! What a series holds: a counter, a gauge or a histogram. What every request touches has cells for each thread, summed
//! when Prometheus reads.
//!
//! The `prometheus` crate's own have one set of cells each: with two threads a request's counting took 144 ns, with
//! these 31 to 39.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use once_cell::sync::Lazy;
use prometheus::core::Metric;
use prometheus::proto;

use crate::telemetry::shard;

/// A counter's or histogram's most cells; more threads share.
const CELLS_MAX: usize = 64;

/// Twice the processors, so that few threads meet in one cell.
static CELLS: Lazy<usize> = Lazy::new(|| {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    (processors * 2).next_power_of_two().min(CELLS_MAX)
});

/// Only grows.
#[derive(Debug, Clone)]
pub(super) struct Counter {
    cells: Arc<[CounterCell]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct CounterCell(AtomicU64);

impl Counter {
    /// For what happens now and then.
    pub(super) fn single() -> Self {
        Self {
            cells: Arc::new([CounterCell::default()]),
        }
    }

    /// For what happens in every request.
    pub(super) fn sharded() -> Self {
        Self {
            cells: (0..*CELLS).map(|_| CounterCell::default()).collect(),
        }
    }

    pub(super) fn inc(&self) {
        self.add(1);
    }

    pub(super) fn add(&self, number: u64) {
        let cell = &self.cells[shard::home(self.cells.len())];
        cell.0.fetch_add(number, Ordering::Relaxed);
    }
}

impl Metric for Counter {
    fn metric(&self) -> proto::Metric {
        let total: u64 = self.cells.iter().map(|cell| cell.0.load(Ordering::Relaxed)).sum();
        let mut counter = proto::Counter::default();
        counter.set_value(total as f64);
        let mut metric = proto::Metric::default();
        metric.set_counter(counter);
        metric
    }
}

/// Goes up and down.
#[derive(Debug, Clone, Default)]
pub(super) struct Gauge(Arc<AtomicI64>);

impl Gauge {
    pub(super) fn set(&self, number: u64) {
        self.0.store(as_signed(number), Ordering::Relaxed);
    }

    pub(super) fn add(&self, number: u64) {
        self.0.fetch_add(as_signed(number), Ordering::Relaxed);
    }

    pub(super) fn subtract(&self, number: u64) {
        self.0.fetch_sub(as_signed(number), Ordering::Relaxed);
    }
}

impl Metric for Gauge {
    fn metric(&self) -> proto::Metric {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(self.0.load(Ordering::Relaxed) as f64);
        proto::Metric::from_gauge(gauge)
    }
}

/// A gauge shows 2⁶³ - 1 for anything above.
fn as_signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The most bounds that a histogram can have.
const BOUNDS_MAX: usize = 15;

/// Durations in microseconds, rounded up, counted by upper bounds.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    bounds_micros: &'static [u64],
    cells: Arc<[HistogramCell]>,
}

#[derive(Debug, Default)]
#[repr(align(64))]
struct HistogramCell {
    /// Not cumulative; the one behind the last bound is for all above.
    counts: [AtomicU64; BOUNDS_MAX + 1],
    sum_micros: AtomicU64,
}

impl Histogram {
    /// `bounds_micros` ascend; at most 15 count.
    pub(super) fn new(bounds_micros: &'static [u64]) -> Self {
        debug_assert!(bounds_micros.len() <= BOUNDS_MAX && bounds_micros.is_sorted());
        Self {
            bounds_micros,
            cells: (0..*CELLS).map(|_| HistogramCell::default()).collect(),
        }
    }

    pub(super) fn observe(&self, duration: Duration) {
        let cell = &self.cells[shard::home(self.cells.len())];
        let micros = u64::try_from(duration.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX);
        let place = self.bounds_micros.partition_point(|&bound| bound < micros);
        cell.counts[place.min(BOUNDS_MAX)].fetch_add(1, Ordering::Relaxed);
        cell.sum_micros.fetch_add(micros, Ordering::Relaxed);
    }
}

impl Metric for Histogram {
    fn metric(&self) -> proto::Metric {
        let mut total = 0;
        let mut total_up_to = |place: usize| {
            let counts = self.cells.iter().map(|cell| cell.counts[place].load(Ordering::Relaxed));
            total += counts.sum::<u64>();
            total
        };
        let bucket = |(place, &bound_micros)| {
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(bound_micros as f64 / 1e6);
            bucket.set_cumulative_count(total_up_to(place));
            bucket
        };
        let buckets = self.bounds_micros.iter().enumerate().map(bucket).collect();
        let count = total_up_to(self.bounds_micros.len());
        let micros = self.cells.iter().map(|cell| cell.sum_micros.load(Ordering::Relaxed));

        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(buckets);
        histogram.set_sample_count(count);
        histogram.set_sample_sum(micros.sum::<u64>() as f64 / 1e6);
        let mut metric = proto::Metric::default();
        metric.set_histogram(histogram);
        metric
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_count_into_one_sum() {
        let counter = Counter::sharded();
        let histogram = Histogram::new(&[1]);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..1_000 {
                        counter.inc();
                        histogram.observe(Duration::from_nanos(500));
                    }
                });
            }
        });
        assert_eq!(counter.metric().get_counter().get_value(), 8_000.0);
        assert_eq!(histogram.metric().get_histogram().get_sample_count(), 8_000);
        assert_eq!(histogram.metric().get_histogram().get_sample_sum(), 0.008);
    }

    #[test]
    fn a_duration_counts_up_to_its_bound_and_not_beyond() {
        let histogram = Histogram::new(&[1_000, 2_000]);
        for nanos in [0, 1_000_000, 1_000_001, 2_000_000, 2_000_001, u64::MAX / 2] {
            histogram.observe(Duration::from_nanos(nanos));
        }
        let metric = histogram.metric();
        let shown = metric.get_histogram();
        let buckets = shown.get_bucket().iter();
        let counts: Vec<_> = buckets
            .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
            .collect();
        assert_eq!(counts, [(0.001, 2), (0.002, 4)]);
        assert_eq!(shown.get_sample_count(), 6);
    }

    #[test]
    fn a_gauge_goes_both_ways() {
        let gauge = Gauge::default();
        gauge.set(5);
        gauge.add(2);
        gauge.subtract(4);
        assert_eq!(gauge.metric().get_gauge().get_value(), 3.0);
    }
}
