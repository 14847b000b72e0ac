//! Header fields between the two sides: what is removed before anything reads it, and what the upstream is told.

use std::net::IpAddr;

use http::header::{CONNECTION, COOKIE, FORWARDED, HOST, ORIGIN, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, Result};
use smallvec::SmallVec;

use super::context::Context;
use super::trace::{REQUEST_ID, TRACEPARENT};
use crate::telemetry::metrics;

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Belongs to an upgrade to HTTP/2 that is not made.
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// Who is logged in, as some gateways tell it: this proxy tells it by the identity header, so no one else may.
const X_FORWARDED_USER: HeaderName = HeaderName::from_static("x-forwarded-user");
/// The decision, as the upstream is told.
pub const X_ROLLOUT: HeaderName = HeaderName::from_static("x-rollout");

const FORWARDING: [HeaderName; 4] = [X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, FORWARDED];
/// Hop-by-hop fields of a response that Pingora passes on (RFC 9110, 7.6.1).
const RESPONSE_HOP_BY_HOP: [HeaderName; 4] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("proxy-authenticate"),
    UPGRADE,
];

/// Removes our own fields, and from untrusted peers also those that only trusted ones may send. Returns whether an
/// untrusted peer had sent any.
pub fn strip_inbound(head: &mut RequestHeader, trusted: bool, identity: &[HeaderName]) -> bool {
    if head.headers.contains_key(UPGRADE) && !asks_for_websocket(head) {
        head.remove_header(&UPGRADE);
    }
    remove(head, &X_ROLLOUT);
    remove(head, &X_FORWARDED_USER);
    if trusted {
        remove(head, &FORWARDED);
        return false;
    }
    let mut removed = false;
    for name in FORWARDING.iter().chain(identity) {
        removed |= remove(head, name);
    }
    if removed {
        metrics::identity_removed();
    }
    removed
}

/// Upgrades are to WebSocket only, and count only where `Connection` names them (RFC 9110, 7.8): Pingora takes the
/// field alone for one.
fn asks_for_websocket(head: &RequestHeader) -> bool {
    let mut asked = head.headers.get_all(UPGRADE).iter();
    let websocket = asked
        .next()
        .is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"));
    let is_upgrade = |word: &[u8]| word.trim_ascii().eq_ignore_ascii_case(b"upgrade");
    let mut lines = head.headers.get_all(CONNECTION).iter();
    let named = lines.any(|line| line.as_bytes().split(|b| *b == b',').any(is_upgrade));
    websocket && asked.next().is_none() && named && head.version == http::Version::HTTP_11
}

fn remove(head: &mut RequestHeader, name: &HeaderName) -> bool {
    head.headers.contains_key(name) && head.remove_header(name).is_some()
}

/// The client that a trusted peer speaks for: the last address in `X-Forwarded-For`, which that peer itself added.
pub fn forwarded_client(head: &RequestHeader) -> Option<IpAddr> {
    let last = head.headers.get_all(X_FORWARDED_FOR).iter().next_back()?;
    last.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
}

/// Tells the upstream who asks, for what host, and what was decided. Runs after Pingora has dropped what `Connection`
/// names, so that nothing stamped here can be taken away by the client.
pub fn stamp(head: &mut RequestHeader, ctx: &Context, tls: bool, identity: &[HeaderName]) -> Result<()> {
    forward(head, ctx, tls)?;
    join_cookies(head)?;
    remove(head, &HTTP2_SETTINGS);
    head.insert_header(REQUEST_ID, ctx.request_id.clone())?;
    head.insert_header(TRACEPARENT, ctx.traceparent.clone())?;
    for name in identity {
        remove(head, name);
    }
    if let (Some(name), Some(user)) = (identity.first(), ctx.identity.user()) {
        if let Ok(value) = HeaderValue::from_bytes(user.as_bytes()) {
            head.insert_header(name.clone(), value)?;
        }
    }
    Ok(())
}

