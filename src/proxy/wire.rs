//! What the gateway must know of a downstream connection's bytes and Pingora does not tell: how long a head has been
//! coming, how fast a body comes, how its chunks are written, and where one of several messages ends (RFC 9112, 9.3.2).
//! The socket feeds it, the phases of a request steer it, and what Pingora takes for a head must be the bytes that are
//! next here. Of HTTP/2 the start of a connection is bounded, trailers are looked at, and frames for nobody are counted.

mod chunks;
mod fault;
mod flood;
mod framing;
mod head;
mod socket;
mod source;
mod trailers;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use http::HeaderValue;
use parking_lot::Mutex;
use pingora::protocols::http::ServerSession;
use tokio::sync::Notify;

pub use fault::Fault;
pub use framing::Framing;
pub use socket::Socket;

use self::chunks::Broken;
use self::flood::Flood;
use self::framing::Body;
use self::head::{has_head, has_too_many_fields};
use self::source::Source;
use self::trailers::Trailers;
use super::farewell::Left;
use super::guard::{TOO_MANY_FIELDS, too_large};
use super::settings::Limits;
use super::unread::{Unasked, Unread};
use crate::upstream::NextHead;

/// The client preface and an empty SETTINGS frame (RFC 9113, 3.4).
const H2_START_BYTES: usize = H2_PREFACE_BYTES + 9;
const H2_PREFACE_BYTES: usize = 24;
/// What an idle connection keeps for its next head, in bytes: most heads are smaller.
const ROOM_KEPT: usize = 1024;

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
    /// Nothing more is said.
    Broken,
    /// HTTP/2.
    Frames { trailers: Trailers, flood: Flood },
}

#[derive(Debug)]
struct State {
    phase: Phase,
    h2: bool,
    /// What was read behind the last message: the start of the next head, and what came with it. Pingora holds the
    /// same bytes, and reads on only while they have no whole head, or for the end of a message, a buffer at a time.
    ahead: Vec<u8>,
    fault: Option<Fault>,
}

/// One downstream connection.
#[derive(Debug)]
pub struct Wire {
    state: Mutex<State>,
    /// What was read from the system and not yet from here.
    peeked: AtomicUsize,
    limits: Limits,
    /// The other end's address, as the upstream is told it.
    client: OnceLock<HeaderValue>,
    spent: Notify,
    source: Source,
    next_head: NextHead,
    left: Left,
    unasked: Unasked,
}

impl Wire {
    /// A connection that has just begun; `h2` if it is known to speak HTTP/2.
    pub fn new(limits: Limits, h2: bool) -> Self {
        Self {
            state: Mutex::new(State {
                phase: Phase::Head { since: None },
                h2,
                ahead: Vec::new(),
                fault: None,
            }),
            peeked: AtomicUsize::new(0),
            limits,
            client: OnceLock::new(),
            spent: Notify::new(),
            source: Source::default(),
            next_head: NextHead::default(),
            left: Left::default(),
            unasked: Unasked::new(h2),
        }
    }

    /// Where the response comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// The head of the next response, if it is not Pingora's.
    pub fn next_head(&self) -> &NextHead {
        &self.next_head
    }

    /// The connection, once its socket is dropped, if it is not to be closed at once.
    pub fn left(&self) -> &Left {
        &self.left
    }

    /// What is answered before the gateway has a request.
    pub fn unasked(&self) -> &Unasked {
        &self.unasked
    }

    /// The request that was answered so, if one was.
    pub fn unread(&self) -> Option<Unread> {
        let status = self.unasked.answered()?;
        let mut state = self.state.lock();
        let Phase::Head { since } = state.phase else {
            return None;
        };
        Some(Unread {
            status,
            head: std::mem::take(&mut state.ahead),
            duration: since.map_or(Duration::ZERO, |since| since.elapsed()),
            counted: state.fault.is_some(),
        })
    }

    /// The other end's address as text, made once a connection.
    pub fn client(&self, make: impl FnOnce() -> HeaderValue) -> HeaderValue {
        self.client.get_or_init(make).clone()
    }

