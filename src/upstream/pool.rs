//! A pool: picks an endpoint, holds a place on it, and counts what happens to its connections.

use std::collections::HashSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use log::{info, warn};
use parking_lot::Mutex;
use serde::Serialize;
use thiserror::Error;

use super::balance::Members;
use super::endpoint::{Endpoint, Lease};
use super::retry::RetryBudget;
use super::settings::{Balance, PoolSettings, RetryCause};
use super::slots::Refused;
use crate::clock::{self, Tick};
use crate::rollout::PoolName;
use crate::telemetry::metrics::PoolMetrics;
use crate::telemetry::targets;

/// A named group of equal endpoints.
pub struct Pool {
    settings: PoolSettings,
    members: ArcSwap<Members>,
    /// Former endpoints that still have requests in flight.
    leaving: Mutex<Vec<Weak<Endpoint>>>,
    budget: RetryBudget,
    metrics: PoolMetrics,
}

/// What a request wants of a pool.
#[derive(Clone, Copy)]
pub struct Acquire<'a> {
    /// Who asks; matters for the balance `user`.
    pub user: Option<&'a [u8]>,
    /// Endpoints that failed this request before.
    pub tried: &'a [Arc<Endpoint>],
}

/// Why no endpoint was had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AcquireError {
    /// None is healthy, or none is known.
    #[error("no healthy endpoint")]
    NoEndpoint,
    /// All places are taken, and so is the queue.
    #[error("too many requests wait for a connection")]
    QueueFull,
    /// All places were taken for as long as a request may wait.
    #[error("no connection became free in time")]
    QueueTimeout,
}

/// A pool as `/api/v1/status` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct PoolStatus {
    /// The pool's name.
    pub name: String,
    /// Its endpoints.
    pub endpoints: Vec<EndpointStatus>,
}

/// An endpoint as `/api/v1/status` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct EndpointStatus {
    /// `address:port`
    pub address: String,
    /// Whether the last health checks passed.
    pub healthy: bool,
    /// Whether failures in a row keep it out for now.
    pub ejected: bool,
    /// Requests in flight.
    pub in_flight: usize,
    /// Open connections.
    pub connections: usize,
}

impl Pool {
    pub(super) fn new(settings: PoolSettings) -> Self {
        let members = Members::new(Vec::new(), settings.balance);
        Self {
            members: ArcSwap::from_pointee(members),
            leaving: Mutex::default(),
            budget: RetryBudget::default(),
            metrics: PoolMetrics::new(settings.name.as_str()),
            settings,
        }
    }

    /// The pool's name.
    pub fn name(&self) -> &PoolName {
        &self.settings.name
    }

    /// What it was made of.
    pub fn settings(&self) -> &PoolSettings {
        &self.settings
    }

    /// Its metrics.
    pub fn metrics(&self) -> &PoolMetrics {
        &self.metrics
    }

