//! Responses that are all there at once, as most small ones are: head, body and nothing behind it in one read. Pingora gets
//! a head alone, as that of a response without a body, and whoever passes the response on has the rest from here: Pingora
//! would copy the body into a buffer of 64 KiB that it makes for each, and send it through a queue of its own. A body in
//! chunks has a length from here on: Pingora would write its head, what is in it and its end one after the other.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use httparse::{Header, ParserConfig, Response, Status};
use memchr::memchr;
use parking_lot::Mutex;

/// What begins a response that has no body by definition (RFC 9112, 6.3), whatever its Content-Length.
pub const BODILESS: &[u8] = b"HTTP/1.1 204 No Content\r\n";
/// Small responses with more fields are Pingora's to read.
const FIELDS_MAX: usize = 48;
const MOST_DIGITS: usize = 7;
const LENGTH: &str = "Content-Length";
/// More than a line that gives the length, and the end of a head.
const MORE_BYTES: usize = 32;

/// How much of the next response is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Wanted {
    /// None of it.
    Nothing,
    /// Its body; Pingora has its head.
    Body,
    /// All of it, for a client of HTTP/1.1; Pingora has what it must know of the connection.
    All,
}

/// What Pingora does not know of a response.
#[derive(Debug, PartialEq, Eq)]
pub struct Whole {
    /// Its status.
    pub status: StatusCode,
    /// Its status line and the fields that the client gets, but for `Connection` and `Date`, each with its end, if all of it
    /// was wanted.
    pub head: Option<Vec<u8>>,
    /// All of its body.
    pub body: Bytes,
}

/// Where the reader of a connection leaves a response for whoever passes it on.
#[derive(Debug, Default)]
pub struct Shortcut {
    /// A [`Wanted`].
    wanted: AtomicU8,
    whole: Mutex<Option<Whole>>,
}

impl Shortcut {
    /// What is taken from here of the next response if it is all there at once. Nothing of that to HEAD, whose length is not
    /// its body's.
    pub fn want(&self, wanted: Wanted) {
        self.wanted.store(wanted as u8, Ordering::Relaxed);
    }

    /// The response whose head was just read, if it was left here.
    pub fn take(&self) -> Option<Whole> {
        let wanted = self.wanted.swap(Wanted::Nothing as u8, Ordering::Relaxed);
        (wanted != Wanted::Nothing as u8).then(|| self.whole.lock().take())?
    }

    /// Leaves the response that `read` is, if it is wanted and all there: then what Pingora is to read is put into `room`.
    pub(super) fn leave(&self, read: &[u8], room: impl BufMut) -> bool {
        let wanted = self.wanted.load(Ordering::Relaxed);
        let all = wanted == Wanted::All as u8;
        wanted != Wanted::Nothing as u8 && self.try_leave(read, all, room).is_some()
    }

    fn try_leave(&self, read: &[u8], all: bool, mut room: impl BufMut) -> Option<()> {
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
        let mut response = Response::new(&mut []);
        // Pingora reads by the same parser, which is stricter here.
        let parsed = ParserConfig::default().parse_response_with_uninit_headers(&mut response, read, &mut fields);
        let Status::Complete(end) = parsed.ok()? else {
            return None;
        };
        if response.version != Some(1) {
            return None;
        }
        let (head, body) = read.split_at(end);
        let status = StatusCode::from_u16(response.code?).ok()?;
        let reason = status.canonical_reason()?;
        // Pingora keeps any other reason with the status that it sees.
        if response.reason != Some(reason) || has_no_body(status) {
            return None;
        }
        let fields = &*response.headers;
        let body = match framing(fields)? {
            Framing::Length(length) => (length == body.len() && length > 0).then(|| Bytes::copy_from_slice(body)),
            Framing::Chunks => joined(body),
        }?;
        let most = BODILESS.len() + head.len() + fields.len() + MORE_BYTES;
        if room.remaining_mut() < most {
            return None;
        }
        let mut length = itoa::Buffer::new();
        let length = length.format(body.len()).as_bytes();
        let head = if all {
            Some(divide(status, reason, fields, length, &mut room)?)
        } else {
            room.put_slice(BODILESS);
            for field in fields {
                match role(field.name) {
                    Role::Coding => put(&mut room, LENGTH, length),
                    _ => put(&mut room, field.name, field.value),
                }
            }
            None
        };
        room.put_slice(b"\r\n");
        *self.whole.lock() = Some(Whole { status, head, body });
        Some(())
    }
}

