//! Header fields between the two sides: what is removed before anything reads it, and what the upstream is told.

use std::net::IpAddr;

use http::header::{CONNECTION, FORWARDED, HOST, ORIGIN, UPGRADE};
use http::{HeaderName, HeaderValue, StatusCode};
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};

use super::context::Context;
use super::trace::{REQUEST_ID, TRACEPARENT};
use crate::telemetry::metrics;

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
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
        let before = head.headers.get(X_FORWARDED_FOR).and_then(|v| v.to_str().ok());
        let list = match before {
            Some(before) => format!("{before}, {peer}"),
            None => peer.to_string(),
        };
        head.insert_header(X_FORWARDED_FOR, list)?;
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
    head.remove_header(&http::header::TRANSFER_ENCODING);
}

/// Removes what concerns only the connection to the upstream.
pub fn strip_response(head: &mut ResponseHeader) {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    if let Some(nominated) = head.headers.get(CONNECTION).cloned() {
        let names = nominated.to_str().unwrap_or_default().split(',').map(str::trim);
        for name in names.filter_map(|n| HeaderName::from_bytes(n.as_bytes()).ok()) {
            if name != http::header::CONTENT_LENGTH && name != http::header::TRANSFER_ENCODING {
                head.remove_header(&name);
            }
        }
        head.remove_header(&CONNECTION);
    }
    for name in &RESPONSE_HOP_BY_HOP {
        if head.headers.contains_key(name) {
            head.remove_header(name);
        }
    }
}
