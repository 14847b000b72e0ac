//! What the gateway must know of a downstream connection's bytes and Pingora does not tell: how long a head has been
//! coming, how fast a body comes, and how its chunks are written. The socket feeds it, the phases of a request steer
//! it. Of HTTP/2, which has its own framing, only the start of a connection is bounded here, and trailers are looked at.

mod chunks;
mod socket;
mod trailers;

use std::sync::Arc;
use std::time::{Duration, Instant};

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
}

/// How a body is framed, for the rest of a message after its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none, or there are no bounds on it.
    None,
    /// Its length is known.
    Length,
    /// It comes in chunks.
    Chunked,
}

impl Framing {
    /// Of a request. What follows one that asks for an upgrade may be another protocol, at any pace.
    pub fn of(head: &RequestHeader, empty: bool, upgrade: bool) -> Self {
        if empty || upgrade {
            Self::None
        } else if head.headers.contains_key(http::header::TRANSFER_ENCODING) {
            Self::Chunked
        } else {
            Self::Length
        }
    }
}

#[derive(Debug)]
enum Phase {
    /// A head is coming, or will come.
    Head { bytes: usize, since: Option<Instant> },
    /// A body is coming.
    Body {
        bytes: u64,
        waited: Duration,
        waiting: Option<Instant>,
        chunks: Option<Chunks>,
    },
    /// HTTP/2.
    Frames(Trailers),
    /// Nothing is due.
    Open,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    h2: bool,
    /// The last piece read of a head, if something may follow the head in it.
    last: Vec<u8>,
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
        let phase = Phase::Head { bytes: 0, since: None };
        Self {
            state: Mutex::new(State {
                phase,
                h2,
                last: Vec::new(),
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

    /// The next request on the connection is waited for.
    pub fn head_begins(&self) {
        let mut state = self.state.lock();
        if !matches!(state.phase, Phase::Head { .. }) {
            state.phase = Phase::Head { bytes: 0, since: None };
        }
    }

    /// A head of `length` bytes was read. Judges what was read of the body with it.
    ///
    /// # Errors
    /// When the chunks are broken, or when the head is not what came over the wire: Pingora repairs some.
    pub fn head_ends(&self, length: usize, framing: Framing) -> Result<(), &'static str> {
        let mut state = self.state.lock();
        let Phase::Head { bytes, .. } = state.phase else {
            return Ok(());
        };
        let last = std::mem::take(&mut state.last);
        let more = bytes.checked_sub(length).ok_or("head_repaired")?;
        let cut = last.len().checked_sub(more).ok_or("head_repaired")?;
        let (head, body) = last.split_at(cut);
        if more > 0 && !HEAD_END.ends_with(&head[head.len().saturating_sub(HEAD_END.len())..]) {
            return Err("head_repaired");
        }
        let mut chunks = (framing == Framing::Chunked).then(Chunks::new);
        if let Some(chunks) = &mut chunks {
            chunks.read(body).map_err(|Broken| "chunks")?;
        }
        state.phase = match framing {
            Framing::None => Phase::Open,
            Framing::Length | Framing::Chunked => Phase::Body {
                bytes: more as u64,
                waited: Duration::ZERO,
                waiting: None,
                chunks,
            },
        };
        Ok(())
    }

    /// The body was read to its end.
    pub fn body_ends(&self) {
        self.state.lock().phase = Phase::Open;
    }

    /// Why reading was ended, if it was.
    pub fn fault(&self) -> Option<Fault> {
        self.state.lock().fault
    }

    /// The first bytes are there.
    fn starts(&self, now: Instant) {
        if let Phase::Head { since, .. } = &mut self.state.lock().phase {
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
        let State { phase, h2, last, .. } = &mut *state;
        match phase {
            Phase::Head { .. } if *h2 => return state.read_h2_start(new, now),
            Phase::Head { bytes, since } => {
                // A head in one read, and nothing else in it: most are, and nothing of it is needed again.
                let alone =
                    *bytes == 0 && memmem::find(new, HEAD_END).is_some_and(|at| at + HEAD_END.len() == new.len());
                *bytes += new.len();
                if *bytes > self.limits.header_bytes_max && !alone && !ends_head(last, new) {
                    state.fault = Some(Fault::LargeHead);
                    return Err(Fault::LargeHead);
                }
                last.clear();
                if !alone {
                    last.extend_from_slice(new);
                    since.get_or_insert_with(now);
                }
            }
            Phase::Body {
                bytes,
                waited,
                waiting,
                chunks,
            } => {
                *bytes += new.len() as u64;
                if let Some(start) = waiting.take() {
                    *waited += now().saturating_duration_since(start);
                }
                if chunks.as_mut().is_some_and(|chunks| chunks.read(new).is_err()) {
                    state.fault = Some(Fault::Chunks);
                    return Err(Fault::Chunks);
                }
            }
            Phase::Frames(trailers) => {
                if !trailers.read(new) {
                    state.fault = Some(Fault::Trailers);
                    return Err(Fault::Trailers);
                }
            }
            Phase::Open => {}
        }
        Ok(())
    }

    /// Nothing is there to read: when it must be, if there is such a time.
    fn due(&self, now: impl FnOnce() -> Instant) -> Option<(Instant, Fault)> {
        match &mut self.state.lock().phase {
            Phase::Head { since, .. } => {
                let due = since.as_ref()?.checked_add(self.limits.header_timeout)?;
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
            Phase::Frames(_) | Phase::Open => None,
        }
    }

    fn cut(&self, fault: Fault) {
        self.state.lock().fault = Some(fault);
    }
}

/// Whether the end of a head is in `new`, or begins in what was read before it.
fn ends_head(last: &[u8], new: &[u8]) -> bool {
    let before = &last[last.len().saturating_sub(HEAD_END.len() - 1)..];
    let joint = [before, &new[..new.len().min(HEAD_END.len())]].concat();
    memmem::find(&joint, HEAD_END).is_some() || memmem::find(new, HEAD_END).is_some()
}

impl State {
    /// Keeps the start of an HTTP/2 connection until it is whole; what follows the preface are frames.
    fn read_h2_start(&mut self, new: &[u8], now: impl FnOnce() -> Instant) -> Result<(), Fault> {
        let Phase::Head { since, .. } = &mut self.phase else {
            return Ok(());
        };
        since.get_or_insert_with(now);
        self.last.extend_from_slice(new);
        if self.last.len() < H2_START_BYTES {
            return Ok(());
        }
        let start = std::mem::take(&mut self.last);
        let mut trailers = Trailers::default();
        if !trailers.read(&start[H2_PREFACE_BYTES..]) {
            self.fault = Some(Fault::Trailers);
            return Err(Fault::Trailers);
        }
        self.phase = Phase::Frames(trailers);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> Wire {
        Wire::new(Limits::default(), false)
    }

    fn text(wire: &Wire, bytes: &str) -> Result<(), Fault> {
        wire.read(bytes.as_bytes(), Instant::now)
    }

    const HEAD: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

    #[test]
    fn what_was_read_with_the_head_is_judged_with_it() {
        for (body, expected) in [
            ("", Ok(())),
            ("5\r\nhello\r\n0\r\n\r\n", Ok(())),
            ("5\r\nhello\r\n0\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", Ok(())),
            ("5;\r\nhello\r\n0\r\n\r\n", Err("chunks")),
            ("\r\nhello\r\n0\r\n\r\n", Err("chunks")),
        ] {
            let whole = format!("{HEAD}{body}");
            for first in [0, 1, HEAD.len() - 2, HEAD.len() - 1] {
                let wire = wire();
                if first > 0 {
                    assert_eq!(text(&wire, &whole[..first]), Ok(()));
                }
                assert_eq!(text(&wire, &whole[first..]), Ok(()));
                assert_eq!(
                    wire.head_ends(HEAD.len(), Framing::Chunked),
                    expected,
                    "{body:?} {first}"
                );
            }
        }
    }

    #[test]
    fn chunks_that_come_later_are_judged_as_they_come() {
        let wire = wire();
        assert_eq!(text(&wire, HEAD), Ok(()));
        assert_eq!(wire.head_ends(HEAD.len(), Framing::Chunked), Ok(()));
        assert_eq!(text(&wire, "5\r\nhel"), Ok(()));
        assert_eq!(text(&wire, "lo\r\n"), Ok(()));
        assert_eq!(text(&wire, "\r\n"), Err(Fault::Chunks));
        assert_eq!(wire.fault(), Some(Fault::Chunks));
    }

    #[test]
    fn a_head_that_was_repaired_on_the_way_is_refused() {
        let wire = wire();
        let sent = "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(text(&wire, sent), Ok(()));
        assert_eq!(wire.head_ends(sent.len() + 2, Framing::None), Err("head_repaired"));
    }

    #[test]
    fn a_head_is_due_from_its_first_byte_on_however_often_more_comes() {
        let wire = wire();
        let start = Instant::now();
        assert_eq!(wire.due(|| start), None, "an idle connection is not late");
        assert_eq!(wire.read(b"G", || start), Ok(()));
        let due = Some((start + Limits::default().header_timeout, Fault::SlowHead));
        assert_eq!(wire.due(|| start), due);
        assert_eq!(wire.read(b"E", || start + Duration::from_secs(9)), Ok(()));
        assert_eq!(wire.due(|| start + Duration::from_secs(9)), due);
        wire.head_ends(2, Framing::None).expect("all of it came");
        assert_eq!(wire.due(|| start), None);
        wire.head_begins();
        assert_eq!(wire.due(|| start), None);
    }

    #[test]
    fn a_body_earns_its_time_byte_by_byte_and_only_waiting_costs() {
        let wire = wire();
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(wire.read(HEAD.as_bytes(), || start), Ok(()));
        wire.head_ends(HEAD.len(), Framing::Length).expect("all of it came");
        assert_eq!(wire.due(|| later(100)), Some((later(110), Fault::SlowBody)));
        // 8 seconds waited; 480 bytes are worth 2.
        assert_eq!(wire.read(&[b'x'; 480], || later(108)), Ok(()));
        assert_eq!(wire.due(|| later(200)), Some((later(204), Fault::SlowBody)));
        wire.body_ends();
        assert_eq!(wire.due(|| later(300)), None);
    }

    #[test]
    fn a_head_past_its_bound_ends_and_http_2_has_no_head() {
        let line = [b'x'; 40 * 1024];
        let wire = wire();
        assert_eq!(wire.read(&line, Instant::now), Err(Fault::LargeHead));
        let whole = Wire::new(Limits::default(), false);
        assert_eq!(whole.read(&line[..32 * 1024 - 2], Instant::now), Ok(()));
        assert_eq!(
            whole.read(b"\r\n\r", Instant::now),
            Err(Fault::LargeHead),
            "it has not ended"
        );
        let with_body = Wire::new(Limits::default(), false);
        assert_eq!(with_body.read(b"GET / HTTP/1.1\r\n\r", Instant::now), Ok(()));
        let body = [b"\n", &line[..]].concat();
        assert_eq!(with_body.read(&body, Instant::now), Ok(()), "a body is no head");
        let h2 = Wire::new(Limits::default(), true);
        assert_eq!(h2.read(&line[..33], Instant::now), Ok(()));
        assert_eq!(h2.read(&line, Instant::now), Ok(()));
        assert_eq!(h2.read(&line, Instant::now), Ok(()));
        assert_eq!(h2.due(Instant::now), None);
    }
}
