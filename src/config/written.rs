//! The shapes that people write. Every field's comment is also its comment in `conf/switchyard.yaml`.

mod defaults;
mod jwt;
mod pool;
mod words;

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::value::{Size, Span};
use crate::rollout::{PoolName, RolloutName, RolloutSpec};

pub use jwt::*;
pub use pool::*;
pub use words::*;

/// The file.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct File {
    /// The process.
    pub server: Server,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// The listener of the API, /healthz, /readyz and /metrics; `off` turns it off.
    pub admin: Admin,
    /// Who asks.
    pub identity: Identity,
    /// Groups of equal upstream addresses.
    pub pools: BTreeMap<PoolName, Pool>,
    /// Which requests go where; the most specific match wins, whatever the order.
    pub routes: Vec<Route>,
    /// Bounds on what clients send.
    pub limits: Limits,
    /// One line a request.
    pub access_log: AccessLog,
    /// Where changes are kept: embedded or memory.
    pub store: Store,
    /// The rollouts to begin with: used when the store is empty, or lacks one that a route leads to.
    pub rollouts: BTreeMap<RolloutName, RolloutSpec>,
}

/// The process.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Server {
    /// Worker threads; the number of cores by default.
    pub threads: Option<NonZeroU16>,
    /// Written by a daemon (serve -d).
    pub pid_file: PathBuf,
    /// Where a successor (serve -u) waits for the listening sockets.
    pub upgrade_sock: PathBuf,
    /// How long an old process may finish what is in flight.
    pub drain: Span,
    /// How long listeners stay open after TERM while /readyz says no.
    pub drain_delay: Span,
    /// Where a daemon's error log goes.
    pub error_log: Option<PathBuf>,
    /// The user a daemon changes to.
    pub user: Option<String>,
    /// The group a daemon changes to.
    pub group: Option<String>,
}

/// A listener.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// `address:port`; port 0 lets the system choose.
    pub address: String,
    /// TLS, with HTTP/2 by ALPN; the files are read again when they change.
    pub tls: Option<ListenerTls>,
    /// HTTP/2 without TLS, by prior knowledge, beside HTTP/1.1.
    #[serde(default)]
    pub h2c: bool,
    /// The only peers that may connect, each connection beginning with a PROXY protocol header (v1 or v2); none by default.
    pub proxy_protocol: Option<Vec<String>>,
}

/// The files of a TLS listener.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerTls {
    /// PEM file of the chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
    /// More certificates, each for clients that ask for a name in it (SNI); all others are shown the one above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub certificates: Vec<CertificateFiles>,
    /// Asks clients for certificates; see also `client_certificate` below `identity`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_auth: Option<ClientAuth>,
    /// How long a handshake may take.
    #[serde(default = "defaults::handshake_timeout")]
    pub handshake_timeout: Span,
}

/// The files of one more certificate.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// PEM file of the chain, leaf first.
    pub certificate: PathBuf,
    /// PEM file of the private key.
    pub key: PathBuf,
}

/// What clients have to show.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ClientAuth {
    /// PEM file of the authorities that sign their certificates.
    pub ca: PathBuf,
    /// required, or optional: those without a certificate are served, too.
    #[serde(default = "defaults::client_auth_mode")]
    pub mode: ClientAuthMode,
}

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuthMode {
    /// They must.
    Required,
    /// They may.
    Optional,
}

/// The admin listener.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Admin {
    /// `off`
    Word(AdminWord),
    /// Its settings.
    Settings(AdminSettings),
}

/// Instead of the admin listener's settings.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AdminWord {
    /// There is none.
    Off,
}

/// The admin listener's settings.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AdminSettings {
    /// `address:port`; another than loopback needs tokens_file.
    pub address: String,
    /// Lines of ROLE NAME TOKEN; the roles are viewer, operator and admin; read again when it changes.
    pub tokens_file: Option<PathBuf>,
}

/// Where changes are kept.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Store {
    /// In a file of this machine; the default; `memory: {}` forgets what was changed at the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embedded: Option<EmbeddedStore>,
    /// Nowhere: what was changed is forgotten when the program ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<MemoryStore>,
    /// How long changes can be seen and undone.
    pub keep_history: Span,
}

