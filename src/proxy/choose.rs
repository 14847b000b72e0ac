//! From a request to an endpoint: the decision, a healthy pool, a place on an endpoint; and what is learned of the
//! connection on the way.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONNECTION, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, StatusCode, Version};
use pingora::http::RequestHeader;
use pingora::protocols::Digest;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType, Result};
use pingora_proxy::Session;

use super::context::Context;
use super::fields::{Field, Fields};
use super::gateway::Gateway;
use super::request::Asked;
use super::routes::Target;
use super::settings::Cors;
use super::stamp::{self, Stamp};
use super::whole;
use crate::clock;
use crate::control::LiveRollout;
use crate::identity::Identity;
use crate::rollout::PoolIdx;
use crate::upstream::{Acquire, Connection, PeerUse, RetryCause, writes_head};

/// The number of the first response on a connection.
const FIRST_TURN: u64 = 1;

/// The peer for the next attempt. The release is decided once; retries stay inside it.
pub async fn peer(gateway: &Gateway, session: &mut Session, ctx: &mut Context) -> Result<Box<HttpPeer>> {
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
    let mut peer = lease.peer(ctx.kind, ctx.stale);
    ctx.writes_head = stamp::is_plain(session, ctx) && writes_head(&mut peer);
    ctx.lease = Some(lease);
    Ok(peer)
}

fn decide(gateway: &Gateway, session: &Session, ctx: &mut Context) -> Result<PoolIdx> {
    let head = session.req_header();
    let upgrade = ctx.fields.has(Field::Upgrade) && session.as_ref().is_upgrade_req();
    ctx.kind = kind(head, ctx.fields, upgrade);
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
            if let (Some(live), Some(id)) = (live, ctx.identity.id()) {
                live.seen().fetch_for(id.as_bytes());
            }
            table.release(decision.release).pool
        }
    };
    ctx.pool = Some(index);
    Ok(index)
}

/// It is known who asks, and for what: what decides is fetched while other things are done.
pub fn fetch_for(gateway: &Gateway, ctx: &Context, asks: &Identity) {
    let target = ctx.route.map(|place| gateway.routes().get(place).target);
    if let Some(Target::Rollout(slot)) = target {
        if let Some(table) = ctx.snapshot.rollout(slot).map(LiveRollout::table) {
            table.fetch_for(asks);
        }
    }
}

fn unavailable(why: String) -> Box<Error> {
    Error::explain(ErrorType::HTTPStatus(503), why).into_in()
}

fn kind(head: &RequestHeader, fields: Fields, upgrade: bool) -> PeerUse {
    let says = |field, name: HeaderName, word: &[u8]| {
        let value = fields.has(field).then(|| head.headers.get(name)).flatten();
        let value = value.map(|v| v.as_bytes());
        value.is_some_and(|v| v.len() >= word.len() && v[..word.len()].eq_ignore_ascii_case(word))
    };
    if upgrade {
        PeerUse::Upgrade
    } else if says(Field::ContentType, CONTENT_TYPE, b"application/grpc")
        || says(Field::Accept, ACCEPT, b"text/event-stream")
    {
        PeerUse::Stream
    } else {
        PeerUse::Request
    }
}

/// A connection is there.
pub fn connected(session: &mut Session, reused: bool, digest: Option<&Digest>, ctx: &mut Context) -> Result<()> {
    let carried = digest.and_then(|digest| digest.proxy_digest.as_deref());
    ctx.connection = carried.and_then(Connection::of);
    let turn = ctx.connection.as_ref().map(|c| c.pace().begins());
    // Pingora takes those that waited here for new ones.
    let reused = reused || turn > Some(FIRST_TURN);
    ctx.reused = Some(reused);
    if let (Some(wire), Some(connection), Some(turn)) = (&ctx.wire, &ctx.connection, turn) {
        wire.source().comes_from(connection, turn);
    }
    if let Some(lease) = &ctx.lease {
        if reused {
            lease.endpoint().metrics().reused();
        }
    }
    stamp::put_aside(session, ctx)
}

/// Writes down for the upstream what was decided, and begins to wait.
pub fn address(
    gateway: &Gateway,
    session: &mut Session,
    upstream: &mut RequestHeader,
    ctx: &mut Context,
) -> Result<()> {
    let aside = stamp::put_back(session, ctx);
    ctx.upstream_h2 = upstream.version == Version::HTTP_2;
    let pool = ctx.pool.map(|pool| gateway.pools().get(pool));
    let alone = pool.is_some_and(|pool| !pool.settings().connections.reuse);
    let stamp = Stamp {
        tls: session.digest().is_some_and(|d| d.ssl_digest.is_some()),
        identity: gateway.identity().header_names(),
        rollout: stamp_of(gateway, ctx),
        origin: gateway.cors(ctx) == Some(&Cors::Passthrough),
        close: alone && !ctx.upstream_h2 && ctx.kind != PeerUse::Upgrade,
    };
    let splice = aside.then(|| stamp::write(session.req_header(), ctx, &stamp));
    if !aside {
        stamp::stamp(upstream, ctx, &stamp)?;
    } else if stamp.close {
        upstream.insert_header(CONNECTION, "close")?;
    }
    if let Some(connection) = &ctx.connection {
        connection.next_head().set(splice);
    }
    whole::want(gateway, session.req_header(), ctx);
    sent(session, ctx, gateway.limits().read_timeout);
    Ok(())
}

