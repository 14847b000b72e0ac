//! What the upstream is told beside what the client said: who asks, for what host, and what was decided.
//!
//! Most requests are of HTTP/1.1, without a body, and plain otherwise: their heads are written here, field by field
//! ([`Splice`](crate::upstream::Splice)). While Pingora makes a head for the upstream out of the client's, that is aside, and
//! it has an empty one; it makes a copy, and searches it for what must not be sent on. Of all other requests the copy is
//! changed.

use std::mem;
use std::net::IpAddr;

use bytes::Bytes;
use http::header::{CONNECTION, COOKIE, Entry, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use memchr::memmem;
use pingora::http::RequestHeader;
use pingora::{Error, ErrorType, Result};
use pingora_proxy::Session;
use smallvec::SmallVec;

use super::context::Context;
use super::fields::{Field, Fields};
use super::headers::{
    HTTP2_SETTINGS, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_ROLLOUT, edit, is_plain_connection, uncase,
};
use super::trace::{REQUEST_ID, TRACEPARENT};
use crate::upstream::{PeerUse, Splice};

/// What every upstream is told: so many fields at most.
const TOLD_MAX: usize = 6;
/// Room for what is told, in bytes.
const TOLD_BYTES: usize = 512;

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

/// Puts the head of a request aside if it is written here. Else Pingora copies it.
///
/// # Errors
/// Where nothing would write it.
pub fn put_aside(session: &mut Session, ctx: &mut Context) -> Result<()> {
    put_back(session, ctx);
    if !ctx.writes_head {
        return uncase(session.req_header_mut());
    }
    if !ctx.connection.as_ref().is_some_and(|c| c.next_head().is_watched()) {
        return Error::e_explain(ErrorType::InternalError, "nothing writes heads to this connection");
    }
    let mut blank = RequestHeader::from(http::Request::new(()).into_parts().0);
    blank.set_method(session.req_header().method.clone());
    ctx.head = Some(mem::replace(session.req_header_mut(), blank));
    Ok(())
}

/// Puts it back. Whether it was aside.
pub fn put_back(session: &mut Session, ctx: &mut Context) -> bool {
    let head = ctx.head.take();
    let aside = head.is_some();
    if let Some(head) = head {
        *session.req_header_mut() = head;
    }
    aside
}

/// Whether a request has no body, and nothing in its head is coded, upgraded, nominated or repeated, and all that is to be
/// told can be: then its head can be written here.
pub fn is_plain(session: &mut Session, ctx: &Context) -> bool {
    const OTHER: [Field; 2] = [Field::Upgrade, Field::TransferEncoding];
    let empty = session.as_mut().is_body_empty();
    let head = session.req_header();
    let user = ctx.identity.user().map_or(&[][..], |user| user.as_bytes());
    empty
        && ctx.kind == PeerUse::Request
        && head.version == Version::HTTP_11
        && ctx.wire.is_some()
        && ctx.peer.is_some()
        && !ctx.fields.repeated()
        && !OTHER.iter().any(|field| ctx.fields.has(*field))
        && head.raw_path().starts_with(b"/")
        && (!ctx.fields.has(Field::Connection) || head.headers.get(CONNECTION).is_some_and(is_plain_connection))
        // What a field's value may have (RFC 9110, 5.5).
        && user.iter().all(|b| *b == b'\t' || *b >= b' ' && *b != 0x7f)
}

/// Writes the head of a request that was put aside.
pub fn write(head: &RequestHeader, ctx: &Context, stamp: &Stamp<'_>) -> Splice {
    let fields = head.headers.iter();
    let room: usize = fields.map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let mut out = Vec::with_capacity(room + head.raw_path().len() + TOLD_BYTES);
    for part in [head.method.as_str().as_bytes(), b" ", head.raw_path(), b" HTTP/1.1\r\n"] {
        out.extend_from_slice(part);
    }
    let mut field = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), b": ", value, b"\r\n"] {
            out.extend_from_slice(part);
        }
    };
    if let Some(host) = &ctx.host {
        // As Pingora spells it.
        field("Host", host.as_bytes());
    }
    for (name, value) in &head.headers {
        if passes(name.as_str(), stamp.origin) && !stamp.identity.contains(name) {
            field(name.as_str(), value.as_bytes());
        }
    }
    tell(head, ctx, stamp, |name, value| field(name.as_str(), value.as_bytes()));
    if let (Some(user), Some(name)) = (ctx.identity.user(), stamp.identity.first()) {
        field(name.as_str(), user.as_bytes());
    }
    Splice {
        head: out,
        body: Bytes::new(),
    }
}

