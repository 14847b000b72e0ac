//! The client of the attack cases: sends the bytes of a case, then reads until the program has said all.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use super::case::{Case, Kind, Proto, Step, What, bytes, latin1};
use crate::harness::{self, PATIENCE};

/// How long a silence is listened to where the program rightly waits for more.
const SILENCE: Duration = Duration::from_millis(300);

/// A response as the client saw it.
#[derive(Debug)]
pub struct Response {
    /// `None` for bytes that are no response.
    pub status: Option<u16>,
    pub fields: Vec<(String, String)>,
    pub body: String,
    pub complete: bool,
}

impl Response {
    pub fn all(&self, name: &str) -> Vec<&str> {
        let mine = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        mine.map(|(_, value)| value.as_str()).collect()
    }

    pub fn is_final(&self) -> bool {
        self.status.is_none_or(|status| status >= 200 || status == 101)
    }
}

/// What the client saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub raw: String,
    pub responses: Vec<Response>,
    /// Whether the connection was closed before the client closed its side.
    pub closed: bool,
    /// HTTP/2: whether the stream or the connection was ended.
    pub ended: bool,
}

/// Plays a case.
pub fn play(address: &str, case: &Case) -> Seen {
    let mut stream = harness::connect(address);
    stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
    for step in &case.steps {
        // A program that has seen enough closes; what it said until then is read below.
        if send(&mut stream, step).is_err() {
            break;
        }
    }
    let mut raw = Vec::new();
    let wait = if case.waits { SILENCE } else { PATIENCE };
    let head_only = matches!(&case.steps[0].what, What::Send(text) if text.starts_with("HEAD "));
    let forwards = case.accept.iter().filter(|a| a.kind == Kind::Forward);
    let wanted = forwards
        .map(|a| a.status.len().min(a.upstream_requests))
        .max()
        .unwrap_or(1)
        .max(1);
    let enough = |raw: &[u8]| match case.proto {
        Proto::H2 => h2_ended(raw),
        Proto::H1 | Proto::H1Upstream => {
            let responses = responses(raw, head_only);
            let whole = || responses.iter().filter(|r| r.is_final() && r.complete);
            whole().count() >= wanted || whole().any(|r| r.status >= Some(400))
        }
    };
    let closed = read_until(&mut stream, &mut raw, wait, &enough);
    // From here on the program has all that it will get, and closes when it is done.
    drop(stream.shutdown(Shutdown::Write));
    read_until(&mut stream, &mut raw, PATIENCE, &|_| false);
    let is_h2 = case.proto == Proto::H2;
    Seen {
        responses: if is_h2 { Vec::new() } else { responses(&raw, head_only) },
        ended: is_h2 && (closed || h2_ended(&raw)),
        raw: latin1(&raw),
        closed,
    }
}

fn send(stream: &mut TcpStream, step: &Step) -> std::io::Result<()> {
    match &step.what {
        What::SleepMs(millis) => {
            std::thread::sleep(Duration::from_millis(*millis));
            Ok(())
        }
        What::Send(text) => stream.write_all(&bytes(text).repeat(step.repeat.unwrap_or(1))),
        What::SendHex(hex) => {
            let digit = |place| u8::from_str_radix(&hex[place..place + 2], 16).expect("hexadecimal");
            let all: Vec<u8> = (0..hex.len()).step_by(2).map(digit).collect();
            stream.write_all(&all.repeat(step.repeat.unwrap_or(1)))
        }
    }
}

/// Reads until it is enough, the other side closes (true) or nothing comes for that long.
fn read_until(stream: &mut TcpStream, raw: &mut Vec<u8>, wait: Duration, enough: &dyn Fn(&[u8]) -> bool) -> bool {
    stream.set_read_timeout(Some(wait)).expect("timeout");
    let mut piece = [0; 16_384];
    loop {
        match stream.read(&mut piece) {
            Ok(0) => return true,
            Ok(n) => raw.extend_from_slice(&piece[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
            Err(_) => return true,
        }
        if enough(raw) {
            return false;
        }
    }
}

/// Whether the frames from the server end a stream or the connection.
fn h2_ended(mut raw: &[u8]) -> bool {
    while let Some(head) = raw.get(..9) {
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let Some(rest) = raw.get(9 + length..) else {
            return false;
        };
        let end_stream = matches!(kind, 0 | 1) && flags & 1 == 1;
        if end_stream || matches!(kind, 3 | 7) {
            return true;
        }
        raw = rest;
    }
    false
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}

/// All responses in the bytes.
pub fn responses(raw: &[u8], head_only: bool) -> Vec<Response> {
    let (mut found, mut rest) = (Vec::new(), raw);
    while !rest.is_empty() {
        let (response, length) = response(rest, head_only && found.is_empty());
        rest = &rest[length..];
        found.push(response);
    }
    found
}

fn status_of(raw: &[u8]) -> Option<u16> {
    let digits = match raw.get(..13)? {
        [
            b'H',
            b'T',
            b'T',
            b'P',
            b'/',
            b'1',
            b'.',
            b'0' | b'1',
            b' ',
            digits @ ..,
            b' ' | b'\r',
        ] => digits,
        _ => return None,
    };
    latin1(digits).parse().ok()
}

/// One response and its length; the rest of the bytes where it has no end.
fn response(raw: &[u8], bodiless: bool) -> (Response, usize) {
    let mut response = Response {
        status: status_of(raw),
        fields: Vec::new(),
        body: String::new(),
        complete: false,
    };
    let (Some(status), Some(end)) = (response.status, find(raw, b"\r\n\r\n")) else {
        return (response, raw.len());
    };
    let head = latin1(&raw[..end]);
    response.fields = head
        .split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect();
    let body = &raw[end + 4..];
    let value = |name: &str| response.all(name).first().map(|v| (*v).to_owned());
    let (text, length, complete) = if status == 101 {
        (body.to_vec(), body.len(), true)
    } else if status < 200 || matches!(status, 204 | 304) || bodiless {
        (Vec::new(), 0, true)
    } else if value("transfer-encoding").is_some() {
        dechunk(body)
    } else if let Some(length) = value("content-length").and_then(|v| v.parse::<usize>().ok()) {
        let here = length.min(body.len());
        (body[..here].to_vec(), here, here == length)
    } else {
        // To the end of the connection; whether that has come, the reader knows.
        (body.to_vec(), body.len(), true)
    };
    response.body = latin1(&text);
    response.complete = complete;
    (response, end + 4 + length)
}

fn dechunk(raw: &[u8]) -> (Vec<u8>, usize, bool) {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let size = find(&raw[at..], b"\r\n").and_then(|line| {
            let size = usize::from_str_radix(&latin1(&raw[at..at + line]), 16).ok()?;
            let start = at + line + 2;
            Some((start, raw.get(start..start + size + 2)?))
        });
        let Some((start, chunk)) = size else {
            return (body, raw.len(), false);
        };
        at = start + chunk.len();
        if chunk.len() == 2 {
            return (body, at, true);
        }
        body.extend_from_slice(&chunk[..chunk.len() - 2]);
    }
}
