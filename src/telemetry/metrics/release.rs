//! What requests count: per release, and per route that goes to a pool.

use std::sync::OnceLock;
use std::time::Duration;

use super::families::FAMILIES;
use super::names::{CODE_CLASSES, REASONS, SOURCES};
use super::value::{Counter, Histogram};

/// The series of one release. Made when a table is built; counting is then a few atomic additions.
#[derive(Debug)]
pub struct ReleaseMetrics {
    rollout: String,
    release: String,
    /// By route, then by code class.
    requests: Vec<[Counter; CODE_CLASSES.len() - 1]>,
    /// By route: the last class, which hardly any upstream ever sends.
    requests_other: Vec<OtherClass>,
    duration: Histogram,
    aborts: Counter,
    /// By reason, then by source; a series begins with its first decision.
    decisions: [[OnceLock<Counter>; SOURCES.len()]; REASONS.len()],
}

#[derive(Debug)]
struct OtherClass {
    route: String,
    counter: OnceLock<Counter>,
}

impl ReleaseMetrics {
    /// The series of `release`, for requests of `routes`. Handles of the same names count into the same series.
    pub fn new(rollout: &str, release: &str, routes: &[&str]) -> Self {
        let ordinary_classes =
            |route: &&str| std::array::from_fn(|class| requests_counter(route, rollout, release, CODE_CLASSES[class]));
        let other_class = |route: &&str| OtherClass {
            route: (*route).to_owned(),
            counter: OnceLock::new(),
        };
        Self {
            rollout: rollout.to_owned(),
            release: release.to_owned(),
            requests: routes.iter().map(ordinary_classes).collect(),
            requests_other: routes.iter().map(other_class).collect(),
            duration: FAMILIES.request_duration.with(&[rollout, release]),
            aborts: FAMILIES.downstream_aborts.with(&[rollout, release]),
            decisions: Default::default(),
        }
    }

    /// The series of routes that go to a pool, and, with the route `""`, of requests that match none.
    pub fn direct(routes: &[&str]) -> Self {
        Self::new("", "", routes)
    }

    /// Counts a request by the status sent. `route_slot` is the route's place in what [`ReleaseMetrics::new`] was given.
    pub fn request(&self, route_slot: usize, status: u16) {
        let (Some(classes), Some(other)) = (self.requests.get(route_slot), self.requests_other.get(route_slot)) else {
            debug_assert!(false, "no route has slot {route_slot}");
            return;
        };
        match classes.get(usize::from(status / 100).wrapping_sub(1)) {
            Some(counter) => counter.inc(),
            None => other.inc(&self.rollout, &self.release),
        }
    }

    /// Counts how long a request took.
    pub fn duration(&self, duration: Duration) {
        self.duration.observe(duration);
    }

    /// Counts a decision: places in [`REASONS`] and [`SOURCES`].
    pub fn decision(&self, reason: usize, source: usize) {
        let Some(counter) = self.decisions.get(reason).and_then(|sources| sources.get(source)) else {
            debug_assert!(false, "no reason {reason} or no source {source}");
            return;
        };
        let first = || {
            let labels = [
                self.rollout.as_str(),
                self.release.as_str(),
                REASONS[reason],
                SOURCES[source],
            ];
            FAMILIES.decisions.with(&labels)
        };
        counter.get_or_init(first).inc();
    }

    /// Counts a request whose client went away.
    pub fn abort(&self) {
        self.aborts.inc();
    }
}

impl OtherClass {
    #[cold]
    fn inc(&self, rollout: &str, release: &str) {
        let class = CODE_CLASSES[CODE_CLASSES.len() - 1];
        self.counter
            .get_or_init(|| requests_counter(&self.route, rollout, release, class))
            .inc();
    }
}

fn requests_counter(route: &str, rollout: &str, release: &str, class: &str) -> Counter {
    FAMILIES.requests.with(&[route, rollout, release, class])
}
