//! The live snapshot: loaded by every request, stored by nobody but this module.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::snapshot::{Snapshot, Surroundings};
use crate::rollout::{Problem, RolloutName, RolloutSpec};
use crate::telemetry::metrics;

/// The live state of this node.
pub struct Live {
    current: ArcSwap<Snapshot>,
}

impl Live {
    /// Compiles and publishes the first state.
    ///
    /// # Errors
    /// All problems, each under its rollout's name.
    pub fn start(
        revision: u64,
        rollouts: &[(RolloutName, RolloutSpec)],
        around: &Surroundings,
    ) -> Result<Self, Vec<(RolloutName, Problem)>> {
        let first = Snapshot::compile(revision, rollouts, around)?;
        metrics::set_revision(revision);
        Ok(Self {
            current: ArcSwap::from_pointee(first),
        })
    }

    /// The state that a request which begins now is to see, all through.
    pub fn pin(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }
}
