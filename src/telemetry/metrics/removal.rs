//! Removes the series of what is gone, so that the text does not grow for ever. Handles that are still held count on,
//! unseen.

use std::collections::HashMap;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};

use super::families::FAMILIES;

/// Removes every series of a rollout.
pub fn forget_rollout(rollout: &str) {
    forget_of_rollout(&[("rollout", rollout)]);
}

/// Removes every series of one release of a rollout.
pub fn forget_release(rollout: &str, release: &str) {
    forget_of_rollout(&[("rollout", rollout), ("release", release)]);
}

/// Removes every series of a pool, those of its endpoints included.
pub fn forget_pool(pool: &str) {
    let labels = [("pool", pool)];
    forget(&FAMILIES.upstream_queue, &labels);
    forget(&FAMILIES.queue_rejected, &labels);
    forget(&FAMILIES.resolve_failures, &labels);
    forget(&FAMILIES.retries, &labels);
    forget_of_endpoint(&labels);
}

/// Removes every series of one endpoint of a pool.
pub fn forget_endpoint(pool: &str, endpoint: &str) {
    forget_of_endpoint(&[("pool", pool), ("endpoint", endpoint)]);
}

type Label<'a> = (&'static str, &'a str);

fn forget_of_rollout(labels: &[Label<'_>]) {
    forget(&FAMILIES.requests, labels);
    forget(&FAMILIES.request_duration, labels);
    forget(&FAMILIES.decisions, labels);
    forget(&FAMILIES.downstream_aborts, labels);
    forget(&FAMILIES.rollout_weight, labels);
}

fn forget_of_endpoint(labels: &[Label<'_>]) {
    forget(&FAMILIES.upstream_opened, labels);
    forget(&FAMILIES.upstream_reused, labels);
    forget(&FAMILIES.ejections, labels);
}

/// Removes the series that have all of `labels`.
fn forget<T: MetricVecBuilder>(family: &MetricVec<T>, labels: &[Label<'_>]) {
    for collected in family.collect() {
        for metric in collected.get_metric() {
            let series: HashMap<&str, &str> = metric
                .get_label()
                .iter()
                .map(|label| (label.name(), label.value()))
                .collect();
            if labels.iter().all(|(name, value)| series.get(name) == Some(value)) {
                // Another thread can have removed it already, which is as well.
                drop(family.remove(&series));
            }
        }
    }
}
