//! How a case is written in `tests/fixtures/attacks.json`. Text stands for bytes: one code point of 0 to 255 for each.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub id: String,
    pub class: String,
    pub title: String,
    pub proto: Proto,
    pub steps: Vec<Step>,
    /// Any one of them will do.
    pub accept: Vec<Accept>,
    #[serde(default)]
    pub must_not: Vec<MustNot>,
    /// What the origin answers; in its absence a body that names the path.
    pub upstream_script: Option<Script>,
    /// The request that another client sends afterwards; in its absence a plain one.
    pub follow_up: Option<String>,
    /// Whether the program rightly waits for more, so that a silence is all there is to judge.
    #[serde(default)]
    pub waits: bool,
    /// Why it is as it is.
    pub note: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proto {
    H1,
    /// The attack comes from the origin.
    H1Upstream,
    H2,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    Send(String),
    SendHex(String),
    SleepMs(u64),
}

#[derive(Debug, Deserialize)]
pub struct Step {
    #[serde(flatten)]
    pub what: What,
    #[serde(default)]
    pub repeat: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A local answer, and nothing upstream.
    Reject,
    Local,
    CloseWithoutResponse,
    /// No whole request upstream, and no success.
    IncompleteUpstream,
    WaitThenTimeout,
    GatewayError,
    /// The client can see that the message is not whole.
    DownstreamAborted,
    Forward,
    H2StreamError,
    H2ConnectionError,
    H2Status,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accept {
    pub kind: Kind,
    #[serde(default)]
    pub status: Vec<u16>,
    #[serde(default)]
    pub upstream_requests: usize,
    pub upstream: Option<Upstream>,
    pub down: Option<Downstream>,
    pub body: Option<String>,
    pub body_len: Option<usize>,
}

/// What must hold of the first request that reached the origin.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Upstream {
    pub body: Option<String>,
    pub body_len: Option<usize>,
    pub single_framing: bool,
    pub header_equals: BTreeMap<String, String>,
    pub header_absent: Vec<String>,
    pub header_count: BTreeMap<String, usize>,
    pub header_in: BTreeMap<String, Vec<Option<String>>>,
    pub raw_contains: Option<String>,
    pub raw_not_contains: Option<String>,
    pub host_count: Option<usize>,
    pub no_obs_fold: bool,
    pub path: Option<String>,
    pub path_any_of: Vec<String>,
    pub request_line: Option<String>,
    /// Fields in which none of what clients claim in these cases may stand.
    pub client_value_absent: Vec<String>,
    /// The last of `X-Forwarded-For` is the client's address.
    pub xff_last: Option<String>,
    pub trailer_not_promoted: Option<String>,
}

/// What must hold of the response that the client got.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Downstream {
    pub header_absent: Vec<String>,
    pub header_count: BTreeMap<String, usize>,
    pub single_framing: bool,
    pub no_obs_fold: bool,
    pub no_bare_lf: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MustNot {
    UpstreamPathPrefix(String),
    DownstreamResponsesGt(usize),
    UpstreamBareCr(serde::de::IgnoredAny),
    UpstreamRawContains(String),
    DownstreamContains(String),
    DownstreamStatus(u16),
    NextResponseContains(String),
    #[serde(rename = "downstream_complete_2xx")]
    DownstreamComplete2xx(serde::de::IgnoredAny),
    InterimSentToHttp10(serde::de::IgnoredAny),
    RoutedByIdentityButUpstreamHeaderAbsent(serde::de::IgnoredAny),
    UpstreamHost(String),
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Script {
    /// Sent once in place of an answer.
    pub raw: Option<String>,
    /// The same, made of a start, a part, its number, and an end.
    pub raw_repeat: Option<(String, String, usize, String)>,
    /// Sent before the request's body is read.
    pub before_body: bool,
    /// Answers `Expect` with 100.
    pub on_expect: bool,
    /// What comes after it.
    pub then: Then,
    /// Sent byte by byte.
    pub drip: Option<String>,
    pub interval_ms: u64,
    /// `fin_after_ms:N` or `push:BYTES`, after one plain answer.
    pub keepalive_then: Option<String>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    #[default]
    Keep,
    Close,
    /// Waits for the other side to close.
    Hang,
    Reset,
}

/// The bytes that a text stands for.
pub fn bytes(text: &str) -> Vec<u8> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).expect("a byte"))
        .collect()
}

/// The text that stands for bytes.
pub fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}

/// All cases.
pub fn all() -> Vec<Case> {
    #[derive(Deserialize)]
    struct File {
        cases: Vec<Case>,
    }
    let text = include_str!("../../fixtures/attacks.json");
    serde_json::from_str::<File>(text).expect("cases").cases
}
