//! What was counted of each release since the start, for whoever shows figures of an interval.

use std::collections::BTreeMap;

use prometheus::core::Collector;
use prometheus::proto::Metric;

use super::families::FAMILIES;

/// What was counted of one release.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ReleaseTotals {
    /// Requests that ended.
    pub requests: u64,
    /// Of them, those answered with a 5xx status.
    pub errors: u64,
    /// All durations together, in seconds.
    pub seconds: f64,
    /// Upper bounds in seconds, and how many took so long at most.
    pub buckets: Vec<(f64, u64)>,
    /// How many durations were counted.
    pub durations: u64,
}

/// By rollout and release.
#[must_use]
pub fn release_totals() -> BTreeMap<(String, String), ReleaseTotals> {
    let mut totals: BTreeMap<(String, String), ReleaseTotals> = BTreeMap::new();
    for metric in FAMILIES.requests.collect().iter().flat_map(|f| f.get_metric()) {
        let Some(key) = release_of(metric) else { continue };
        let count = metric.get_counter().get_value() as u64;
        let total = totals.entry(key).or_default();
        total.requests += count;
        if label(metric, "code_class") == Some("5xx") {
            total.errors += count;
        }
    }
    for metric in FAMILIES.request_duration.collect().iter().flat_map(|f| f.get_metric()) {
        let Some(key) = release_of(metric) else { continue };
        let shown = metric.get_histogram();
        let total = totals.entry(key).or_default();
        total.seconds = shown.get_sample_sum();
        total.durations = shown.get_sample_count();
        let buckets = shown.get_bucket().iter();
        total.buckets = buckets.map(|b| (b.upper_bound(), b.cumulative_count())).collect();
    }
    totals
}

/// None for requests that no rollout decided.
fn release_of(metric: &Metric) -> Option<(String, String)> {
    let rollout = label(metric, "rollout").filter(|name| !name.is_empty())?;
    Some((rollout.to_owned(), label(metric, "release")?.to_owned()))
}

fn label<'a>(metric: &'a Metric, name: &str) -> Option<&'a str> {
    let label = metric.get_label().iter().find(|label| label.name() == name)?;
    Some(label.value())
}
