//! A downstream socket that tells a [`Wire`] of every byte, and ends reading when the wire says so.

use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, Cursor};
use std::mem::{self, MaybeUninit};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep, sleep_until, timeout};

use super::{Fault, Wire};
use crate::clock;
use crate::proxy::settings::Limits;
use crate::telemetry::metrics;
use crate::upstream::{BODILESS, Held};

const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Of a message that is waited for, at first: most heads are smaller, and a small body comes along.
const PEEK_BYTES: usize = 16 * 1024;
const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const TOO_LONG: &[u8] = b"HTTP/1.1 414 URI Too Long\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// The socket.
pub struct Socket {
    inner: Stream,
    /// Written, and not on its way yet.
    held: Held,
    wire: Arc<Wire>,
    /// What was looked at before anyone read.
    peeked: BytesMut,
    timer: Option<Pin<Box<Sleep>>>,
    /// While the client does not take what is held back: how much that is, and when some of it must be taken.
    sending: Option<(usize, Pin<Box<Sleep>>)>,
    idle: Option<Pin<Box<Sleep>>>,
    /// The client takes nothing for now.
    stands: bool,
}

impl Socket {
    /// Around an accepted connection.
    pub fn new(inner: Stream, limits: Limits) -> Self {
        let h2 = matches!(inner.selected_alpn_proto(), Some(ALPN::H2));
        Self {
            inner,
            wire: Arc::new(Wire::new(limits, h2)),
            held: Held::default(),
            peeked: BytesMut::new(),
            timer: None,
            sending: None,
            idle: None,
            stands: false,
        }
    }

    /// What is known of its bytes.
    pub fn wire(&self) -> &Arc<Wire> {
        &self.wire
    }

    /// Ends reading. Where no request is there yet that could be answered, an answer is tried.
    fn end(&mut self, fault: Fault, cx: &mut Context<'_>) -> io::Error {
        let (answer, cause, kind) = match fault {
            Fault::SlowHead => (Some(TOO_SLOW), "header_timeout", io::ErrorKind::TimedOut),
            Fault::LargeHead(why) => {
                let answer = if why.status == 414 { TOO_LONG } else { TOO_LARGE };
                (Some(answer), why.cause, io::ErrorKind::InvalidData)
            }
            Fault::SlowBody => (None, "body_too_slow", io::ErrorKind::TimedOut),
            Fault::Chunks => (None, "chunks", io::ErrorKind::InvalidData),
            Fault::Trailers => (None, "trailers", io::ErrorKind::InvalidData),
            Fault::Resets => (None, "http2_resets", io::ErrorKind::InvalidData),
            Fault::Flood => (None, "http2_flood", io::ErrorKind::InvalidData),
            Fault::Ahead => (None, "read_ahead", io::ErrorKind::InvalidData),
        };
        metrics::refused(cause);
        if let Some(answer) = answer {
            self.wire.unasked().writes(answer);
            // A client that does not take it now has its connection closed without.
            self.held.push(answer);
            let _sent = Pin::new(&mut *self).poll_flush(cx);
        }
        io::Error::new(kind, cause)
    }

