//! What pools and endpoints count. Their gauges are asked for instead, see `probe`.

use std::time::Duration;

use super::families::FAMILIES;
use super::value::{Counter, Histogram};

/// Why a request was tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryCause {
    /// No connection could be made.
    Connect,
    /// A kept connection turned out to be closed.
    ReusedConnectionClosed,
    /// A new connection was closed before anything was answered.
    ConnectionClosed,
}

/// The series of one pool.
#[derive(Debug, Clone)]
pub struct PoolMetrics {
    queue: Histogram,
    queue_rejected: Counter,
    retries_connect: Counter,
    retries_reused: Counter,
    retries_closed: Counter,
    resolve_failures: Counter,
}

impl PoolMetrics {
    /// The series of `pool`. Handles of the same name count into the same series.
    pub fn new(pool: &str) -> Self {
        let retries = |cause| FAMILIES.retries.with(&[pool, cause]);
        Self {
            queue: FAMILIES.upstream_queue.with(&[pool]),
            queue_rejected: FAMILIES.queue_rejected.with(&[pool]),
            retries_connect: retries(RETRY_CAUSES[0]),
            retries_reused: retries(RETRY_CAUSES[1]),
            retries_closed: retries(RETRY_CAUSES[2]),
            resolve_failures: FAMILIES.resolve_failures.with(&[pool]),
        }
    }

    /// Counts how long a request waited for a connection permit.
    pub fn queued(&self, waited: Duration) {
        self.queue.observe(waited);
    }

    /// Counts a request that got no connection permit in time.
    pub fn queue_rejected(&self) {
        self.queue_rejected.inc();
    }

    /// Counts a retry.
    pub fn retry(&self, cause: RetryCause) {
        match cause {
            RetryCause::Connect => self.retries_connect.inc(),
            RetryCause::ReusedConnectionClosed => self.retries_reused.inc(),
            RetryCause::ConnectionClosed => self.retries_closed.inc(),
        }
    }

    /// Counts a failed resolution of an endpoint's name.
    pub fn resolve_failed(&self) {
        self.resolve_failures.inc();
    }
}

/// The series of one endpoint of a pool.
#[derive(Debug, Clone)]
pub struct EndpointMetrics {
    opened: Counter,
    reused: Counter,
    ejections: Counter,
}

impl EndpointMetrics {
    /// The series of `endpoint`. Handles of the same names count into the same series.
    pub fn new(pool: &str, endpoint: &str) -> Self {
        let labels = [pool, endpoint];
        Self {
            opened: FAMILIES.upstream_opened.with(&labels),
            reused: FAMILIES.upstream_reused.with(&labels),
            ejections: FAMILIES.ejections.with(&labels),
        }
    }

    /// Counts a connection made.
    pub fn opened(&self) {
        self.opened.inc();
    }

    /// Counts a request sent on a connection that had been used before.
    pub fn reused(&self) {
        self.reused.inc();
    }

    /// Counts an ejection.
    pub fn ejected(&self) {
        self.ejections.inc();
    }
}

pub(super) const RETRY_CAUSES: [&str; 3] = ["connect", "reused_connection_closed", "connection_closed"];
