//! The first phases: bounds on the connection, who the peer is, whether the request is sound, which route it takes,
//! and who asks.

use bytes::Bytes;
use pingora::Result;
use pingora_proxy::Session;

use super::context::Context;
use super::gateway::{Gateway, refused};
use super::settings::Limits;
use super::wire::Wire;
use super::{choose, guard, headers, request, trace, wire};
use crate::identity::{ClientCertificate, Identity};
use crate::telemetry::metrics;

/// Bounds how long this connection may idle, and how long one read or write may take. Pingora's defaults have no
/// bound on a connection from its second request on.
pub fn bound(session: &mut Session, limits: &Limits) {
    keep(session, limits);
    session.set_read_timeout(Some(limits.read_timeout));
    session.set_write_timeout(Some(limits.write_timeout));
    // 1xx responses came with HTTP/1.1 (RFC 9110, 15.2).
    let old = session.req_header().version == http::Version::HTTP_10;
    session.as_mut().set_ignore_info_resp(old);
}

/// Keeps the connection after this request, for a while, unless the client asked to close it.
pub fn keep(session: &mut Session, limits: &Limits) {
    session.set_keepalive(Some(limits.keepalive_timeout.as_secs().max(1)));
}

/// Learns who the peer is, and removes what it may not send before anything reads it.
pub fn introduce(gateway: &Gateway, session: &mut Session, ctx: &mut Context) {
    ctx.peer = session.client_addr().and_then(|a| a.as_inet()).copied();
    let address = ctx.peer.map(|p| p.ip().to_canonical());
    ctx.trusted = address.is_some_and(|ip| gateway.identity().trusts(ip));
    let names = gateway.identity().header_names();
    let head = session.req_header_mut();
    let removed = headers::strip_inbound(head, ctx.trusted, names);
    ctx.request_id = trace::request_id(&head.headers);
    ctx.traceparent = trace::traceparent(&head.headers);
    let spoken_for = headers::forwarded_client(head).filter(|_| ctx.trusted);
    ctx.client = spoken_for.or(address);
    if removed {
        gateway.tell_removal(ctx);
    }
}

/// Refuses a request that can be read in two ways.
pub fn check(gateway: &Gateway, session: &mut Session, ctx: &mut Context) -> Result<()> {
    let limits = gateway.limits();
    let empty = session.as_mut().is_body_empty();
    let bytes = session.as_ref().as_http1().map(|h1| h1.get_headers_raw_bytes());
    let head = session.req_header();
    ctx.wire = Wire::of(session.as_ref()).cloned();
    let framing = wire::Framing::of(head, empty);
    let verdict = bytes
        .map_or(Ok(()), |bytes| {
            guard::check_head_bytes(&bytes, limits)?;
            let whole = ctx.wire.as_ref().map_or(Ok(()), |wire| wire.head_ends(&bytes, framing));
            whole.map_err(guard::bad)
        })
        .and_then(|()| guard::check_head(head, limits, gateway.identity().header_names()));
    verdict.map_err(|refusal| {
        metrics::refused(refusal.cause);
        refused(refusal.status, refusal.cause)
    })
}

/// Finds the route. First of all, because a refusal, too, is an answer of the route: a page can read it if the route
/// allows that.
pub fn route(gateway: &Gateway, session: &Session, ctx: &mut Context) {
    let head = session.req_header();
    ctx.route = gateway.routes().find(&request::host(head), head.uri.path());
}

/// Finds out who asks.
pub fn identify(gateway: &Gateway, session: &Session, ctx: &mut Context) -> Result<()> {
    let head = session.req_header();
    if ctx.route.is_none() {
        metrics::refused("no_route");
        return Err(refused(404, "no route for this host and path"));
    }
    let reader = gateway.identity();
    let tls = session.digest().and_then(|digest| digest.ssl_digest.as_ref());
    let certificate = tls.and_then(|tls| tls.extension.get::<ClientCertificate>());
    let read = reader.read(&head.headers, head.uri.query(), certificate, ctx.trusted);
    ctx.identity = read.map_err(|refusal| {
        metrics::refused("identity");
        refused(refusal.status(), "identity")
    })?;
    if matches!(ctx.identity, Identity::Anonymous) {
        let secure = session.digest().is_some_and(|d| d.ssl_digest.is_some());
        if let Some(minted) = reader.mint(fastrand::u128(..).to_be_bytes(), secure) {
            ctx.identity = Identity::Visitor { id: minted.id };
            ctx.set_cookie = Some(minted.set_cookie);
        }
    }
    Ok(())
}

/// Counts the body against its bound, and starts waiting for the response once the request is all there.
pub fn count_body(gateway: &Gateway, body: &mut Option<Bytes>, end_of_stream: bool, ctx: &mut Context) -> Result<()> {
    ctx.body_bytes += body.as_ref().map_or(0, |b| b.len() as u64);
    if gateway
        .limits()
        .body_bytes_max
        .is_some_and(|most| ctx.body_bytes > most)
    {
        metrics::refused("body_too_large");
        return Err(refused(413, "request body is larger than limits.body_bytes_max"));
    }
    // Pingora writes an empty last piece as a last chunk of its own, and then the last chunk (its open bug #935).
    if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
        *body = None;
    }
    if end_of_stream {
        ctx.body_over = true;
        choose::wait_for_head(ctx);
    } else {
        choose::wait_for_body(ctx, gateway.limits().read_timeout);
    }
    Ok(())
}
