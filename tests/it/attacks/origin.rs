//! The origin of the attack cases: keeps every byte that reaches it, and answers by the script of the case.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use super::case::{Script, Then, bytes, latin1};
use crate::harness::PATIENCE;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Request {
    pub line: String,
    pub path: String,
    pub head_only: bool,
    pub fields: Vec<(String, String)>,
    pub body: String,
    pub raw: String,
}

impl Request {
    /// All values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let mine = self.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        mine.map(|(_, value)| value.as_str()).collect()
    }
}

#[derive(Debug, Default)]
struct Connection {
    raw: Vec<u8>,
    requests: Vec<Request>,
    /// Bytes of a request that is not whole.
    partial: bool,
    closed: bool,
}

#[derive(Debug, Default)]
struct State {
    connections: Vec<Connection>,
    script: Option<Script>,
    used: bool,
    /// More is to be sent behind the answer that the client may have by now.
    owes: bool,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

pub struct Recorder {
    pub address: String,
    shared: Shared,
}

/// What had arrived on each connection.
pub struct Mark(Vec<(usize, usize)>);

/// What arrived in a case.
#[derive(Debug, Default)]
pub struct Arrived {
    pub requests: Vec<Request>,
    pub raw: String,
}

impl Recorder {
    pub fn spawn() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        let shared = Shared::default();
        let all = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let shared = Arc::clone(&all);
                let place = {
                    let mut state = shared.0.lock().expect("lock");
                    state.connections.push(Connection::default());
                    state.connections.len() - 1
                };
                thread::spawn(move || {
                    // A connection that breaks is as over as one that closes.
                    drop(Serving { shared: &shared, place }.serve(stream));
                    shared.0.lock().expect("lock").connections[place].closed = true;
                    shared.1.notify_all();
                });
            }
        });
        Self { address, shared }
    }

    /// Begins a case.
    pub fn begin(&self, script: Option<Script>) -> Mark {
        let mut state = self.shared.0.lock().expect("lock");
        state.script = script;
        state.used = false;
        Mark(
            state
                .connections
                .iter()
                .map(|c| (c.requests.len(), c.raw.len()))
                .collect(),
        )
    }

    /// From now on every request gets a plain answer. What the script sends behind its own is sent by then.
    pub fn behave(&self) {
        let state = self.shared.0.lock().expect("lock");
        let (mut state, waited) = self
            .shared
            .1
            .wait_timeout_while(state, PATIENCE, |state| state.owes)
            .expect("lock");
        assert!(!waited.timed_out(), "the origin does not send what it owes");
        state.script = None;
    }

    /// What arrived since the mark, once requests that were broken off are over.
    pub fn end(&self, mark: &Mark) -> Arrived {
        let state = self.shared.0.lock().expect("lock");
        let broken_off = |state: &mut State| state.connections.iter().any(|c| c.partial && !c.closed);
        let (state, _) = self
            .shared
            .1
            .wait_timeout_while(state, PATIENCE, broken_off)
            .expect("lock");
        let mut arrived = Arrived::default();
        for (place, connection) in state.connections.iter().enumerate() {
            let (requests, raw) = mark.0.get(place).copied().unwrap_or_default();
            arrived.requests.extend_from_slice(&connection.requests[requests..]);
            arrived.raw += &latin1(&connection.raw[raw..]);
        }
        arrived
            .requests
            .retain(|r| !r.path.contains("canary") && !r.path.ends_with("-next"));
        arrived
    }
}

struct Serving<'a> {
    shared: &'a Shared,
    place: usize,
}

