//! What an HTTP/2 client may do at no cost of its own is bounded: requests that it takes back as soon as they are sent
//! (CVE-2023-44487), and frames that carry nothing for anybody (CVE-2019-9512 to 9518).

use std::time::{Duration, Instant};

use super::Fault;
use crate::proxy::settings::Limits;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const WINDOW_UPDATE: u8 = 8;
/// Frames that carry nothing, in one go and then each second: far above a client that measures its round trips by
/// PING, and far below what keeps a core busy.
const IDLE_FRAMES: u32 = 2_000;
const IDLE_FRAMES_EACH: Duration = Duration::from_secs(1);
/// A client that is told to go may have sent so many requests before it hears of it.
const REQUESTS_UNDER_WAY: u32 = 1_000;

/// Counts the frames of one client.
#[derive(Debug)]
pub struct Flood {
    resets_max: u32,
    requests_max: u32,
    requests: u32,
    resets: u32,
    idle: u32,
    since: Option<Instant>,
}

impl Flood {
    pub const fn new(limits: &Limits) -> Self {
        Self {
            resets_max: limits.http2_resets_max,
            requests_max: limits.keepalive_requests_max.get(),
            requests: 0,
            resets: 0,
            idle: 0,
            since: None,
        }
    }

    /// A frame begins; `opens` if it is the first of a stream.
    pub fn frame(&mut self, kind: u8, bytes: usize, opens: bool, now: impl FnOnce() -> Instant) -> Result<(), Fault> {
        match kind {
            HEADERS if opens => {
                self.requests = self.requests.saturating_add(1);
                if self.requests > self.requests_max.saturating_add(REQUESTS_UNDER_WAY) {
                    return Err(Fault::Flood);
                }
            }
            DATA if bytes > 0 => {}
            // What comes downstream in large bodies is acknowledged by many of them.
            HEADERS | WINDOW_UPDATE => {}
            RST_STREAM => {
                self.resets = self.resets.saturating_add(1);
                if self.resets > self.resets_max && self.resets > self.requests / 2 {
                    return Err(Fault::Resets);
                }
            }
            _ => return self.idle(now()),
        }
        Ok(())
    }

    /// Whether the client has sent as many requests as a connection may.
    pub const fn is_spent(&self) -> bool {
        self.requests >= self.requests_max
    }

    fn idle(&mut self, now: Instant) -> Result<(), Fault> {
        let since = self.since.get_or_insert(now);
        if now.saturating_duration_since(*since) >= IDLE_FRAMES_EACH {
            *since = now;
            self.idle = 0;
        }
        self.idle += 1;
        if self.idle > IDLE_FRAMES {
            return Err(Fault::Flood);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 6;

    #[test]
    fn resets_count_once_they_are_many_and_most() {
        let mut flood = Flood::new(&Limits::default());
        let now = Instant::now();
        for _ in 0..2_000 {
            assert_eq!(flood.frame(HEADERS, 10, true, || now), Ok(()));
        }
        for _ in 0..1_000 {
            assert_eq!(flood.frame(RST_STREAM, 4, false, || now), Ok(()));
        }
        assert_eq!(flood.frame(RST_STREAM, 4, false, || now), Err(Fault::Resets));
    }

    #[test]
    fn frames_without_content_are_many_only_within_a_second() {
        let mut flood = Flood::new(&Limits::default());
        let start = Instant::now();
        for kind in [PING, DATA] {
            for second in 0..3 {
                let now = start + second * IDLE_FRAMES_EACH;
                let mut flood = Flood::new(&Limits::default());
                for _ in 0..IDLE_FRAMES {
                    assert_eq!(flood.frame(kind, 0, false, || now), Ok(()));
                }
                assert_eq!(flood.frame(kind, 0, false, || now), Err(Fault::Flood));
            }
        }
        for n in 0..10 * IDLE_FRAMES {
            let now = start + n * (IDLE_FRAMES_EACH / IDLE_FRAMES);
            assert_eq!(flood.frame(PING, 8, false, || now), Ok(()), "{n}");
            assert_eq!(flood.frame(DATA, 8, false, || now), Ok(()), "a body is no flood");
        }
    }

    #[test]
    fn a_connection_is_spent_with_its_requests_and_ends_where_that_is_not_heard() {
        let mut flood = Flood::new(&Limits::default());
        let now = Instant::now();
        let most = Limits::default().keepalive_requests_max.get();
        for _ in 0..most {
            assert!(!flood.is_spent());
            assert_eq!(flood.frame(HEADERS, 10, true, || now), Ok(()));
        }
        for _ in 0..REQUESTS_UNDER_WAY {
            assert!(flood.is_spent());
            assert_eq!(flood.frame(HEADERS, 10, true, || now), Ok(()));
        }
        assert_eq!(flood.frame(HEADERS, 10, true, || now), Err(Fault::Flood));
    }
}
