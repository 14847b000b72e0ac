//! Pools as people write them.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::super::value::Span;

/// A pool.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// `host:port`, or an address with a weight.
    pub endpoints: Vec<Endpoint>,
    /// round_robin, random, user (consistent hash of the user id) or least_requests.
    #[serde(default)]
    pub balance: Balance,
    /// Active probing.
    pub health_check: Option<HealthCheck>,
    /// Passive ejection after consecutive connect failures.
    #[serde(default)]
    pub ejection: Ejection,
    /// How often DNS names are resolved again.
    pub resolve_interval: Option<Span>,
    /// Limits and timeouts; the defaults are the Go transport's that this proxy replaces.
    #[serde(default)]
    pub connections: Connections,
    /// TLS to the endpoints.
    #[serde(default)]
    pub tls: Tls,
    /// Retries inside the pool.
    #[serde(default)]
    pub retries: Retries,
}

/// An endpoint.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Endpoint {
    /// `host:port`
    Address(String),
    /// With a weight.
    Weighted(WeightedEndpoint),
}

/// An endpoint with a weight.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WeightedEndpoint {
    /// `host:port`
    pub address: String,
    /// Share relative to the other endpoints, 1 to 65535.
    pub weight: u16,
}

/// How an endpoint is picked.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// At random, by weight.
    Random,
    /// By a consistent hash of the user id.
    User,
    /// The one with the fewest requests in flight.
    LeastRequests,
}

/// Active probing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// `GET path` must be answered with 2xx; without it, a TCP connection must open.
    pub path: Option<String>,
    /// The Host of the probe.
    pub host: Option<String>,
    /// Pause between two probes.
    pub interval: Option<Span>,
    /// How long one probe may take.
    pub timeout: Option<Span>,
    /// Successes in a row that make an endpoint healthy.
    pub healthy_after: Option<u32>,
    /// Failures in a row that make it unhealthy.
    pub unhealthy_after: Option<u32>,
}

/// Passive ejection.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Ejection {
    /// Connect failures in a row that eject; 0 turns it off.
    pub consecutive_failures: Option<u32>,
    /// How long an endpoint stays out.
    pub duration: Option<Span>,
    /// The largest part of a pool that may be out, in percent.
    pub max_ejected_percent: Option<u8>,
}

/// Limits and timeouts of connections.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Connections {
    /// Go Dialer.Timeout.
    pub connect_timeout: Option<Span>,
    /// Go Dialer.KeepAlive; 0s turns it off.
    pub tcp_keepalive: Option<Span>,
    /// auto (ALPN h2, then http/1.1), never, always (h2c in clear text).
    pub http2: Option<Http2>,
    /// Go MaxIdleConns, of the whole process: the same in every pool.
    pub max_idle: Option<usize>,
    /// Go MaxIdleConnsPerHost.
    pub max_idle_per_endpoint: Option<usize>,
    /// Go MaxConnsPerHost; further requests wait.
    pub max_per_endpoint: Option<usize>,
    /// How many may wait; past it 503 at once.
    pub queue_max: Option<usize>,
    /// How long one may wait; past it 503.
    pub queue_timeout: Option<Span>,
    /// Go IdleConnTimeout.
    pub idle_timeout: Option<Span>,
    /// Go TLSHandshakeTimeout.
    pub tls_handshake_timeout: Option<Span>,
    /// Go ExpectContinueTimeout; see the README's table.
    pub expect_continue_timeout: Option<Span>,
    /// Go ResponseHeaderTimeout.
    pub response_header_timeout: Option<Span>,
    /// The opposite of Go DisableKeepAlives.
    pub reuse: Option<bool>,
    /// environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY), none, or a URL.
    pub proxy: Option<String>,
}

/// Which HTTP version is spoken to the endpoints.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Http2 {
    /// What ALPN yields.
    Auto,
    /// HTTP/1.1 only.
    Never,
    /// HTTP/2 only.
    Always,
}

/// TLS to the endpoints.
#[derive(Debug, Default, Deserialize, JsonSchema)]
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
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retries {
    /// Attempts in all; 1 turns retries off.
    pub attempts: Option<u32>,
    /// After what.
    pub on: Option<Vec<RetryOn>>,
}

/// After what a request is tried again.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RetryOn {
    /// No connection came about.
    Connect,
    /// A reused connection was closed, and the request is replayable.
    ReusedConnectionClosed,
}