/// Whether a field is sent on as it is: it does not concern the connection only (RFC 9110, 7.6.1), and is not told apart. None
/// of those that are not can be configured to tell who asks.
fn passes(name: &str, origin: bool) -> bool {
    match name {
        "origin" => origin,
        "connection"
        | "keep-alive"
        | "proxy-connection"
        | "proxy-authenticate"
        | "proxy-authorization"
        | "te"
        | "trailer"
        | "transfer-encoding"
        | "upgrade"
        | "http2-settings" => false,
        "host" | "x-forwarded-for" | "x-forwarded-host" | "x-forwarded-proto" => false,
        "x-request-id" | "traceparent" | "x-rollout" => false,
        _ => true,
    }
}

/// Changes the copy of a head that Pingora has made. Runs after Pingora has dropped what `Connection` names, so that
/// nothing stamped here can be taken away by the client.
pub fn stamp(head: &mut RequestHeader, ctx: &Context, stamp: &Stamp<'_>) -> Result<()> {
    let mut told: SmallVec<[(HeaderName, HeaderValue); TOLD_MAX]> = SmallVec::new();
    tell(head, ctx, stamp, |name, value| told.push((name.clone(), value.clone())));
    edit(head, |parts| {
        let headers = &mut parts.headers;
        // Who asks, and that the connection is closed, may be new, too.
        headers.reserve(TOLD_MAX + 2);
        if ctx.fields.repeated() && ctx.fields.has(Field::Cookie) {
            join_cookies(headers);
        }
        if ctx.fields.has(Field::Http2Settings) {
            headers.remove(HTTP2_SETTINGS);
        }
        if ctx.fields.has(Field::Origin) && !stamp.origin {
            headers.remove(ORIGIN);
        }
        for (name, value) in told {
            headers.insert(name, value);
        }
        identify(headers, ctx, stamp.identity);
        if stamp.close {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
    })?;
    match origin_form(&head.method, head.raw_path()) {
        Some(target) => head.set_raw_path(&target),
        None => Ok(()),
    }
}

/// The target as an origin is sent it, if this is one that only a proxy is: with the host before the path, which is in `Host`, too
/// (RFC 9112, 3.2.1 and 3.2.4).
fn origin_form(method: &Method, target: &[u8]) -> Option<Vec<u8>> {
    if target.starts_with(b"/") {
        return None;
    }
    let scheme = memmem::find(target, b"://")?;
    let rest = &target[scheme + 3..];
    let path = rest.iter().position(|b| matches!(b, b'/' | b'?'));
    Some(match path.map(|at| &rest[at..]) {
        Some(path) if path.starts_with(b"/") => path.to_vec(),
        Some(query) => [b"/", query].concat(),
        None if *method == Method::OPTIONS => b"*".to_vec(),
        None => b"/".to_vec(),
    })
}

/// What the upstream is told of a request beside who asks.
fn tell(head: &RequestHeader, ctx: &Context, stamp: &Stamp<'_>, mut to: impl FnMut(&HeaderName, &HeaderValue)) {
    let headers = &head.headers;
    if let Some(peer) = ctx.peer {
        let peer = peer.ip().to_canonical();
        let list = if ctx.fields.has(Field::ForwardedFor) {
            listed(headers, peer)
        } else {
            let wire = ctx.wire.as_ref();
            wire.map_or_else(|| address(peer), |wire| wire.client(|| address(peer)))
        };
        to(&X_FORWARDED_FOR, &list);
    }
    // Of several lines, the last is the one that the trusted peer itself may have added.
    let last = |fields: Fields, field, name| {
        let sent = fields.has(field).then(|| headers.get_all(name).iter().next_back());
        sent.flatten()
    };
    match last(ctx.fields, Field::ForwardedProto, X_FORWARDED_PROTO) {
        Some(sent) => to(&X_FORWARDED_PROTO, sent),
        None => to(
            &X_FORWARDED_PROTO,
            &HeaderValue::from_static(if stamp.tls { "https" } else { "http" }),
        ),
    }
    if let Some(host) = last(ctx.fields, Field::ForwardedHost, X_FORWARDED_HOST).or(ctx.host.as_ref()) {
        to(&X_FORWARDED_HOST, host);
    }
    to(&REQUEST_ID, &ctx.ids.request_id);
    to(&TRACEPARENT, &ctx.ids.traceparent);
    if let Some(rollout) = &stamp.rollout {
        to(&X_ROLLOUT, rollout);
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_sent_a_path() {
        for (method, target, sent) in [
            (Method::GET, "/a?b=http://c/d", None),
            (Method::OPTIONS, "*", None),
            (Method::GET, "http://a.example:80/b/c?d", Some("/b/c?d")),
            (Method::GET, "HTTP://a.example//b", Some("//b")),
            (Method::GET, "http://a.example?b=/c", Some("/?b=/c")),
            (Method::GET, "http://a.example", Some("/")),
            (Method::OPTIONS, "http://a.example", Some("*")),
            (Method::OPTIONS, "http://a.example/", Some("/")),
        ] {
            let found = origin_form(&method, target.as_bytes());
            assert_eq!(found.as_deref(), sent.map(str::as_bytes), "{method} {target}");
        }
    }
}