    /// The one under an HTTP/1 session.
    pub fn of(session: &ServerSession) -> Option<&Arc<Self>> {
        let socket = session.stream()?.as_any().downcast_ref::<Socket>()?;
        Some(socket.wire())
    }

    /// The next request on the connection is waited for. Where the message before it is not over, there can be none,
    /// and none is taken.
    pub fn head_begins(&self) {
        self.next_head.set(None);
        self.unasked.waits();
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Answer { .. }) {
            state.phase = Phase::Head { since: None };
        }
    }

    /// This head was read. Judges what was read of the body with it; yields its length if it has one and all of it is here.
    ///
    /// # Errors
    /// When the chunks are broken, or when the head is not what came over the wire: Pingora repairs some.
    pub fn head_ends(&self, head: &[u8], framing: Framing) -> Result<usize, &'static str> {
        let mut state = self.state.lock();
        let State { phase, ahead, .. } = &mut *state;
        if !matches!(phase, Phase::Head { .. }) {
            return Err("head_repaired");
        }
        let rest = ahead.strip_prefix(head).ok_or("head_repaired")?;
        let mut body = Body::of(framing);
        let own = body.read(rest).map_err(|Broken| "chunks")?;
        let used = head.len() + own;
        if used < ahead.len() {
            ahead.drain(..used);
        } else if ahead.capacity() > ROOM_KEPT {
            // A connection may be idle for long.
            *ahead = Vec::new();
        } else {
            ahead.clear();
        }
        let here = own + self.peeked.load(Ordering::Relaxed);
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
        let Framing::Length(length) = framing else {
            return Ok(0);
        };
        Ok(usize::try_from(length)
            .ok()
            .filter(|length| *length <= here)
            .unwrap_or(0))
    }

    /// The request is answered with another protocol.
    pub fn tunnel_begins(&self) {
        let mut state = self.state.lock();
        state.phase = Phase::Tunnel;
        state.ahead = Vec::new();
    }

    /// The client is gone, or gets no more of its response, which it must not take for a whole one.
    pub fn breaks_off(&self) {
        self.state.lock().phase = Phase::Broken;
    }

    /// Whether the client may be sending still, and is to read what it was answered: its request is not all here, or was not
    /// understood, or has more behind it. HTTP/2 has a goodbye of its own.
    fn may_send(&self) -> bool {
        let state = self.state.lock();
        match state.phase {
            Phase::Head { since } => !state.h2 && (since.is_some() || !state.ahead.is_empty()),
            Phase::Body { .. } => true,
            Phase::Answer { .. } => !state.ahead.is_empty(),
            Phase::Tunnel | Phase::Broken | Phase::Frames { .. } => false,
        }
    }

    /// Whether no request is there, nor the first byte of one. HTTP/2 has a goodbye of its own.
    pub fn is_idle(&self) -> bool {
        let state = self.state.lock();
        matches!(state.phase, Phase::Head { since: None }) && state.ahead.is_empty() && !state.h2
    }

    /// Whether the start of the next message was read behind the last one.
    fn is_ahead(&self) -> bool {
        !self.state.lock().ahead.is_empty()
    }

    /// Why reading was ended, if it was.
    pub fn fault(&self) -> Option<Fault> {
        self.state.lock().fault
    }

    /// Returns when an HTTP/2 client has sent as many requests as a connection may.
    pub async fn spent(&self) {
        self.spent.notified().await;
    }

    /// So much was read from the system and will be read from here.
    fn peeks(&self, bytes: usize) {
        self.peeked.store(bytes, Ordering::Relaxed);
    }

    /// The first bytes are there.
    fn starts(&self, now: Instant) {
        if let Phase::Head { since } = &mut self.state.lock().phase {
            since.get_or_insert(now);
        }
    }

    /// HTTP/2 is spoken here.
    fn is_h2(&self) {
        self.unasked.ends();
        self.state.lock().h2 = true;
    }

    /// These bytes were read.
    ///
    /// # Errors
    /// When nothing more is to be read, and why.
    pub fn read(&self, new: &[u8], now: impl FnOnce() -> Instant) -> Result<(), Fault> {
        let mut state = self.state.lock();
        let read = state.read(new, now, &self.limits);
        if let Err(fault) = read {
            state.fault = Some(fault);
        }
        if matches!(&state.phase, Phase::Frames { flood, .. } if flood.is_spent()) {
            self.spent.notify_one();
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
            Phase::Answer { .. } | Phase::Tunnel | Phase::Broken | Phase::Frames { .. } => None,
        }
    }

    fn cut(&self, fault: Fault) {
        self.state.lock().fault = Some(fault);
    }
}

