//! Gauges that nobody keeps: they are asked for when Prometheus reads.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{IntGaugeVec, Opts};

use super::names::{self, Family};

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

/// Tells of every endpoint there is; called each time the metrics are read.
pub type ConnectionProbe = Box<dyn Fn() -> Vec<ConnectionSample> + Send + Sync>;

/// The families that a probe fills.
#[derive(Clone)]
pub(super) struct ConnectionGauges {
    connections: IntGaugeVec,
    healthy: IntGaugeVec,
    probe: Arc<Mutex<Option<ConnectionProbe>>>,
}

impl ConnectionGauges {
    pub(super) fn new() -> prometheus::Result<Self> {
        Ok(Self {
            connections: gauges(&names::UPSTREAM_CONNECTIONS)?,
            healthy: gauges(&names::ENDPOINT_HEALTHY)?,
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
        self.connections.reset();
        self.healthy.reset();
        for sample in probe.as_ref().map_or_else(Vec::new, |probe| probe()) {
            for (state, count) in [("idle", sample.idle), ("active", sample.active)] {
                self.connections
                    .with_label_values(&[&sample.pool, &sample.endpoint, state])
                    .add(gauge_value(count));
            }
            self.healthy
                .with_label_values(&[&sample.pool, &sample.endpoint])
                .set(i64::from(sample.healthy));
        }
        let mut collected = self.connections.collect();
        collected.extend(self.healthy.collect());
        collected
    }
}

impl fmt::Debug for ConnectionGauges {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ConnectionGauges").finish_non_exhaustive()
    }
}

/// Prometheus' integers are signed.
pub(super) fn gauge_value(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn gauges(family: &Family) -> prometheus::Result<IntGaugeVec> {
    IntGaugeVec::new(Opts::new(family.name, family.help), family.labels)
}