/// A store in a file.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct EmbeddedStore {
    /// The file, with a folder of segments beside it; its folder is made where it is missing.
    pub path: PathBuf,
}

/// A store that forgets.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MemoryStore {}

/// Who asks.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Where ids are looked for; the first that yields one wins.
    pub sources: Vec<Source>,
    /// The only peers that may send the identity header and X-Forwarded-*.
    pub trusted_peers: Vec<String>,
    /// What is done to a value before it is an id: trim, unquote, lowercase (of ASCII letters), percent_decode.
    pub normalise: Vec<Normalise>,
    /// What happens to those without an id: stable, reject (401), or a signed cookie.
    pub anonymous: Anonymous,
}

/// One place where an id may be: exactly one of the keys.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// A header field, from trusted peers only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// A cookie.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// A query parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub query: Option<String>,
    /// A JSON Web Token, from anyone: it proves itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwt: Option<Jwt>,
    /// A name in the certificate that the client has shown: common_name, dns, uri or email.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<CertificateName>,
}

/// What happens to those without an id.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Anonymous {
    /// `stable` or `reject`
    Word(AnonymousWord),
    /// A signed cookie that keeps a visitor on one release.
    Cookie(AnonymousCookie),
}

/// What happens to those without an id, and without a cookie.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AnonymousWord {
    /// They get what targets say of attributes, else stable.
    Stable,
    /// They are answered 401.
    Reject,
}

/// A signed cookie for visitors.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnonymousCookie {
    /// The cookie's name.
    pub cookie: String,
    /// A file of at least 16 random bytes.
    pub secret_file: PathBuf,
}

/// A route.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Its name in logs and metrics; made of host and path by default.
    pub id: Option<String>,
    /// Which requests; all of them by default.
    #[serde(default, rename = "match")]
    pub matching: Match,
    /// The rollout that decides; or write `pool`.
    pub rollout: Option<String>,
    /// The pool that all of them go to; or write `rollout`.
    pub pool: Option<String>,
    /// Cross-origin handling; without it Origin is dropped and no field is added.
    pub cors: Option<Cors>,
}

/// Which requests.
#[derive(Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Match {
    /// `shop.example.com` or `*.example.com`.
    pub host: Option<String>,
    /// Whole path segments that the path begins with.
    pub path: Option<String>,
}

/// Cross-origin handling.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
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
    #[serde(default = "defaults::max_age")]
    pub max_age: Span,
}

/// Who answers cross-origin requests.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CorsMode {
    /// This proxy, alone.
    Own,
    /// The upstream.
    Passthrough,
}

/// Bounds on what clients send.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The largest request head; past it 431.
    pub header_bytes_max: Size,
    /// The most request header fields; past it 431.
    pub headers_max: usize,
    /// The longest request target; past it 414.
    pub target_bytes_max: Size,
    /// The largest request body; past it 413; unbounded by default.
    pub body_bytes_max: Option<Size>,
    /// From a head's first byte to its last; past it 408.
    pub header_timeout: Span,
    /// What a body brings each second at least, once it was waited for that long; past it 408; 0 for none.
    pub body_rate_min: Size,
    /// How long an idle connection is kept.
    pub keepalive_timeout: Span,
    /// Requests on one connection before it is closed.
    pub keepalive_requests_max: NonZeroU32,
    /// How long one read of a request body may take; past it 408.
    pub read_timeout: Span,
    /// How long one write of a response may take.
    pub write_timeout: Span,
    /// Open connections; past it 503; less where the limit of open files asks for it.
    pub connections_max: NonZeroUsize,
    /// Of them, those of one client address that is not in trusted_peers; past it 429; 0 for no bound.
    pub connections_per_client: usize,
    /// Requests in flight; past it 503 at once; less where the limit of open files asks for it.
    pub requests_in_flight_max: NonZeroUsize,
    /// Streams at a time on one HTTP/2 connection.
    pub http2_streams_max: NonZeroU32,
    /// Streams that an HTTP/2 client may reset, once they are more than half of all; past it the connection is closed.
    pub http2_resets_max: u32,
}

/// One line a request.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AccessLog {
    /// `-` for standard output, `off`, or a file.
    pub path: String,
    /// json or combined.
    pub format: Format,
    /// hashed, plain or none.
    pub user_id: Shown,
}
