//! Header fields between the two sides: what is removed before anything reads it, and what the upstream is told.
//!
//! A request's fields lose the spelling of their names on the way in: Pingora keeps it in a second map, at the price of
//! two insertions for each. Names go out in lower case, as HTTP/2 has them, and as HAProxy and Envoy send them, too.

use std::net::IpAddr;

use http::header::{CONNECTION, COOKIE, Entry, FORWARDED, HOST, ORIGIN, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, Result};
use smallvec::SmallVec;

use super::context::Context;
use super::fields::{Field, Fields};
use super::trace::{REQUEST_ID, TRACEPARENT};
use crate::telemetry::metrics;

pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// Belongs to an upgrade to HTTP/2 that is not made.
pub const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// Who is logged in, as some gateways tell it: this proxy tells it by the identity header, so no one else may.
pub const X_FORWARDED_USER: HeaderName = HeaderName::from_static("x-forwarded-user");
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
/// The most fields that [`stamp`] adds: room for them is made at once.
const STAMPED_MAX: usize = 8;

/// Removes our own fields, and from untrusted peers also those that only trusted ones may send. Returns what fields
/// are left, and whether an untrusted peer had sent any.
pub fn strip_inbound(head: &mut RequestHeader, trusted: bool, identity: &[HeaderName]) -> Result<(Fields, bool)> {
    let mut fields = Fields::of(&head.headers, identity);
    let removed = !trusted && fields.has_trusted();
    let upgrade = fields.has(Field::Upgrade) && !asks_for_websocket(head);
    let had = fields;
    edit(head, |parts| {
        let headers = &mut parts.headers;
        if upgrade {
            headers.remove(UPGRADE);
            fields = fields.without(Field::Upgrade);
        }
        if had.has(Field::Reserved) {
            headers.remove(X_ROLLOUT);
            headers.remove(X_FORWARDED_USER);
            fields = fields.without(Field::Reserved);
        }
        if removed {
            FORWARDING.iter().chain(identity).for_each(|name| {
                headers.remove(name);
            });
            fields = Fields::of(headers, identity);
        } else if had.has(Field::Forwarded) {
            headers.remove(FORWARDED);
            fields = fields.without(Field::Forwarded);
        }
    })?;
    if removed {
        metrics::identity_removed();
    }
    Ok((fields, removed))
}

/// Works on a head without the spelling of its names.
fn edit(head: &mut RequestHeader, work: impl FnOnce(&mut Parts)) -> Result<()> {
    // Any target but a path is kept beside the URI, which is all that the parts have.
    let beside = !head.raw_path().starts_with(b"/") || !head.raw_path_is_utf8();
    let target = beside.then(|| head.raw_path().to_vec());
    let blank = RequestHeader::from(http::Request::new(()).into_parts().0);
    let mut parts = Parts::from(std::mem::replace(head, blank));
    work(&mut parts);
    *head = RequestHeader::from(parts);
    target.map_or(Ok(()), |target| head.set_raw_path(&target))
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

/// The client that a trusted peer speaks for: the last address in `X-Forwarded-For`, which that peer itself added.
pub fn forwarded_client(head: &RequestHeader) -> Option<IpAddr> {
    let last = head.headers.get_all(X_FORWARDED_FOR).iter().next_back()?;
    last.to_str().ok()?.rsplit(',').next()?.trim().parse().ok()
}

/// What the gateway tells the upstream beside what it knows of every request.
pub struct Stamp<'a> {
    /// Whether the client came by TLS.
    pub tls: bool,
    /// The fields that tell who asks: the first is set, the others are removed.
    pub identity: &'a [HeaderName],
    /// The decision.
    pub rollout: Option<HeaderValue>,
    /// Whether the upstream answers cross-origin requests itself; else it must not do so a second time.
    pub origin: bool,
    /// Whether the connection is for this one request.
    pub close: bool,
}