impl State {
    fn read(&mut self, new: &[u8], now: impl FnOnce() -> Instant, limits: &Limits) -> Result<(), Fault> {
        let most = limits.header_bytes_max;
        match &mut self.phase {
            Phase::Head { .. } if self.h2 => return self.read_h2_start(new, now, limits),
            Phase::Head { .. } => {
                self.ahead.extend_from_slice(new);
                if self.ahead.len() > most && !has_head(&self.ahead) {
                    return Err(Fault::LargeHead(too_large(&self.ahead, limits)));
                }
                if has_too_many_fields(&self.ahead) {
                    return Err(Fault::LargeHead(TOO_MANY_FIELDS));
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
            Phase::Tunnel | Phase::Broken => {}
            Phase::Frames { trailers, flood } => return read_frames(trailers, flood, new, now),
        }
        Ok(())
    }

    /// Keeps the start of an HTTP/2 connection until it is whole; what follows the preface are frames.
    fn read_h2_start(&mut self, new: &[u8], now: impl FnOnce() -> Instant, limits: &Limits) -> Result<(), Fault> {
        self.ahead.extend_from_slice(new);
        if self.ahead.len() < H2_START_BYTES {
            return Ok(());
        }
        let start = std::mem::take(&mut self.ahead);
        let (mut trailers, mut flood) = (Trailers::default(), Flood::new(limits));
        let read = read_frames(&mut trailers, &mut flood, &start[H2_PREFACE_BYTES..], now);
        self.phase = Phase::Frames { trailers, flood };
        read
    }
}

/// One read of the clock does for all frames of one read of the socket, and only if one of them asks for it.
fn read_frames(
    trailers: &mut Trailers,
    flood: &mut Flood,
    new: &[u8],
    now: impl FnOnce() -> Instant,
) -> Result<(), Fault> {
    let now = std::cell::LazyCell::new(now);
    trailers.read(new, |kind, bytes, opens| flood.frame(kind, bytes, opens, || *now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::guard::Refusal;

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
                    wire.head_ends(HEAD.as_bytes(), Framing::Chunked),
                    expected.map(|()| 0),
                    "{body:?} {first}"
                );
            }
        }
    }

    #[test]
    fn a_client_may_be_sending_until_its_request_is_here_and_nothing_behind_it() {
        let sent = |bytes: &str, framing: Option<Framing>| {
            let wire = wire();
            assert_eq!(text(&wire, bytes), Ok(()));
            if let Some(framing) = framing {
                assert_eq!(wire.head_ends(HEAD.as_bytes(), framing), Ok(0));
            }
            wire
        };
        let behind = format!("{HEAD}GET / HTTP/1.1\r\n");
        for (bytes, framing, may_send) in [
            ("", None, false),
            ("GET / HT", None, true),
            (HEAD, None, true),
            (HEAD, Some(Framing::None), false),
            (HEAD, Some(Framing::Chunked), true),
            (&behind, Some(Framing::None), true),
        ] {
            let wire = sent(bytes, framing);
            assert_eq!(wire.may_send(), may_send, "{bytes:?} {framing:?}");
            wire.breaks_off();
            assert!(!wire.may_send(), "{bytes:?} {framing:?}");
        }
    }

