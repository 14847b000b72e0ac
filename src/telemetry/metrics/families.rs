//! The one registry, and the families in it.

use once_cell::sync::Lazy;
use prometheus::core::Collector;
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use super::names::{self, Family};
use super::probe::ConnectionGauges;

/// Every family, registered on first use.
pub(super) static FAMILIES: Lazy<Families> = Lazy::new(Families::register);

pub(super) struct Families {
    pub(super) registry: Registry,
    pub(super) requests: IntCounterVec,
    pub(super) request_duration: HistogramVec,
    pub(super) decisions: IntCounterVec,
    pub(super) downstream_aborts: IntCounterVec,
    pub(super) downstream_connections: IntGauge,
    pub(super) downstream_protocol_errors: IntCounterVec,
    pub(super) refused: IntCounterVec,
    pub(super) identity_removed: IntCounter,
    pub(super) connection_gauges: ConnectionGauges,
    pub(super) upstream_opened: IntCounterVec,
    pub(super) upstream_reused: IntCounterVec,
    pub(super) upstream_queue: HistogramVec,
    pub(super) queue_rejected: IntCounterVec,
    pub(super) ejections: IntCounterVec,
    pub(super) resolve_failures: IntCounterVec,
    pub(super) retries: IntCounterVec,
    pub(super) revision: IntGauge,
    pub(super) rollout_weight: IntGaugeVec,
    pub(super) store_connected: IntGauge,
    pub(super) commit_to_live: Histogram,
    pub(super) access_log_dropped: IntCounter,
    pub(super) build_info: IntGaugeVec,
}

impl Families {
    fn register() -> Self {
        let registry = Registry::new();
        let into = &registry;
        Self {
            requests: counters(into, &names::REQUESTS),
            request_duration: histograms(into, &names::REQUEST_DURATION, names::DURATION_BOUNDS),
            decisions: counters(into, &names::DECISIONS),
            downstream_aborts: counters(into, &names::DOWNSTREAM_ABORTS),
            downstream_connections: gauge(into, &names::DOWNSTREAM_CONNECTIONS),
            downstream_protocol_errors: counters(into, &names::DOWNSTREAM_PROTOCOL_ERRORS),
            refused: counters(into, &names::REFUSED),
            identity_removed: counter(into, &names::IDENTITY_REMOVED),
            connection_gauges: add(into, registered(ConnectionGauges::new())),
            upstream_opened: counters(into, &names::UPSTREAM_CONNECTIONS_OPENED),
            upstream_reused: counters(into, &names::UPSTREAM_REUSED),
            upstream_queue: histograms(into, &names::UPSTREAM_QUEUE, names::QUEUE_BOUNDS),
            queue_rejected: counters(into, &names::QUEUE_REJECTED),
            ejections: counters(into, &names::EJECTIONS),
            resolve_failures: counters(into, &names::RESOLVE_FAILURES),
            retries: counters(into, &names::RETRIES),
            revision: gauge(into, &names::REVISION),
            rollout_weight: gauges(into, &names::ROLLOUT_WEIGHT),
            store_connected: gauge(into, &names::STORE_CONNECTED),
            commit_to_live: histogram(into, &names::COMMIT_TO_LIVE, names::COMMIT_BOUNDS),
            access_log_dropped: counter(into, &names::ACCESS_LOG_DROPPED),
            build_info: gauges(into, &names::BUILD_INFO),
            registry,
        }
    }
}

fn opts(family: &Family) -> Opts {
    Opts::new(family.name, family.help)
}

fn histogram_opts(family: &Family, bounds: &[f64]) -> HistogramOpts {
    HistogramOpts::new(family.name, family.help).buckets(bounds.to_vec())
}

fn counter(registry: &Registry, family: &Family) -> IntCounter {
    add(registry, registered(IntCounter::with_opts(opts(family))))
}

fn counters(registry: &Registry, family: &Family) -> IntCounterVec {
    add(registry, registered(IntCounterVec::new(opts(family), family.labels)))
}

fn gauge(registry: &Registry, family: &Family) -> IntGauge {
    add(registry, registered(IntGauge::with_opts(opts(family))))
}

fn gauges(registry: &Registry, family: &Family) -> IntGaugeVec {
    add(registry, registered(IntGaugeVec::new(opts(family), family.labels)))
}

fn histogram(registry: &Registry, family: &Family, bounds: &[f64]) -> Histogram {
    add(registry, registered(Histogram::with_opts(histogram_opts(family, bounds))))
}

fn histograms(registry: &Registry, family: &Family, bounds: &[f64]) -> HistogramVec {
    add(registry, registered(HistogramVec::new(histogram_opts(family, bounds), family.labels)))
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: C) -> C {
    registered(registry.register(Box::new(collector.clone())));
    collector
}

fn registered<T>(outcome: prometheus::Result<T>) -> T {
    outcome
        // invariant: names, labels and bounds are the constants of `names`; a test registers them all.
        .expect("metric constants are valid and distinct")
}
