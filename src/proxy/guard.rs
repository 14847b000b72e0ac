//! Refuses what two parsers could read in two ways. Pingora repairs or tolerates some of it; here any doubt about
//! where a message ends, who it is for or who sent it is an error, and the connection is closed.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Method, Version};
use pingora::http::RequestHeader;

use super::fields::{Field, Fields};
use super::settings::Limits;

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// The answer.
    pub status: u16,
    /// One of a few fixed words; the label of `switchyard_refused_total`.
    pub cause: &'static str,
}

/// A request that is not sound.
pub const fn bad(cause: &'static str) -> Refusal {
    Refusal { status: 400, cause }
}

/// Fields that a client may not have removed by naming them in `Connection` (RFC 9110, 7.6.1, is abused for it).
const PROTECTED: [&str; 14] = [
    "host",
    "content-length",
    "transfer-encoding",
    "authorization",
    "cookie",
    "origin",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-request-id",
    "x-rollout",
    "traceparent",
    "connection",
];

/// Encoded bytes of a path that servers decode in different ways, or take for the end of something.
const HIDDEN: [&[u8]; 5] = [b"00", b"0a", b"0d", b"2f", b"5c"];

const TARGET_TOO_LONG: Refusal = Refusal {
    status: 414,
    cause: "target_too_long",
};

/// A head has more fields than it may have.
pub const TOO_MANY_FIELDS: Refusal = Refusal {
    status: 431,
    cause: "too_many_headers",
};

/// Why a head of HTTP/1 that is too large, and may not have ended, is refused: for its target if that alone is too long.
pub fn too_large(head: &[u8], limits: &Limits) -> Refusal {
    let mut lines = head.split(|byte| *byte == b'\n');
    let line = lines.find(|line| !line.trim_ascii().is_empty()).unwrap_or_default();
    let target = line.split(|byte| *byte == b' ').nth(1).unwrap_or_default();
    if target.len() > limits.target_bytes_max {
        return TARGET_TOO_LONG;
    }
    Refusal {
        status: 431,
        cause: "header_too_large",
    }
}

/// Looks at the bytes of an HTTP/1 head: line ends, folding, control bytes, names, and what Pingora has already dropped.
pub fn check_head_bytes(head: &[u8], limits: &Limits) -> Result<(), Refusal> {
    if head.len() > limits.header_bytes_max {
        return Err(too_large(head, limits));
    }
    let Sums { returns, controls } = Sums::of(head);
    let underscores = memchr::memchr(b'_', head).is_some();
    let mut start = 0;
    let mut asked = false;
    let (mut lines, mut lengths, mut encodings) = (0, 0, 0);
    for end in memchr::memchr_iter(b'\n', head) {
        let line = head.get(start..end).unwrap_or_default();
        let Some(line) = line.strip_suffix(b"\r") else {
            return Err(bad("bare_lf"));
        };
        if !asked {
            // Empty lines may come before the request line (RFC 9112, 2.2).
            asked = !line.is_empty();
            // Pingora drops a fragment, which no client sends (RFC 9112, 3.2).
            if memchr::memchr(b'#', line).is_some() {
                return Err(bad("target"));
            }
        } else {
            match line.first() {
                Some(b' ' | b'\t') => return Err(bad("obs_fold")),
                Some(b'C' | b'c') if is_field(line, b"content-length") => lengths += 1,
                Some(b'T' | b't') if is_field(line, b"transfer-encoding") => encodings += 1,
                _ => {}
            }
            if underscores && line.iter().take_while(|b| **b != b':').any(|b| *b == b'_') {
                return Err(bad("underscore_in_name"));
            }
        }
        lines += 1;
        start = end + 1;
    }
    if controls || returns != lines {
        return Err(bad("control_byte"));
    }
    match (lengths, encodings) {
        (0 | 1, 0) | (0, 1) => Ok(()),
        (_, 0) => Err(bad("content_length_repeated")),
        (0, _) => Err(bad("transfer_encoding_repeated")),
        _ => Err(bad("length_and_encoding")),
    }
}

