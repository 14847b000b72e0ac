//! Header fields between the two sides: what is removed before anything reads it, and what belongs to one connection only.
//!
//! A request's fields lose the spelling of their names on the way: Pingora keeps it in a second map, at the price of
//! two insertions for each. Names go out in lower case, as HTTP/2 has them, and as HAProxy and Envoy send them, too.

use std::net::IpAddr;

use http::header::{CONNECTION, CONTENT_LENGTH, FORWARDED, TRANSFER_ENCODING, UPGRADE};
use http::request::Parts;
use http::{HeaderName, HeaderValue, StatusCode};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::{Error, ErrorType, Result};
use smallvec::SmallVec;

use super::fields::{Field, Fields};
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
/// Removes our own fields, and from untrusted peers also those that only trusted ones may send. Returns what fields
/// are left, and whether an untrusted peer had sent any.
pub fn strip_inbound(head: &mut RequestHeader, trusted: bool, identity: &[HeaderName]) -> Result<(Fields, bool)> {
    let mut fields = Fields::of(&head.headers, identity);
    let removed = !trusted && fields.has_trusted();
    let upgrade = fields.has(Field::Upgrade) && !asks_for_websocket(head);
    let had = fields;
    if !(removed || upgrade || had.has(Field::Reserved) || had.has(Field::Forwarded)) {
        return Ok((fields, false));
    }
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

/// Takes the spelling of its names from a head that will be copied.
pub fn uncase(head: &mut RequestHeader) -> Result<()> {
    if head.has_case() { edit(head, |_| ()) } else { Ok(()) }
}

/// Works on a head without the spelling of its names.
pub(super) fn edit(head: &mut RequestHeader, work: impl FnOnce(&mut Parts)) -> Result<()> {
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

/// Has a response say once how long it is, or not at all where it may not (RFC 9110, 8.6; RFC 9112, 6.1): what Pingora reads as
/// one length may be several to others.
///
/// # Errors
/// When what it says is no length.
pub fn mend_framing(head: &mut ResponseHeader, fields: Fields) -> Result<()> {
    let framed = fields.has(Field::ContentLength) || fields.has(Field::TransferEncoding);
    if framed && (head.status.is_informational() || head.status == StatusCode::NO_CONTENT) {
        head.remove_header(&CONTENT_LENGTH);
        head.remove_header(&TRANSFER_ENCODING);
        return Ok(());
    }
    if !fields.has(Field::ContentLength) {
        return Ok(());
    }
    let mut lines = head.headers.get_all(CONTENT_LENGTH).iter();
    let is_one = lines.next().is_some_and(is_length) && lines.next().is_none();
    if is_one {
        return Ok(());
    }
    let one = one_length(head)
        .ok_or_else(|| Error::explain(ErrorType::InvalidHTTPHeader, "a Content-Length that is no length").into_up())?;
    head.insert_header(CONTENT_LENGTH, one)
}

fn is_length(value: &HeaderValue) -> bool {
    !value.is_empty() && value.as_bytes().iter().all(u8::is_ascii_digit)
}

/// The length that every line, and every part of each, says.
fn one_length(head: &ResponseHeader) -> Option<u64> {
    let lines = head.headers.get_all(CONTENT_LENGTH).iter();
    let mut said = lines.flat_map(|line| line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii));
    let read = |part: &[u8]| {
        let digits = str::from_utf8(part).ok()?;
        let plain = !digits.starts_with('+');
        plain.then(|| digits.parse::<u64>().ok())?
    };
    let first = read(said.next()?)?;
    said.all(|part| read(part) == Some(first)).then_some(first)
}

/// Removes what concerns only the connection to the upstream. `rewritten` tells that Pingora writes a `Connection` of
/// its own over the one that is there, which it does of all but interim responses.
pub fn strip_response(head: &mut ResponseHeader, fields: Fields, rewritten: bool) {
    if head.status == StatusCode::SWITCHING_PROTOCOLS {
        return;
    }
    let rewritten = rewritten && !head.status.is_informational();
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
    lines.next().is_some_and(is_plain_connection) && lines.next().is_none()
}

/// Whether that is all that a `Connection` says: to keep it, or to close it.
pub fn is_plain_connection(value: &HeaderValue) -> bool {
    value.as_bytes().eq_ignore_ascii_case(b"keep-alive") || value.as_bytes().eq_ignore_ascii_case(b"close")
}

fn remove_nominated(head: &mut ResponseHeader) {
    let nominated: SmallVec<[HeaderValue; 1]> = head.headers.get_all(CONNECTION).iter().cloned().collect();
    for line in &nominated {
        let names = line.as_bytes().split(|b| *b == b',').map(<[u8]>::trim_ascii);
        for name in names.filter_map(|n| HeaderName::from_bytes(n).ok()) {
            if name != CONTENT_LENGTH && name != TRANSFER_ENCODING {
                head.remove_header(&name);
            }
        }
    }
    head.remove_header(&CONNECTION);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_response_says_once_how_long_it_is_or_is_refused() {
        for (status, lines, expected) in [
            (200, &["5"][..], Some(&["5"][..])),
            (200, &["007"], Some(&["007"])),
            (200, &["5, 5"], Some(&["5"])),
            (200, &["5", "5"], Some(&["5"])),
            (200, &["5,5", "05"], Some(&["5"])),
            (200, &[], Some(&[])),
            (304, &["5", "5"], Some(&["5"])),
            (204, &["5"], Some(&[])),
            (204, &["5", "6"], Some(&[])),
            (103, &["5"], Some(&[])),
            (101, &["5"], Some(&[])),
            (200, &["5, 6"], None),
            (200, &["5", "6"], None),
            (200, &["+5"], None),
            (200, &["5,"], None),
            (200, &[""], None),
            (200, &["five"], None),
            (200, &["99999999999999999999", "99999999999999999999"], None),
        ] {
            let mut head = ResponseHeader::build(status, None).expect("a head");
            for line in lines {
                head.append_header(CONTENT_LENGTH, *line).expect("a field");
            }
            let fields = Fields::of(&head.headers, &[]);
            let mended = mend_framing(&mut head, fields).ok().map(|()| {
                let left = head.headers.get_all(CONTENT_LENGTH).iter();
                left.map(|line| line.to_str().expect("text").to_owned())
                    .collect::<Vec<_>>()
            });
            assert_eq!(
                mended.as_deref(),
                expected
                    .map(|e| e.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>())
                    .as_deref(),
                "{status} {lines:?}"
            );
        }
    }
}