fn forward(head: &mut RequestHeader, ctx: &Context, tls: bool) -> Result<()> {
    if let Some(peer) = ctx.peer {
        let peer = peer.ip().to_canonical();
        let before = head
            .headers
            .get_all(X_FORWARDED_FOR)
            .iter()
            .filter_map(|v| v.to_str().ok());
        let list = match joined(before, ", ") {
            Some(before) => format!("{before}, {peer}"),
            None => peer.to_string(),
        };
        head.insert_header(X_FORWARDED_FOR, list)?;
    }
    for name in [X_FORWARDED_PROTO, X_FORWARDED_HOST] {
        // Of several, the last is the one that the trusted peer itself may have added.
        let mut lines = head.headers.get_all(&name).iter();
        if let (Some(last), true) = (lines.next_back().cloned(), lines.next().is_some()) {
            head.insert_header(name, last)?;
        }
    }
    if !head.headers.contains_key(X_FORWARDED_PROTO) {
        let scheme = HeaderValue::from_static(if tls { "https" } else { "http" });
        head.insert_header(X_FORWARDED_PROTO, scheme)?;
    }
    if !head.headers.contains_key(X_FORWARDED_HOST) {
        if let Some(host) = host(head) {
            head.insert_header(X_FORWARDED_HOST, host)?;
        }
    }
    Ok(())
}

fn joined<'a>(mut parts: impl Iterator<Item = &'a str>, between: &str) -> Option<String> {
    let mut list = parts.next()?.to_owned();
    for part in parts {
        list.push_str(between);
        list.push_str(part);
    }
    Some(list)
}

/// One `Cookie` line where HTTP/2 may have several (RFC 9113, 8.2.3).
fn join_cookies(head: &mut RequestHeader) -> Result<()> {
    let mut lines = head.headers.get_all(COOKIE).iter();
    if lines.next().is_some() && lines.next().is_some() {
        let lines: Vec<&[u8]> = head.headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
        if let Ok(one) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
            head.insert_header(COOKIE, one)?;
        }
    }
    Ok(())
}

/// The host the client asked for: HTTP/2 has it in `:authority`, which is not a field (RFC 9113, 8.3.1).
fn host(head: &RequestHeader) -> Option<HeaderValue> {
    let authority = || HeaderValue::from_str(head.uri.authority()?.as_str()).ok();
    head.headers.get(HOST).cloned().or_else(authority)
}

/// Drops `Origin`, so that an upstream does not answer cross-origin requests a second time.
pub fn drop_origin(head: &mut RequestHeader) {
    remove(head, &ORIGIN);
}

/// An HTTP/1.0 client does not know chunks: its response ends with the connection (RFC 9112, 6.1).
pub fn unchunk(head: &mut ResponseHeader) {
    head.remove_header(&TRANSFER_ENCODING);
}

/// Refuses a response that nobody asked for, or whose body Pingora would pass on with a coding lost.
pub fn check_response(head: &ResponseHeader, upgrade: bool) -> Result<()> {
    let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
    let chunked = |v: &HeaderValue| v.as_bytes().eq_ignore_ascii_case(b"chunked");
    let whole = codings.next().is_none_or(chunked) && codings.next().is_none();
    let asked = upgrade || head.status != StatusCode::SWITCHING_PROTOCOLS;
    let problem = match (whole, asked) {
        (true, true) => return Ok(()),
        (false, _) => "a transfer coding other than chunked",
        (true, false) => "101 to a request that asked for no upgrade",
    };
    Err(Error::explain(ErrorType::InvalidHTTPHeader, problem).into_up())
}

/// Removes what concerns only the connection to the upstream.
pub fn strip_response(head: &mut ResponseHeader) {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let nominated: SmallVec<[HeaderValue; 1]> = head.headers.get_all(CONNECTION).iter().cloned().collect();
    for line in &nominated {
        let names = line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
        for name in names.filter_map(|n| HeaderName::from_bytes(n).ok()) {
            if name != http::header::CONTENT_LENGTH && name != http::header::TRANSFER_ENCODING {
                head.remove_header(&name);
            }
        }
    }
    if !nominated.is_empty() {
        head.remove_header(&CONNECTION);
    }
    for name in &RESPONSE_HOP_BY_HOP {
        if head.headers.contains_key(name) {
            head.remove_header(name);
        }
    }
}