/// What a head has in all, summed up without branches, so that it takes many bytes at a time.
struct Sums {
    /// Carriage returns, which stand at the ends of lines only.
    returns: usize,
    /// Whether there are control bytes that have no place in a head.
    controls: bool,
}

impl Sums {
    fn of(head: &[u8]) -> Self {
        let mut sums = Self {
            returns: 0,
            controls: false,
        };
        // No block has more than a byte can count.
        for block in head.chunks(255) {
            let returns = block.iter().fold(0_u8, |n, b| n + u8::from(*b == b'\r'));
            let odd = |b: u8| (b < 0x20) & (b != b'\t') & (b != b'\r') & (b != b'\n') | (b == 0x7f);
            sums.returns += usize::from(returns);
            sums.controls |= block.iter().fold(false, |found, b| found | odd(*b));
        }
        sums
    }
}

fn is_field(line: &[u8], name: &[u8]) -> bool {
    let (field, rest) = line.split_at(name.len().min(line.len()));
    field.eq_ignore_ascii_case(name) && matches!(rest.first(), Some(b':' | b' ' | b'\t'))
}

/// Looks at a parsed head, of any version. `identity` names the fields that tell who asks.
pub fn check_head(
    request: &RequestHeader,
    fields: Fields,
    limits: &Limits,
    identity: &[HeaderName],
) -> Result<(), Refusal> {
    let headers = &request.headers;
    if headers.len() > limits.headers_max {
        return Err(TOO_MANY_FIELDS);
    }
    if request.method == Method::TRACE {
        // It shows a page what the proxy adds, and may not have a body that some parsers read all the same.
        return Err(Refusal {
            status: 405,
            cause: "trace",
        });
    }
    if request.raw_path().len() > limits.target_bytes_max {
        return Err(TARGET_TOO_LONG);
    }
    check_target(request)?;
    check_host(request)?;
    if fields.has(Field::TransferEncoding) || fields.has(Field::ContentLength) {
        check_framing(request)?;
        check_length(headers, limits)?;
    }
    if fields.has(Field::Connection) {
        check_connection(headers, identity)?;
    }
    Ok(())
}

fn check_target(request: &RequestHeader) -> Result<(), Refusal> {
    let target = request.raw_path();
    let plain = |b: &u8| (0x21..=0x7e).contains(b) && *b != b'#' && *b != b'\\';
    if !target.iter().all(plain) {
        return Err(bad("target"));
    }
    let form = match target {
        b"*" => request.method == Method::OPTIONS,
        [b'/', ..] => true,
        _ => target.starts_with(b"http://") || target.starts_with(b"https://"),
    };
    if !form {
        return Err(bad("target"));
    }
    check_path(target.split(|b| *b == b'?').next().unwrap_or_default())
}

/// Routes and rules look at the path as it was sent, and so it is sent on: one that the upstream would resolve to
/// another is refused.
fn check_path(path: &[u8]) -> Result<(), Refusal> {
    let encoded = |at: usize| {
        path.get(at + 1..at + 3)
            .filter(|code| code.iter().all(u8::is_ascii_hexdigit))
    };
    for at in memchr::memchr_iter(b'%', path) {
        let Some(code) = encoded(at) else {
            return Err(bad("path_encoding"));
        };
        if HIDDEN.iter().any(|hidden| code.eq_ignore_ascii_case(hidden)) {
            return Err(bad("path_encoding"));
        }
    }
    // Most paths have no dot behind a slash.
    if path.windows(2).any(|w| matches!(w, b"/." | b"/%")) && path.split(|b| *b == b'/').any(is_dots) {
        return Err(bad("path_dots"));
    }
    Ok(())
}

/// Whether a step of a path is `.` or `..`, written in any way, with or without parameters behind it.
fn is_dots(step: &[u8]) -> bool {
    let mut rest = step.split(|b| *b == b';').next().unwrap_or_default();
    let mut dots = 0;
    while !rest.is_empty() && dots < 3 {
        rest = match rest {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => rest,
            _ => return false,
        };
        dots += 1;
    }
    matches!(dots, 1 | 2)
}