    #[test]
    fn a_body_with_a_length_is_here_if_all_of_it_was_read_or_peeked() {
        for (came, peeked, here) in [(30, 0, 30), (10, 20, 30), (0, 100, 30), (10, 19, 0), (29, 0, 0)] {
            let wire = wire();
            assert_eq!(text(&wire, &format!("{HEAD}{}", "x".repeat(came))), Ok(()));
            wire.peeks(peeked);
            let ended = wire.head_ends(HEAD.as_bytes(), Framing::Length(30));
            assert_eq!(ended, Ok(here), "{came} {peeked}");
        }
    }

    #[test]
    fn chunks_that_come_later_are_judged_as_they_come() {
        let wire = wire();
        assert_eq!(text(&wire, HEAD), Ok(()));
        assert_eq!(wire.head_ends(HEAD.as_bytes(), Framing::Chunked), Ok(0));
        assert_eq!(text(&wire, "5\r\nhel"), Ok(()));
        assert_eq!(text(&wire, "lo\r\n"), Ok(()));
        assert_eq!(text(&wire, "\r\n"), Err(Fault::Chunks));
        assert_eq!(wire.fault(), Some(Fault::Chunks));
    }

    #[test]
    fn a_head_that_was_repaired_on_the_way_is_refused() {
        let sent = "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n";
        let repaired = sent.replace("a b", "a%20b");
        // What follows may fill up what the repair has added.
        for more in ["", "\r\n", "GET / HTTP/1.1\r\n\r\n"] {
            let wire = wire();
            assert_eq!(text(&wire, &format!("{sent}{more}")), Ok(()));
            for _ in 0..2 {
                let ended = wire.head_ends(repaired.as_bytes(), Framing::None);
                assert_eq!(ended, Err("head_repaired"), "{more:?}");
                wire.head_begins();
            }
        }
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
        wire.head_ends(b"GE", Framing::None).expect("all of it came");
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
        wire.head_ends(HEAD.as_bytes(), Framing::Length(481))
            .expect("all of it came");
        assert_eq!(wire.due(|| later(100)), Some((later(110), Fault::SlowBody)));
        // 8 seconds waited; 480 bytes are worth 2.
        assert_eq!(wire.read(&[b'x'; 480], || later(108)), Ok(()));
        assert_eq!(wire.due(|| later(200)), Some((later(204), Fault::SlowBody)));
        assert_eq!(wire.read(b"x", || later(201)), Ok(()));
        assert_eq!(wire.due(|| later(300)), None);
    }

    const LARGE: Refusal = Refusal {
        status: 431,
        cause: "header_too_large",
    };

    #[test]
    fn a_head_past_its_bound_ends_and_http_2_has_no_head() {
        let line = [b'x'; 40 * 1024];
        let wire = wire();
        assert_eq!(wire.read(&line, Instant::now), Err(Fault::LargeHead(LARGE)));
        let whole = Wire::new(Limits::default(), false);
        assert_eq!(whole.read(&line[..32 * 1024 - 2], Instant::now), Ok(()));
        assert_eq!(
            whole.read(b"\r\n\r", Instant::now),
            Err(Fault::LargeHead(LARGE)),
            "it has not ended"
        );
        let with_body = Wire::new(Limits::default(), false);
        assert_eq!(with_body.read(b"GET / HTTP/1.1\r\n\r", Instant::now), Ok(()));
        let body = [b"\n", &line[..]].concat();
        assert_eq!(with_body.read(&body, Instant::now), Ok(()), "a body is no head");
        let blank = Wire::new(Limits::default(), false);
        assert_eq!(
            blank.read(&b"\r\n".repeat(20_000), Instant::now),
            Err(Fault::LargeHead(LARGE)),
            "empty lines end no head"
        );
        let target = Wire::new(Limits::default(), false);
        let long = [b"\r\nGET /", &line[..]].concat();
        let told = target.read(&long, Instant::now);
        assert!(
            matches!(told, Err(Fault::LargeHead(why)) if why.status == 414),
            "{told:?}"
        );
        let h2 = Wire::new(Limits::default(), true);
        assert_eq!(h2.read(&line[..33], Instant::now), Ok(()));
        assert_eq!(h2.read(&line, Instant::now), Ok(()));
        assert_eq!(h2.read(&line, Instant::now), Ok(()));
        assert_eq!(h2.due(Instant::now), None);
    }

