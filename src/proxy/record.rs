//! The end of a request: metrics and one access-log line, exactly once, aborted requests included.

use http::Version;
use http::header::{REFERER, USER_AGENT};
use pingora_proxy::Session;

use super::context::Context;
use super::gateway::Gateway;
use super::routes::{Route, Target};
use super::{respond, trace};
use crate::clock;
use crate::control::LiveRollout;
use crate::identity::SourceKind;
use crate::rollout::Decision;
use crate::telemetry::access_log::{AccessRecord, HttpVersion};

/// Counts and writes down a request that is over.
pub fn record(gateway: &Gateway, session: &mut Session, ctx: &Context) {
    let route = ctx.route.map(|place| gateway.routes().get(place));
    let decided = route.and_then(|route| decided(ctx, route));
    let status = status(session, ctx);
    let duration = ctx.started.elapsed();
    if let Some(route) = route {
        let metrics = match decided {
            Some((live, decision)) => live.metrics(decision),
            None => &route.metrics,
        };
        metrics.request(route.nth, status);
        metrics.duration(duration);
        if let Some((live, decision)) = decided {
            metrics.decision(decision.reason.index(), ctx.identity.source().index());
            if let Some(id) = ctx.identity.id() {
                live.seen()
                    .note(id.as_bytes(), ctx.identity.user().is_some(), decision, clock::tick());
            }
        }
        if ctx.aborted {
            metrics.abort();
        }
    }
    let bytes_in = session.body_bytes_read() as u64;
    let spliced = ctx.spliced.filter(|_| respond::answered(session).is_some());
    let bytes_out = (session.body_bytes_sent() + spliced.map_or(0, |(_, body)| body)) as u64;
    let head = session.req_header();
    let field = |name| head.headers.get(name).map(http::HeaderValue::as_bytes);
    let agents = gateway.access_log().shows_agents();
    gateway.access_log().write(&AccessRecord {
        unix_micros: clock::unix_micros(),
        request_id: Some(ctx.ids.request_id.as_bytes()),
        trace_id: trace::trace_id(&ctx.ids.traceparent),
        client: client(ctx),
        method: head.method.as_str().as_bytes(),
        host: ctx.host.as_ref().map(http::HeaderValue::as_bytes),
        path: head.raw_path(),
        http_version: version(head.version),
        status,
        bytes_in,
        bytes_out,
        duration,
        route: route.map(|r| r.id.as_str()),
        rollout: decided.map(|(live, _)| live.table().name().as_str()),
        release: decided.map(|(live, d)| live.table().release(d.release).name.as_str()),
        reason: decided.map(|(_, d)| d.reason.as_str()),
        bucket: decided.and_then(|(_, d)| d.bucket).map(|b| b.get()),
        revision: ctx.snapshot.revision().0,
        source: match ctx.identity.source() {
            SourceKind::None => None,
            source => Some(source.as_str()),
        },
        user: ctx.identity.id().map(|id| id.as_bytes()),
        pool: ctx.pool.map(|pool| gateway.pools().get(pool).name().as_str()),
        endpoint: ctx.endpoint().map(|e| e.label()),
        upstream_status: ctx.upstream_status,
        upstream_duration: ctx.upstream_duration,
        reused: ctx.reused,
        retries: ctx.attempts.saturating_sub(1),
        abort: ctx.aborted.then_some("downstream"),
        referer: agents.then(|| field(REFERER)).flatten(),
        user_agent: agents.then(|| field(USER_AGENT)).flatten(),
    });
}

fn decided<'a>(ctx: &'a Context, route: &Route) -> Option<(&'a LiveRollout, &'a Decision)> {
    match route.target {
        Target::Rollout(slot) => ctx.snapshot.rollout(slot).zip(ctx.decision.as_ref()),
        Target::Pool(_) => None,
    }
}

fn status(session: &Session, ctx: &Context) -> u16 {
    if ctx.aborted {
        return 499;
    }
    let written = respond::answered(session).map(|head| head.status);
    let known = written.map(|written| ctx.spliced.map_or(written, |(status, _)| status).as_u16());
    known.or(ctx.failed).unwrap_or(0)
}

/// The believed address, with the peer's port where it is the peer's own.
fn client(ctx: &Context) -> Option<std::net::SocketAddr> {
    let client = ctx.client?;
    let port = ctx.peer.filter(|p| p.ip() == client).map_or(0, |p| p.port());
    Some(std::net::SocketAddr::new(client, port))
}

fn version(version: Version) -> HttpVersion {
    match version {
        Version::HTTP_2 => HttpVersion::Http2,
        Version::HTTP_10 => HttpVersion::Http10,
        _ => HttpVersion::Http11,
    }
}