fn check_host(request: &RequestHeader) -> Result<(), Refusal> {
    let mut hosts = request.headers.get_all(HOST).iter();
    let host = hosts.next();
    let needed = request.version == Version::HTTP_11;
    if hosts.next().is_some() || needed && host.is_none() {
        return Err(bad("host"));
    }
    match host {
        Some(host) if !is_host(host.as_bytes()) => Err(bad("host")),
        Some(host) if host.is_empty() && needed => Err(bad("host")),
        Some(_) => Ok(()),
        None => check_authority(request),
    }
}

/// HTTP/2 has `:authority` in place of `Host`; one of them must say whom the request is for.
fn check_authority(request: &RequestHeader) -> Result<(), Refusal> {
    match request.uri.authority() {
        Some(authority) if is_host(authority.as_str().as_bytes()) => Ok(()),
        Some(_) => Err(bad("host")),
        None if request.version == Version::HTTP_2 => Err(bad("host")),
        None => Ok(()),
    }
}

/// What a name of a host may be written with (RFC 3986, 3.2.2).
const HOST_BYTES: [bool; 256] = {
    let marks = b"-._~%!$&'()*+;=";
    let mut allowed = [false; 256];
    let mut at = 0;
    while at < 256 {
        allowed[at] = (at as u8).is_ascii_alphanumeric();
        at += 1;
    }
    at = 0;
    while at < marks.len() {
        allowed[marks[at] as usize] = true;
        at += 1;
    }
    allowed
};

/// A name or an address, and maybe a port (RFC 3986, 3.2).
fn is_host(written: &[u8]) -> bool {
    let (name, port) = match written {
        [b'[', ..] => {
            let end = written.iter().position(|b| *b == b']');
            let (address, rest) = written.split_at(end.map_or(0, |end| end + 1));
            let address = address.strip_prefix(b"[").and_then(|a| a.strip_suffix(b"]"));
            if !address.is_some_and(|a| a.iter().all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'))) {
                return false;
            }
            (&b""[..], rest)
        }
        _ => written.split_at(written.iter().position(|b| *b == b':').unwrap_or(written.len())),
    };
    let allowed = |b: &u8| HOST_BYTES[usize::from(*b)];
    let number = |port: &[u8]| {
        port.iter().try_fold(0_u32, |n, b| {
            let digit = b.is_ascii_digit().then(|| u32::from(b - b'0'))?;
            Some(n * 10 + digit).filter(|n| *n <= u32::from(u16::MAX))
        })
    };
    let port = match port {
        [] => Some(0),
        [b':', port @ ..] => number(port),
        _ => None,
    };
    name.iter().all(allowed) && port.is_some()
}

fn check_framing(request: &RequestHeader) -> Result<(), Refusal> {
    let headers = &request.headers;
    let body = headers.contains_key(TRANSFER_ENCODING) || headers.get(CONTENT_LENGTH).is_some_and(|v| v != "0");
    if body && headers.contains_key(UPGRADE) {
        // Where the body ends and the other protocol begins, the two sides may see differently.
        return Err(bad("upgrade_with_body"));
    }
    let Some(encoding) = headers.get(TRANSFER_ENCODING) else {
        return Ok(());
    };
    let only_chunked = encoding.as_bytes().eq_ignore_ascii_case(b"chunked");
    let once = headers.get_all(TRANSFER_ENCODING).iter().count() == 1;
    if request.version != Version::HTTP_11 || !only_chunked || !once || headers.contains_key(CONTENT_LENGTH) {
        return Err(bad("transfer_encoding"));
    }
    Ok(())
}

fn check_connection(headers: &HeaderMap, identity: &[HeaderName]) -> Result<(), Refusal> {
    for value in headers.get_all(CONNECTION) {
        if is_harmless(value.as_bytes()) {
            continue;
        }
        let Ok(list) = value.to_str() else {
            return Err(bad("connection"));
        };
        let protected = |name: &str| {
            PROTECTED.iter().any(|p| name.eq_ignore_ascii_case(p))
                || identity.iter().any(|i| name.eq_ignore_ascii_case(i.as_str()))
        };
        if list.split(',').map(str::trim).any(protected) {
            return Err(bad("connection"));
        }
    }
    Ok(())
}

