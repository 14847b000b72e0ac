//! Responses that are all there at once, as most small ones are: head, body and nothing behind it in one read. Pingora gets
//! the head alone, as that of a response without a body, and whoever passes it on has the body from here: Pingora would
//! copy it into a buffer of 64 KiB that it makes for each body, and send it through a queue of its own.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{BufMut, Bytes};
use http::StatusCode;
use memchr::memchr_iter;
use parking_lot::Mutex;

/// What a response of HTTP/1.1 begins with, and where its status ends.
const VERSION: &[u8] = b"HTTP/1.1 ";
const STATUS_END: usize = VERSION.len() + 3;
/// What begins one that has no body by definition (RFC 9112, 6.3), whatever its Content-Length.
const BODILESS: &[u8] = b"HTTP/1.1 204 No Content";
/// How Content-Length and Transfer-Encoding begin; names are compared eight bytes at a time.
const LENGTH: [u8; 8] = *b"content-";
const LENGTH_REST: &[u8] = b"length";
const CODING: [u8; 8] = *b"transfer";
const MOST_DIGITS: usize = 9;

/// What Pingora does not know of a response.
#[derive(Debug, PartialEq, Eq)]
pub struct Whole {
    /// The status that its head had.
    pub status: StatusCode,
    /// All of its body.
    pub body: Bytes,
}

/// Where the reader of a connection leaves a response for whoever passes it on.
#[derive(Debug, Default)]
pub struct Shortcut {
    wanted: AtomicBool,
    whole: Mutex<Option<Whole>>,
}

impl Shortcut {
    /// Whether the next response is taken from here if it is all there at once. Not that to HEAD, whose length is not its
    /// body's.
    pub fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Ordering::Relaxed);
    }

    /// The response whose head was just read, if it was left here.
    pub fn take(&self) -> Option<Whole> {
        self.wanted
            .swap(false, Ordering::Relaxed)
            .then(|| self.whole.lock().take())?
    }

    /// Leaves the response that `read` is, of which `head` is so long, if it is wanted and all there: then what Pingora is to
    /// read is put into `room`.
    pub(super) fn leave(&self, read: &[u8], head: usize, mut room: impl BufMut) -> bool {
        if !self.wanted.load(Ordering::Relaxed) {
            return false;
        }
        let (head, body) = read.split_at(head);
        let Some((status, reason_end)) = judge(head, body.len()) else {
            return false;
        };
        let rest = &head[reason_end..];
        if room.remaining_mut() < BODILESS.len() + rest.len() {
            return false;
        }
        room.put_slice(BODILESS);
        room.put_slice(rest);
        let body = Bytes::copy_from_slice(body);
        *self.whole.lock() = Some(Whole { status, body });
        true
    }
}

/// The status and where the status line's words end, if this is the head of a response whose body has `body` bytes, at least
/// one, and if it says so in the plainest way: with one length and no coding, and nothing that parsers read in more than one
/// way. All else is Pingora's to judge.
fn judge(head: &[u8], body: usize) -> Option<(StatusCode, usize)> {
    let status = StatusCode::from_bytes(head.strip_prefix(VERSION)?.get(..3)?).ok()?;
    if body == 0 || status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return None;
    }
    let mut lines = memchr_iter(b'\n', head);
    let first = line(head, 0, lines.next()?)?;
    // Pingora keeps any other with the status that it sees.
    let reason = first[STATUS_END..].strip_prefix(b" ")?;
    if reason != status.canonical_reason()?.as_bytes() {
        return None;
    }
    let mut start = first.len() + 2;
    let mut length = None;
    for end in lines {
        let field = line(head, start, end)?;
        start = end + 1;
        match field.first_chunk().map(lower) {
            Some(LENGTH) => {
                // What else begins so says other things, as Content-Type does.
                let after = &field[LENGTH.len()..];
                let (name, value) = after.split_at_checked(LENGTH_REST.len()).unwrap_or((after, &[]));
                if name.eq_ignore_ascii_case(LENGTH_REST) {
                    let value = value.strip_prefix(b":")?.trim_ascii();
                    if length.replace(number(value)?).is_some() {
                        return None;
                    }
                }
            }
            Some(CODING) => return None,
            _ if matches!(field.first(), Some(b' ' | b'\t')) => return None,
            _ => {}
        }
    }
    (length == Some(body)).then_some((status, first.len()))
}

/// What stands from `start` to the line feed at `end` and the carriage return before it, which must be there.
fn line(head: &[u8], start: usize, end: usize) -> Option<&[u8]> {
    head.get(start..end)?.strip_suffix(b"\r")
}