    /// Messages with their framing and what is wrong with them, if anything is.
    type Message = (&'static str, &'static str, Framing);

    const SOUND: [Message; 6] = [
        ("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n", "", Framing::None),
        ("POST /2 HTTP/1.1\r\nHost: a\r\n\r\n", "0\r\n\r\n", Framing::Chunked),
        ("PUT /3 HTTP/1.1\r\nHost: a\r\n\r\n", "\r\n\r\nGET", Framing::Length(7)),
        (
            "PUT /4 HTTP/1.1\r\nHost: a\r\n\r\n",
            "5;x=y\r\nhello\r\n3\r\n\r\n\r\r\n0\r\nA: b\r\n\r\n",
            Framing::Chunked,
        ),
        ("\r\nGET /5 HTTP/1.1\r\nHost: a\r\n\r\n", "", Framing::None),
        ("GET /6 HTTP/1.1\r\nHost: a\r\n\r\n", "", Framing::None),
    ];

    /// Plays a server that holds what it has read and no message takes, as Pingora does, over a pipeline that comes in
    /// `pieces`; tells how many messages were taken and what ended it.
    fn serve(pieces: &[&[u8]], messages: &[Message]) -> (usize, Option<&'static str>) {
        let wire = wire();
        let mut pieces = pieces.iter();
        let mut held = Vec::new();
        let mut more = |held: &mut Vec<u8>| {
            let piece = pieces.next().expect("a piece for every byte that is waited for");
            held.extend_from_slice(piece);
            wire.read(piece, Instant::now)
        };
        for (taken, (head, body, framing)) in messages.iter().enumerate() {
            wire.head_begins();
            while held.len() < head.len() {
                more(&mut held).expect("no head is at fault");
            }
            held.drain(..head.len());
            if let Err(cause) = wire.head_ends(head.as_bytes(), *framing) {
                return (taken, Some(cause));
            }
            while held.len() < body.len() {
                if more(&mut held).is_err() {
                    return (taken, Some("chunks"));
                }
            }
            held.drain(..body.len());
            // While the answer is due, a byte of the next message may come.
            assert_eq!(wire.due(Instant::now), None, "message {taken} is whole");
        }
        assert_eq!(held, b"");
        (messages.len(), None)
    }

    fn bytes(messages: &[Message]) -> Vec<u8> {
        let parts = messages.iter().flat_map(|(head, body, _)| [*head, *body]);
        parts.collect::<String>().into_bytes()
    }

    /// Whole, in two pieces at every place, and byte by byte.
    fn cuts(all: &[u8]) -> Vec<Vec<&[u8]>> {
        let halves = (1..all.len()).map(|cut| vec![&all[..cut], &all[cut..]]);
        halves.chain([vec![all], all.chunks(1).collect()]).collect()
    }

    #[test]
    fn a_pipeline_is_followed_wherever_it_is_cut() {
        let all = bytes(&SOUND);
        for pieces in cuts(&all) {
            let cut = pieces[0].len();
            assert_eq!(serve(&pieces, &SOUND), (SOUND.len(), None), "cut at {cut}");
        }
    }

    #[test]
    fn broken_chunks_are_found_wherever_they_are_in_a_pipeline() {
        for broken in ["5;\r\nhello\r\n0\r\n\r\n", "2\r\nxxx\r\n0\r\n\r\n", "0\n\r\n\r\n"] {
            let mut messages = SOUND;
            messages[4] = ("POST /5 HTTP/1.1\r\nHost: a\r\n\r\n", broken, Framing::Chunked);
            let all = bytes(&messages);
            for pieces in cuts(&all) {
                let cut = pieces[0].len();
                assert_eq!(
                    serve(&pieces, &messages),
                    (4, Some("chunks")),
                    "{broken:?} cut at {cut}"
                );
            }
        }
    }