/// Tells the upstream who asks, for what host, and what was decided. Runs after Pingora has dropped what `Connection`
/// names, so that nothing stamped here can be taken away by the client.
pub fn stamp(head: &mut RequestHeader, ctx: &Context, stamp: Stamp<'_>) -> Result<()> {
    edit(head, |parts| {
        parts.headers.reserve(STAMPED_MAX);
        forward(parts, ctx, stamp.tls);
        let headers = &mut parts.headers;
        if ctx.fields.repeated() && ctx.fields.has(Field::Cookie) {
            join_cookies(headers);
        }
        if ctx.fields.has(Field::Http2Settings) {
            headers.remove(HTTP2_SETTINGS);
        }
        if ctx.fields.has(Field::Origin) && !stamp.origin {
            headers.remove(ORIGIN);
        }
        headers.insert(REQUEST_ID, ctx.ids.request_id.clone());
        headers.insert(TRACEPARENT, ctx.ids.traceparent.clone());
        identify(headers, ctx, stamp.identity);
        if let Some(rollout) = stamp.rollout {
            headers.insert(X_ROLLOUT, rollout);
        }
        if stamp.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    })
}

/// The id that was decided by is the id that the upstream sees, and the only one.
fn identify(headers: &mut HeaderMap, ctx: &Context, identity: &[HeaderName]) {
    let Some((first, others)) = identity.split_first() else {
        return;
    };
    let sent = ctx.fields.has(Field::Identity);
    if sent {
        others.iter().for_each(|name| {
            headers.remove(name);
        });
    }
    let Some(user) = ctx.identity.user().map(|user| user.as_bytes()) else {
        if sent {
            headers.remove(first);
        }
        return;
    };
    match headers.entry(first) {
        Entry::Occupied(there) if there.get() == user && there.iter().nth(1).is_none() => {}
        Entry::Occupied(mut there) => {
            if let Ok(value) = HeaderValue::from_bytes(user) {
                there.insert(value);
            }
        }
        Entry::Vacant(place) => {
            if let Ok(value) = HeaderValue::from_bytes(user) {
                place.insert(value);
            }
        }
    }
}

fn forward(parts: &mut Parts, ctx: &Context, tls: bool) {
    let Parts { headers, uri, .. } = parts;
    if let Some(peer) = ctx.peer {
        let peer = peer.ip().to_canonical();
        let list = if ctx.fields.has(Field::ForwardedFor) {
            listed(headers, peer)
        } else {
            let wire = ctx.wire.as_ref();
            wire.map_or_else(|| address(peer), |wire| wire.client(|| address(peer)))
        };
        headers.insert(X_FORWARDED_FOR, list);
    }
    let scheme = || Some(HeaderValue::from_static(if tls { "https" } else { "http" }));
    last_or(
        headers,
        ctx.fields.has(Field::ForwardedProto),
        X_FORWARDED_PROTO,
        scheme,
    );
    // The host the client asked for: HTTP/2 has it in `:authority`, which is not a field (RFC 9113, 8.3.1).
    let authority = || HeaderValue::from_str(uri.authority()?.as_str()).ok();
    let host = headers.get(HOST).cloned();
    last_or(headers, ctx.fields.has(Field::ForwardedHost), X_FORWARDED_HOST, || {
        host.or_else(authority)
    });
}

/// Of several lines, the last is the one that the trusted peer itself may have added.
fn last_or(headers: &mut HeaderMap, sent: bool, name: HeaderName, made: impl FnOnce() -> Option<HeaderValue>) {
    let last = if sent {
        headers.get_all(&name).iter().next_back().cloned()
    } else {
        None
    };
    if let Some(value) = last.or_else(made) {
        headers.insert(name, value);
    }
}

