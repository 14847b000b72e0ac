//! Opens connections to one endpoint: bounded in time, with TCP keep-alive, through a CONNECT proxy where one is
//! asked for. Pingora calls it in place of its own connector, which knows neither a separate limit for the TLS
//! handshake nor proxies that are reached over TCP.

use std::fmt;
use std::future::ready;
use std::net::SocketAddr as InetAddr;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use http::StatusCode;
use pingora::connectors::L4Connect;
use pingora::http::ResponseHeader;
use pingora::protocols::GetProxyDigest;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::VirtualSocketStream;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::upstreams::peer::Tracer;
use pingora::{Error, ErrorType, OrErr, Result};
use socket2::{SockRef, TcpKeepalive};
use std::os::fd::AsFd;
use tokio::net::TcpStream;

use super::connect_proxy::ConnectProxy;
use super::connection::{Connection, Registry};
use super::gate::Gate;
use super::kept::Kept;
use crate::telemetry::metrics::EndpointMetrics;

/// What Go's dialer sets beside the idle time: it sends a probe each 15 seconds and gives up after 9.
const KEEPALIVE_PROBE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 9;

/// There is no connection in time. Pingora has one error for that and for a TLS handshake that takes too long.
pub const CONNECT_TIMEOUT: ErrorType = ErrorType::new("connect timeout");
/// EMFILE, ENFILE and EADDRNOTAVAIL of Linux: what this process lacks says nothing of the endpoint.
const OURS: [i32; 3] = [24, 23, 99];

/// How to open a connection to one endpoint.
pub struct Dial {
    pub connect_timeout: Duration,
    pub tcp_keepalive: Option<Duration>,
    /// How long an endpoint may take nothing of what is sent. Pingora waits for that without a bound, and looks at nothing
    /// else meanwhile.
    pub takes_within: Duration,
    pub tunnel: Option<Tunnel>,
    pub registry: Arc<Registry>,
    pub metrics: Arc<EndpointMetrics>,
    /// Whether the socket is a [`Gate`].
    pub upgrade: bool,
    /// Where connections wait for their next request, if it is not Pingora that keeps them.
    pub kept: Option<Arc<Kept>>,
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial")
            .field("tunnel", &self.tunnel)
            .field("upgrade", &self.upgrade)
            .finish_non_exhaustive()
    }
}

/// A CONNECT proxy and what to ask it for.
#[derive(Debug, Clone)]
pub struct Tunnel {
    pub proxy: Arc<ConnectProxy>,
    /// `host:port`
    pub target: String,
}

impl Dial {
    async fn open(&self, address: &InetAddr) -> Result<TcpStream> {
        let explain = || format!("connecting to {address}");
        let mut socket = TcpStream::connect(address).await.map_err(|e| {
            let kind = match e.kind() {
                _ if e.raw_os_error().is_some_and(|code| OURS.contains(&code)) => ErrorType::SocketError,
                std::io::ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
                std::io::ErrorKind::TimedOut => CONNECT_TIMEOUT,
                std::io::ErrorKind::HostUnreachable | std::io::ErrorKind::NetworkUnreachable => {
                    ErrorType::ConnectNoRoute
                }
                _ => ErrorType::ConnectError,
            };
            Error::because(kind, explain(), e)
        })?;
        if let Some(tunnel) = &self.tunnel {
            tunnel
                .proxy
                .open(&mut socket, &tunnel.target)
                .await
                .or_err_with(ErrorType::ConnectProxyFailure, || {
                    format!("tunnel to {} through {address}", tunnel.target)
                })?;
        }
        SockRef::from(&socket)
            .set_tcp_user_timeout(Some(self.takes_within))
            .or_err_with(ErrorType::SocketError, explain)?;
        if let Some(idle) = self.tcp_keepalive {
            let keepalive = TcpKeepalive::new()
                .with_time(idle)
                .with_interval(KEEPALIVE_PROBE_INTERVAL)
                .with_retries(KEEPALIVE_PROBES);
            SockRef::from(&socket)
                .set_tcp_keepalive(&keepalive)
                .or_err_with(ErrorType::SocketError, explain)?;
        }
        Ok(socket)
    }

    fn watched(&self, socket: TcpStream) -> Result<Stream> {
        let descriptor = socket
            .as_fd()
            .try_clone_to_owned()
            .or_err(ErrorType::SocketError, "duplicating the descriptor of a connection")?;
        let home = self.kept.as_ref().map_or_else(Weak::new, Arc::downgrade);
        let connection = Arc::new(Connection::new(descriptor, home));
        let tracing = self.registry.add(&connection);
        let mut stream: Stream = if self.upgrade {
            VirtualSocketStream::new(Box::new(Gate::new(socket))).into()
        } else {
            socket.into()
        };
        stream.tracer = Some(Tracer(tracing));
        // The only place where Pingora carries something of ours with a connection to the requests on it.
        let head = ResponseHeader::build(StatusCode::OK, Some(0))?;
        stream.set_proxy_digest(ProxyDigest::new(Box::new(head), Some(Box::new(connection))));
        self.metrics.opened();
        Ok(stream)
    }
}

impl Dial {
    async fn connect_anew(&self, address: &InetAddr) -> Result<Stream> {
        match tokio::time::timeout(self.connect_timeout, self.open(address)).await {
            Ok(opened) => self.watched(opened?),
            Err(_) => Error::e_explain(
                CONNECT_TIMEOUT,
                format!(
                    "connecting to {address}: no connection within {:?}",
                    self.connect_timeout
                ),
            ),
        }
    }
}

impl L4Connect for Dial {
    /// A connection that waits, or a new one. As `async_trait` has it, with a smaller box for the frequent case.
    fn connect<'life0, 'life1, 'async_trait>(
        &'life0 self,
        address: &'life1 SocketAddr,
    ) -> Pin<Box<dyn Future<Output = Result<Stream>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        if let Some(waiting) = self.kept.as_ref().and_then(|kept| kept.take()) {
            return Box::pin(ready(Ok(waiting)));
        }
        match address.as_inet() {
            Some(address) => Box::pin(self.connect_anew(address)),
            None => Box::pin(ready(Error::e_explain(
                ErrorType::InternalError,
                "endpoints have inet addresses",
            ))),
        }
    }
}