    #[test]
    fn a_head_that_is_not_next_on_the_wire_is_refused_wherever_it_is_in_a_pipeline() {
        let all = bytes(&SOUND);
        for at in 0..SOUND.len() {
            let mut seen = SOUND;
            // As long as what was sent, so that lengths alone would not tell.
            let other = SOUND[at].0.replace("Host: a", "Host: b");
            seen[at].0 = Box::leak(other.into_boxed_str());
            for pieces in cuts(&all) {
                let cut = pieces[0].len();
                assert_eq!(serve(&pieces, &seen), (at, Some("head_repaired")), "{at} cut at {cut}");
            }
        }
    }

    #[test]
    fn a_length_that_is_read_otherwise_leaves_no_head() {
        // The server takes 3 bytes less than the body has, and a head for what is in it.
        let wire = wire();
        let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30\r\n\r\n";
        let hidden = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(text(&wire, &format!("{head}abc{}", &hidden[..20])), Ok(()));
        assert_eq!(wire.head_ends(head.as_bytes(), Framing::Length(30)), Ok(0));
        wire.head_begins();
        assert_eq!(text(&wire, &hidden[20..]), Ok(()));
        assert_eq!(wire.head_ends(hidden.as_bytes(), Framing::None), Err("head_repaired"));
    }

    #[test]
    fn a_head_that_came_in_part_behind_a_message_has_its_own_time_and_size() {
        let wire = wire();
        let start = Instant::now();
        let later = |seconds| start + Duration::from_secs(seconds);
        let first = SOUND[0].0;
        assert_eq!(wire.read(format!("{first}GET /").as_bytes(), || start), Ok(()));
        assert_eq!(wire.head_ends(first.as_bytes(), Framing::None), Ok(0));
        assert_eq!(wire.due(|| later(50)), None, "the answer takes its time");
        assert_eq!(wire.read(b"n", || later(51)), Ok(()), "while it is due");
        wire.head_begins();
        let due = Some((later(100) + Limits::default().header_timeout, Fault::SlowHead));
        assert_eq!(wire.due(|| later(100)), due);
        assert_eq!(wire.read(b"e", || later(109)), Ok(()));
        assert_eq!(wire.due(|| later(109)), due);
        let line = [b'x'; 32 * 1024];
        let told = wire.read(&line, || later(109));
        assert!(
            matches!(told, Err(Fault::LargeHead(why)) if why.status == 414),
            "{told:?}"
        );
    }

    #[test]
    fn no_more_than_a_head_is_kept_while_an_answer_is_due() {
        let wire = wire();
        assert_eq!(text(&wire, SOUND[0].0), Ok(()));
        assert_eq!(wire.head_ends(SOUND[0].0.as_bytes(), Framing::None), Ok(0));
        let most = Limits::default().header_bytes_max;
        assert_eq!(wire.read(&vec![b'x'; most], Instant::now), Ok(()));
        assert_eq!(text(&wire, "x"), Err(Fault::Ahead));
        assert_eq!(wire.state.lock().ahead.len(), most);
    }

    #[test]
    fn a_tunnel_is_not_looked_at() {
        let wire = wire();
        assert_eq!(text(&wire, SOUND[0].0), Ok(()));
        assert_eq!(wire.head_ends(SOUND[0].0.as_bytes(), Framing::None), Ok(0));
        wire.tunnel_begins();
        let line = [b'x'; 40 * 1024];
        for _ in 0..3 {
            assert_eq!(wire.read(&line, Instant::now), Ok(()));
            assert_eq!(wire.due(Instant::now), None);
        }
        assert_eq!(wire.state.lock().ahead.len(), 0);
        wire.head_begins();
        assert_eq!(text(&wire, SOUND[0].0), Ok(()));
        assert_eq!(
            wire.head_ends(SOUND[0].0.as_bytes(), Framing::None),
            Err("head_repaired"),
            "there is no head behind it"
        );
    }
}
