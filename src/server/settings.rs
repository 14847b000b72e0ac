//! What the process is told at start: threads, files, listeners and how long to drain.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::identity::Peers;

/// The process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSettings {
    /// Worker threads of the data plane.
    pub threads: usize,
    /// Written by a daemon.
    pub pid_file: PathBuf,
    /// Where a successor waits for the listening sockets.
    pub upgrade_sock: PathBuf,
    /// How long an old process may finish what is in flight.
    pub drain: Duration,
    /// How long the listeners stay open after TERM while `/readyz` already says no.
    pub drain_delay: Duration,
    /// Where a daemon's error log goes.
    pub error_log: Option<PathBuf>,
    /// The user and group that a daemon changes to.
    pub user: Option<String>,
    /// See `user`.
    pub group: Option<String>,
}

impl ServerSettings {
    /// How long an old process may finish what is in flight, by default.
    pub const DRAIN: Duration = Duration::from_secs(30);
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            pid_file: PathBuf::from("run/switchyard.pid"),
            upgrade_sock: PathBuf::from("run/switchyard-upgrade.sock"),
            drain: Self::DRAIN,
            drain_delay: Duration::ZERO,
            error_log: None,
            user: None,
            group: None,
        }
    }
}

/// One address that downstream connects to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Where; port 0 lets the system choose.
    pub address: SocketAddr,
    /// TLS, with HTTP/2 by ALPN.
    pub tls: Option<TlsSettings>,
    /// HTTP/2 without TLS, by prior knowledge, beside HTTP/1.1.
    pub h2c: bool,
    /// The only peers that may connect, and that say first for whom; anyone for themselves where there are none.
    pub relays: Option<Peers>,
}

/// TLS of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// At least one; the first is shown to clients that ask for no name, or for one that no certificate has.
    pub certificates: Vec<TlsFiles>,
    /// Whether clients are asked for certificates, and which are good.
    pub client_auth: Option<ClientAuth>,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
}

impl TlsSettings {
    /// How long a handshake may take, by default.
    pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

    /// The files of the first certificate.
    ///
    /// # Panics
    /// Without one.
    #[must_use]
    pub fn first(&self) -> &TlsFiles {
        &self.certificates[0]
    }
}

/// What clients have to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientAuth {
    /// PEM file of the authorities that sign their certificates.
    pub ca: PathBuf,
    /// Whether those without one are refused.
    pub required: bool,
}

/// PEM files of a certificate chain and its key; read again when they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}
