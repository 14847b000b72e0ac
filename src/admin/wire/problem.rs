//! An error, as RFC 9457 has it, with everything that is wrong.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Problem {
    /// What kind of error, as a short word; see the list in the document of the API.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in a few words.
    pub title: String,
    /// The status of the answer.
    pub status: u16,
    /// What is wrong, and what to do.
    pub detail: String,
    /// Everything that is wrong, place by place.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<ProblemItem>,
    /// The current revision of what was to be changed, where that is the trouble.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ProblemItem {
    /// Where: `checkout.split.canary`, `line 17`, `If-Match`.
    pub key: String,
    /// What is wrong, and what to write.
    pub message: String,
}