    /// The endpoints of now.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.members.load().endpoints().to_vec()
    }

    pub(super) fn replace(&self, endpoints: Vec<Arc<Endpoint>>) {
        let stay: HashSet<*const Endpoint> = endpoints.iter().map(Arc::as_ptr).collect();
        let members = Members::new(endpoints, self.settings.balance);
        let before = self.members.swap(Arc::new(members));
        let go = before.endpoints().iter().filter(|e| !stay.contains(&Arc::as_ptr(e)));
        self.leaving.lock().extend(go.map(Arc::downgrade));
    }

    /// Looks after the connections of its endpoints, and of former ones until their last request is over.
    pub(super) fn sweep(&self, now: Tick) {
        for endpoint in self.members.load().endpoints() {
            endpoint.sweep(now);
        }
        let leaving: Vec<_> = {
            let mut leaving = self.leaving.lock();
            leaving.retain(|endpoint| endpoint.strong_count() > 0);
            leaving.iter().filter_map(Weak::upgrade).collect()
        };
        for endpoint in leaving {
            endpoint.sweep(now);
            endpoint.keep_none();
        }
    }

    /// Whether any endpoint may be picked now.
    pub fn any_available(&self, now: Tick) -> bool {
        self.members.load().endpoints().iter().any(|e| e.available(now))
    }

    /// Picks an endpoint and takes a place on it, waiting for at most `queue_timeout`.
    ///
    /// # Errors
    /// When no endpoint is healthy, or no place is had.
    pub async fn acquire(&self, want: Acquire<'_>) -> Result<Lease, AcquireError> {
        let now = clock::tick();
        let first = {
            let members = self.members.load();
            let first = members
                .pick(want.user, want.tried, now)
                .ok_or(AcquireError::NoEndpoint)?;
            if first.slots().try_enter() {
                return Ok(Lease::entered(Arc::clone(first)));
            }
            if let Some(other) = self.elsewhere(&members, now) {
                return Ok(other);
            }
            Arc::clone(first)
        };
        self.queue(first).await
    }

    /// A place on any other endpoint, unless users are to stay where they are.
    fn elsewhere(&self, members: &Members, now: Tick) -> Option<Lease> {
        if self.settings.balance == Balance::User {
            return None;
        }
        members
            .endpoints()
            .iter()
            .find(|e| e.available(now) && e.slots().try_enter())
            .map(|e| Lease::entered(Arc::clone(e)))
    }

    async fn queue(&self, endpoint: Arc<Endpoint>) -> Result<Lease, AcquireError> {
        let since = clock::now();
        let entered = endpoint.slots().enter(self.settings.connections.queue_timeout).await;
        self.metrics.queued(since.elapsed());
        match entered {
            Ok(()) => Ok(Lease::entered(endpoint)),
            Err(refused) => {
                self.metrics.queue_rejected();
                Err(match refused {
                    Refused::QueueFull => AcquireError::QueueFull,
                    Refused::TimedOut => AcquireError::QueueTimeout,
                })
            }
        }
    }

    /// A request to this pool began.
    pub fn earn_retry(&self) {
        self.budget.earn();
    }

    /// Whether a request that made `attempts` attempts may be tried again after `cause`; counts the retry.
    pub fn may_retry(&self, cause: RetryCause, attempts: u32) -> bool {
        let retries = &self.settings.retries;
        let allowed =
            attempts < retries.attempts.get() && retries.on.contains(&cause) && self.budget.spend(clock::tick());
        if allowed {
            self.metrics.retry(cause);
        }
        allowed
    }

    /// Whether there is an endpoint that may be picked and is none of these.
    pub fn has_other(&self, tried: &[Arc<Endpoint>]) -> bool {
        let now = clock::tick();
        let members = self.members.load();
        let mut endpoints = members.endpoints().iter();
        endpoints.any(|e| e.available(now) && !tried.iter().any(|t| Arc::ptr_eq(t, e)))
    }

    /// A connection to `endpoint` did not come about, or was closed before an answer: after enough in a row it is
    /// ejected for a while.
    pub fn failed(&self, endpoint: &Endpoint) {
        let ejection = &self.settings.ejection;
        let failures = endpoint.failed();
        let enough = ejection.consecutive_failures != 0 && failures >= ejection.consecutive_failures;
        let now = clock::tick();
        if !enough || endpoint.ejected(now) || !self.may_eject(now) {
            return;
        }
        endpoint.eject_until(now.after(ejection.duration));
        endpoint.metrics().ejected();
        warn!(
            target: targets::UPSTREAM,
            "pool {}: endpoint {} is left out for {:?} after {failures} failures in a row",
            self.name(), endpoint.label(), ejection.duration
        );
    }

    fn may_eject(&self, now: Tick) -> bool {
        let members = self.members.load();
        let out = members.endpoints().iter().filter(|e| e.ejected(now)).count();
        let percent = usize::from(self.settings.ejection.max_ejected_percent);
        (out + 1) * 100 <= members.endpoints().len() * percent
    }

    pub(super) fn set_healthy(&self, endpoint: &Endpoint, healthy: bool, cause: &str) {
        if endpoint.healthy() == healthy {
            return;
        }
        endpoint.set_healthy(healthy);
        if healthy {
            info!(target: targets::UPSTREAM, "pool {}: endpoint {} is healthy again", self.name(), endpoint.label());
        } else {
            warn!(
                target: targets::UPSTREAM,
                "pool {}: endpoint {} is unhealthy: {cause}", self.name(), endpoint.label()
            );
        }
    }

    /// How often response heads are looked after: a twentieth of what they may take, at least each quarter second.
    pub(super) fn sweep_interval(&self) -> Duration {
        let timeout = self.settings.connections.response_header_timeout;
        (timeout / 20).clamp(Duration::from_millis(10), Duration::from_millis(250))
    }

    /// For the status page.
    pub fn status(&self) -> PoolStatus {
        let now = clock::tick();
        let show = |e: &Arc<Endpoint>| EndpointStatus {
            address: e.label().to_owned(),
            healthy: e.healthy(),
            ejected: e.ejected(now),
            in_flight: e.in_flight(),
            connections: e.open(),
        };
        PoolStatus {
            name: self.name().to_string(),
            endpoints: self.members.load().endpoints().iter().map(show).collect(),
        }
    }
}
