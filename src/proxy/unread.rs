//! Requests of HTTP/1 that are answered before the gateway has them: by Pingora, which takes them for none and does not tell, or by
//! the socket. Each has its line in the access log, with what can be read of it, and is counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use memchr::memmem;
use pingora::protocols::Stream;

use super::wire::Wire;
use crate::clock;
use crate::control::Live;
use crate::telemetry::access_log::{AccessLog, AccessRecord, HttpVersion};
use crate::telemetry::metrics;

/// The gateway has the request, or there will be none of HTTP/1.
const ASKED: u16 = 0;
/// The request is waited for, and nothing was written meanwhile.
const SILENT: u16 = 1;
/// `HTTP/1.1 ` of a first line.
const BEFORE_STATUS: usize = 9;

/// What is answered to a request that the gateway does not have, if something is.
#[derive(Debug)]
pub struct Unasked(AtomicU16);

impl Unasked {
    /// Of a connection that has just begun.
    pub fn new(h2: bool) -> Self {
        Self(AtomicU16::new(if h2 { ASKED } else { SILENT }))
    }

    /// The next request is waited for.
    pub fn waits(&self) {
        self.0.store(SILENT, Ordering::Relaxed);
    }

    /// The gateway has it, and writes its line.
    pub fn ends(&self) {
        self.0.store(ASKED, Ordering::Relaxed);
    }

    /// This is written.
    pub fn writes(&self, bytes: &[u8]) {
        if self.0.load(Ordering::Relaxed) != SILENT {
            return;
        }
        let status = bytes.get(BEFORE_STATUS..BEFORE_STATUS + 3);
        let status = status.and_then(|digits| str::from_utf8(digits).ok()?.parse().ok());
        if let Some(status @ 100..) = status {
            self.0.store(status, Ordering::Relaxed);
        }
    }

    /// The status that was written, if one was.
    pub fn answered(&self) -> Option<u16> {
        let status = self.0.load(Ordering::Relaxed);
        (status > SILENT).then_some(status)
    }
}

/// Such a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The answer.
    pub status: u16,
    /// What came of its head, and maybe of what follows.
    pub head: Vec<u8>,
    /// Since it began.
    pub duration: Duration,
    /// Whether the answer was counted when it was given.
    pub counted: bool,
}

/// Writes them down.
pub struct Ledger {
    access_log: Arc<AccessLog>,
    live: Arc<Live>,
}

impl Ledger {
    /// In this log, as of requests that see this.
    pub fn new(access_log: Arc<AccessLog>, live: Arc<Live>) -> Self {
        Self { access_log, live }
    }

    /// Writes down what was answered on a connection, if anything was that the gateway does not know of. `left` is what is left
    /// of the connection.
    pub fn close(&self, wire: &Wire, left: Option<&Stream>) {
        let Some(unread) = wire.unread() else { return };
        if !unread.counted {
            metrics::refused(if unread.status == 405 { "connect" } else { "malformed" });
        }
        let digest = left.and_then(|stream| stream.get_socket_digest());
        let peer = digest.and_then(|digest| digest.peer_addr()?.as_inet().copied());
        let parts = Parts::of(&unread.head);
        self.access_log.write(&AccessRecord {
            unix_micros: clock::unix_micros(),
            client: peer.map(|peer| SocketAddr::new(peer.ip().to_canonical(), peer.port())),
            method: parts.method,
            host: parts.host,
            path: parts.target,
            http_version: parts.version,
            status: unread.status,
            duration: unread.duration,
            revision: self.live.pin().revision().0,
            ..AccessRecord::default()
        });
    }
}

/// What can be read of a head that is none.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    method: &'a [u8],
    target: &'a [u8],
    version: HttpVersion,
    host: Option<&'a [u8]>,
}

impl<'a> Parts<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        let start = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n'));
        let bytes = &bytes[start.unwrap_or(bytes.len())..];
        let head = &bytes[..memmem::find(bytes, b"\r\n\r\n").unwrap_or(bytes.len())];
        let mut lines = head.split(|b| *b == b'\n').map(<[u8]>::trim_ascii_end);
        let mut words = lines.next().unwrap_or_default().split(|b| *b == b' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let host = lines.find_map(|line| {
            let (name, value) = line.split_at(line.iter().position(|b| *b == b':')?);
            name.eq_ignore_ascii_case(b"host").then(|| value[1..].trim_ascii())
        });
        Self {
            method,
            target,
            version: match words.next_back() {
                Some(b"HTTP/1.0") => HttpVersion::Http10,
                _ => HttpVersion::Http11,
            },
            host,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_head_that_is_none_is_read_what_can_be() {
        for (head, method, target, host) in [
            ("", "", "", None),
            ("nonsense", "nonsense", "", None),
            (
                "\r\n\r\nCONNECT a:443 HTTP/1.1\r\nHOST:  a \r\nHost: b\r\n\r\nHost: c",
                "CONNECT",
                "a:443",
                Some("a"),
            ),
            ("GET /a b HTTP/1.0\r\nX Y: z\r\n\r\nHost: c", "GET", "/a", None),
            ("GET /\nhost: a", "GET", "/", Some("a")),
        ] {
            let parts = Parts::of(head.as_bytes());
            let said = (parts.method, parts.target, parts.host);
            assert_eq!(
                said,
                (method.as_bytes(), target.as_bytes(), host.map(str::as_bytes)),
                "{head:?}"
            );
        }
        assert_eq!(Parts::of(b"GET /a b HTTP/1.0\r\n\r\n").version, HttpVersion::Http10);
    }

    #[test]
    fn what_is_written_counts_until_the_gateway_has_the_request() {
        let unasked = Unasked::new(false);
        assert_eq!(unasked.answered(), None);
        unasked.writes(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        unasked.writes(b"HTTP/1.1 500 ");
        assert_eq!(unasked.answered(), Some(400));
        unasked.waits();
        assert_eq!(unasked.answered(), None);
        unasked.ends();
        unasked.writes(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        assert_eq!(unasked.answered(), None);
        let of_frames = Unasked::new(true);
        of_frames.writes(b"\0\0\x06\x04\0\0\0\0\x00400");
        assert_eq!(of_frames.answered(), None);
    }
}
