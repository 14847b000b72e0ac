//! What the answers are made of.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

use super::events::Hub;
use super::export::EXPORTS_MAX;
use super::tokens::Tokens;
use crate::control::{Controller, Snapshot};
use crate::identity::Normaliser;
use crate::upstream::Pools;

/// Requests that are answered at a time; more wait for their turn within their time.
const REQUESTS_MAX: usize = 128;
/// Lists of users that are read at a time: each may hold millions.
const LISTS_MAX: usize = 2;

/// [`Parts`] as every request has them: a request copies this some ten times on its way.
#[derive(Clone)]
pub(super) struct State(Arc<Parts>);

/// What the answers are made of.
pub struct Parts {
    /// Makes changes, and knows what requests see.
    pub controller: Arc<Controller>,
    /// The pools.
    pub pools: Arc<Pools>,
    /// Set while the process is going away.
    pub draining: Arc<AtomicBool>,
    /// Who may do what; without them, whoever is on this machine.
    pub(super) tokens: Option<Tokens>,
    /// What makes ids of what requests bring.
    pub(super) normaliser: Normaliser,
    pub(super) requests: Semaphore,
    pub(super) lists: Semaphore,
    pub(super) exports: Arc<Semaphore>,
    pub(super) hub: Arc<Hub>,
    /// The document of the API, written once.
    pub(super) document: bytes::Bytes,
}

impl Parts {
    /// From the parts of the process.
    #[must_use]
    pub fn new(
        controller: Arc<Controller>,
        pools: Arc<Pools>,
        draining: Arc<AtomicBool>,
        tokens: Option<Tokens>,
        normaliser: Normaliser,
    ) -> Self {
        Self {
            hub: Arc::new(Hub::new(Arc::clone(&controller), Arc::clone(&pools))),
            controller,
            pools,
            draining,
            tokens,
            normaliser,
            requests: Semaphore::new(REQUESTS_MAX),
            lists: Semaphore::new(LISTS_MAX),
            exports: Arc::new(Semaphore::new(EXPORTS_MAX)),
            document: bytes::Bytes::new(),
        }
    }

    /// What requests see now.
    pub(super) fn pin(&self) -> Arc<Snapshot> {
        self.controller.live().pin()
    }

    pub(super) fn ready(&self) -> bool {
        !self.draining.load(Ordering::Relaxed)
    }
}

impl From<Parts> for State {
    fn from(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }
}

impl Deref for State {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
