//! One upstream address: its health, the places for requests in flight, and how to connect to it.

use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use pingora::connectors::L4Connect;
use pingora::protocols::ALPN;
use pingora::upstreams::peer::HttpPeer;

use super::connect_proxy::ConnectProxy;
use super::connection::Registry;
use super::dial::{Dial, Tunnel};
use super::kept::{Kept, Room};
use super::settings::{Connections, Http2};
use super::slots::Slots;
use super::tls::TlsMaterial;
use crate::clock::Tick;
use crate::telemetry::metrics::EndpointMetrics;

/// Streams on one HTTP/2 connection, as Go's transport assumes before the peer's settings arrive.
const H2_STREAMS_MAX: usize = 100;
/// Pings tell a dead HTTP/2 connection from a silent one.
const H2_PING_INTERVAL: Duration = Duration::from_secs(30);

/// What an endpoint is made of.
pub(super) struct EndpointParts<'a> {
    pub address: SocketAddr,
    /// Of its entry in the pool's `endpoints:`.
    pub place: usize,
    /// The name it was resolved from, for TLS and tunnels.
    pub host: &'a str,
    pub port: u16,
    pub weight: NonZeroU16,
    pub pool: &'a str,
    pub pool_number: u32,
    pub connections: &'a Connections,
    /// `None` in clear text; otherwise the name to verify.
    pub server_name: Option<&'a str>,
    pub tls: &'a TlsMaterial,
    pub tunnel: Option<Arc<ConnectProxy>>,
    /// For connections that wait for their next request.
    pub room: &'a Arc<Room>,
}

/// Tells the endpoints of one pool apart. The address alone does not: behind a CONNECT proxy all have the proxy's.
pub type EndpointKey = (SocketAddr, usize);

/// One upstream address.
pub struct Endpoint {
    label: String,
    address: SocketAddr,
    place: usize,
    weight: NonZeroU16,
    slots: Slots,
    keep_max: usize,
    header_timeout: Duration,
    healthy: AtomicBool,
    ejected_until: AtomicU64,
    failures: AtomicU32,
    version: AtomicU8,
    may_speak_h2: bool,
    reuse: bool,
    registry: Arc<Registry>,
    kept: Arc<Kept>,
    metrics: Arc<EndpointMetrics>,
    peer: HttpPeer,
    /// Opens a connection for one request.
    fresh_dial: AnyDial,
    upgrade_peer: HttpPeer,
}

type AnyDial = Arc<dyn L4Connect + Send + Sync>;

/// What a connection is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerUse {
    /// A request that ends with its response.
    Request,
    /// A stream by its own word (gRPC, server-sent events): no time limit between two reads.
    Stream,
    /// A request that asks for an upgrade (WebSocket).
    Upgrade,
}

impl Endpoint {
    pub(super) fn new(parts: &EndpointParts<'_>) -> Self {
        let label = match (&parts.tunnel, parts.address.ip().to_string() == parts.host) {
            (None, _) => parts.address.to_string(),
            (Some(_), true) => format!("{}:{}", parts.address.ip(), parts.port),
            (Some(_), false) => format!("{}:{}", parts.host, parts.port),
        };
        let registry = Arc::new(Registry::default());
        let metrics = Arc::new(EndpointMetrics::new(parts.pool, &label));
        let connections = parts.connections;
        let kept = Kept::new(parts.room);
        let dial = |upgrade, kept: Option<&Arc<Kept>>| -> AnyDial {
            Arc::new(Dial {
                connect_timeout: connections.connect_timeout,
                tcp_keepalive: connections.tcp_keepalive,
                takes_within: connections.response_header_timeout,
                tunnel: parts.tunnel.as_ref().map(|proxy| Tunnel {
                    proxy: Arc::clone(proxy),
                    target: target(parts.host, parts.port),
                }),
                registry: Arc::clone(&registry),
                metrics: Arc::clone(&metrics),
                upgrade,
                kept: kept.cloned(),
            })
        };
        // Pingora keeps the others.
        let ours = parts.server_name.is_none() && connections.http2 != Http2::Always;
        Self {
            peer: peer(parts, dial(false, ours.then_some(&kept)), false),
            fresh_dial: dial(false, None),
            upgrade_peer: peer(parts, dial(true, None), true),
            kept,
            address: parts.address,
            place: parts.place,
            weight: parts.weight,
            slots: Slots::new(connections.max_per_endpoint, connections.queue_max),
            keep_max: connections.max_idle_per_endpoint,
            header_timeout: connections.response_header_timeout,
            healthy: AtomicBool::new(true),
            ejected_until: AtomicU64::new(0),
            failures: AtomicU32::new(0),
            version: AtomicU8::new(UNKNOWN),
            may_speak_h2: parts.server_name.is_some() && connections.http2 != Http2::Never
                || connections.http2 == Http2::Always,
            reuse: connections.reuse,
            label,
            registry,
            metrics,
        }
    }

