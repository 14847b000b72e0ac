//! What the gateway must know of a downstream connection's bytes and Pingora does not tell: how long a head has been
//! coming, how fast a body comes, how its chunks are written, and where one message ends and the next begins: clients
//! may send requests one behind another (RFC 9112, 9.3.2). The socket feeds it, the phases of a request steer it, and
//! what Pingora takes for a head must be the bytes that are next here. Of HTTP/2, which has its own framing, only the start of a connection is bounded here, and trailers are looked at.

mod chunks;
mod socket;
mod trailers;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use memchr::memmem;
use parking_lot::Mutex;
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;

pub use socket::Socket;

use self::chunks::{Broken, Chunks};
use self::trailers::Trailers;
use super::settings::Limits;

/// The client preface and an empty SETTINGS frame (RFC 9113, 3.4).
const H2_START_BYTES: usize = H2_PREFACE_BYTES + 9;
const H2_PREFACE_BYTES: usize = 24;
const HEAD_END: &[u8] = b"\r\n\r\n";

/// Why reading from a connection was ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The head did not come in time.
    SlowHead,
    /// The head is too large.
    LargeHead,
    /// The body comes too slowly.
    SlowBody,
    /// The chunks of the body are not framed as they should be.
    Chunks,
    /// HTTP/2 trailers have pseudo fields.
    Trailers,
    /// Too much comes behind a message that is not answered yet.
    Ahead,
}

/// How a body is framed, for the rest of a message after its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// It has so many bytes.
    Length(u64),
    /// It comes in chunks.
    Chunked,
}

impl Framing {
    /// Of a request, `empty` if it has no body. A length that is no number is the guard's to refuse.
    pub fn of(head: &RequestHeader, empty: bool) -> Self {
        if empty {
            Self::None
        } else if head.headers.contains_key(TRANSFER_ENCODING) {
            Self::Chunked
        } else {
            let written = head.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
            Self::Length(written.and_then(|v| v.parse().ok()).unwrap_or(0))
        }
    }
}

/// What is left of a body.
#[derive(Debug)]
enum Body {
    Length(u64),
    Chunks(Chunks),
}

impl Body {
    const fn of(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(bytes) => Self::Length(bytes),
            Framing::Chunked => Self::Chunks(Chunks::new()),
        }
    }

    /// Takes what is the body's of `new`: so many bytes from its start.
    fn read(&mut self, new: &[u8]) -> Result<usize, Broken> {
        match self {
            Self::Length(left) => {
                let own = usize::try_from(*left).unwrap_or(usize::MAX).min(new.len());
                *left -= own as u64;
                Ok(own)
            }
            Self::Chunks(chunks) => chunks.read(new),
        }
    }

    fn is_over(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunks(chunks) => chunks.is_over(),
        }
    }
}

#[derive(Debug)]
enum Phase {
    /// A head is coming, or will come; since when its rest is waited for.
    Head { since: Option<Instant> },
    /// A body is coming.
    Body {
        body: Body,
        bytes: u64,
        waited: Duration,
        waiting: Option<Instant>,
    },
    /// The message is all there and not answered yet; so many bytes came since.
    Answer { bytes: usize },
    /// Another protocol, which ends with the connection.
    Tunnel,
    /// HTTP/2.
    Frames(Trailers),
}

#[derive(Debug)]
struct State {
    phase: Phase,
    h2: bool,
    /// What was read behind the last message: the start of the next head, and what came with it. Pingora holds the
    /// same bytes, and reads on only while they have no whole head, or for the end of a message, a buffer at a time.
    ahead: BytesMut,
    fault: Option<Fault>,
}

/// One downstream connection.
#[derive(Debug)]
pub struct Wire {
    state: Mutex<State>,
    limits: Limits,
}

impl Wire {
    fn new(limits: Limits, h2: bool) -> Self {
        Self {
            state: Mutex::new(State {
                phase: Phase::Head { since: None },
                h2,
                ahead: BytesMut::new(),
                fault: None,
            }),
            limits,
        }
    }

    /// The one under an HTTP/1 session.
    pub fn of(session: &ServerSession) -> Option<&Arc<Self>> {
        let socket = session.stream()?.as_any().downcast_ref::<Socket>()?;
        Some(socket.wire())
    }

