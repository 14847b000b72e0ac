//! What the answers are made of.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;

use super::events::Hub;
use super::tokens::Tokens;
use crate::control::{Controller, Snapshot};
use crate::upstream::Pools;

/// Requests that are answered at a time; more wait for their turn within their time.
const REQUESTS_MAX: usize = 128;
/// Lists of users that are read at a time: each may hold millions.
const LISTS_MAX: usize = 2;

/// What the answers are made of.
#[derive(Clone)]
pub struct State {
    /// Makes changes, and knows what requests see.
    pub controller: Arc<Controller>,
    /// The pools.
    pub pools: Arc<Pools>,
    /// Set while the process is going away.
    pub draining: Arc<AtomicBool>,
    /// Who may do what; without them, whoever is on this machine.
    pub(super) tokens: Option<Arc<Tokens>>,
    pub(super) requests: Arc<Semaphore>,
    pub(super) lists: Arc<Semaphore>,
    pub(super) hub: Arc<Hub>,
    /// The document of the API, written once.
    pub(super) document: bytes::Bytes,
}

impl State {
    /// From the parts of the process.
    #[must_use]
    pub fn new(
        controller: Arc<Controller>,
        pools: Arc<Pools>,
        draining: Arc<AtomicBool>,
        tokens: Option<Tokens>,
    ) -> Self {
        Self {
            hub: Arc::new(Hub::new(Arc::clone(&controller), Arc::clone(&pools))),
            controller,
            pools,
            draining,
            tokens: tokens.map(Arc::new),
            requests: Arc::new(Semaphore::new(REQUESTS_MAX)),
            lists: Arc::new(Semaphore::new(LISTS_MAX)),
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
