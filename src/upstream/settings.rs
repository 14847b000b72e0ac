//! What the pools are made of, after the configuration was read: addresses are addresses, every default is filled
//! in, and nothing here needs checking again. Owns the defaults of `connections:`, which are those of the Go
//! transport that this proxy replaces.

use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use crate::rollout::PoolName;
pub use crate::telemetry::metrics::RetryCause;

/// One pool: a named group of equal endpoints.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSettings {
    /// The name that releases and routes point at.
    pub name: PoolName,
    /// At least one.
    pub endpoints: Vec<EndpointSettings>,
    /// How an endpoint is picked.
    pub balance: Balance,
    /// Active probing; `None` means that only failures of real requests count.
    pub health_check: Option<HealthCheck>,
    /// Passive ejection after consecutive failures: no connection, or closed before an answer.
    pub ejection: Ejection,
    /// How often DNS names are resolved again.
    pub resolve_interval: Duration,
    /// Limits and timeouts of connections.
    pub connections: Connections,
    /// TLS to the endpoints; `None` means clear text.
    pub tls: Option<UpstreamTls>,
    /// Retries inside the pool.
    pub retries: Retries,
}

impl PoolSettings {
    /// How often DNS names are resolved again, by default.
    pub const RESOLVE_INTERVAL: Duration = Duration::from_secs(30);
}

/// One line of `endpoints:`; a name may stand for several addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSettings {
    /// Where.
    pub host: Host,
    /// Share of the traffic relative to the other endpoints of the pool.
    pub weight: NonZeroU16,
}

impl EndpointSettings {
    /// The weight of an endpoint that is given none.
    pub const WEIGHT: NonZeroU16 = NonZeroU16::MIN;
}

/// An address, or a name to resolve.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Host {
    /// `10.0.0.2:9001`
    Address(SocketAddr),
    /// `origin.internal:9001`, resolved in the background.
    Name {
        /// The DNS name.
        name: String,
        /// The port.
        port: NonZeroU16,
    },
}

/// How a pool picks among its healthy endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Balance {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// At random, by weight.
    Random,
    /// A consistent hash of the user id: one user stays on one endpoint while the endpoints stay the same.
    User,
    /// The endpoint with the fewest requests in flight for its weight.
    LeastRequests,
}

/// Active probing of every endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// What is sent.
    pub probe: Probe,
    /// Pause between two rounds.
    pub interval: Duration,
    /// How long one probe may take.
    pub timeout: Duration,
    /// Successes in a row that make an endpoint healthy.
    pub healthy_after: NonZeroU32,
    /// Failures in a row that make it unhealthy.
    pub unhealthy_after: NonZeroU32,
}

impl HealthCheck {
    /// The default pause between two rounds.
    pub const INTERVAL: Duration = Duration::from_secs(1);
    /// The default time for one probe.
    pub const TIMEOUT: Duration = Duration::from_secs(1);
    /// The default number of successes or failures in a row.
    pub const THRESHOLD: NonZeroU32 = NonZeroU32::MIN.saturating_add(1);
}

/// One probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// A connection that opens.
    Tcp,
    /// `GET path` answered with 2xx.
    Http {
        /// Origin-form, starts with `/`.
        path: String,
        /// The `Host` of the probe; the endpoint's own by default.
        host: Option<String>,
    },
}

/// Passive ejection: an endpoint that refuses connections is left out for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ejection {
    /// Connect failures in a row that eject; 0 turns ejection off.
    pub consecutive_failures: u32,
    /// How long an ejected endpoint stays out before it is tried again.
    pub duration: Duration,
    /// The largest part of a pool, in percent, that may be out at one time.
    pub max_ejected_percent: u8,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            consecutive_failures: 5,
            duration: Duration::from_secs(10),
            max_ejected_percent: 50,
        }
    }
}

