//! Gauges that nobody keeps: they are asked for when Prometheus reads.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};

use super::names;
use super::series::Series;
use super::value::Gauge;

/// One endpoint's connections and health, now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionSample {
    /// The pool.
    pub pool: String,
    /// The endpoint's address.
    pub endpoint: String,
    /// Connections kept for later.
    pub idle: u64,
    /// Connections that carry a request.
    pub active: u64,
    /// Whether it takes requests.
    pub healthy: bool,
}

/// Tells of every endpoint there is; called each time the metrics are read. It must not read the metrics itself.
pub type ConnectionProbe = Box<dyn Fn() -> Vec<ConnectionSample> + Send + Sync>;

/// The families that a probe fills.
#[derive(Clone)]
pub(super) struct ConnectionGauges {
    connections: Series<Gauge>,
    healthy: Series<Gauge>,
    probe: Arc<Mutex<Option<ConnectionProbe>>>,
}

impl ConnectionGauges {
    pub(super) fn new() -> prometheus::Result<Self> {
        Ok(Self {
            connections: Series::new(&names::UPSTREAM_CONNECTIONS, MetricType::GAUGE, Gauge::default)?,
            healthy: Series::new(&names::ENDPOINT_HEALTHY, MetricType::GAUGE, Gauge::default)?,
            probe: Arc::new(Mutex::new(None)),
        })
    }

    pub(super) fn set_probe(&self, probe: ConnectionProbe) {
        *self.probe.lock() = Some(probe);
    }
}

impl Collector for ConnectionGauges {
    fn desc(&self) -> Vec<&Desc> {
        let mut descriptions = self.connections.desc();
        descriptions.extend(self.healthy.desc());
        descriptions
    }

    /// The lock is held throughout: two readers must not mix their samples.
    fn collect(&self) -> Vec<MetricFamily> {
        let probe = self.probe.lock();
        self.connections.clear();
        self.healthy.clear();
        for sample in probe.as_ref().map_or_else(Vec::new, |probe| probe()) {
            for (state, count) in [("idle", sample.idle), ("active", sample.active)] {
                self.connections
                    .with(&[&sample.pool, &sample.endpoint, state])
                    .add(count);
            }
            self.healthy
                .with(&[&sample.pool, &sample.endpoint])
                .set(u64::from(sample.healthy));
        }
        let mut collected = self.connections.collect();
        collected.extend(self.healthy.collect());
        collected
    }
}
