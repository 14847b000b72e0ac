//! What the data plane is told at start: routes, CORS and the limits on downstream.

use std::time::Duration;

use crate::rollout::{PoolName, RolloutName, RouteId};

/// One route, in the order in which the file has them; matching is by specificity, not by order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouteSettings {
    /// Written in the file, or made from host and path.
    pub id: RouteId,
    /// Which hosts.
    pub host: HostMatch,
    /// Path segments that the request's path must start with; `/` matches all.
    pub path: String,
    /// Where to.
    pub to: RouteTarget,
    /// Cross-origin handling.
    pub cors: Option<Cors>,
}

/// Which `Host` values a route answers to; the port is not looked at, letters are lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostMatch {
    /// Any.
    Any,
    /// Exactly this name.
    Exact(String),
    /// `*.example.com`: any name that ends in `.example.com`, stored with the leading dot.
    Suffix(String),
}

/// What a route selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteTarget {
    /// A rollout decides the release.
    Rollout(RolloutName),
    /// Always this pool.
    Pool(PoolName),
}

/// Who answers cross-origin requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cors {
    /// The upstream: `Origin` is passed on.
    Passthrough,
    /// This proxy, alone.
    Own(OwnCors),
}

/// The policy that the proxy answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnCors {
    /// Exact origins (`https://shop.example.com`), or any.
    pub allow_origins: AllowOrigins,
    /// `Access-Control-Allow-Credentials: true`.
    pub allow_credentials: bool,
    /// `Access-Control-Allow-Methods` of a preflight; empty mirrors the asked method.
    pub allow_methods: Vec<String>,
    /// `Access-Control-Allow-Headers` of a preflight; empty mirrors the asked headers.
    pub allow_headers: Vec<String>,
    /// `Access-Control-Expose-Headers`.
    pub expose_headers: Vec<String>,
    /// `Access-Control-Max-Age` of a preflight.
    pub max_age: Duration,
}

impl OwnCors {
    /// How long a browser may keep a preflight's answer by default.
    pub const MAX_AGE: Duration = Duration::from_secs(600);
}

/// Which origins are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AllowOrigins {
    /// `*`; cannot be combined with credentials.
    Any,
    /// These, compared byte for byte.
    These(Vec<String>),
}

/// Bounds on what a client may send and how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest request head, in bytes; past it 431.
    pub header_bytes_max: usize,
    /// The largest number of request header fields; past it 431.
    pub headers_max: usize,
    /// The largest request body, in bytes; past it 413. `None` means no bound.
    pub body_bytes_max: Option<u64>,
    /// How long a request head may take from its first byte to its last; past it 408. A body may keep us waiting for
    /// as long before its rate matters.
    pub header_timeout: Duration,
    /// The bytes that an HTTP/1 request body must bring for each second that it is waited for; past it 408. 0 for none.
    pub body_rate_min: u64,
    /// How long an idle downstream connection is kept.
    pub keepalive_timeout: Duration,
    /// How long a request body may pause; past it 408.
    pub read_timeout: Duration,
    /// How long one write of a response may take.
    pub write_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes_max: 32 * 1024,
            headers_max: 100,
            body_bytes_max: None,
            header_timeout: Duration::from_secs(10),
            body_rate_min: 240,
            keepalive_timeout: Duration::from_secs(75),
            read_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
        }
    }
}
