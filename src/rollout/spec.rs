//! The written form of a rollout.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::name::{PoolName, ReleaseName, SegmentName};
use super::split::Range;
use super::weight::Weight;

/// A rollout as people write it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutSpec {
    /// The releases by name; `stable` is the one everyone falls back to.
    pub releases: BTreeMap<ReleaseName, ReleaseSpec>,
    /// Single users and their release; before every target.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub users: BTreeMap<String, ReleaseName>,
    /// Rules that pin users to a release before the split; the first match wins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<TargetSpec>,
    /// Shares of the releases; the rest is stable's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub split: BTreeMap<ReleaseName, Weight>,
    /// The bucket ranges that the history of weights has led to; made from `split` where left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ranges: Option<Vec<Range>>,
    /// Mixed into the bucket, so that rollouts are independent of each other; the rollout's name by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
    /// What happens when the decided release has no healthy endpoint.
    #[serde(default)]
    pub unhealthy: Unhealthy,
    /// Every user to stable, above every other rule.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub killed: bool,
    /// No new users enter a release, those in it stay: changes that would move someone in are refused.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub frozen: bool,
}

/// A release as people write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReleaseSpec {
    /// The pool that serves it.
    pub pool: PoolName,
}

/// What happens when the decided release has no healthy endpoint; never a re-hash.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Unhealthy {
    /// 503.
    #[default]
    Fail,
    /// Stable, with the reason `fallback`.
    Stable,
}

/// A rule: exactly one of `users`, `segment` and `when`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TargetSpec {
    /// These users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub users: Option<Vec<String>>,
    /// The users of this segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<SegmentName>,
    /// Requests with this attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<When>,
    /// What they get.
    pub release: ReleaseName,
}

/// An attribute of a request and what it must be: exactly one of `header`, `cookie`, `query`, `path`, `cidr` and
/// `claim`, and with all but `path` and `cidr` exactly one of `equals`, `prefix`, `regex` and `semver`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct When {
    /// A header field by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// A cookie by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// A query parameter by name, as it is written in the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// Path segments that the request's path begins with: `/beta` takes `/beta` and `/beta/x`, not `/betamax`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// A network that the client is in: `10.0.0.0/8`, `2001:db8::/32`, or one address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cidr: Option<String>,
    /// A claim of the token that says who asks; of a list, any item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Exactly this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<String>,
    /// A value that begins so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// A value in which this expression is found; write `^…$` to match all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub regex: Option<String>,
    /// A version in this range, such as `>=5.2.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub semver: Option<String>,
}
