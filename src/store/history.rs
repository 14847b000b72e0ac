//! The record of changes, as it is read.

use serde::{Deserialize, Serialize};

use super::Record;
use crate::rollout::{Revision, RolloutName};

/// The actor of what nobody asked for: seeds, pins and scheduled changes that are over, merges. No token has this name.
pub const OURSELVES: &str = "switchyard";

/// Where a change came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The `rollouts:` of the configuration, when the store was empty.
    Seed,
    /// The HTTP API, called by something that does not say what it is.
    Api,
    /// The command line.
    Cli,
    /// The console page.
    Console,
    /// A scheduled change whose time came.
    Schedule,
    /// A single user's time that was over.
    Expiry,
    /// A segment's users that were written to a new file; nobody's membership changed.
    Merge,
}

/// One line of a readable diff: `checkout.split.canary: 5% → 12.5%`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Diff {
    /// What it is about, from the rollout's or segment's name down.
    pub path: String,
    /// As it was; none where there was nothing.
    pub before: Option<String>,
    /// As it is; none where there is nothing.
    pub after: Option<String>,
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// Its number.
    pub revision: Revision,
    /// Who asked, when and why, and what it came to.
    pub record: Record,
}

/// Which part of the history is wanted, the latest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only changes of this rollout.
    pub rollout: Option<RolloutName>,
    /// Only changes before this revision.
    pub before: Option<Revision>,
    /// Only what somebody asked for: not what the program does by itself, see [`OURSELVES`].
    pub asked_for: bool,
    /// At most so many.
    pub limit: usize,
}
