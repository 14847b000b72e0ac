//! Opens the store, and has the first state live before anything is served; then follows it for as long as the process
//! lives.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use log::{info, warn};
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use thiserror::Error;

use super::duty::Duty;
use crate::control::{Clerk, Controller, Follower, Merger, StartError};
use crate::precedence;
use crate::rollout::{RolloutName, RolloutSpec};
use crate::store::settings::{StorePlace, StoreSettings};
use crate::store::{EmbeddedSettings, EmbeddedStore, MemoryStore, Store, StoreError};
use crate::telemetry::targets;

/// Why there is no state to serve by.
#[derive(Debug, Error)]
pub enum StateError {
    /// The store cannot be opened.
    #[error("{0}; to go on serving from its last copy, read-only: serve --from-snapshot")]
    Open(StoreError),
    /// It can, but what is in it cannot be served.
    #[error(transparent)]
    Start(#[from] StartError),
    /// There is no runtime to load it in.
    #[error("the state cannot be loaded: {0}")]
    Runtime(std::io::Error),
    /// A copy is asked for where there is none.
    #[error("a memory store has no snapshot: leave --from-snapshot out")]
    NoSnapshot,
}

/// Opens the store that the settings name.
///
/// # Errors
/// When it cannot be opened.
pub fn open(settings: &StoreSettings, from_snapshot: bool) -> Result<Arc<dyn Store>, StateError> {
    match &settings.place {
        StorePlace::Memory if from_snapshot => Err(StateError::NoSnapshot),
        StorePlace::Memory => Ok(Arc::new(MemoryStore::new())),
        StorePlace::Embedded(path) if from_snapshot => {
            let store = EmbeddedStore::open_snapshot(path).map_err(|e| StateError::Start(e.into()))?;
            warn!(
                target: targets::SERVER,
                "serving from the copy of {}: until the program is started without --from-snapshot, changes are refused, and \
                 nothing that is due is made: pins stay beyond their time, scheduled changes wait",
                path.display()
            );
            Ok(Arc::new(store))
        }
        StorePlace::Embedded(path) => {
            let store = EmbeddedStore::open(&EmbeddedSettings::new(path));
            let store = store.map_err(|e| {
                if EmbeddedStore::has_snapshot(path) {
                    StateError::Open(e)
                } else {
                    StateError::Start(e.into())
                }
            })?;
            Ok(Arc::new(store))
        }
    }
}

/// Loads the state, or seeds an empty store, and publishes it.
///
/// # Errors
/// When there is no state to serve by.
pub fn start(follower: &Follower, seed: &[(RolloutName, RolloutSpec)]) -> Result<(), StateError> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().build().map_err(StateError::Runtime)?;
    let revision = runtime.block_on(follower.start(seed))?;
    info!(target: targets::SERVER, "state is at revision {}", revision.0);
    Ok(())
}

/// Follows the store until the process ends, and makes what is due while that is its duty.
pub struct Following {
    follower: Arc<Follower>,
    duty: Duty,
    clerk: Clerk,
    /// None where what is live is not all that the store has.
    merger: Option<Merger>,
}

impl Following {
    /// History is kept for `keep_history`.
    #[must_use]
    pub fn new(controller: &Arc<Controller>, keep_history: Duration, duty: Duty) -> Self {
        let follower = Arc::clone(controller.follower());
        Self {
            duty,
            merger: follower.has_all().then(|| Merger::new(Arc::clone(controller))),
            follower,
            clerk: Clerk::new(Arc::clone(controller), keep_history),
        }
    }
}

impl Following {
    async fn merge(&self) {
        if let Some(merger) = &self.merger {
            merger.run().await;
        }
    }
}

#[async_trait]
impl BackgroundService for Following {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        precedence::changes();
        tokio::select! {
            () = async { tokio::join!(self.follower.run(), self.duty.during(|| self.clerk.run()), self.duty.during(|| self.merge())); } => {}
            // An error means that the server is gone, which ends it too.
            _ = shutdown.wait_for(|over| *over) => {}
        }
    }
}
