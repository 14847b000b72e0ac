//! The first phases: bounds on the connection, who the peer is, whether the request is sound, which route it takes,
//! and who asks.

use bytes::Bytes;
use pingora::Result;
use pingora_proxy::Session;

use super::context::Context;
use super::fields::Field;
use super::gateway::{Gateway, refused};
use super::settings::Limits;
use super::trace::Ids;
use super::wire::Wire;
use super::{choose, guard, headers, request, wire};
use crate::clock;
use crate::identity::jwt::Check;
use crate::identity::{ClientCertificate, Identity, Read, Reading, Refusal};
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
pub fn introduce(gateway: &Gateway, session: &mut Session, ctx: &mut Context) -> Result<()> {
    ctx.wire = Wire::of(session.as_ref()).cloned();
    ctx.wire.iter().for_each(|wire| wire.unasked().ends());
    ctx.peer = session.client_addr().and_then(|a| a.as_inet()).copied();
    let address = ctx.peer.map(|p| p.ip().to_canonical());
    ctx.trusted = address.is_some_and(|ip| gateway.identity().trusts(ip));
    let names = gateway.identity().header_names();
    let head = session.req_header_mut();
    let (fields, removed) = headers::strip_inbound(head, ctx.trusted, names)?;
    ctx.fields = fields;
    ctx.ids = Ids::of(&head.headers, fields);
    let spoken_for = fields.has(Field::ForwardedFor).then(|| headers::forwarded_client(head));
    ctx.client = spoken_for.flatten().or(address);
    if removed {
        gateway.tell_removal(ctx);
    }
    Ok(())
}

/// Lets a request in, or refuses it; where a token has to be checked first, [`settle`] does what is left.
pub fn admit(gateway: &Gateway, session: &mut Session, ctx: &mut Context) -> Result<Option<Check>> {
    route(gateway, session, ctx);
    enter(gateway, ctx)?;
    // Believed only of a sound request; read first, so that what decides is fetched meanwhile.
    let read = read(gateway, session, ctx);
    check(gateway, session, ctx)?;
    if gateway.preflight_policy(session, ctx).is_some() {
        // Browsers send nothing with it that says who asks (Fetch, "CORS-preflight fetch").
        return Ok(None);
    }
    identify(gateway, session, ctx, read)
}

/// Takes a place among the requests in flight. Past as many as there may be, the answer is to come again: the sooner it
/// is given, the less it costs those that are served.
pub fn enter(gateway: &Gateway, ctx: &mut Context) -> Result<()> {
    ctx.place = gateway.in_flight().take();
    if ctx.place.is_none() {
        metrics::refused("overload");
        return Err(refused(503, "limits.requests_in_flight_max requests are in flight"));
    }
    Ok(())
}

/// Refuses a request that can be read in two ways.
fn check(gateway: &Gateway, session: &mut Session, ctx: &mut Context) -> Result<()> {
    let limits = gateway.limits();
    let empty = session.as_mut().is_body_empty();
    let bytes = session.as_ref().as_http1().map(|h1| h1.get_headers_raw_bytes());
    let head = session.req_header();
    let framing = wire::Framing::of(head, ctx.fields, empty);
    let raw = match &bytes {
        Some(bytes) => guard::check_head_bytes(bytes, limits).and_then(|()| {
            let body = ctx.wire.as_ref().map_or(Ok(0), |wire| wire.head_ends(bytes, framing));
            ctx.body_here = body.map_err(guard::bad)?;
            Ok(())
        }),
        None => guard::check_fields(&head.headers),
    };
    let names = gateway.identity().header_names();
    let verdict = raw.and_then(|()| guard::check_head(head, ctx.fields, limits, names));
    verdict.map_err(|refusal| {
        metrics::refused(refusal.cause);
        refused(refusal.status, refusal.cause)
    })
}

/// Finds the route. First of all, because a refusal, too, is an answer of the route: a page can read it if the route
/// allows that.
fn route(gateway: &Gateway, session: &Session, ctx: &mut Context) {
    let head = session.req_header();
    ctx.host = request::host(head);
    let written = ctx.host.as_ref().and_then(|host| host.to_str().ok());
    let name = request::host_name(written.unwrap_or_default());
    // What is asked of a server as a whole is for whoever has all its paths (RFC 9112, 3.2.4).
    let path = Some(head.uri.path()).filter(|path| *path != "*").unwrap_or("/");
    ctx.route = gateway.routes().find(&name, path);
}

/// Reads who asks.
fn read(gateway: &Gateway, session: &Session, ctx: &Context) -> Result<Read, Refusal> {
    let head = session.req_header();
    let tls = session.digest().and_then(|digest| digest.ssl_digest.as_ref());
    let certificate = tls.and_then(|tls| tls.extension.get::<ClientCertificate>());
    let query = head.uri.query();
    let read = gateway
        .identity()
        .read(&head.headers, query, certificate, ctx.trusted, clock::unix_millis);
    if let Ok(Read::Done(reading)) = &read {
        choose::fetch_for(gateway, ctx, &reading.identity);
    }
    read
}

/// Finds out who asks.
fn identify(
    gateway: &Gateway,
    session: &Session,
    ctx: &mut Context,
    read: Result<Read, Refusal>,
) -> Result<Option<Check>> {
    if ctx.route.is_none() {
        metrics::refused("no_route");
        return Err(refused(404, "no route for this host and path"));
    }
    match read {
        Ok(Read::Pending(check)) => Ok(Some(check)),
        Ok(Read::Done(reading)) => known(gateway, session, ctx, Ok(reading)).map(|()| None),
        Err(refusal) => known(gateway, session, ctx, Err(refusal)).map(|()| None),
    }
}

/// Finds out who asks by a token that has to be checked, which is done elsewhere.
pub async fn settle(gateway: &Gateway, session: &Session, ctx: &mut Context, check: Check) -> Result<()> {
    let checked = gateway.verifier().run(check).await?;
    let read = gateway.identity().settle(&session.req_header().headers, checked);
    known(gateway, session, ctx, read)
}

/// It is known who asks, or that nobody may.
fn known(gateway: &Gateway, session: &Session, ctx: &mut Context, read: Result<Reading, Refusal>) -> Result<()> {
    let reader = gateway.identity();
    let reading = read.map_err(|refusal| {
        metrics::refused("identity");
        ctx.challenge = reader.challenge(&refusal);
        refused(refusal.status(), refusal.to_string())
    })?;
    ctx.identity = reading.identity;
    ctx.token = reading.token;
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
        return Err(refused(413, "the body is too large"));
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
