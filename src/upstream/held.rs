//! What is written to a connection and not sent yet: head and body of a small message go together.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// So much is held back until it is flushed. About one segment, as Pingora has it.
const HELD_BYTES: usize = 1460;
/// Room for that at first: most messages that are held have fewer.
const ROOM_BYTES: usize = 512;

/// Small writes to one connection.
#[derive(Debug, Default)]
pub struct Held(Vec<u8>);

impl Held {
    /// Holds that, too, whatever its size.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// Whether all is sent.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Gives the room back while nothing is held: the next write may be far away.
    pub fn free(&mut self) {
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
    }

    /// Holds what is small, and sends what is not behind what was held.
    pub fn poll_write<S>(&mut self, inner: &mut S, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>>
    where
        S: AsyncWrite + Unpin,
    {
        if self.0.len() + buf.len() <= HELD_BYTES {
            if self.0.is_empty() {
                self.0.reserve(ROOM_BYTES.max(buf.len()));
            }
            self.0.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        while !self.0.is_empty() {
            let both = [IoSlice::new(&self.0), IoSlice::new(buf)];
            let written = ready!(Pin::new(&mut *inner).poll_write_vectored(cx, &both))?;
            let held = self.sent(written)?;
            if written > held {
                return Poll::Ready(Ok(written - held));
            }
        }
        Pin::new(inner).poll_write(cx, buf)
    }

    /// Sends what is held.
    pub fn poll_send<S>(&mut self, inner: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<()>>
    where
        S: AsyncWrite + Unpin,
    {
        while !self.0.is_empty() {
            let written = ready!(Pin::new(&mut *inner).poll_write(cx, &self.0))?;
            self.sent(written)?;
        }
        Poll::Ready(Ok(()))
    }

    /// So many bytes were written: how many of them were held back.
    fn sent(&mut self, written: usize) -> io::Result<usize> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let held = written.min(self.0.len());
        self.0.drain(..held);
        Ok(held)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use tokio::io::{AsyncReadExt, DuplexStream, duplex};

    async fn write(held: &mut Held, near: &mut DuplexStream, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let written = poll_fn(|cx| held.poll_write(near, cx, bytes)).await;
            bytes = &bytes[written.expect("the other end reads")..];
        }
    }

    #[tokio::test]
    async fn small_writes_wait_to_be_sent_and_large_ones_take_them_along() {
        // Less room than there is to write, so that writes are cut anywhere.
        for room in [1, 7, 1460, 4096] {
            let (mut near, mut far) = duplex(room);
            let mut held = Held::default();
            write(&mut held, &mut near, b"head").await;
            write(&mut held, &mut near, b"er").await;
            assert_eq!(held.0, b"header", "nothing was sent");
            let body = vec![b'b'; 3000];
            let writing = async {
                write(&mut held, &mut near, &body).await;
                write(&mut held, &mut near, b"end").await;
                poll_fn(|cx| held.poll_send(&mut near, cx)).await.expect("sent");
                drop(near);
            };
            let mut read = Vec::new();
            let (_, all) = tokio::join!(writing, far.read_to_end(&mut read));
            all.expect("read");
            assert_eq!(read, [b"header", body.as_slice(), b"end"].concat(), "{room}");
        }
    }

    #[tokio::test]
    async fn an_end_that_takes_nothing_for_good_is_an_error() {
        let (mut near, far) = duplex(16);
        drop(far);
        let mut held = Held::default();
        write(&mut held, &mut near, b"head").await;
        let sent = poll_fn(|cx| held.poll_send(&mut near, cx)).await;
        assert_eq!(sent.expect_err("nobody is there").kind(), io::ErrorKind::BrokenPipe);
    }
}
