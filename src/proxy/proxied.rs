//! Connections that a relay passes on, and that it begins with a header of the PROXY protocol: who the client is in
//! place of the relay, for everything that asks. Without such a header, or from another peer, nothing is served.

mod header;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use log::warn;
use pingora::protocols::l4::socket::SocketAddr as Address;
use pingora::protocols::{GetSocketDigest, SocketDigest, UniqueID};
use tokio::io::AsyncRead;
use tokio::time::timeout;

use self::header::{Said, Wrong};
use crate::identity::Peers;
use crate::telemetry::{metrics, targets};

/// Who may pass connections on, and how long they may take to say for whom.
#[derive(Debug)]
pub struct Relays {
    peers: Peers,
    patience: Duration,
    stranger_told: AtomicBool,
    broken_told: AtomicBool,
}

impl Relays {
    /// These.
    pub fn new(peers: Peers, patience: Duration) -> Self {
        Self {
            peers,
            patience,
            stranger_told: AtomicBool::new(false),
            broken_told: AtomicBool::new(false),
        }
    }

    /// Reads the header, and has the connection be the client's from now on. Whether it may go on.
    pub async fn introduce<S>(&self, stream: &mut S) -> bool
    where
        S: AsyncRead + GetSocketDigest + UniqueID + Unpin + ?Sized,
    {
        let digest = stream.get_socket_digest();
        let peer = digest.and_then(|digest| digest.peer_addr()?.as_inet().copied());
        let Some(peer) = peer.filter(|peer| self.peers.contains(peer.ip())) else {
            self.tell_stranger(peer);
            return false;
        };
        match timeout(self.patience, header::read(stream)).await {
            Ok(Ok(Said::Relay)) => true,
            Ok(Ok(Said::Client(client))) => is_from(stream, Some(Address::Inet(client))),
            // Whoever it is must not be believed what the relay would be.
            Ok(Ok(Said::Unknown)) => is_from(stream, None),
            // Whether somebody listens is all that it wanted to know.
            Ok(Err(Wrong::Gone)) => false,
            Ok(Err(Wrong::Malformed | Wrong::Cut)) | Err(_) => {
                self.tell_broken(peer);
                false
            }
        }
    }

    fn tell_stranger(&self, peer: Option<SocketAddr>) {
        metrics::downstream_protocol_error("proxy_stranger");
        if !self.stranger_told.swap(true, Ordering::Relaxed) {
            warn!(
                target: targets::PROXY,
                "closed a connection of {}, which the listener's proxy_protocol does not list; further ones are only \
                 counted (switchyard_downstream_protocol_errors_total)",
                peer.map_or_else(|| "-".to_owned(), |peer| peer.ip().to_string()),
            );
        }
    }

    fn tell_broken(&self, peer: SocketAddr) {
        metrics::downstream_protocol_error("proxy_header");
        if !self.broken_told.swap(true, Ordering::Relaxed) {
            warn!(
                target: targets::PROXY,
                "closed a connection of {}, which began with no header of the PROXY protocol, or took too long for one; \
                 further ones are only counted (switchyard_downstream_protocol_errors_total)",
                peer.ip(),
            );
        }
    }
}

/// Has a connection come from there.
fn is_from<S: GetSocketDigest + UniqueID + ?Sized>(stream: &mut S, address: Option<Address>) -> bool {
    let digest = SocketDigest::from_raw_fd(stream.id());
    // It is new, and so has no address yet.
    let set = digest.peer_addr.set(address);
    stream.set_socket_digest(digest);
    set.is_ok()
}
