//! What one request carries through the phases.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, StatusCode};
use pingora::http::RequestHeader;
use smallvec::SmallVec;

use super::fields::Fields;
use super::places::Place;
use super::trace::Ids;
use super::wire::Wire;
use crate::clock::{self, Tick};
use crate::control::Snapshot;
use crate::identity::Identity;
use crate::identity::jwt::Token;
use crate::rollout::{Decision, PoolIdx};
use crate::upstream::{Connection, Endpoint, Lease, Whole};

/// One request.
pub struct Context {
    /// The state that this request sees, all through.
    pub snapshot: Arc<Snapshot>,
    pub started: Instant,
    /// What is known of the downstream connection's bytes; HTTP/1 only.
    pub wire: Option<Arc<Wire>>,
    /// The connection's other end.
    pub peer: Option<SocketAddr>,
    /// Who asks, as far as that is believed: what a trusted peer says, or the connection's other end.
    pub client: Option<IpAddr>,
    /// Whether the peer may send identity and forwarding fields.
    pub trusted: bool,
    /// What the head has of what the gateway looks for.
    pub fields: Fields,
    pub ids: Ids,
    /// The host it is for, as it was written.
    pub host: Option<HeaderValue>,
    pub route: Option<usize>,
    pub identity: Identity,
    /// The token that says who asks, if one does.
    pub token: Option<Arc<Token>>,
    /// What a 401 says of how to do better.
    pub challenge: Option<&'static str>,
    pub decision: Option<Decision>,
    pub pool: Option<PoolIdx>,
    pub lease: Option<Lease>,
    pub connection: Option<Arc<Connection>>,
    /// The endpoint of the last attempt, once its place is given back.
    pub last: Option<Arc<Endpoint>>,
    /// Endpoints that failed this request.
    pub tried: SmallVec<[Arc<Endpoint>; 1]>,
    pub attempts: u32,
    /// Whether a kept connection turned out to be closed: the next attempt opens its own.
    pub stale: bool,
    pub reused: Option<bool>,
    /// Whether something is due on the connection.
    pub waiting: bool,
    /// Whether the request asks for an upgrade, and whether it is a stream by its own word.
    pub kind: crate::upstream::PeerUse,
    pub upstream_h2: bool,
    pub upstream_since: Option<Instant>,
    pub upstream_status: Option<u16>,
    pub upstream_duration: Option<Duration>,
    /// Whether the upstream's head is written here.
    pub writes_head: bool,
    /// The head, while Pingora has another.
    pub head: Option<RequestHeader>,
    /// The length of the request's body, if all of it came with the head.
    pub body_here: usize,
    pub body_bytes: u64,
    /// Whether all of the request was read.
    pub body_over: bool,
    /// The response, where it came whole.
    pub whole: Option<Whole>,
    /// Its status and the length of its body, where it goes to the client past Pingora.
    pub spliced: Option<(StatusCode, usize)>,
    /// Whether an interim response (1xx) was passed on.
    pub interim: bool,
    /// Whether all of the response was passed on, as far as it is written in order.
    pub answered: bool,
    /// The status decided by [`failure`](super::failure), where one was.
    pub failed: Option<u16>,
    pub aborted: bool,
    /// The place among the requests in flight.
    pub place: Option<Place>,
    /// The cookie to set on an anonymous visitor.
    pub set_cookie: Option<String>,
}

impl Context {
    /// A request that has just begun.
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self {
            snapshot,
            started: clock::now(),
            wire: None,
            peer: None,
            client: None,
            trusted: false,
            fields: Fields::default(),
            ids: Ids::none(),
            host: None,
            route: None,
            identity: Identity::Anonymous,
            token: None,
            challenge: None,
            decision: None,
            pool: None,
            lease: None,
            connection: None,
            last: None,
            tried: SmallVec::new(),
            attempts: 0,
            stale: false,
            reused: None,
            waiting: false,
            kind: crate::upstream::PeerUse::Request,
            upstream_h2: false,
            upstream_since: None,
            upstream_status: None,
            upstream_duration: None,
            writes_head: false,
            head: None,
            body_here: 0,
            body_bytes: 0,
            body_over: false,
            whole: None,
            spliced: None,
            interim: false,
            answered: false,
            failed: None,
            aborted: false,
            place: None,
            set_cookie: None,
        }
    }

    /// The endpoint of the last attempt.
    pub fn endpoint(&self) -> Option<&Arc<Endpoint>> {
        let held = self.lease.as_ref().map(Lease::endpoint);
        held.or(self.last.as_ref()).or_else(|| self.tried.last())
    }

    /// A part of the response is being passed on: more of it may be read.
    pub fn took(&self) {
        if let Some(connection) = &self.connection {
            connection.pace().took();
        }
    }

    /// Gives the place on the endpoint back: the upstream connection is no longer in use.
    pub fn leave(&mut self) {
        if let Some(lease) = self.lease.take() {
            self.last = Some(Arc::clone(lease.endpoint()));
        }
    }

    /// More of this request or its response is due on its connection by then.
    pub fn expect_by(&mut self, due: Tick) {
        if let Some(connection) = &self.connection {
            connection.expect_head_by(due);
            self.waiting = true;
        }
    }

    /// Nothing is due any more. Where nothing was, the connection may be another request's by now.
    pub fn head_arrived(&mut self) {
        if let Some(connection) = self.connection.as_ref().filter(|_| self.waiting) {
            connection.head_arrived();
            self.waiting = false;
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // A request that ends in any way leaves no deadline behind on a connection that others will use.
        self.head_arrived();
    }
}