    /// `address:port`, as in metrics and logs.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it is, and by which entry of the pool.
    pub fn key(&self) -> EndpointKey {
        (self.address, self.place)
    }

    /// Its share of the pool's traffic.
    pub fn weight(&self) -> NonZeroU16 {
        self.weight
    }

    /// Its metrics.
    pub fn metrics(&self) -> &EndpointMetrics {
        &self.metrics
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.slots.taken()
    }

    /// Open connections.
    pub fn open(&self) -> usize {
        self.registry.open()
    }

    /// Whether the last health checks passed.
    pub fn healthy(&self) -> bool {
        self.healthy.load(Ordering::Relaxed)
    }

    /// Whether it may be picked.
    pub fn available(&self, now: Tick) -> bool {
        self.healthy() && !self.ejected(now)
    }

    /// Whether failures in a row keep it out for now.
    pub fn ejected(&self, now: Tick) -> bool {
        self.ejected_until.load(Ordering::Relaxed) > now.millis()
    }

    pub(super) fn set_healthy(&self, healthy: bool) {
        self.healthy.store(healthy, Ordering::Relaxed);
    }

    pub(super) fn eject_until(&self, until: Tick) {
        self.ejected_until.store(until.millis(), Ordering::Relaxed);
        self.failures.store(0, Ordering::Relaxed);
    }

    /// It answered a request.
    pub fn answered(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
        }
    }

    pub(super) fn failed(&self) -> u32 {
        self.failures.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// What the connections speak, learned from the last request on one.
    pub fn spoke(&self, h2: bool) {
        let version = if h2 { H2 } else { H1 };
        if self.version.load(Ordering::Relaxed) != version {
            self.version.store(version, Ordering::Relaxed);
        }
    }

    /// When the head of a response to a request that is sent `now` is overdue.
    pub fn head_due(&self, now: Tick) -> Tick {
        now.after(self.header_timeout)
    }

    pub(super) fn sweep(&self, now: Tick) {
        self.registry.sweep(now);
        self.kept.sweep(now);
    }

    /// Closes the connections that wait for a request: there will be none.
    pub(super) fn keep_none(&self) {
        self.kept.clear();
    }

    pub(super) fn slots(&self) -> &Slots {
        &self.slots
    }

    /// A peer for probing: connections to it are never kept.
    pub(super) fn probe_peer(&self, kind: PeerUse) -> Box<HttpPeer> {
        let mut peer = self.peer(kind, usize::MAX, false);
        if matches!(peer.options.alpn, ALPN::Custom(_)) {
            // Probes are connected by Pingora, which knows none of ours.
            peer.options.alpn = ALPN::H1;
            peer.options.custom_l4 = Some(Arc::clone(&self.fresh_dial));
        }
        peer
    }

    /// The peer for one request. `place` is how many requests were in flight with it: a connection past
    /// `max_idle_per_endpoint` is not kept, because connections in the pool are used before new ones are opened. A
    /// `fresh` one is opened for this request: where one kept connection was closed, so may be the next.
    fn peer(&self, kind: PeerUse, place: usize, fresh: bool) -> Box<HttpPeer> {
        let template = match kind {
            PeerUse::Upgrade => &self.upgrade_peer,
            PeerUse::Request | PeerUse::Stream => &self.peer,
        };
        let mut peer = Box::new(template.clone());
        if place > self.keep_max {
            peer.options.idle_timeout = Some(Duration::ZERO);
        }
        if fresh || !self.reuse && self.may_speak_h2 {
            // HTTP/1 says `Connection: close`; HTTP/2 has no such word, so its connection is in a group of its own.
            peer.group_key = fastrand::u64(..);
            peer.options.max_h2_streams = 1;
            peer.options.idle_timeout = Some(Duration::ZERO);
        }
        if fresh && kind != PeerUse::Upgrade {
            peer.options.custom_l4 = Some(Arc::clone(&self.fresh_dial));
        }
        let bounded = kind == PeerUse::Request && self.may_speak_h2;
        if bounded && self.version.load(Ordering::Relaxed) != H1 {
            // Streams of HTTP/2 share a connection, which must not be ended for one of them.
            peer.options.read_timeout = Some(self.header_timeout);
        }
        peer
    }
}