fn stamp_of(gateway: &Gateway, ctx: &Context) -> Option<HeaderValue> {
    let decision = ctx.decision.as_ref()?;
    match gateway.routes().get(ctx.route?).target {
        Target::Rollout(slot) => Some(ctx.snapshot.rollout(slot)?.stamp(decision).clone()),
        Target::Pool(_) => None,
    }
}

/// The head of the request is about to be written.
fn sent(session: &mut Session, ctx: &mut Context, pause: Duration) {
    if let Some(lease) = &ctx.lease {
        lease.endpoint().spoke(ctx.upstream_h2);
    }
    if let Some(connection) = &ctx.connection {
        connection.body_comes(ctx.body_here);
    }
    if session.as_mut().is_body_empty() {
        ctx.body_over = true;
        wait_for_head(ctx);
    } else {
        wait_for_body(ctx, pause);
    }
}

/// More of the request is due. Pingora bounds that over HTTP/1 only. What is due after the response, [`rest`](super::rest)
/// says.
pub fn wait_for_body(ctx: &mut Context, pause: Duration) {
    let over_h2 = ctx.wire.is_none();
    if over_h2 && !ctx.upstream_h2 && ctx.upstream_status.is_none() {
        ctx.expect_by(clock::tick().after(pause));
    }
}

/// The request is all sent: the head of the response is due from now on.
pub fn wait_for_head(ctx: &mut Context) {
    if ctx.upstream_status.is_some() {
        return ctx.head_arrived();
    }
    let due = ctx.lease.as_ref().map(|lease| lease.endpoint().head_due(clock::tick()));
    if let Some(due) = due.filter(|_| !ctx.upstream_h2) {
        ctx.expect_by(due);
    }
}

/// Whether another response follows this one (RFC 9110, 15.2).
pub fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// The head of a response, which is not interim, is there; its body may take its time.
pub fn answered(status: StatusCode, ctx: &mut Context) {
    if let Some(lease) = &ctx.lease {
        lease.endpoint().answered();
    }
    ctx.head_arrived();
    ctx.upstream_status = Some(status.as_u16());
    ctx.upstream_duration = ctx.upstream_since.map(|since| since.elapsed());
}

/// No connection came about: the endpoint is noted, so that the next attempt goes elsewhere if it can. What this process
/// lacks, a descriptor or a port, is not the endpoint's failure.
pub fn connect_failed(gateway: &Gateway, error: &Error, ctx: &mut Context) {
    if *error.etype() != ErrorType::SocketError {
        note_failure(gateway, ctx);
    }
    leave_for_another(ctx);
}

/// Whether a request whose connection failed is tried again, and after what. Only where it may be sent twice, and nothing
/// has been sent downstream.
pub fn again(gateway: &Gateway, session: &Session, error: &mut Error, ctx: &mut Context) -> bool {
    let reused = ctx.reused == Some(true);
    // Decided in every case: Pingora panics on an undecided retry.
    error.retry.decide_reuse(reused);
    let overdue = ctx.connection.as_ref().is_some_and(|c| c.expired());
    let unanswered = session.response_written().is_none() && ctx.upstream_status.is_none() && !overdue;
    let closed = matches!(
        error.etype(),
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError
    ) && *error.esource() == ErrorSource::Upstream;
    if !unanswered || !closed && !error.retry() {
        return false;
    }
    if !reused && closed {
        note_failure(gateway, ctx);
    }
    let replayable = session.req_header().method.is_idempotent() && !session.as_ref().retry_buffer_truncated();
    if !replayable || ctx.interim {
        return false;
    }
    leave_for_another(ctx);
    let pool = ctx.pool.map(|index| gateway.pools().get(index));
    if reused || !closed {
        ctx.stale |= reused;
        return pool.is_some_and(|pool| pool.may_retry(RetryCause::ReusedConnectionClosed, ctx.attempts));
    }
    // Where there is no other endpoint, there is no reason to hope.
    pool.is_some_and(|pool| pool.has_other(&ctx.tried) && pool.may_retry(RetryCause::ConnectionClosed, ctx.attempts))
}

fn note_failure(gateway: &Gateway, ctx: &Context) {
    if let (Some(lease), Some(index)) = (&ctx.lease, ctx.pool) {
        gateway.pools().get(index).failed(lease.endpoint());
    }
}

fn leave_for_another(ctx: &mut Context) {
    if let Some(lease) = ctx.lease.take() {
        ctx.tried.push(Arc::clone(lease.endpoint()));
    }
}
