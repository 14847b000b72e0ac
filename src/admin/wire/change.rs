//! What is asked of a change, and what it answers.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::control::Diff;
use crate::rollout::{Plan, ReleaseName, RolloutName, RolloutSpec, Turnover, Weight};

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Changed {
    /// The revision of the change; the current one where nothing was changed.
    pub revision: u64,
    /// Whether the next request on this node sees it.
    pub live: bool,
    /// Whether there was anything to change; false for a dry run.
    pub changed: bool,
    /// Whether it was only said what would be done.
    pub dry_run: bool,
    /// The number of the scheduled change, where it waits for its time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduled: Option<u64>,
    /// One line.
    pub summary: String,
    /// The change, readable.
    #[serde(default)]
    pub diff: Vec<Diff>,
    /// By rollout: who moves.
    #[serde(default)]
    pub plans: BTreeMap<RolloutName, Plan>,
    /// Of a change of one segment's users: how many come in, go out and stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub members: Option<Turnover>,
}

/// Shares of the releases by name, such as `{"canary": "12.5%"}`; the rest is stable's.
pub type SplitBody = BTreeMap<ReleaseName, Weight>;

/// Rollouts that are created or replaced in one change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyBody {
    /// By name.
    pub rollouts: BTreeMap<RolloutName, RolloutSpec>,
}

/// A candidate: exactly one of `split` and `spec`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanBody {
    /// Other shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<SplitBody>,
    /// Another spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spec: Option<RolloutSpec>,
}

/// Who would move.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Planned {
    /// The revision that was looked at.
    pub revision: u64,
    /// Who would move.
    pub plan: Plan,
}

/// Where a single user is pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserBody {
    /// What the user gets.
    pub release: ReleaseName,
    /// When that ends, RFC 3339; never where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// One line of an NDJSON list of users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UserLine {
    /// The user id.
    pub user: String,
    /// What the user gets; that of the query parameter `release` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub release: Option<ReleaseName>,
    /// When that ends, RFC 3339; never where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Users that come into a segment, or go out of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EditBody {
    /// Their ids.
    pub users: Vec<String>,
}

/// Where undo goes back to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UndoBody {
    /// The revision whose state is restored; that before the last change where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}