    /// The next request on the connection is waited for. Where the message before it is not over, there can be none,
    /// and none is taken.
    pub fn head_begins(&self) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Answer { .. }) {
            state.phase = Phase::Head { since: None };
        }
    }

    /// This head was read. Judges what was read of the body with it.
    ///
    /// # Errors
    /// When the chunks are broken, or when the head is not what came over the wire: Pingora repairs some.
    pub fn head_ends(&self, head: &[u8], framing: Framing) -> Result<(), &'static str> {
        let mut state = self.state.lock();
        let State { phase, ahead, .. } = &mut *state;
        if !matches!(phase, Phase::Head { .. }) {
            return Err("head_repaired");
        }
        let rest = ahead.strip_prefix(head).ok_or("head_repaired")?;
        let mut body = Body::of(framing);
        let own = body.read(rest).map_err(|Broken| "chunks")?;
        ahead.advance(head.len() + own);
        if ahead.is_empty() {
            // A connection may be idle for long.
            *ahead = BytesMut::new();
        }
        *phase = if body.is_over() {
            Phase::Answer { bytes: 0 }
        } else {
            Phase::Body {
                body,
                bytes: own as u64,
                waited: Duration::ZERO,
                waiting: None,
            }
        };
        Ok(())
    }

    /// The request is answered with another protocol.
    pub fn tunnel_begins(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Tunnel;
        state.ahead = BytesMut::new();
    }

    /// Why reading was ended, if it was.
    pub fn fault(&self) -> Option<Fault> {
        self.state.lock().fault
    }

    /// The first bytes are there.
    fn starts(&self, now: Instant) {
        if let Phase::Head { since } = &mut self.state.lock().phase {
            since.get_or_insert(now);
        }
    }

    /// HTTP/2 is spoken here.
    fn is_h2(&self) {
        self.state.lock().h2 = true;
    }

    /// These bytes were read.
    fn read(&self, new: &[u8], now: impl FnOnce() -> Instant) -> Result<(), Fault> {
        let mut state = self.state.lock();
        let read = state.read(new, now, self.limits.header_bytes_max);
        if let Err(fault) = read {
            state.fault = Some(fault);
        }
        read
    }

    /// Nothing is there to read: when it must be, if there is such a time.
    fn due(&self, now: impl FnOnce() -> Instant) -> Option<(Instant, Fault)> {
        let mut state = self.state.lock();
        let State { phase, ahead, .. } = &mut *state;
        match phase {
            Phase::Head { since: None } if ahead.is_empty() => None,
            Phase::Head { since } => {
                let due = since.get_or_insert_with(now).checked_add(self.limits.header_timeout)?;
                Some((due, Fault::SlowHead))
            }
            Phase::Body {
                bytes, waited, waiting, ..
            } => {
                let rate = self.limits.body_rate_min;
                let start = *waiting.get_or_insert_with(now);
                let earned = Duration::from_millis(bytes.saturating_mul(1_000).checked_div(rate)?);
                let left = self
                    .limits
                    .header_timeout
                    .saturating_add(earned)
                    .saturating_sub(*waited);
                Some((start.checked_add(left)?, Fault::SlowBody))
            }
            Phase::Answer { .. } | Phase::Tunnel | Phase::Frames(_) => None,
        }
    }

    fn cut(&self, fault: Fault) {
        self.state.lock().fault = Some(fault);
    }
}

impl State {
    fn read(&mut self, new: &[u8], now: impl FnOnce() -> Instant, most: usize) -> Result<(), Fault> {
        match &mut self.phase {
            Phase::Head { .. } if self.h2 => return self.read_h2_start(new),
            Phase::Head { .. } => {
                self.ahead.extend_from_slice(new);
                if self.ahead.len() > most && !has_head(&self.ahead) {
                    return Err(Fault::LargeHead);
                }
            }
            Phase::Body {
                body,
                bytes,
                waited,
                waiting,
            } => {
                *bytes += new.len() as u64;
                if let Some(start) = waiting.take() {
                    *waited += now().saturating_duration_since(start);
                }
                let own = body.read(new).map_err(|Broken| Fault::Chunks)?;
                if body.is_over() {
                    self.ahead.extend_from_slice(&new[own..]);
                    self.phase = Phase::Answer { bytes: 0 };
                }
            }
            Phase::Answer { bytes } => {
                *bytes += new.len();
                if *bytes > most {
                    return Err(Fault::Ahead);
                }
                self.ahead.extend_from_slice(new);
            }
            Phase::Tunnel => {}
            Phase::Frames(trailers) => {
                if !trailers.read(new) {
                    return Err(Fault::Trailers);
                }
            }
        }
        Ok(())
    }

    /// Keeps the start of an HTTP/2 connection until it is whole; what follows the preface are frames.
    fn read_h2_start(&mut self, new: &[u8]) -> Result<(), Fault> {
        self.ahead.extend_from_slice(new);
        if self.ahead.len() < H2_START_BYTES {
            return Ok(());
        }
        let start = std::mem::take(&mut self.ahead);
        let mut trailers = Trailers::default();
        if !trailers.read(&start[H2_PREFACE_BYTES..]) {
            return Err(Fault::Trailers);
        }
        self.phase = Phase::Frames(trailers);
        Ok(())
    }
}

/// Whether there is the end of a head. Empty lines before it are not its end (RFC 9112, 2.2).
fn has_head(bytes: &[u8]) -> bool {
    let start = bytes.iter().position(|b| !matches!(b, b'\r' | b'\n'));
    start.is_some_and(|start| memmem::find(&bytes[start..], HEAD_END).is_some())
}

#[cfg(test)]
mod tests;
