//! What is written to a connection and not sent yet: head and body of a small message go together.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

/// So much is held back until it is flushed. About one segment, as Pingora has it.
const HELD_BYTES: usize = 1460;

/// Small writes to one connection.
#[derive(Debug, Default)]
pub struct Held(Vec<u8>);

impl Held {
    /// Holds that, too, whatever its size.
    pub fn push(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
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
                self.0.reserve(HELD_BYTES);
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
