//! The one registry, and the families in it.

use once_cell::sync::Lazy;
use prometheus::Registry;
use prometheus::core::Collector;
use prometheus::proto::MetricType;

use super::names::{self, Family};
use super::probe::ConnectionGauges;
use super::series::Series;
use super::value::{Counter, Gauge, Histogram};

/// Every family, registered on first use.
pub(super) static FAMILIES: Lazy<Families> = Lazy::new(Families::register);

pub(super) struct Families {
    pub(super) registry: Registry,
    pub(super) requests: Series<Counter>,
    pub(super) request_duration: Series<Histogram>,
    pub(super) decisions: Series<Counter>,
    pub(super) downstream_aborts: Series<Counter>,
    pub(super) downstream_connections: Gauge,
    pub(super) downstream_protocol_errors: Series<Counter>,
    pub(super) refused: Series<Counter>,
    pub(super) identity_removed: Counter,
    pub(super) tokens: Series<Counter>,
    /// Of `tokens`, the one that is counted in every request with a token.
    pub(super) tokens_cached: Counter,
    pub(super) keys_failed: Counter,
    pub(super) connection_gauges: ConnectionGauges,
    pub(super) upstream_opened: Series<Counter>,
    pub(super) upstream_reused: Series<Counter>,
    pub(super) upstream_queue: Series<Histogram>,
    pub(super) queue_rejected: Series<Counter>,
    pub(super) ejections: Series<Counter>,
    pub(super) resolve_failures: Series<Counter>,
    pub(super) retries: Series<Counter>,
    pub(super) revision: Gauge,
    pub(super) rollout_weight: Series<Gauge>,
    pub(super) store_connected: Gauge,
    pub(super) commit_to_live: Histogram,
    pub(super) access_log_dropped: Counter,
    pub(super) error_log_dropped: Counter,
    pub(super) build_info: Series<Gauge>,
}

impl Families {
    fn register() -> Self {
        let registry = Registry::new();
        let to = &registry;
        let tokens = counters(to, &names::TOKENS, Counter::sharded);
        Self {
            requests: counters(to, &names::REQUESTS, Counter::sharded),
            request_duration: histograms(to, &names::REQUEST_DURATION, || Histogram::new(names::DURATION_BOUNDS)),
            decisions: counters(to, &names::DECISIONS, Counter::sharded),
            downstream_aborts: counters(to, &names::DOWNSTREAM_ABORTS, Counter::single),
            downstream_connections: gauges(to, &names::DOWNSTREAM_CONNECTIONS).with(&[]),
            downstream_protocol_errors: counters(to, &names::DOWNSTREAM_PROTOCOL_ERRORS, Counter::single),
            refused: counters(to, &names::REFUSED, Counter::single),
            identity_removed: counters(to, &names::IDENTITY_REMOVED, Counter::single).with(&[]),
            tokens_cached: tokens.with(&["cached"]),
            tokens,
            keys_failed: counters(to, &names::KEYS_FAILED, Counter::single).with(&[]),
            connection_gauges: add(to, ConnectionGauges::new()),
            upstream_opened: counters(to, &names::UPSTREAM_CONNECTIONS_OPENED, Counter::single),
            upstream_reused: counters(to, &names::UPSTREAM_REUSED, Counter::sharded),
            upstream_queue: histograms(to, &names::UPSTREAM_QUEUE, || Histogram::new(names::QUEUE_BOUNDS)),
            queue_rejected: counters(to, &names::QUEUE_REJECTED, Counter::single),
            ejections: counters(to, &names::EJECTIONS, Counter::single),
            resolve_failures: counters(to, &names::RESOLVE_FAILURES, Counter::single),
            retries: counters(to, &names::RETRIES, Counter::single),
            revision: gauges(to, &names::REVISION).with(&[]),
            rollout_weight: gauges(to, &names::ROLLOUT_WEIGHT),
            store_connected: gauges(to, &names::STORE_CONNECTED).with(&[]),
            commit_to_live: histograms(to, &names::COMMIT_TO_LIVE, || Histogram::new(names::COMMIT_BOUNDS)).with(&[]),
            access_log_dropped: counters(to, &names::ACCESS_LOG_DROPPED, Counter::single).with(&[]),
            error_log_dropped: counters(to, &names::ERROR_LOG_DROPPED, Counter::single).with(&[]),
            build_info: gauges(to, &names::BUILD_INFO),
            registry,
        }
    }
}

fn counters(registry: &Registry, family: &'static Family, new_value: fn() -> Counter) -> Series<Counter> {
    add(registry, Series::new(family, MetricType::COUNTER, new_value))
}

fn gauges(registry: &Registry, family: &'static Family) -> Series<Gauge> {
    add(registry, Series::new(family, MetricType::GAUGE, Gauge::default))
}

fn histograms(registry: &Registry, family: &'static Family, new_value: fn() -> Histogram) -> Series<Histogram> {
    add(registry, Series::new(family, MetricType::HISTOGRAM, new_value))
}

fn add<C: Collector + Clone + 'static>(registry: &Registry, collector: prometheus::Result<C>) -> C {
    collector
        .and_then(|collector| registry.register(Box::new(collector.clone())).map(|()| collector))
        // invariant: names and labels are the constants of `names`; a test registers them all.
        .expect("metric constants are valid and distinct")
}