fn has_no_body(status: StatusCode) -> bool {
    status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// What a field says of.
#[derive(PartialEq, Eq)]
enum Role {
    Length,
    Coding,
    Trailer,
    /// The connection.
    Connection,
    KeepAlive,
    /// The connection only (RFC 9110, 7.6.1), and nothing that Pingora heeds; or, as `Date`, what Pingora says itself.
    Dropped,
    /// The response.
    Other,
}

fn role(name: &str) -> Role {
    let is = |word: &str| name.eq_ignore_ascii_case(word);
    match name.len() {
        4 if is("date") => Role::Dropped,
        7 if is("trailer") => Role::Trailer,
        7 if is("upgrade") => Role::Dropped,
        10 if is("connection") => Role::Connection,
        10 if is("keep-alive") => Role::KeepAlive,
        14 if is("content-length") => Role::Length,
        16 if is("proxy-connection") => Role::Dropped,
        17 if is("transfer-encoding") => Role::Coding,
        18 if is("proxy-authenticate") => Role::Dropped,
        _ => Role::Other,
    }
}

/// How long a body is.
enum Framing {
    Length(usize),
    /// As its chunks say.
    Chunks,
}

/// Of fields that say in the plainest way how a body is framed: with one length, or one coding, which is chunks. All else is
/// Pingora's to judge.
fn framing(fields: &[Header<'_>]) -> Option<Framing> {
    let mut framing = None;
    for field in fields {
        let found = match role(field.name) {
            Role::Length => Framing::Length(number(field.value, 10)?),
            Role::Coding if field.value.eq_ignore_ascii_case(b"chunked") => Framing::Chunks,
            // What follows the last chunk may be more than an empty line.
            Role::Coding | Role::Trailer => return None,
            _ => continue,
        };
        if framing.replace(found).is_some() {
            return None;
        }
    }
    framing
}

/// Puts what Pingora must know of a head into `room`, but for its end; yields what the client gets of it. Nothing if
/// `Connection` names fields.
fn divide(
    status: StatusCode,
    reason: &str,
    fields: &[Header<'_>],
    length: &[u8],
    room: &mut impl BufMut,
) -> Option<Vec<u8>> {
    let plain = |value: &[u8]| value.eq_ignore_ascii_case(b"keep-alive") || value.eq_ignore_ascii_case(b"close");
    let named = |field: &Header<'_>| role(field.name) == Role::Connection && !plain(field.value);
    if fields.iter().any(named) {
        return None;
    }
    let lines = fields.iter().map(|field| field.name.len() + field.value.len() + 4);
    let mut head = Vec::with_capacity(lines.sum::<usize>() + reason.len() + 4 * MORE_BYTES);
    for part in [
        b"HTTP/1.1 ",
        status.as_str().as_bytes(),
        b" ",
        reason.as_bytes(),
        b"\r\n",
    ] {
        head.extend_from_slice(part);
    }
    room.put_slice(BODILESS);
    for field in fields {
        match role(field.name) {
            Role::Connection | Role::KeepAlive => put(room, field.name, field.value),
            Role::Coding => put(&mut head, LENGTH, length),
            Role::Dropped => {}
            Role::Length | Role::Trailer | Role::Other => put(&mut head, field.name, field.value),
        }
    }
    Some(head)
}

fn put(out: &mut impl BufMut, name: &str, value: &[u8]) {
    for part in [name.as_bytes(), b": ", value, b"\r\n"] {
        out.put_slice(part);
    }
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

    const BOTH: [Wanted; 2] = [Wanted::Body, Wanted::All];

    /// What is left of this response, and what Pingora reads of it then.
    fn left(wanted: Wanted, head: &str, body: &str) -> Option<(Whole, String)> {
        let shortcut = Shortcut::default();
        shortcut.want(wanted);
        let mut room = [0; 4096];
        let mut rest = &mut room[..];
        let read = format!("{head}{body}");
        if !shortcut.leave(read.as_bytes(), &mut rest) {
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
        let (whole, read) = left(Wanted::Body, head, "missing").expect("all there");
        assert_eq!(
            (whole.status, &whole.head, &whole.body[..]),
            (StatusCode::NOT_FOUND, &None, &b"missing"[..])
        );
        assert_eq!(
            read,
            "HTTP/1.1 204 No Content\r\nContent-Type: a\r\ncontent-LENGTH: 007\r\nContent-MD5: \r\nX: y\r\n\r\n"
        );
    }

    #[test]
    fn of_a_response_that_is_left_with_its_head_pingora_reads_what_concerns_the_connection() {
        let head = "HTTP/1.1 404 Not Found\r\nContent-Type: a\r\nDate: now\r\nconnection: Keep-Alive\r\nKeep-Alive: timeout=5\r\n\
                    Upgrade: h2c\r\nProxy-Connection: x\r\nProxy-Authenticate: y\r\ncontent-LENGTH:  007 \r\nX: y\r\nx: z\r\n\r\n";
        let (whole, read) = left(Wanted::All, head, "missing").expect("all there");
        assert_eq!(
            (whole.status, &whole.body[..]),
            (StatusCode::NOT_FOUND, &b"missing"[..])
        );
        assert_eq!(
            String::from_utf8(whole.head.expect("wanted")).expect("text"),
            "HTTP/1.1 404 Not Found\r\nContent-Type: a\r\ncontent-LENGTH: 007\r\nX: y\r\nx: z\r\n"
        );
        assert_eq!(
            read,
            "HTTP/1.1 204 No Content\r\nconnection: Keep-Alive\r\nKeep-Alive: timeout=5\r\n\r\n"
        );
        let nominating = head.replace("connection: Keep-Alive", "connection: X");
        assert_eq!(left(Wanted::All, &nominating, "missing"), None);
        assert!(left(Wanted::Body, &nominating, "missing").is_some());
    }

    #[test]
    fn what_is_not_plain_or_not_all_there_is_left_to_pingora() {
        let ok = "HTTP/1.1 200 OK\r\n";
        let length = "Content-Length: 4\r\n";
        for plain in [
            length,
            "Content-Lengthy: 9\r\nContent-Length: 4\r\n",
            "Transfer-Encodings: a\r\nX: y\nContent-Length: 4\r\n",
        ] {
            for wanted in BOTH {
                assert!(left(wanted, &format!("{ok}{plain}\r\n"), "body").is_some(), "{plain:?}");
            }
        }
        for (head, body) in [
            (format!("{ok}{length}\r\n"), "bod"),
            (format!("{ok}{length}\r\n"), "body and more"),
            (format!("{ok}{length}\r\n"), ""),
            (format!("{ok}Content-Length: 0\r\n\r\n"), ""),
            (format!("{ok}\r\n"), "body"),
            (format!("{ok}{length}{length}\r\n"), "body"),
            (format!("{ok}{length}Content-Length : 9\r\n\r\n"), "body"),
            (format!("{ok}{length}transfer-Encoding: chunked\r\n\r\n"), "body"),
            (
                format!("{ok}{length}transfer-Encoding: chunked\r\n\r\n"),
                "4\r\nbody\r\n0\r\n\r\n",
            ),
            (format!("{ok}{length}Transfer-Encoding : chunked\r\n\r\n"), "body"),
            (format!("{ok}X: y\r\n {length}\r\n"), "body"),
            (format!("{ok}{length}\t2\r\n\r\n"), "body"),
            (format!("{ok}X: y\n\n{length}\r\n"), "body"),
            (format!("{ok}{}{length}\r\n", "X: y\r\n".repeat(FIELDS_MAX)), "body"),
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
            for wanted in BOTH {
                assert_eq!(left(wanted, &head, body), None, "{head:?} {body:?}");
            }
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
            let length = format!("Content-Length: {}\r\n", body.len());
            let expected = head.replace("Transfer-ENCODING: Chunked \r\n", &length);
            let (whole, read) = left(Wanted::Body, head, chunks).expect("all there");
            assert_eq!((whole.status, &whole.body[..]), (StatusCode::OK, body.as_bytes()));
            assert_eq!(read, expected.replace("200 OK", "204 No Content"));
            let (whole, _) = left(Wanted::All, head, chunks).expect("all there");
            assert_eq!((whole.status, &whole.body[..]), (StatusCode::OK, body.as_bytes()));
            assert_eq!(
                whole.head.expect("wanted"),
                expected
                    .trim_end_matches("\r\n")
                    .to_owned()
                    .into_bytes()
                    .into_iter()
                    .chain(*b"\r\n")
                    .collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn chunks_that_are_not_plain_or_not_all_there_are_left_to_pingora() {
        let ok = "HTTP/1.1 200 OK\r\n";
        let coding = "Transfer-Encoding: chunked\r\n";
        let all = "4\r\nbody\r\n0\r\n\r\n";
        assert!(left(Wanted::All, &format!("{ok}{coding}\r\n"), all).is_some());
        for fields in [
            &format!("{coding}{coding}"),
            &format!("{coding}Content-Length: 4\r\n"),
            &format!("{coding}Trailer: X\r\n"),
            "Transfer-Encoding: gzip, chunked\r\n",
            "Transfer-Encoding: chunked;a=b\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Transfer-Encoding:\r\n chunked\r\n",
            "",
        ] {
            for wanted in BOTH {
                assert_eq!(left(wanted, &format!("{ok}{fields}\r\n"), all), None, "{fields:?}");
            }
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
            for wanted in BOTH {
                assert_eq!(left(wanted, &format!("{ok}{coding}\r\n"), chunks), None, "{chunks:?}");
            }
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

    /// Whatever is left aside, Pingora would have read to the same: no other reader of responses comes with this one.
    #[tokio::test]
    async fn what_is_left_is_what_pingora_reads() {
        let (mut lengths, mut chunks) = (0, 0);
        for seed in 0..40_000 {
            let (head, body) = any(&mut fastrand::Rng::with_seed(seed));
            let response = format!("{head}{body}");
            let wanted = BOTH[seed as usize % 2];
            let Some((whole, rewritten)) = left(wanted, &head, &body) else {
                continue;
            };
            *if head.to_lowercase().contains("transfer-encoding:") {
                &mut chunks
            } else {
                &mut lengths
            } += 1;
            let bare = by_pingora(rewritten.as_bytes()).await.expect("a head");
            let original = by_pingora(response.as_bytes()).await.expect("a head");
            assert_eq!(original.body, whole.body, "{response:?}");
            assert_eq!(
                (original.status, original.reason.as_str()),
                (whole.status, whole.status.canonical_reason().unwrap_or_default())
            );
            assert_eq!(
                (bare.status, bare.reason.as_str(), bare.body.len(), bare.kept),
                (StatusCode::NO_CONTENT, "No Content", 0, original.kept),
                "{response:?}"
            );
            let read = match whole.head {
                None => bare,
                Some(head) => {
                    let spliced = [&head, &rewritten.as_bytes()[BODILESS.len()..], &whole.body].concat();
                    let spliced = by_pingora(&spliced).await.expect("a head");
                    assert_eq!(
                        (spliced.status, &spliced.reason, &spliced.body, spliced.kept),
                        (original.status, &original.reason, &original.body, original.kept),
                        "{response:?}"
                    );
                    spliced
                }
            };
            let sorted = |mut fields: Vec<(String, Vec<u8>)>| {
                fields.sort_by(|(a, _), (b, _)| a.cmp(b));
                fields
            };
            assert_eq!(sorted(read.fields), sorted(original.fields), "{response:?}");
            let length = read.lengths.iter().map(|length| number(length, 10));
            assert_eq!(length.collect::<Vec<_>>(), [Some(whole.body.len())], "{response:?}");
        }
        assert!(lengths > 500 && chunks > 500, "{lengths} {chunks}");
    }

    #[test]
    fn what_is_not_wanted_is_not_left() {
        let shortcut = Shortcut::default();
        let read = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody";
        shortcut.want(Wanted::Body);
        shortcut.want(Wanted::Nothing);
        assert!(!shortcut.leave(read, Vec::new()));
    }
}
