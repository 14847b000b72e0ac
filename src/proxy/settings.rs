//! What the data plane is told at start: routes, CORS and the limits on downstream.

use std::num::{NonZeroU32, NonZeroUsize};
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
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
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

/// No connection lives for ever.
const KEEPALIVE_REQUESTS_MAX: NonZeroU32 = NonZeroU32::MIN.saturating_add(99_999);
/// An idle connection costs some 20 KiB: 400 MiB.
const CONNECTIONS_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(19_999);
/// Of those behind one address of a carrier few are here at a time.
const CONNECTIONS_PER_CLIENT: NonZeroUsize = NonZeroUsize::MIN.saturating_add(999);
const REQUESTS_IN_FLIGHT_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(9_999);
/// As Pingora and most servers have it.
const HTTP2_STREAMS_MAX: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);

/// Bounds on what a client may send and how long it may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest request head, in bytes; past it 431.
    pub header_bytes_max: usize,
    /// The largest number of request header fields; past it 431.
    pub headers_max: usize,
    /// The largest request target, in bytes; past it 414.
    pub target_bytes_max: usize,
    /// The largest request body, in bytes; past it 413. `None` means no bound.
    pub body_bytes_max: Option<u64>,
    /// How long a request head may take from its first byte to its last; past it 408. A body may keep us waiting for
    /// as long before its rate matters.
    pub header_timeout: Duration,
    /// The bytes that an HTTP/1 request body must bring for each second that it is waited for; past it 408. 0 for none. The
    /// rest of an HTTP/2 one, too, once the request is answered; past it the stream is reset.
    pub body_rate_min: u64,
    /// How long an idle downstream connection is kept.
    pub keepalive_timeout: Duration,
    /// Requests on one downstream connection before it is closed.
    pub keepalive_requests_max: NonZeroU32,
    /// How long a request body may pause; past it 408.
    pub read_timeout: Duration,
    /// How long one write of a response may take.
    pub write_timeout: Duration,
    /// Open downstream connections; past it 503.
    pub connections_max: NonZeroUsize,
    /// Of them, those of one client address that is not trusted; past it 429. `None` means no bound.
    pub connections_per_client: Option<NonZeroUsize>,
    /// Requests in flight; past it 503 at once.
    pub requests_in_flight_max: NonZeroUsize,
    /// Streams at a time on one HTTP/2 connection.
    pub http2_streams_max: NonZeroU32,
    /// Streams that the client of one HTTP/2 connection may reset, once they are more than half of all; past it the
    /// connection is closed.
    pub http2_resets_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            header_bytes_max: 32 * 1024,
            headers_max: 100,
            target_bytes_max: 16 * 1024,
            body_bytes_max: None,
            header_timeout: Duration::from_secs(10),
            body_rate_min: 240,
            keepalive_timeout: Duration::from_secs(75),
            keepalive_requests_max: KEEPALIVE_REQUESTS_MAX,
            read_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            connections_max: CONNECTIONS_MAX,
            connections_per_client: Some(CONNECTIONS_PER_CLIENT),
            requests_in_flight_max: REQUESTS_IN_FLIGHT_MAX,
            http2_streams_max: HTTP2_STREAMS_MAX,
            http2_resets_max: 500,
        }
    }
}
