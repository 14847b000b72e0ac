//! The shapes that people write. Every field's comment is also its comment in `conf/switchyard.yaml`.

mod pool;

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;

use super::value::{Size, Span};
use crate::rollout::RolloutSpec;

pub use pool::*;

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
    /// How long a request head may take, from its first byte to its last.
    pub header_timeout: Option<Span>,
    /// Bytes a second that a request body must bring, once it has been waited for as long as for a head; 0 for none.
    pub body_rate_min: Option<Size>,
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