fn is_harmless(value: &[u8]) -> bool {
    [&b"keep-alive"[..], b"close", b"upgrade"]
        .iter()
        .any(|word| value.eq_ignore_ascii_case(word))
}

/// Looks at the fields of a head of HTTP/2; of HTTP/1 [`check_head_bytes`] has seen them.
pub fn check_fields(headers: &HeaderMap) -> Result<(), Refusal> {
    for (name, value) in headers {
        // Some servers read `_` and `-` as one, so that a second, unchecked spelling of a field would slip through.
        if memchr::memchr(b'_', name.as_str().as_bytes()).is_some() {
            return Err(bad("underscore_in_name"));
        }
        let control = |b: &u8| *b < 0x20 && *b != b'\t' || *b == 0x7f;
        if value.as_bytes().iter().any(control) {
            return Err(bad("control_byte"));
        }
    }
    Ok(())
}

fn check_length(headers: &HeaderMap, limits: &Limits) -> Result<(), Refusal> {
    let Some(value) = headers.get(CONTENT_LENGTH) else {
        return Ok(());
    };
    let digits = value.as_bytes();
    let sound = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    let length = value
        .to_str()
        .ok()
        .filter(|_| sound)
        .and_then(|v| v.parse::<u64>().ok());
    match (length, limits.body_bytes_max) {
        (None, _) => Err(bad("content_length")),
        (Some(length), Some(most)) if length > most => Err(Refusal {
            status: 413,
            cause: "body_too_large",
        }),
        (Some(_), _) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head_bytes(text: &str) -> Result<(), &'static str> {
        check_head_bytes(text.as_bytes(), &Limits::default()).map_err(|r| r.cause)
    }

    fn head(method: &str, target: &str, fields: &[(&'static str, &str)]) -> Result<(), &'static str> {
        let mut request = RequestHeader::build(method, target.as_bytes(), None).expect("request");
        for (name, value) in fields {
            request.append_header(*name, *value).expect("field");
        }
        let identity = [HeaderName::from_static("x-user-id")];
        let fields = Fields::of(&request.headers, &identity);
        check_head(&request, fields, &Limits::default(), &identity).map_err(|r| r.cause)
    }

    #[test]
    fn bytes_that_parsers_read_differently_are_refused() {
        for (text, expected) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(())),
            ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n", Ok(())),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                Ok(()),
            ),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", Err("bare_lf")),
            ("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n", Err("target")),
            ("\r\nGET /#a HTTP/1.1\r\nHost: a\r\n\r\n", Err("target")),
            ("\r\n\r\nGET /a_b HTTP/1.1\r\nHost: a\r\n\r\n", Ok(())),
            ("\r\nGET / HTTP/1.1\r\nX_User_Id: 1\r\n\r\n", Err("underscore_in_name")),
            ("\r\nGET / HTTP/1.1\r\n A: b\r\n\r\n", Err("obs_fold")),
            ("\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Err("bare_lf")),
            ("GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", Err("obs_fold")),
            ("GET / HTTP/1.1\r\nA: b\rc\r\n\r\n", Err("control_byte")),
            ("GET / HTTP/1.1\r\nA: b\0\r\n\r\n", Err("control_byte")),
            ("GET / HTTP/1.1\r\nA: b\x1fc\r\n\r\n", Err("control_byte")),
            ("GET / HTTP/1.1\r\nA: b\x7fc\r\n\r\n", Err("control_byte")),
            ("GET / HTTP/1.1\r\nA: b\tc\u{ff}\r\n\r\n", Ok(())),
            ("GET / HTTP/1.1\r\nX_User_Id: 1\r\n\r\n", Err("underscore_in_name")),
            ("GET /a_b HTTP/1.1\r\nCookie: a_b=c_d\r\n\r\n", Ok(())),
            (
                "P / HTTP/1.1\r\nContent-Length: 1\r\ncontent-length: 1\r\n\r\n",
                Err("content_length_repeated"),
            ),
            (
                "P / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Err("length_and_encoding"),
            ),
            (
                "P / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
                Err("transfer_encoding_repeated"),
            ),
        ] {
            assert_eq!(head_bytes(text), expected, "{text:?}");
        }
        let long = format!("GET / HTTP/1.1\r\nA: {}\r\n\r\n", "x".repeat(40_000));
        assert_eq!(head_bytes(&long), Err("header_too_large"));
    }

    #[test]
    fn control_bytes_are_found_wherever_they_stand_and_a_long_head_is_counted_right() {
        let head = format!("GET / HTTP/1.1\r\n{}\r\n", "A: b\r\n".repeat(300));
        assert_eq!(head_bytes(&head), Ok(()));
        for at in (20..head.len() - 4).filter(|at| head.as_bytes()[*at] == b'b') {
            for odd in ["\0", "\r", "\x7f"] {
                let mut broken = head.clone();
                broken.replace_range(at..=at, odd);
                assert_eq!(head_bytes(&broken), Err("control_byte"), "{at}");
            }
        }
    }

    #[test]
    fn names_and_values_of_http_2_are_looked_at_one_by_one() {
        let fields = |name: &'static str, value: &[u8]| {
            let pair = (
                HeaderName::from_static(name),
                http::HeaderValue::from_bytes(value).expect("value"),
            );
            check_fields(&[pair].into_iter().collect()).map_err(|r| r.cause)
        };
        assert_eq!(fields("x-user-id", b"a\tb"), Ok(()));
        assert_eq!(fields("x_user_id", b"1"), Err("underscore_in_name"));
    }

    #[test]
    fn doubtful_heads_are_refused_and_plain_ones_pass() {
        let host = ("Host", "t.example:80");
        for (method, target, fields, expected) in [
            ("GET", "/a?b=%2f", vec![host], Ok(())),
            ("OPTIONS", "*", vec![host], Ok(())),
            ("GET", "*", vec![host], Err("target")),
            ("GET", "http://t.example:80/a", vec![host], Ok(())),
            ("GET", "%20/a", vec![host], Err("target")),
            ("GET", "/a%0dX", vec![host], Err("path_encoding")),
            ("TRACE", "/", vec![host], Err("trace")),
            ("GET", "/a\\b", vec![host], Err("target")),
            ("GET", "/a%2Fb", vec![host], Err("path_encoding")),
            ("GET", "/a%zz", vec![host], Err("path_encoding")),
            ("GET", "/a%2", vec![host], Err("path_encoding")),
            ("GET", "/a/../b", vec![host], Err("path_dots")),
            ("GET", "/a/%2E.", vec![host], Err("path_dots")),
            ("GET", "/a/..;x/b", vec![host], Err("path_dots")),
            ("GET", "/a/.../.b/c.", vec![host], Ok(())),
            ("GET", "/", vec![("Host", "a:x")], Err("host")),
            ("GET", "/", vec![("Host", "a:65536")], Err("host")),
            ("GET", "/", vec![("Host", "a:1:1")], Err("host")),
            ("GET", "/", vec![("Host", "[::1]:80")], Ok(())),
            ("GET", "/", vec![("Host", "[::1]x")], Err("host")),
            ("GET", "/", vec![("Host", "[a")], Err("host")),
            (
                "POST",
                "/",
                vec![host, ("Upgrade", "websocket"), ("Content-Length", "1")],
                Err("upgrade_with_body"),
            ),
            ("GET", "/", vec![], Err("host")),
            ("GET", "/", vec![host, host], Err("host")),
            ("GET", "/", vec![("Host", "a,b")], Err("host")),
            (
                "GET",
                "/",
                vec![host, ("Connection", "keep-alive, X-User-Id")],
                Err("connection"),
            ),
            ("GET", "/", vec![host, ("Connection", "close, x-trace")], Ok(())),
            (
                "POST",
                "/",
                vec![host, ("Transfer-Encoding", "gzip, chunked")],
                Err("transfer_encoding"),
            ),
            ("POST", "/", vec![host, ("Content-Length", "+1")], Err("content_length")),
            (
                "POST",
                "/",
                vec![host, ("Content-Length", "99999999999999999999")],
                Err("content_length"),
            ),
        ] {
            assert_eq!(head(method, target, &fields), expected, "{method} {target} {fields:?}");
        }
    }
}
