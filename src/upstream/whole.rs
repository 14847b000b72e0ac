//! Responses that are all there at once, as most small ones are: head, body and nothing behind it in one read. Pingora gets
//! the head alone, as that of a response without a body, and whoever passes it on has the body from here: Pingora would
//! copy it into a buffer of 64 KiB that it makes for each body, and send it through a queue of its own. A body in chunks has
//! a length from here on: Pingora would write its head, what is in it and its end one after the other.

use std::mem;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use memchr::{memchr, memchr_iter};
use parking_lot::Mutex;

/// What a response of HTTP/1.1 begins with, and where its status ends.
const VERSION: &[u8] = b"HTTP/1.1 ";
const STATUS_END: usize = VERSION.len() + 3;
/// What begins one that has no body by definition (RFC 9112, 6.3), whatever its Content-Length.
const BODILESS: &[u8] = b"HTTP/1.1 204 No Content";
/// How the names begin that matter; names are compared eight bytes at a time.
const LENGTH: [u8; 8] = *b"content-";
const LENGTH_REST: &[u8] = b"length";
const CODING: [u8; 8] = *b"transfer";
const CODING_REST: &[u8] = b"-encoding";
const TRAILER: [u8; 8] = *b"trailer:";
const CHUNKS: &[u8] = b"chunked";
/// In place of the line that says that there are chunks.
const LENGTH_LINE: &[u8] = b"Content-Length: ";
const MOST_DIGITS: usize = 7;
const LENGTH_LINE_MAX: usize = LENGTH_LINE.len() + MOST_DIGITS + 1;

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
    pub(super) fn leave(&self, read: &[u8], head: usize, room: impl BufMut) -> bool {
        self.wanted.load(Ordering::Relaxed) && self.try_leave(read.split_at(head), room).is_some()
    }

    fn try_leave(&self, (head, body): (&[u8], &[u8]), mut room: impl BufMut) -> Option<()> {
        let judged = judge(head)?;
        let rest = &head[judged.status_line..];
        let body = match &judged.framing {
            Framing::Length(length) => (*length == body.len() && *length > 0).then(|| Bytes::copy_from_slice(body)),
            Framing::Chunks(_) => joined(body),
        }?;
        if room.remaining_mut() < BODILESS.len() + rest.len() + LENGTH_LINE_MAX {
            return None;
        }
        room.put_slice(BODILESS);
        if let Framing::Chunks(line) = judged.framing {
            room.put_slice(&head[judged.status_line..line.start]);
            let mut length = itoa::Buffer::new();
            for part in [LENGTH_LINE, length.format(body.len()).as_bytes(), b"\r"] {
                room.put_slice(part);
            }
            room.put_slice(&head[line.end..]);
        } else {
            room.put_slice(rest);
        }
        let status = judged.status;
        *self.whole.lock() = Some(Whole { status, body });
        Some(())
    }
}

/// A head of which there is no doubt.
struct Judged {
    status: StatusCode,
    /// Where the words of the status line end.
    status_line: usize,
    framing: Framing,
}

/// How long a body is.
enum Framing {
    Length(usize),
    /// As its chunks say; where the line stands that says so, up to its line feed.
    Chunks(Range<usize>),
}

/// Judges a head that says in the plainest way how its body is framed: with one length, or one coding, which is chunks, and
/// nothing that parsers read in more than one way. All else is Pingora's to judge.
fn judge(head: &[u8]) -> Option<Judged> {
    let status = StatusCode::from_bytes(head.strip_prefix(VERSION)?.get(..3)?).ok()?;
    if status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
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
    let mut framing = None;
    for end in lines {
        let field = line(head, start, end)?;
        let (begin, rest) = field.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let found = match lower(begin) {
            // What else begins so says other things, as Content-Type does.
            LENGTH if starts(rest, LENGTH_REST) => {
                let value = rest[LENGTH_REST.len()..].strip_prefix(b":")?;
                Some(Framing::Length(number(trimmed(value), 10)?))
            }
            CODING if starts(rest, CODING_REST) => {
                let value = rest[CODING_REST.len()..].strip_prefix(b":")?;
                let chunks = trimmed(value).eq_ignore_ascii_case(CHUNKS);
                Some(Framing::Chunks(chunks.then_some(start..end)?))
            }
            // What follows the last chunk may be more than an empty line.
            TRAILER => return None,
            _ if matches!(field.first(), Some(b' ' | b'\t')) => return None,
            _ => None,
        };
        if found.is_some() && mem::replace(&mut framing, found).is_some() {
            return None;
        }
        start = end + 1;
    }
    Some(Judged {
        status,
        status_line: first.len(),
        framing: framing?,
    })
}