const UNKNOWN: u8 = 0;
const H1: u8 = 1;
const H2: u8 = 2;

fn peer(parts: &EndpointParts<'_>, dial: AnyDial, upgrade: bool) -> HttpPeer {
    let connections = parts.connections;
    let name = parts.server_name.unwrap_or_default().to_owned();
    let mut peer = HttpPeer::new(parts.address, parts.server_name.is_some(), name);
    // Connections of two pools, or of upgraded and plain requests, are never mixed; nor are tunnels to two targets
    // through one proxy, whose address is the same.
    let tunnel_key = xxhash_rust::xxh3::xxh3_64(target(parts.host, parts.port).as_bytes());
    peer.group_key = tunnel_key ^ (u64::from(parts.pool_number) << 1 | u64::from(upgrade));
    peer.client_cert_key = parts.tls.client.clone();
    let options = &mut peer.options;
    options.ca = parts.tls.authorities.clone();
    options.custom_l4 = Some(dial);
    // Ours is enforced by `Dial`; Pingora applies this one to the TLS handshake alone.
    options.connection_timeout = Some(connections.tls_handshake_timeout);
    options.idle_timeout = Some(connections.idle_timeout);
    options.max_h2_streams = H2_STREAMS_MAX;
    options.h2_ping_interval = Some(H2_PING_INTERVAL);
    options.alpn = match connections.http2 {
        Http2::Always => ALPN::H2,
        Http2::Auto | Http2::Never if upgrade => ALPN::H1,
        Http2::Auto | Http2::Never if parts.server_name.is_none() => super::paced::alpn(),
        Http2::Auto if connections.reuse => ALPN::H2H1,
        Http2::Auto | Http2::Never => ALPN::H1,
    };
    peer
}

fn target(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// A place among the requests in flight to an endpoint, given back on drop.
pub struct Lease {
    endpoint: Arc<Endpoint>,
    place: usize,
}

impl Lease {
    /// `endpoint.slots` was entered just before.
    pub(super) fn entered(endpoint: Arc<Endpoint>) -> Self {
        let place = endpoint.slots.taken();
        Self { endpoint, place }
    }

    /// The endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// How Pingora is to connect; over a connection opened for it, if `fresh`.
    pub fn peer(&self, kind: PeerUse, fresh: bool) -> Box<HttpPeer> {
        self.endpoint.peer(kind, self.place, fresh)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.slots.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::PoolName;
    use crate::upstream::connection::Connection;
    use crate::upstream::pool::Pool;
    use crate::upstream::settings::{Balance, PoolSettings};
    use pingora::protocols::GetProxyDigest;
    use tokio::net::TcpListener;

    fn endpoint(address: SocketAddr) -> Arc<Endpoint> {
        Arc::new(Endpoint::new(&EndpointParts {
            address,
            place: 0,
            host: "127.0.0.1",
            port: address.port(),
            weight: NonZeroU16::MIN,
            pool: "leaving",
            pool_number: 0,
            connections: &Connections::default(),
            server_name: None,
            tls: &TlsMaterial::default(),
            tunnel: None,
            room: &Room::new(10),
        }))
    }

    fn pool() -> Pool {
        let name = PoolName::parse("leaving").expect("a name");
        Pool::new(PoolSettings::plain(name, Vec::new(), Balance::RoundRobin))
    }

    #[tokio::test]
    async fn an_endpoint_that_left_its_pool_keeps_its_deadlines_and_no_waiting_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let (pool, endpoint) = (pool(), endpoint(listener.local_addr().expect("address")));
        pool.replace(vec![Arc::clone(&endpoint)]);
        let dial = endpoint.peer.options.custom_l4.clone().expect("a dial");
        let at = listener.local_addr().expect("address").into();
        let (waits, busy) = (dial.connect(&at).await, dial.connect(&at).await);
        endpoint.kept.put(waits.expect("connected"), Tick::from_millis(60_000));
        let busy = busy.expect("connected");
        let connection = Connection::of(&busy.get_proxy_digest().expect("a digest")).expect("a connection");
        connection.expect_head_by(Tick::from_millis(10));
        pool.sweep(Tick::from_millis(9));
        assert_eq!((endpoint.open(), connection.expired()), (2, false));
        pool.replace(Vec::new());
        pool.sweep(Tick::from_millis(10));
        assert_eq!((endpoint.open(), connection.expired()), (1, true));
        let left = Arc::downgrade(&endpoint);
        drop(endpoint);
        assert!(left.upgrade().is_none(), "the pool holds nobody back");
    }
}
