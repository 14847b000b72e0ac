//! What is written to a connection and not sent yet: head and body of a small message go together.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use memchr::memchr;
use tokio::io::AsyncWrite;

use super::splice::Splice;

/// So much is held back until it is flushed. About one segment, as Pingora has it.
const HELD_BYTES: usize = 1460;
/// Room for that at first: most messages that are held have fewer.
const ROOM_BYTES: usize = 512;

/// Small writes to one connection.
#[derive(Debug, Default)]
pub struct Held {
    bytes: Vec<u8>,
    /// Behind them; too large to be copied.
    body: Bytes,
}

impl Held {
    /// Holds that, too, whatever its size.
    pub fn push(&mut self, bytes: &[u8]) {
        if !self.body.is_empty() {
            self.bytes.extend_from_slice(&self.body);
            self.body = Bytes::new();
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Holds this head with another first line, and the body behind it.
    pub fn push_spliced(&mut self, head: &[u8], splice: Splice) {
        let fields = memchr(b'\n', head).map_or(head, |end| &head[end + 1..]);
        if self.is_empty() {
            self.bytes = splice.head;
        } else {
            self.push(&splice.head);
        }
        self.bytes.extend_from_slice(fields);
        if self.bytes.len() + splice.body.len() <= HELD_BYTES {
            self.bytes.extend_from_slice(&splice.body);
        } else {
            self.body = splice.body;
        }
    }

    /// Whether all is sent.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.body.is_empty()
    }

    /// How much is not sent yet.
    pub fn len(&self) -> usize {
        self.bytes.len() + self.body.len()
    }

    /// Gives the room back while nothing is held: the next write may be far away.
    pub fn free(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = Vec::new();
        }
    }

    /// Holds what is small, and sends what is not behind what was held.
    pub fn poll_write<S>(&mut self, inner: &mut S, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>>
    where
        S: AsyncWrite + Unpin,
    {
        if !self.body.is_empty() {
            ready!(self.poll_send(inner, cx))?;
        }
        if self.bytes.len() + buf.len() <= HELD_BYTES {
            if self.bytes.is_empty() {
                self.bytes.reserve(ROOM_BYTES.max(buf.len()));
            }
            self.bytes.extend_from_slice(buf);
            return Poll::Ready(Ok(buf.len()));
        }
        while !self.bytes.is_empty() {
            let both = [IoSlice::new(&self.bytes), IoSlice::new(buf)];
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
        while !self.is_empty() {
            let inner = Pin::new(&mut *inner);
            let written = ready!(if self.body.is_empty() {
                inner.poll_write(cx, &self.bytes)
            } else {
                inner.poll_write_vectored(cx, &[IoSlice::new(&self.bytes), IoSlice::new(&self.body)])
            })?;
            let held = self.sent(written)?;
            self.body.advance(written - held);
        }
        Poll::Ready(Ok(()))
    }

    /// So many bytes were written: how many of them stood before the body.
    fn sent(&mut self, written: usize) -> io::Result<usize> {
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        let held = written.min(self.bytes.len());
        self.bytes.drain(..held);
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
            assert_eq!(held.bytes, b"header", "nothing was sent");
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

    #[tokio::test]
    async fn a_spliced_head_has_another_first_line_and_its_body_behind_it() {
        for room in [1, 7, 1460, 4096] {
            for size in [0, 4, 3000] {
                let (mut near, mut far) = duplex(room);
                let mut held = Held::default();
                let body = vec![b'b'; size];
                let writing = async {
                    write(&mut held, &mut near, b"before").await;
                    for _ in 0..2 {
                        let splice = Splice {
                            head: b"first\r\nA: b\r\n".to_vec(),
                            body: body.clone().into(),
                        };
                        held.push_spliced(b"other\r\nC: d\r\n\r\n", splice);
                    }
                    write(&mut held, &mut near, b"after").await;
                    poll_fn(|cx| held.poll_send(&mut near, cx)).await.expect("sent");
                    drop(near);
                };
                let mut read = Vec::new();
                let (_, all) = tokio::join!(writing, far.read_to_end(&mut read));
                all.expect("read");
                let one = [b"first\r\nA: b\r\nC: d\r\n\r\n", body.as_slice()].concat();
                assert_eq!(read, [b"before", &one[..], &one, b"after"].concat(), "{room} {size}");
            }
        }
    }
}
