//! What is published together: every rollout's table, the labels and header values that requests need of it, and the
//! revision.

use http::HeaderValue;

use crate::rollout::{Decision, PoolIdx, PoolName, Problem, Reason, RolloutName, RolloutSpec, Table};
use crate::telemetry::metrics::{self, ReleaseMetrics};

/// The place of a rollout that a route selects; fixed at start, so that a request finds its table without a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(pub u16);

/// Yields the number of a pool, if it exists.
pub type PoolNumbers = Box<dyn Fn(&PoolName) -> Option<PoolIdx> + Send + Sync>;

/// What tables are compiled against: fixed for the life of the process.
pub struct Surroundings {
    /// The rollouts that routes select, in the order of their slots.
    pub slots: Vec<RolloutName>,
    /// The names of the routes, in their order; a label of `switchyard_requests_total`.
    pub routes: Vec<String>,
    /// The number of a pool, if it exists.
    pub pool: PoolNumbers,
}

/// One published state.
pub struct Snapshot {
    revision: u64,
    by_slot: Vec<Option<LiveRollout>>,
}

/// A compiled rollout with what is looked up once for all its requests.
pub struct LiveRollout {
    table: Table,
    releases: Vec<LiveRelease>,
}

struct LiveRelease {
    metrics: ReleaseMetrics,
    /// `X-Rollout`, by reason.
    stamps: [HeaderValue; Reason::ALL.len()],
}

impl Snapshot {
    /// Compiles what a document says. A slot without a rollout in it stays empty.
    ///
    /// # Errors
    /// All problems of all rollouts, each under the rollout's name.
    pub fn compile(
        revision: u64,
        rollouts: &[(RolloutName, RolloutSpec)],
        around: &Surroundings,
    ) -> Result<Self, Vec<(RolloutName, Problem)>> {
        let mut problems = Vec::new();
        let mut by_slot: Vec<Option<LiveRollout>> = around.slots.iter().map(|_| None).collect();
        for (name, spec) in rollouts {
            match Table::compile(name, spec, around.pool.as_ref()) {
                Ok(table) => {
                    let place = around.slots.iter().position(|slot| slot == name);
                    if let Some(slot) = place.and_then(|place| by_slot.get_mut(place)) {
                        *slot = Some(LiveRollout::new(table, revision, around));
                    }
                }
                Err(found) => problems.extend(found.into_iter().map(|p| (name.clone(), p))),
            }
        }
        if problems.is_empty() {
            Ok(Self { revision, by_slot })
        } else {
            Err(problems)
        }
    }

    /// The store's number for the last change in it.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The rollout of a route, if it exists at this revision.
    pub fn rollout(&self, slot: Slot) -> Option<&LiveRollout> {
        self.by_slot.get(usize::from(slot.0))?.as_ref()
    }
}

impl LiveRollout {
    fn new(table: Table, revision: u64, around: &Surroundings) -> Self {
        let routes: Vec<&str> = around.routes.iter().map(String::as_str).collect();
        let rollout = table.name().as_str();
        let releases = table
            .releases()
            .iter()
            .map(|release| LiveRelease {
                metrics: ReleaseMetrics::new(rollout, release.name.as_str(), &routes),
                stamps: Reason::ALL.map(|reason| stamp(rollout, release.name.as_str(), revision, reason)),
            })
            .collect();
        for (release, weight) in table.weights() {
            metrics::set_rollout_weight(rollout, release.as_str(), weight.parts_per_million());
        }
        Self { table, releases }
    }

    /// The compiled rollout.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The metrics of the decided release.
    pub fn metrics(&self, decision: &Decision) -> &ReleaseMetrics {
        &self.releases[usize::from(decision.release.0)].metrics
    }

    /// The value of `X-Rollout` for that decision.
    pub fn stamp(&self, decision: &Decision) -> &HeaderValue {
        &self.releases[usize::from(decision.release.0)].stamps[decision.reason.index()]
    }
}

fn stamp(rollout: &str, release: &str, revision: u64, reason: Reason) -> HeaderValue {
    let text = format!("{rollout}={release}; rev={revision}; reason={}", reason.as_str());
    // Names are made of letters, digits, `.`, `_` and `-`, so the text is a valid header value.
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