/// In lower case, as far as they are letters: others may become others still, but none a letter.
fn lower(bytes: &[u8; 8]) -> [u8; 8] {
    (u64::from_ne_bytes(*bytes) | 0x2020_2020_2020_2020).to_ne_bytes()
}

/// A number in digits only, and in so few that it may be a small body's length.
fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > MOST_DIGITS {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        Some(number * 10 + usize::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of this response, and what Pingora reads of it then.
    fn left(head: &str, body: &str) -> Option<(Whole, String)> {
        let shortcut = Shortcut::default();
        shortcut.want(true);
        let mut room = [0; 4096];
        let mut rest = &mut room[..];
        let read = format!("{head}{body}");
        if !shortcut.leave(read.as_bytes(), head.len(), &mut rest) {
            assert_eq!(rest.len(), 4096, "nothing is written");
            assert_eq!(shortcut.take(), None);
            return None;
        }
        let used = 4096 - rest.len();
        let whole = shortcut.take().expect("left");
        assert_eq!(shortcut.take(), None, "it is taken once");
        Some((whole, String::from_utf8(room[..used].to_vec()).expect("text")))
    }

    #[test]
    fn a_response_that_is_all_there_is_left_and_its_head_is_one_without_a_body() {
        let head = "HTTP/1.1 404 Not Found\r\nContent-Type: a\r\ncontent-LENGTH:  007 \r\nContent-MD5:\r\nX: y\r\n\r\n";
        let (whole, read) = left(head, "missing").expect("all there");
        assert_eq!(
            (whole.status, &whole.body[..]),
            (StatusCode::NOT_FOUND, &b"missing"[..])
        );
        assert_eq!(read, head.replace("404 Not Found", "204 No Content"));
    }

    #[test]
    fn what_is_not_plain_or_not_all_there_is_left_to_pingora() {
        let ok = "HTTP/1.1 200 OK\r\n";
        let length = "Content-Length: 4\r\n";
        assert!(left(&format!("{ok}{length}\r\n"), "body").is_some());
        for (head, body) in [
            (format!("{ok}{length}\r\n"), "bod"),
            (format!("{ok}{length}\r\n"), "body and more"),
            (format!("{ok}{length}\r\n"), ""),
            (format!("{ok}Content-Length: 0\r\n\r\n"), ""),
            (format!("{ok}\r\n"), "body"),
            (format!("{ok}{length}{length}\r\n"), "body"),
            (format!("{ok}{length}Content-Length : 9\r\n\r\n"), "body"),
            (format!("{ok}{length}Content-Lengthy: 9\r\n\r\n"), "body"),
            (format!("{ok}{length}transfer-Encoding: chunked\r\n\r\n"), "body"),
            (format!("{ok}{length}Transfer-Encoding : chunked\r\n\r\n"), "body"),
            (format!("{ok}{length}TRANSFER: chunked\r\n\r\n"), "body"),
            (format!("{ok}X: y\r\n {length}\r\n"), "body"),
            (format!("{ok}{length}\t2\r\n\r\n"), "body"),
            (format!("{ok}X: y\n{length}\r\n"), "body"),
            (format!("{ok}Content-Length: +4\r\n\r\n"), "body"),
            (format!("{ok}Content-Length: 4, 4\r\n\r\n"), "body"),
            (format!("{ok}Content-Length: 0000000004\r\n\r\n"), "body"),
            (format!("{ok}Content-Length: 18446744073709551620\r\n\r\n"), "body"),
            (format!("{ok}Content-Length: 4:\r\n\r\n"), "body"),
            (format!("{ok}Content-Length:\r\n\r\n"), "body"),
            (format!("HTTP/1.0 200 OK\r\n{length}\r\n"), "body"),
            (format!("HTTP/1.1 200 Okay\r\n{length}\r\n"), "body"),
            (format!("HTTP/1.1 200\r\n{length}\r\n"), "body"),
            (format!("HTTP/1.1 2000 OK\r\n{length}\r\n"), "body"),
            (format!("HTTP/1.1 204 No Content\r\n{length}\r\n"), "body"),
            (format!("HTTP/1.1 304 Not Modified\r\n{length}\r\n"), "body"),
            (format!("HTTP/1.1 103 Early Hints\r\n{length}\r\n"), "body"),
            (format!("HTTP/1.1 101 Switching Protocols\r\n{length}\r\n"), "body"),
            (format!("{ok}X: {}\r\n{length}\r\n", "y".repeat(4096)), "body"),
        ] {
            assert_eq!(left(&head, body), None, "{head:?} {body:?}");
        }
    }

    #[test]
    fn what_is_not_wanted_is_not_left() {
        let shortcut = Shortcut::default();
        let read = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";
        shortcut.want(true);
        shortcut.want(false);
        assert!(!shortcut.leave(read, read.len() - 4, Vec::new()));
    }
}
