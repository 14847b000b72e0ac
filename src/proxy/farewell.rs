//! The end of a connection whose client may still be sending. One that is closed with input unread is reset, and an answer that the
//! client has not read by then goes with it: so our half is closed first, and what comes is read and dropped until the client
//! closes its own (RFC 9112, 9.6). That is bounded in every way, for nobody is served by it but that client.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pingora::protocols::Stream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::places::{Place, Places};

/// In all. Most clients close when they have read the answer; some send all of a body before they read.
const LONGEST: Duration = Duration::from_secs(10);
/// With nothing from the client: longer than the answer is on its way.
const SILENCE: Duration = Duration::from_secs(1);
/// What is read of one client.
const BYTES_MAX: usize = 64 * 1024 * 1024;
/// At a time; the connections of others are closed at once.
const AT_ONCE_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(255);
const READ_BYTES: usize = 16 * 1024;

/// Connections that are at their ends.
pub struct Farewells(Arc<Places>);

impl Farewells {
    /// None so far.
    pub fn new() -> Self {
        Self(Places::new(AT_ONCE_MAX))
    }

    /// Ends a connection if there is a place for that; holds `held` until it is over. In a task of its own, which ends with the
    /// process: a process that leaves waits for requests, and this has none.
    pub fn bid(&self, mut stream: Stream, held: impl Send + 'static) {
        if let Some(place) = self.0.take() {
            tokio::spawn(async move {
                let _held: (Place, _) = (place, held);
                // However it ends, the connection does.
                drop(timeout(LONGEST, part(&mut stream)).await);
            });
        }
    }
}

/// Closes our half of a connection, and reads until the client closes its own, says nothing more, or too much.
pub async fn part(stream: &mut Stream) {
    if AsyncWriteExt::shutdown(stream).await.is_err() {
        return;
    }
    let mut room = vec![0; READ_BYTES];
    let mut left = BYTES_MAX;
    while let Ok(Ok(read @ 1..)) = timeout(SILENCE, stream.read(&mut room)).await {
        if read > left {
            return;
        }
        left -= read;
    }
}

/// Where a socket that is dropped leaves its connection, if that is not to be closed at once.
#[derive(Debug, Default)]
pub struct Left(Mutex<Option<Stream>>);

impl Left {
    /// Leaves it.
    pub fn leave(&self, stream: Stream) {
        *self.0.lock() = Some(stream);
    }

    /// Takes what was left.
    pub fn take(&self) -> Option<Stream> {
        self.0.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{DuplexStream, duplex};

    fn pair() -> (Stream, DuplexStream) {
        let (near, far) = duplex(READ_BYTES);
        (Box::new(near), far)
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_still_sends_is_read_until_it_closes() {
        let (mut near, mut far) = pair();
        let client = async {
            far.write_all(&vec![b'x'; 3 * 1024 * 1024]).await.expect("it is read");
            assert_eq!(
                far.read_u8().await.expect_err("our half is closed").kind(),
                std::io::ErrorKind::UnexpectedEof
            );
            drop(far);
        };
        tokio::join!(part(&mut near), client);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_is_silent_sends_too_much_or_takes_too_long_is_left() {
        let (mut near, _silent) = pair();
        part(&mut near).await;

        let (mut near, mut far) = pair();
        let much = vec![b'x'; BYTES_MAX + 2 * READ_BYTES];
        let (_, sent) = tokio::join!(async move { part(&mut near).await }, far.write_all(&much));
        assert!(sent.is_err(), "it is read for ever");

        let (near, mut far) = pair();
        let farewells = Farewells::new();
        farewells.bid(near, ());
        let begun = tokio::time::Instant::now();
        while far.write_all(b"x").await.is_ok() {
            tokio::time::sleep(SILENCE / 2).await;
        }
        assert!(begun.elapsed() <= LONGEST + SILENCE, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn past_so_many_at_a_time_connections_are_closed_at_once() {
        let farewells = Farewells::new();
        let clients: Vec<_> = (0..AT_ONCE_MAX.get()).map(|_| pair()).collect();
        let mut held = Vec::new();
        for (near, far) in clients {
            farewells.bid(near, ());
            held.push(far);
        }
        let (near, mut far) = pair();
        farewells.bid(near, ());
        assert!(far.write_all(b"x").await.is_err(), "it is closed");
    }
}
