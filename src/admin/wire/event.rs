//! The events of `GET /api/v1/events`, each as the JSON after `data:`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `event: revision`: a change is live on this node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LiveRevision {
    /// Its number.
    pub revision: u64,
    /// One line on what was changed; empty where the history does not have it.
    pub summary: String,
    /// Who asked.
    pub actor: String,
}

/// `event: health`: an endpoint is healthy now, or no longer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EndpointHealth {
    /// Its pool.
    pub pool: String,
    /// `address:port`.
    pub endpoint: String,
    /// Whether it gets requests.
    pub healthy: bool,
}

/// `event: figures`: what the last second brought, by rollout and release.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Figures {
    /// The revision at its end.
    pub revision: u64,
    /// Over how long, in milliseconds.
    pub interval_ms: u64,
    /// By rollout, then by release.
    pub rollouts: BTreeMap<String, BTreeMap<String, ReleaseFigures>>,
}

/// One release in an interval.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ReleaseFigures {
    /// Requests that ended.
    pub requests: u64,
    /// Of them, those answered with a 5xx status.
    pub errors: u64,
    /// Mean duration in milliseconds; none without requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mean_ms: Option<f64>,
    /// At most half of the requests took longer, in milliseconds: the end of a histogram's bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p50_ms: Option<f64>,
    /// At most one in a hundred requests took longer, in milliseconds: the end of a histogram's bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p99_ms: Option<f64>,
}
