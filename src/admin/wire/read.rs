//! What is read.

use std::collections::BTreeMap;
use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::values::Named;
use crate::control::{Diff, Source};
use crate::rollout::{Explanation, PoolName, ReleaseName, RolloutName, RolloutSpec, SegmentName, Weight};

/// How this node is doing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// The process.
    pub pid: u32,
    /// How long it has been running.
    pub uptime_seconds: u64,
    /// The revision that requests see.
    pub revision: u64,
    /// Whether it takes requests and is not going away.
    pub ready: bool,
    /// Where changes are kept.
    pub store: StoreState,
    /// Rollouts that this node cannot bring to their latest revision, and why.
    pub stuck: BTreeMap<RolloutName, String>,
    /// The pools, in the order of the configuration.
    pub pools: Vec<PoolState>,
    /// How many rollouts there are.
    pub rollouts: usize,
    /// How many segments there are.
    pub segments: usize,
    /// How many changes wait for their time.
    pub scheduled: usize,
}

/// Where changes are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StoreState {
    /// `memory` or `embedded`.
    pub kind: String,
    /// The file; empty for memory.
    pub place: String,
    /// Why it cannot be written, if it cannot.
    pub read_only: Option<String>,
    /// Why the last change could not be written, if it could not; none once one can.
    #[serde(default)]
    pub failing: Option<String>,
}

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PoolState {
    /// Its name.
    pub name: String,
    /// Its endpoints.
    pub endpoints: Vec<EndpointState>,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndpointState {
    /// `address:port`.
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

/// All rollouts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rollouts {
    /// The revision that was read.
    pub revision: u64,
    /// By name.
    pub rollouts: BTreeMap<RolloutName, Rollout>,
}

/// A rollout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Rollout {
    /// The revision of its last change; also its ETag.
    pub revision: u64,
    /// What it is made of, without its single users.
    pub spec: RolloutSpec,
    /// Each release's share, stable's included.
    pub weights: BTreeMap<ReleaseName, Weight>,
    /// How many single users are pinned.
    pub users: usize,
    /// Why this node still serves an older state of it, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<String>,
}

/// A page of single users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UserList {
    /// The rollout's revision.
    pub revision: u64,
    /// Single users and their release.
    pub users: Vec<User>,
    /// What `after` is for the next page; none after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A single user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct User {
    /// The user id.
    pub user: String,
    /// What the user gets.
    pub release: ReleaseName,
    /// When that ends, RFC 3339; never where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// All segments.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Segments {
    /// By name.
    pub segments: BTreeMap<SegmentName, Segment>,
}

/// A named list of users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Segment {
    /// The revision of its last change; also its ETag.
    pub revision: u64,
    /// How many users are in it.
    pub users: usize,
    /// When it was created; told of one segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// When it was changed last; told of one segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<String>,
    /// The file with most of its users, where they are many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub roster: Option<Roster>,
    /// How many users came in or went out since that file was written; all users, where there is none.
    #[serde(default)]
    pub since: usize,
}

/// Many users in a file, which does not change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Roster {
    /// The digest of its contents (XXH3, 128 bits), by which the file is named.
    pub digest: String,
    /// How many users are in it.
    pub users: u64,
    /// How many bytes it takes, in memory and on the disk; the names beside it, which deciding does not read, included.
    pub bytes: u64,
}

/// A page of a segment's users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MemberPage {
    /// The segment's revision.
    pub revision: u64,
    /// User ids.
    pub users: Vec<String>,
    /// What `after` is for the next page; none after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A request that is to be explained.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExplainBody {
    /// The user id, as a request brings it; nobody known where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Header fields; several of one name are a list.
    #[serde(default, skip_serializing_if = "Named::is_empty")]
    pub headers: Named,
    /// Cookies, of several of one name the first; those in `headers` count too.
    #[serde(default, skip_serializing_if = "Named::is_empty")]
    pub cookies: Named,
    /// Query parameters, as they are written in the request; of several of one name the first.
    #[serde(default, skip_serializing_if = "Named::is_empty")]
    pub query: Named,
    /// The path; `/` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The client's address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<IpAddr>,
    /// Claims of the user's token; several of one name are a list.
    #[serde(default, skip_serializing_if = "Named::is_empty")]
    pub claims: Named,
}

/// Who gets what, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Explained {
    /// The rollout's revision.
    pub revision: u64,
    /// Every step.
    pub explanation: Explanation,
    /// The pool of the decided release.
    pub pool: PoolName,
    /// Whether that pool has a healthy endpoint now.
    pub pool_available: bool,
    /// What is served instead as long as it has none; none where the answer is 503, or where nothing is wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<ReleaseName>,
}

/// A page of the history, the latest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryPage {
    /// The changes.
    pub changes: Vec<HistoryItem>,
    /// What `before` is for the next page; none after the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<u64>,
}

/// A change that was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HistoryItem {
    /// Its number.
    pub revision: u64,
    /// When, RFC 3339.
    pub at: String,
    /// Who asked.
    pub actor: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where it came from.
    pub source: Source,
    /// The rollouts it is about.
    pub rollouts: Vec<RolloutName>,
    /// One line.
    pub summary: String,
    /// The change, readable.
    pub diff: Vec<Diff>,
}

/// The changes that wait for their time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Schedule {
    /// The next one first.
    pub scheduled: Vec<ScheduledItem>,
}

/// A change that waits for its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ScheduledItem {
    /// Its number.
    pub id: u64,
    /// When it is made, RFC 3339.
    pub at: String,
    /// Who asked.
    pub actor: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// One line.
    pub summary: String,
}