/// The rows of `connections:`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connections {
    /// Go `Dialer.Timeout`.
    pub connect_timeout: Duration,
    /// Go `Dialer.KeepAlive`; `None` turns TCP keep-alive off.
    pub tcp_keepalive: Option<Duration>,
    /// Go `ForceAttemptHTTP2`.
    pub http2: Http2,
    /// Go `MaxIdleConns`: of the whole process.
    pub max_idle: usize,
    /// Go `MaxIdleConnsPerHost`.
    pub max_idle_per_endpoint: usize,
    /// Go `MaxConnsPerHost`: requests in flight to one endpoint; further ones wait.
    pub max_per_endpoint: NonZeroUsize,
    /// How many may wait for one endpoint at a time; past it 503 at once.
    pub queue_max: usize,
    /// How long a request may wait for a place before 503.
    pub queue_timeout: Duration,
    /// Go `IdleConnTimeout`.
    pub idle_timeout: Duration,
    /// Go `TLSHandshakeTimeout`.
    pub tls_handshake_timeout: Duration,
    /// Go `ExpectContinueTimeout`. Pingora streams the body as the client sends it and relays the upstream's 100,
    /// so the client's own timer rules; the key is accepted for the sake of a moved configuration.
    pub expect_continue_timeout: Duration,
    /// Go `ResponseHeaderTimeout`: from the end of the request to the head of the response. As long as that an endpoint may take
    /// nothing of what is sent.
    pub response_header_timeout: Duration,
    /// The opposite of Go `DisableKeepAlives`.
    pub reuse: bool,
    /// Go `Proxy`.
    pub proxy: ProxySetting,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(3),
            tcp_keepalive: Some(Duration::from_secs(30)),
            http2: Http2::Auto,
            max_idle: 5000,
            max_idle_per_endpoint: 500,
            max_per_endpoint: NonZeroUsize::MIN.saturating_add(999),
            queue_max: 1000,
            queue_timeout: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(120),
            tls_handshake_timeout: Duration::from_secs(5),
            expect_continue_timeout: Duration::from_secs(1),
            response_header_timeout: Duration::from_secs(60),
            reuse: true,
            proxy: ProxySetting::Environment,
        }
    }
}

/// Which HTTP version is spoken to the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Http2 {
    /// Over TLS what ALPN yields, h2 before http/1.1; in clear text HTTP/1.1.
    #[default]
    Auto,
    /// HTTP/1.1 only.
    Never,
    /// HTTP/2 only; in clear text by prior knowledge (h2c).
    Always,
}

/// Whether connections go through a CONNECT proxy.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ProxySetting {
    /// As `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say.
    #[default]
    Environment,
    /// Never.
    None,
    /// Always this one, `http://[user:password@]host:port`.
    Url(String),
}

/// TLS to the endpoints of a pool; names and chains are always verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UpstreamTls {
    /// The name to ask for and to verify; needed where an endpoint is an address.
    pub server_name: Option<String>,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// The certificate shown to the endpoints.
    pub client: Option<ClientCertificate>,
}

/// PEM files of a client certificate and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Retries of one request inside its pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retries {
    /// Attempts in all, the first one included; 1 turns retries off.
    pub attempts: NonZeroU32,
    /// What may be tried again.
    pub on: Vec<RetryCause>,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            // One for a kept connection that was closed, one for an endpoint that has died since.
            attempts: NonZeroU32::MIN.saturating_add(2),
            on: vec![
                RetryCause::Connect,
                RetryCause::ReusedConnectionClosed,
                RetryCause::ConnectionClosed,
            ],
        }
    }
}

#[cfg(test)]
impl PoolSettings {
    /// A pool for tests: what is not given is the default.
    pub(super) fn plain(name: PoolName, endpoints: Vec<EndpointSettings>, balance: Balance) -> Self {
        Self {
            name,
            endpoints,
            balance,
            health_check: None,
            ejection: Ejection::default(),
            resolve_interval: Self::RESOLVE_INTERVAL,
            connections: Connections::default(),
            tls: None,
            retries: Retries::default(),
        }
    }
}