/// The clients so far, and this one.
fn listed(headers: &HeaderMap, peer: IpAddr) -> HeaderValue {
    let before = headers.get_all(X_FORWARDED_FOR).iter().filter_map(|v| v.to_str().ok());
    let mut list = String::new();
    for part in before {
        list.push_str(part);
        list.push_str(", ");
    }
    list.push_str(&peer.to_string());
    HeaderValue::try_from(list).unwrap_or_else(|_| address(peer))
}

/// An address as text; by far the most are of version 4, which is written out here without the formatter.
fn address(ip: IpAddr) -> HeaderValue {
    let mut text = SmallVec::<[u8; 40]>::new();
    match ip {
        IpAddr::V4(v4) => {
            for (place, octet) in v4.octets().into_iter().enumerate() {
                if place > 0 {
                    text.push(b'.');
                }
                text.extend_from_slice(itoa::Buffer::new().format(octet).as_bytes());
            }
        }
        IpAddr::V6(v6) => text.extend_from_slice(v6.to_string().as_bytes()),
    }
    // Digits, dots, colons and letters are always a valid value.
    HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
}

/// One `Cookie` line where HTTP/2 may have several (RFC 9113, 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let lines: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if lines.len() > 1 {
        if let Ok(one) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
            headers.insert(COOKIE, one);
        }
    }
}

/// An HTTP/1.0 client does not know chunks: its response ends with the connection (RFC 9112, 6.1).
pub fn unchunk(head: &mut ResponseHeader) {
    head.remove_header(&TRANSFER_ENCODING);
}

/// Refuses a response that nobody asked for, or whose body Pingora would pass on with a coding lost.
pub fn check_response(head: &ResponseHeader, fields: Fields, upgrade: bool) -> Result<()> {
    let chunked = |v: &HeaderValue| v.as_bytes().eq_ignore_ascii_case(b"chunked");
    let whole = || {
        let mut codings = head.headers.get_all(TRANSFER_ENCODING).iter();
        codings.next().is_none_or(chunked) && codings.next().is_none()
    };
    let asked = upgrade || head.status != StatusCode::SWITCHING_PROTOCOLS;
    let problem = match (!fields.has(Field::TransferEncoding) || whole(), asked) {
        (true, true) => return Ok(()),
        (false, _) => "a transfer coding other than chunked",
        (true, false) => "101 to a request that asked for no upgrade",
    };
    Err(Error::explain(ErrorType::InvalidHTTPHeader, problem).into_up())
}

/// Removes what concerns only the connection to the upstream. `rewritten` tells that Pingora writes a `Connection` of
/// its own over the one that is there.
pub fn strip_response(head: &mut ResponseHeader, fields: Fields, rewritten: bool) {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    if fields.has(Field::Connection) && !(rewritten && names_nothing(head)) {
        remove_nominated(head);
    }
    if fields.has(Field::HopByHop) || fields.has(Field::Upgrade) {
        for name in &RESPONSE_HOP_BY_HOP {
            head.remove_header(name);
        }
    }
}

/// Whether `Connection` names no field but `Keep-Alive`, which goes in any case.
fn names_nothing(head: &ResponseHeader) -> bool {
    let mut lines = head.headers.get_all(CONNECTION).iter();
    let plain = |v: &HeaderValue| {
        v.as_bytes().eq_ignore_ascii_case(b"keep-alive") || v.as_bytes().eq_ignore_ascii_case(b"close")
    };
    lines.next().is_some_and(plain) && lines.next().is_none()
}

fn remove_nominated(head: &mut ResponseHeader) {
    let nominated: SmallVec<[HeaderValue; 1]> = head.headers.get_all(CONNECTION).iter().cloned().collect();
    for line in &nominated {
        let names = line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
        for name in names.filter_map(|n| HeaderName::from_bytes(n).ok()) {
            if name != http::header::CONTENT_LENGTH && name != http::header::TRANSFER_ENCODING {
                head.remove_header(&name);
            }
        }
    }
    head.remove_header(&CONNECTION);
}
