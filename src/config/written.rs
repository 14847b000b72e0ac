//! The shapes that people write. Every field's comment is also its comment in `conf/switchyard.yaml`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::value::{Size, Span};
use crate::rollout::RolloutSpec;

/// The file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// The process.
    pub server: Server,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// The admin listener; `off` turns it off.
    pub admin: Option<Admin>,
    /// Who asks.
    pub identity: Identity,
    /// Groups of equal upstream addresses.
    pub pools: BTreeMap<String, Pool>,
    /// Which requests go where; the most specific match wins.
    pub routes: Vec<Route>,
    /// Bounds on what clients send.
    pub limits: Limits,
    /// One line a request.
    pub access_log: AccessLog,
    /// The rollouts to begin with.
    pub rollouts: BTreeMap<String, RolloutSpec>,
}

/// The process.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Worker threads; the number of cores by default.
    pub threads: Option<u16>,
    /// Written by a daemon.
    pub pid_file: Option<PathBuf>,
    /// Where a successor waits for the listening sockets.
    pub upgrade_sock: Option<PathBuf>,
    /// How long an old process may finish what is in flight.
    pub drain: Option<Span>,
    /// How long listeners stay open after TERM.
    pub drain_delay: Option<Span>,
    /// Where a daemon's error log goes.
    pub error_log: Option<PathBuf>,
    /// The user a daemon changes to.
    pub user: Option<String>,
    /// The group a daemon changes to.
    pub group: Option<String>,
}

/// A listener.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// `address:port`; port 0 lets the system choose.
    pub address: String,
    /// TLS, with HTTP/2 by ALPN; the files are read again when they change.
    pub tls: Option<ListenerTls>,
    /// HTTP/2 without TLS, by prior knowledge, beside HTTP/1.1.
    #[serde(default)]
    pub h2c: bool,
}

/// The files of a TLS listener.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// PEM file of the chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
}

/// The admin listener.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Admin {
    /// `off`
    Word(String),
    /// Its settings.
    Settings(AdminSettings),
}

/// The admin listener's settings.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminSettings {
    /// `address:port`, on loopback.
    pub address: String,
}

/// Who asks.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Where ids are looked for; the first that yields one wins.
    pub sources: Option<Vec<Source>>,
    /// The peers that may send the identity header and X-Forwarded-*.
    pub trusted_peers: Option<Vec<String>>,
    /// What is done to a value before it is an id.
    pub normalise: Option<Vec<Normalise>>,
    /// What happens to those without an id: stable, reject, or a signed cookie.
    pub anonymous: Option<Anonymous>,
}

/// One place where an id may be: exactly one of the keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// A header field, from trusted peers only.
    pub header: Option<String>,
    /// A cookie.
    pub cookie: Option<String>,
    /// A query parameter.
    pub query: Option<String>,
}

/// One step from a value to an id.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Normalise {
    /// Spaces around it are dropped.
    Trim,
    /// Quotes around it are dropped.
    Unquote,
    /// Letters become lower case.
    Lowercase,
    /// `%41` becomes `A`.
    PercentDecode,
}

/// What happens to those without an id.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Anonymous {
    /// `stable` or `reject`
    Word(String),
    /// A signed cookie that keeps a visitor on one release.
    Cookie(AnonymousCookie),
}

/// A signed cookie for visitors.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnonymousCookie {
    /// The cookie's name.
    pub cookie: String,
    /// A file of at least 16 random bytes.
    pub secret_file: PathBuf,
}

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

/// A route.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name in logs and metrics; made of host and path by default.
    pub id: Option<String>,
    /// Which requests; all of them by default.
    #[serde(default, rename = "match")]
    pub matching: Match,
    /// The rollout that decides, or else `pool`.
    pub rollout: Option<String>,
    /// The pool, or else `rollout`.
    pub pool: Option<String>,
    /// Cross-origin handling.
    pub cors: Option<Cors>,
}

/// Which requests.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// `shop.example.com` or `*.example.com`.
    pub host: Option<String>,
    /// Whole path segments that the path begins with.
    pub path: Option<String>,
}

/// Cross-origin handling.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cors {
    /// own or passthrough.
    pub mode: CorsMode,
    /// Exact origins, or `*`.
    #[serde(default)]
    pub allow_origins: Vec<String>,
    /// Whether credentials are allowed.
    #[serde(default)]
    pub allow_credentials: bool,
    /// Methods; those asked for by default.
    #[serde(default)]
    pub allow_methods: Vec<String>,
    /// Header fields; those asked for by default.
    #[serde(default)]
    pub allow_headers: Vec<String>,
    /// Response fields that a page may read.
    #[serde(default)]
    pub expose_headers: Vec<String>,
    /// How long a browser may keep the answer.
    pub max_age: Option<Span>,
}

/// Who answers cross-origin requests.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CorsMode {
    /// This proxy, alone.
    Own,
    /// The upstream.
    Passthrough,
}

/// Bounds on what clients send.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The largest request head.
    pub header_bytes_max: Option<Size>,
    /// The most request header fields.
    pub headers_max: Option<usize>,
    /// The largest request body; none by default.
    pub body_bytes_max: Option<Size>,
    /// How long an idle connection is kept.
    pub keepalive_timeout: Option<Span>,
    /// How long one read of a body may take.
    pub read_timeout: Option<Span>,
    /// How long one write of a response may take.
    pub write_timeout: Option<Span>,
}

/// One line a request.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// `-` for standard output, `off`, or a file.
    pub path: Option<String>,
    /// json or combined.
    pub format: Option<Format>,
    /// hashed, plain or none.
    pub user_id: Option<Shown>,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// One JSON object.
    Json,
    /// The combined format.
    Combined,
}

/// How a user id is shown.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Shown {
    /// Its hash.
    Hashed,
    /// As it is.
    Plain,
    /// Not at all.
    None,
}