impl Serving<'_> {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let result = act(&mut self.shared.0.lock().expect("lock"));
        self.shared.1.notify_all();
        result
    }

    fn script(&self) -> Option<Script> {
        self.with(|state| state.script.clone())
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        stream.set_nodelay(true)?;
        let mut buf = Vec::new();
        let mut answered_early = false;
        loop {
            let script = self.script().unwrap_or_default();
            if let Parsed::Whole(request, length) = parse(&buf) {
                let rest = buf.split_off(length);
                buf = rest;
                let more = !buf.is_empty();
                self.with(|state| {
                    state.connections[self.place].requests.push(request.clone());
                    state.connections[self.place].partial = more;
                });
                if std::mem::take(&mut answered_early) {
                    continue;
                }
                if !self.answer(&request, &script, &mut stream)? {
                    return Ok(());
                }
                continue;
            }
            let head_there = buf.windows(4).any(|w| w == b"\r\n\r\n");
            if script.before_body && head_there && !answered_early {
                answered_early = true;
                stream.write_all(&bytes(script.raw.as_deref().unwrap_or_default()))?;
                if script.then == Then::Close {
                    return Ok(());
                }
            }
            if script.on_expect && head_there && self.first() {
                stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
            }
            let mut piece = [0; 65_536];
            let n = stream.read(&mut piece)?;
            if n == 0 {
                return Ok(());
            }
            buf.extend_from_slice(&piece[..n]);
            self.with(|state| {
                let connection = &mut state.connections[self.place];
                connection.raw.extend_from_slice(&piece[..n]);
                connection.partial = true;
            });
            if script.then == Then::Reset {
                let socket = socket2::Socket::from(stream);
                return socket.set_linger(Some(Duration::ZERO));
            }
        }
    }

    /// Whether nobody has played the script yet.
    fn first(&self) -> bool {
        self.with(|state| !std::mem::replace(&mut state.used, true))
    }

    /// Answers a whole request; tells whether the connection is kept.
    fn answer(&self, request: &Request, script: &Script, stream: &mut TcpStream) -> std::io::Result<bool> {
        let scripted = match (&script.raw, &script.raw_repeat) {
            (Some(raw), _) => Some(bytes(raw)),
            (None, Some((start, part, number, end))) => Some(bytes(&format!("{start}{}{end}", part.repeat(*number)))),
            (None, None) => None,
        };
        if let Some(raw) = scripted.filter(|_| !script.before_body && self.first()) {
            stream.write_all(&raw)?;
            return Ok(match script.then {
                Then::Keep => true,
                Then::Close | Then::Reset => false,
                Then::Hang => {
                    let mut rest = Vec::new();
                    stream.read_to_end(&mut rest)?;
                    false
                }
            });
        }
        if let Some(drip) = &script.drip {
            for byte in bytes(drip) {
                stream.write_all(&[byte])?;
                // The pace is what the case is about.
                thread::sleep(Duration::from_millis(script.interval_ms));
            }
            return Ok(true);
        }
        if let Some(then) = script.keepalive_then.as_ref().filter(|_| self.first()) {
            let pushed = then.strip_prefix("push:");
            self.with(|state| state.owes = pushed.is_some());
            stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown")?;
            if let Some(pushed) = pushed {
                let sent = stream.write_all(&bytes(pushed));
                self.with(|state| state.owes = false);
                // The proxy may have closed by then.
                return Ok(sent.is_ok());
            }
            return Ok(false);
        }
        let body = bytes(&format!("own:{}", request.path));
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len()).into_bytes();
        if !request.head_only {
            answer.extend_from_slice(&body);
        }
        stream.write_all(&answer)?;
        Ok(true)
    }
}

enum Parsed {
    Whole(Request, usize),
    More,
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|w| w == what)
}

/// Reads one request. What cannot be read is never whole: that is judged by its bytes.
fn parse(buf: &[u8]) -> Parsed {
    let Some(end) = find(buf, b"\r\n\r\n") else {
        return Parsed::More;
    };
    let head = latin1(&buf[..end]);
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default().to_owned();
    let fields: Vec<(String, String)> = lines
        .filter_map(|l| l.split_once(':'))
        .map(|(name, value)| (name.to_owned(), value.trim_matches([' ', '\t']).to_owned()))
        .collect();
    let last = |name: &str| {
        let mine = fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
        mine.map(|(_, value)| value.clone()).next_back()
    };
    let rest = &buf[end + 4..];
    let (body, length) = if last("transfer-encoding").is_some_and(|te| te.to_lowercase().ends_with("chunked")) {
        match dechunk(rest) {
            Some(found) => found,
            None => return Parsed::More,
        }
    } else {
        let length = last("content-length").and_then(|cl| cl.parse().ok()).unwrap_or(0);
        if rest.len() < length {
            return Parsed::More;
        }
        (rest[..length].to_vec(), length)
    };
    let whole = end + 4 + length;
    let mut words: Vec<&str> = line.split(' ').collect();
    let method = words.first().copied().unwrap_or_default().to_owned();
    words.pop();
    let path = words.get(1..).unwrap_or_default().join(" ");
    let request = Request {
        head_only: method == "HEAD",
        path,
        fields,
        body: latin1(&body),
        raw: latin1(&buf[..whole]),
        line,
    };
    Parsed::Whole(request, whole)
}

/// The body in chunks, and their length with all framing.
fn dechunk(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let (mut body, mut at) = (Vec::new(), 0);
    loop {
        let line = find(&bytes[at..], b"\r\n")?;
        let size = latin1(&bytes[at..at + line]);
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        at += line + 2;
        if size == 0 {
            loop {
                let line = find(&bytes[at..], b"\r\n")?;
                at += line + 2;
                if line == 0 {
                    return Some((body, at));
                }
            }
        }
        body.extend_from_slice(bytes.get(at..at + size)?);
        at += size + 2;
        if bytes.len() < at {
            return None;
        }
    }
}
