//! From a request to an endpoint: the decision, a healthy pool, a place on an endpoint; and what is learned of the
//! connection on the way.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderName, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;

use super::context::Context;
use super::gateway::{Gateway, connection_of};
use super::request::Asked;
use super::routes::Target;
use crate::clock;
use crate::rollout::PoolIdx;
use crate::upstream::{Acquire, PeerUse};

/// The peer for the next attempt. The release is decided once; retries stay inside it.
pub async fn peer(gateway: &Gateway, session: &Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
    let index = match ctx.pool {
        Some(index) => index,
        None => decide(gateway, session, ctx)?,
    };
    ctx.attempts += 1;
    ctx.lease = None;
    ctx.connection = None;
    let pool = gateway.pools().get(index);
    if ctx.attempts == 1 {
        pool.earn_retry();
    }
    let want = Acquire {
        user: ctx.identity.id().map(|id| id.as_bytes()),
        tried: &ctx.tried,
    };
    let lease = pool.acquire(want).await.map_err(|e| unavailable(e.to_string()))?;
    ctx.upstream_since = Some(clock::now());
    let peer = lease.peer(ctx.kind);
    ctx.lease = Some(lease);
    Ok(peer)
}

fn decide(gateway: &Gateway, session: &Session, ctx: &mut Context) -> Result<PoolIdx> {
    let head = session.req_header();
    ctx.kind = kind(head, session.as_ref().is_upgrade_req());
    let place = ctx.route.ok_or_else(|| unavailable("no route".to_owned()))?;
    let index = match gateway.routes().get(place).target {
        Target::Pool(index) => index,
        Target::Rollout(slot) => {
            let live = ctx.snapshot.rollout(slot);
            let table = live.map(|live| live.table());
            let table = table.ok_or_else(|| unavailable("the route's rollout does not exist".to_owned()))?;
            let asked = Asked {
                head,
                client: ctx.client,
                token: ctx.token.as_deref(),
            };
            let mut decision = table.decide(&ctx.identity, &asked);
            if !gateway.pools().any_available(table.release(decision.release).pool) {
                decision = table.fallback(&decision).unwrap_or(decision);
            }
            ctx.decision = Some(decision);
            table.release(decision.release).pool
        }
    };
    ctx.pool = Some(index);
    Ok(index)
}

fn unavailable(why: String) -> Box<Error> {
    Error::explain(ErrorType::HTTPStatus(503), why).into_in()
}

fn kind(head: &RequestHeader, upgrade: bool) -> PeerUse {
    let says = |name: HeaderName, word: &[u8]| {
        let value = head.headers.get(name).map(|v| v.as_bytes());
        value.is_some_and(|v| v.len() >= word.len() && v[..word.len()].eq_ignore_ascii_case(word))
    };
    if upgrade {
        PeerUse::Upgrade
    } else if says(CONTENT_TYPE, b"application/grpc") || says(ACCEPT, b"text/event-stream") {
        PeerUse::Stream
    } else {
        PeerUse::Request
    }
}

/// A connection is there.
pub fn connected(reused: bool, digest: Option<&Digest>, ctx: &mut Context) {
    ctx.reused = Some(reused);
    ctx.connection = connection_of(digest);
    if let Some(lease) = &ctx.lease {
        lease.endpoint().connected();
        if reused {
            lease.endpoint().metrics().reused();
        }
    }
}

/// The head of the request is about to be written.
pub fn sent(session: &mut Session, ctx: &mut Context, pause: Duration) {
    if let Some(lease) = &ctx.lease {
        lease.endpoint().spoke(ctx.upstream_h2);
    }
    if session.as_mut().is_body_empty() {
        ctx.body_over = true;
        wait_for_head(ctx);
    } else {
        wait_for_body(ctx, pause);
    }
}

/// More of the request is due. Pingora bounds that over HTTP/1 only.
pub fn wait_for_body(ctx: &Context, pause: Duration) {
    let over_h2 = ctx.wire.is_none();
    if let (Some(connection), true, false) = (&ctx.connection, over_h2, ctx.upstream_h2) {
        if ctx.upstream_status.is_none() {
            connection.expect_head_by(clock::tick().after(pause));
        }
    }
}

/// The request is all sent: the head of the response is due from now on.
pub fn wait_for_head(ctx: &Context) {
    if let (Some(connection), Some(lease), false) = (&ctx.connection, &ctx.lease, ctx.upstream_h2) {
        if ctx.upstream_status.is_none() {
            connection.expect_head_by(lease.endpoint().head_due(clock::tick()));
        }
    }
}

/// Whether another response follows this one (RFC 9110, 15.2).
pub fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// The head of a response is there.
pub fn answered(response: &ResponseHeader, ctx: &mut Context) {
    let status = response.status;
    if is_interim(status) {
        return;
    }
    ctx.head_arrived();
    ctx.upstream_status = Some(status.as_u16());
    ctx.upstream_duration = ctx.upstream_since.map(|since| since.elapsed());
}

/// No connection came about: the endpoint is noted, so that the next attempt goes elsewhere if it can.
pub fn connect_failed(gateway: &Gateway, ctx: &mut Context) {
    let (Some(lease), Some(index)) = (ctx.lease.take(), ctx.pool) else {
        return;
    };
    gateway.pools().get(index).connect_failed(lease.endpoint());
    ctx.tried.push(Arc::clone(lease.endpoint()));
}
