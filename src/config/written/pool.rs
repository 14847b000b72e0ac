//! Pools as people write them.

use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::value::Span;
use super::{Balance, Http2, RetryOn, defaults};

/// A pool.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// `host:port`, or an address with a weight; names are resolved in the background.
    pub endpoints: Vec<Endpoint>,
    /// round_robin, random, user (consistent hash of the user id) or least_requests.
    #[serde(default = "defaults::balance")]
    pub balance: Balance,
    /// Active probing; none by default.
    pub health_check: Option<HealthCheck>,
    /// Passive ejection after consecutive failures: no connection, or closed before an answer.
    #[serde(default)]
    pub ejection: Ejection,
    /// How often DNS names are resolved again.
    #[serde(default = "defaults::resolve_interval")]
    pub resolve_interval: Span,
    /// Limits and timeouts; the defaults are the Go transport's that this proxy replaces.
    #[serde(default)]
    pub connections: Connections,
    /// TLS to the endpoints; names and chains are always verified.
    #[serde(default)]
    pub tls: Tls,
    /// Retries inside the pool.
    #[serde(default)]
    pub retries: Retries,
}

/// An endpoint.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Endpoint {
    /// `host:port`
    Address(String),
    /// With a weight.
    Weighted(WeightedEndpoint),
}

/// An endpoint with a weight.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightedEndpoint {
    /// `host:port`
    pub address: String,
    /// Share relative to the other endpoints, 1 to 65535.
    #[serde(default = "defaults::weight")]
    pub weight: NonZeroU16,
}

/// Active probing.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct HealthCheck {
    /// `GET path` must be answered with 2xx; without it, a TCP connection must open.
    pub path: Option<String>,
    /// The Host of the probe.
    pub host: Option<String>,
    /// Pause between two probes.
    pub interval: Span,
    /// How long one probe may take.
    pub timeout: Span,
    /// Successes in a row that make an endpoint healthy.
    pub healthy_after: NonZeroU32,
    /// Failures in a row that make it unhealthy.
    pub unhealthy_after: NonZeroU32,
}

/// Passive ejection.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ejection {
    /// Failures in a row that eject; 0 turns it off.
    pub consecutive_failures: u32,
    /// How long an endpoint stays out.
    pub duration: Span,
    /// The largest part of a pool that may be out, in percent.
    #[schemars(range(max = 100))]
    pub max_ejected_percent: u8,
}

/// Limits and timeouts of connections.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Connections {
    /// Go Dialer.Timeout.
    pub connect_timeout: Span,
    /// Go Dialer.KeepAlive; 0s turns it off.
    pub tcp_keepalive: Span,
    /// auto (ALPN h2, then http/1.1), never, always (h2c in clear text).
    pub http2: Http2,
    /// Go MaxIdleConns, of the whole process: the same in every pool.
    pub max_idle: usize,
    /// Go MaxIdleConnsPerHost.
    pub max_idle_per_endpoint: usize,
    /// Go MaxConnsPerHost; further requests wait.
    pub max_per_endpoint: NonZeroUsize,
    /// How many may wait; past it 503 at once.
    pub queue_max: usize,
    /// How long one may wait; past it 503.
    pub queue_timeout: Span,
    /// Go IdleConnTimeout.
    pub idle_timeout: Span,
    /// Go TLSHandshakeTimeout.
    pub tls_handshake_timeout: Span,
    /// Go ExpectContinueTimeout; see the README's table.
    pub expect_continue_timeout: Span,
    /// Go ResponseHeaderTimeout; an endpoint that takes nothing of what is sent for so long is given up, too.
    pub response_header_timeout: Span,
    /// The opposite of Go DisableKeepAlives.
    pub reuse: bool,
    /// environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY), none, or a URL.
    pub proxy: String,
}

/// TLS to the endpoints.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Whether TLS is spoken.
    pub enabled: bool,
    /// The name to verify; needed where an endpoint is an address.
    pub server_name: Option<String>,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// PEM file of the certificate shown to the endpoints.
    pub client_certificate: Option<PathBuf>,
    /// PEM file of its key.
    pub client_key: Option<PathBuf>,
}

/// Retries inside the pool.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// Attempts in all, 1 to 10; 1 turns retries off.
    #[schemars(range(min = 1, max = 10))]
    pub attempts: NonZeroU32,
    /// After what: connect, reused_connection_closed, connection_closed (before an answer).
    pub on: Vec<RetryOn>,
}