    /// Sends what is held back.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.held.poll_send(&mut self.inner, cx)
    }

    /// Tells whether the client takes what is written.
    fn noted<T>(&mut self, written: Poll<T>) -> Poll<T> {
        if written.is_ready() {
            self.sending = None;
        }
        if self.stands != written.is_pending() {
            self.stands = written.is_pending();
            // It may take its time.
            self.held.free();
            self.wire.source().stands(self.stands);
        }
        written
    }

    /// Bounds how long a client may take nothing of what is held back: Pingora bounds what it writes of bodies only.
    fn poll_stuck(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let limit = self.wire.limits.write_timeout;
        let held = self.held.len();
        let start = || (held, Box::pin(sleep(limit)));
        let (before, timer) = self.sending.get_or_insert_with(start);
        if *before != held {
            *before = held;
            timer.set(sleep(limit));
        }
        timer.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn poll_overdue(&mut self, cx: &mut Context<'_>) -> Poll<Fault> {
        let Some((due, fault)) = self.wire.due(clock::now) else {
            return Poll::Pending;
        };
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(due.into())));
        if timer.deadline().into_std() != due {
            timer.as_mut().reset(due.into());
        }
        timer.as_mut().poll(cx).map(|()| {
            self.wire.cut(fault);
            fault
        })
    }

    /// Waits until something of the next message is there, at most as long as a connection may be idle. Whether it is;
    /// not when the client is gone. All that an idle connection holds is what this needs.
    pub async fn begins(&mut self) -> bool {
        if self.wire.is_ahead() {
            // Pingora has it, and may read no more before it judges it.
            let judged = self.wire.read(&[], clock::now);
            if let Err(fault) = judged {
                drop(poll_fn(|cx| Poll::Ready(self.end(fault, cx))).await);
            }
            return judged.is_ok();
        }
        if !self.peeked.is_empty() {
            return true;
        }
        let since = clock::now();
        poll_fn(|cx| {
            // Most connections wait most of the time.
            self.held.free();
            if let Poll::Ready(read) = self.poll_peek(cx) {
                return Poll::Ready(matches!(read, Ok(bytes) if bytes > 0));
            }
            self.poll_idle(since, cx).map(|()| false)
        })
        .await
    }

    /// Whether an HTTP/2 client is at the other end: reads up to the first byte that tells it from HTTP/1.
    ///
    /// # Errors
    /// When that does not come as soon as a head has to, or the connection fails.
    pub async fn speaks_h2(&mut self) -> io::Result<bool> {
        let limit = self.wire.limits.header_timeout;
        let telling = async {
            while self.peeked.len() < H2_PREFACE.len() && H2_PREFACE.starts_with(&self.peeked) {
                self.wire.starts(clock::now());
                if poll_fn(|cx| self.poll_peek(cx)).await? == 0 {
                    break;
                }
            }
            Ok::<(), io::Error>(())
        };
        timeout(limit, telling).await??;
        let h2 = self.peeked.starts_with(H2_PREFACE);
        if h2 {
            self.wire.is_h2();
        }
        Ok(h2)
    }

    /// Reads what is there for whoever reads next. How much, 0 at the end.
    fn poll_peek(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        // Not in the connection's own memory, for the same reason.
        let mut room = [MaybeUninit::uninit(); PEEK_BYTES];
        let mut buf = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.inner).poll_read(cx, &mut buf))?;
        self.peeked.extend_from_slice(buf.filled());
        self.wire.peeks(self.peeked.len());
        Poll::Ready(Ok(buf.filled().len()))
    }

    /// Ready when nothing has come for as long as a connection may be idle. The timer is set again only when it has
    /// run out, not for each message.
    fn poll_idle(&mut self, since: Instant, cx: &mut Context<'_>) -> Poll<()> {
        let Some(due) = since.checked_add(self.wire.limits.keepalive_timeout) else {
            return Poll::Pending;
        };
        let timer = self.idle.get_or_insert_with(|| Box::pin(sleep_until(due.into())));
        while timer.as_mut().poll(cx).is_ready() {
            if timer.deadline().into_std() >= due {
                return Poll::Ready(());
            }
            timer.as_mut().reset(due.into());
        }
        Poll::Pending
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        if this.peeked.is_empty() {
            match Pin::new(&mut this.inner).poll_read(cx, buf) {
                Poll::Ready(read) => read?,
                Poll::Pending => return this.poll_overdue(cx).map(|fault| Err(this.end(fault, cx))),
            }
        } else {
            let here = this.peeked.len().min(buf.remaining());
            buf.put_slice(&this.peeked[..here]);
            this.peeked.advance(here);
            this.wire.peeks(this.peeked.len());
            if this.peeked.is_empty() {
                this.peeked = BytesMut::new();
            }
        }
        match this.wire.read(&buf.filled()[before..], clock::now) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(fault) => {
                buf.set_filled(before);
                Poll::Ready(Err(this.end(fault, cx)))
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        // Whatever else is written in place of that head has come between.
        if let Some(splice) = this.wire.next_head().take().filter(|_| buf.starts_with(BODILESS)) {
            this.held.push_spliced(buf, splice);
            return Poll::Ready(Ok(buf.len()));
        }
        this.wire.unasked().writes(buf);
        let written = this.held.poll_write(&mut this.inner, cx, buf);
        this.noted(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let sent = self.poll_send(cx);
        match self.noted(sent) {
            Poll::Pending => return self.poll_stuck(cx),
            Poll::Ready(sent) => sent?,
        }
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let sent = self.poll_send(cx);
        ready!(self.noted(sent))?;
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

impl Drop for Socket {
    /// A response that ends early is dropped with what came of it: as far as the client takes that now, it is sent. A client that
    /// takes it, and may be sending itself, has time to read it.
    fn drop(&mut self) {
        let sent = self.poll_send(&mut Context::from_waker(Waker::noop()));
        if matches!(sent, Poll::Ready(Ok(()))) && self.wire.may_send() {
            let nothing = Box::new(Cursor::new(Vec::new()));
            self.wire.left().leave(mem::replace(&mut self.inner, nothing));
        }
    }
}

#[async_trait]
impl Peek for Socket {
    /// Pingora's own waits for as many bytes as the preface has, for ever: a short HTTP/1.0 request has fewer.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        if !self.begins().await {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if buf.len() == H2_PREFACE.len() && self.speaks_h2().await? {
            buf.copy_from_slice(H2_PREFACE);
        }
        Ok(true)
    }
}

#[async_trait]
impl Shutdown for Socket {
    async fn shutdown(&mut self) {
        // Whether or not the client still takes it, the connection ends.
        drop(poll_fn(|cx| self.poll_send(cx)).await);
        if !self.wire.may_send() {
            self.inner.shutdown().await;
        }
    }
}

impl UniqueID for Socket {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Socket {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Socket {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> std::time::Duration {
        self.inner.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> std::time::Duration {
        self.inner.get_write_pending_time()
    }
}

impl GetProxyDigest for Socket {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.inner.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for Socket {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.inner.set_socket_digest(digest);
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Socket")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