/// What is in these chunks, if they are all there, and written in the plainest way (RFC 9112, 7.1): no extensions, no trailers.
fn joined(mut chunks: &[u8]) -> Option<Bytes> {
    let mut whole = BytesMut::with_capacity(chunks.len());
    loop {
        let end = memchr(b'\n', chunks)?;
        let size = number(line(chunks, 0, end)?, 16)?;
        let rest = &chunks[end + 1..];
        if size == 0 {
            return (rest == b"\r\n").then(|| whole.freeze());
        }
        let (chunk, rest) = rest.split_at_checked(size)?;
        whole.extend_from_slice(chunk);
        chunks = rest.strip_prefix(b"\r\n")?;
    }
}

/// What stands from `start` to the line feed at `end` and the carriage return before it, which must be there.
fn line(head: &[u8], start: usize, end: usize) -> Option<&[u8]> {
    head.get(start..end)?.strip_suffix(b"\r")
}

/// In lower case, as far as they are letters: others may become others still, but none a letter.
fn lower(bytes: &[u8; 8]) -> [u8; 8] {
    (u64::from_ne_bytes(*bytes) | 0x2020_2020_2020_2020).to_ne_bytes()
}

/// Without the white space that may stand around a value (RFC 9110, 5.5).
fn trimmed(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

fn starts(text: &[u8], word: &[u8]) -> bool {
    text.len() >= word.len() && text[..word.len()].eq_ignore_ascii_case(word)
}

/// A number in digits only, and in so few that it may be a small body's length.
fn number(digits: &[u8], base: u32) -> Option<usize> {
    if digits.is_empty() || digits.len() > MOST_DIGITS {
        return None;
    }
    digits.iter().try_fold(0, |number, digit| {
        let digit = char::from(*digit).to_digit(base)?;
        Some(number * base as usize + digit as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pingora::protocols::http::v1::client::HttpSession;
    use std::io::Cursor;

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
            (
                format!("{ok}{length}transfer-Encoding: chunked\r\n\r\n"),
                "4\r\nbody\r\n0\r\n\r\n",
            ),
            (format!("{ok}{length}Transfer-Encoding : chunked\r\n\r\n"), "body"),
            (format!("{ok}X: y\r\n {length}\r\n"), "body"),
            (format!("{ok}{length}\t2\r\n\r\n"), "body"),
            (format!("{ok}X: y\n{length}\r\n"), "body"),
            (format!("{ok}Content-Length: +4\r\n\r\n"), "body"),
            (format!("{ok}Content-Length: 4, 4\r\n\r\n"), "body"),
            (format!("{ok}Content-Length: 0000000004\r\n\r\n"), "body"),
            (format!("{ok}Content-Length: 18446744073709551620\r\n\r\n"), "body"),
            (format!("{ok}Content-Length: 4:\r\n\r\n"), "body"),
            (format!("{ok}Content-Length:\r4\r\n\r\n"), "body"),
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
    fn chunks_that_are_all_there_are_joined_and_have_a_length() {
        let head = "HTTP/1.1 200 OK\r\nX: y\r\nTransfer-ENCODING: Chunked \r\nY: z\r\n\r\n";
        for (chunks, body) in [
            ("4\r\nbody\r\n0\r\n\r\n", "body"),
            ("1\r\nb\r\n003\r\n\r\nd\r\n0\r\n\r\n", "b\r\nd"),
            (
                "a\r\n0123456789\r\nA\r\n0123456789\r\n00\r\n\r\n",
                "01234567890123456789",
            ),
            ("0\r\n\r\n", ""),
        ] {
            let (whole, read) = left(head, chunks).expect("all there");
            assert_eq!((whole.status, &whole.body[..]), (StatusCode::OK, body.as_bytes()));
            let length = format!("Content-Length: {}\r\n", body.len());
            let expected = head.replace("Transfer-ENCODING: Chunked \r\n", &length);
            assert_eq!(read, expected.replace("200 OK", "204 No Content"));
        }
    }

    #[test]
    fn chunks_that_are_not_plain_or_not_all_there_are_left_to_pingora() {
        let ok = "HTTP/1.1 200 OK\r\n";
        let coding = "Transfer-Encoding: chunked\r\n";
        let all = "4\r\nbody\r\n0\r\n\r\n";
        assert!(left(&format!("{ok}{coding}\r\n"), all).is_some());
        for fields in [
            &format!("{coding}{coding}"),
            &format!("{coding}Content-Length: 4\r\n"),
            &format!("{coding}Trailer: X\r\n"),
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked;a=b\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding: chunked\n",
            "Transfer-Encoding:\r\n chunked\r\n",
            "",
        ] {
            assert_eq!(left(&format!("{ok}{fields}\r\n"), all), None, "{fields:?}");
        }
        for chunks in [
            "",
            "4",
            "4\r\nbody",
            "4\r\nbody\r\n",
            "4\r\nbody\r\n0\r\n",
            "4\r\nbody\r\n0\r\nX: y\r\n\r\n",
            "4\r\nbody\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            "4;a=b\r\nbody\r\n0\r\n\r\n",
            "4 \r\nbody\r\n0\r\n\r\n",
            "+4\r\nbody\r\n0\r\n\r\n",
            "0x4\r\nbody\r\n0\r\n\r\n",
            "-4\r\nbody\r\n0\r\n\r\n",
            "\r\nbody\r\n0\r\n\r\n",
            "00000004\r\nbody\r\n0\r\n\r\n",
            "4\nbody\r\n0\r\n\r\n",
            "4\r\nbody\n0\r\n\r\n",
            "4\r\nbody\r\n0\n\r\n",
            "4\r\nbody\r\n0\r\n\n",
            "3\r\nbody\r\n0\r\n\r\n",
            "5\r\nbody\r\n0\r\n\r\n",
            "fffffffffffffffff\r\nbody\r\n0\r\n\r\n",
        ] {
            assert_eq!(left(&format!("{ok}{coding}\r\n"), chunks), None, "{chunks:?}");
        }
    }

    /// What Pingora makes of a response.
    #[derive(Debug, PartialEq, Eq)]
    struct Read {
        status: StatusCode,
        reason: String,
        /// But for those that frame the body.
        fields: Vec<(String, Vec<u8>)>,
        lengths: Vec<Vec<u8>>,
        body: Vec<u8>,
        kept: bool,
    }

    async fn by_pingora(response: &[u8]) -> Option<Read> {
        let mut session = HttpSession::new(Box::new(Cursor::new(response.to_vec())));
        session.read_response().await.ok()?;
        let head = session.resp_header()?.clone();
        let mut body = Vec::new();
        while let Some(part) = session.read_body_bytes().await.ok()? {
            body.extend_from_slice(&part);
        }
        session.respect_keepalive();
        let (mut fields, mut lengths) = (Vec::new(), Vec::new());
        for (name, value) in &head.headers {
            match name.as_str() {
                "transfer-encoding" => {}
                "content-length" => lengths.push(value.as_bytes().to_vec()),
                name => fields.push((name.to_owned(), value.as_bytes().to_vec())),
            }
        }
        Some(Read {
            status: head.status,
            reason: head.get_reason_phrase().unwrap_or_default().to_owned(),
            fields,
            lengths,
            body,
            kept: session.reuse().await.is_some(),
        })
    }

    /// A response that may be sound, of parts that may not.
    fn any(random: &mut fastrand::Rng) -> (String, String) {
        const LINES: [&str; 7] = [
            "200 OK",
            "404 Not Found",
            "200 Fine",
            "204 No Content",
            "304 Not Modified",
            "100 Continue",
            "200",
        ];
        const FIELDS: [&str; 20] = [
            "Content-Length: 4",
            "content-length:4",
            "Content-Length: 5",
            "Content-Length: 04",
            "Content-Length : 4",
            "Content-Length: 4, 4",
            "Content-Length: ",
            "Transfer-Encoding: chunked",
            "transfer-encoding:Chunked",
            "Transfer-Encoding: gzip",
            "Transfer-Encoding : chunked",
            "Transfer-Encodings: chunked",
            "Content-Type: text/plain",
            "Content-Lengths: 9",
            "X: y",
            "X:",
            " folded: 4",
            "Connection: close",
            "Trailer: X",
            "Content-Length: 4\u{b}",
        ];
        const BODIES: [&str; 12] = [
            "body",
            "body!",
            "bod",
            "",
            "4\r\nbody\r\n0\r\n\r\n",
            "1\r\nb\r\n3\r\nody\r\n0\r\n\r\n",
            "4\r\nbody\r\n0\r\nX: y\r\n\r\n",
            "4\r\nbody\r\n0\r\n\r\n!",
            "4;x\r\nbody\r\n0\r\n\r\n",
            "4\nbody\r\n0\r\n\r\n",
            "0\r\n\r\n",
            "04\r\nbody\r\n0\r\n\r\n",
        ];
        let one = |random: &mut fastrand::Rng, all: &[&str], mostly: usize| {
            let nth = if random.u8(..) < 128 {
                random.usize(..mostly)
            } else {
                random.usize(..all.len())
            };
            all[nth].to_owned()
        };
        let mut head = format!("HTTP/1.1 {}\r\n", one(random, &LINES, 2));
        let framing = if random.bool() { 0 } else { 7 };
        for nth in 0..random.usize(1..4) {
            let field = if nth == 0 {
                FIELDS[framing].to_owned()
            } else {
                one(random, &FIELDS[12..], 3)
            };
            let field = if random.u8(..) < 24 {
                one(random, &FIELDS, 20)
            } else {
                field
            };
            head += &(field + if random.u8(..) < 4 { "\n" } else { "\r\n" });
        }
        let body = one(random, &BODIES, 6);
        let mut all = (head + "\r\n").into_bytes();
        if random.u8(..) < 64 {
            let at = random.usize(..all.len());
            all[at] = b"\r\n :;,04cT-\t"[random.usize(..12)];
        }
        (String::from_utf8(all).expect("ASCII"), body)
    }

    /// Whatever is left aside, Pingora would have read to the same: no other parser of responses comes with this one.
    #[tokio::test]
    async fn what_is_left_is_what_pingora_reads() {
        let (mut lengths, mut chunks) = (0, 0);
        for seed in 0..40_000 {
            let (head, body) = any(&mut fastrand::Rng::with_seed(seed));
            let response = format!("{head}{body}");
            let Some(end) = response.find("\r\n\r\n") else { continue };
            let (head, rest) = response.split_at(end + 4);
            let Some((whole, rewritten)) = left(head, rest) else {
                continue;
            };
            *if head.to_lowercase().contains("transfer-e") {
                &mut chunks
            } else {
                &mut lengths
            } += 1;
            let bare = by_pingora(rewritten.as_bytes()).await;
            let Some(original) = by_pingora(response.as_bytes()).await else {
                // Whatever else is wrong with its head is wrong in both.
                assert_eq!(bare, None, "{response:?}");
                continue;
            };
            let bare = bare.expect("a head");
            assert_eq!(original.body, whole.body, "{response:?}");
            assert_eq!(
                (original.status, original.reason.as_str()),
                (whole.status, whole.status.canonical_reason().unwrap_or_default())
            );
            assert_eq!(
                (bare.status, bare.reason.as_str()),
                (StatusCode::NO_CONTENT, "No Content")
            );
            assert_eq!(
                (&bare.fields, bare.body.len(), bare.kept),
                (&original.fields, 0, original.kept),
                "{response:?}"
            );
            let length = bare.lengths.iter().map(|length| number(length, 10));
            assert_eq!(length.collect::<Vec<_>>(), [Some(whole.body.len())], "{response:?}");
        }
        assert!(lengths > 500 && chunks > 500, "{lengths} {chunks}");
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
