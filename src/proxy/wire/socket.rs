//! A downstream socket that tells a [`Wire`] of every byte, and ends reading when the wire says so.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep_until, timeout};

use super::{Fault, Wire};
use crate::clock;
use crate::proxy::settings::Limits;
use crate::telemetry::metrics;

const H2_PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const TOO_SLOW: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const TOO_LARGE: &[u8] =
    b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// The socket.
pub struct Socket {
    inner: Stream,
    wire: Arc<Wire>,
    /// What was looked at before anyone read.
    peeked: Vec<u8>,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Socket {
    /// Around an accepted connection.
    pub fn new(inner: Stream, limits: Limits) -> Self {
        let h2 = matches!(inner.selected_alpn_proto(), Some(ALPN::H2));
        Self {
            inner,
            wire: Arc::new(Wire::new(limits, h2)),
            peeked: Vec::new(),
            timer: None,
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
            Fault::LargeHead => (Some(TOO_LARGE), "header_too_large", io::ErrorKind::InvalidData),
            Fault::SlowBody => (None, "body_too_slow", io::ErrorKind::TimedOut),
            Fault::Chunks => (None, "chunks", io::ErrorKind::InvalidData),
            Fault::Trailers => (None, "trailers", io::ErrorKind::InvalidData),
            Fault::Resets => (None, "http2_resets", io::ErrorKind::InvalidData),
            Fault::Flood => (None, "http2_flood", io::ErrorKind::InvalidData),
            Fault::Ahead => (None, "read_ahead", io::ErrorKind::InvalidData),
        };
        metrics::refused(cause);
        if let Some(answer) = answer {
            // A client that does not take it now has its connection closed without.
            let written = Pin::new(&mut self.inner).poll_write(cx, answer);
            if matches!(written, Poll::Ready(Ok(_))) {
                let _flushed = Pin::new(&mut self.inner).poll_flush(cx);
            }
        }
        io::Error::new(kind, cause)
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

    /// Reads up to the first byte that tells HTTP/1 from HTTP/2.
    async fn read_preface(&mut self) -> io::Result<bool> {
        let mut byte = [0];
        while self.peeked.len() < H2_PREFACE.len() {
            if self.inner.read(&mut byte).await? == 0 {
                return Ok(false);
            }
            self.wire.starts(clock::now());
            self.peeked.push(byte[0]);
            if !H2_PREFACE.starts_with(&self.peeked) {
                return Ok(false);
            }
        }
        Ok(true)
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
            this.peeked.drain(..here);
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
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Peek for Socket {
    /// Pingora's own waits for as many bytes as the preface has, for ever: a short HTTP/1.0 request has fewer.
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        let limits = self.wire.limits;
        let mut first = [0];
        let came = timeout(limits.keepalive_timeout, self.inner.read(&mut first)).await??;
        if came == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.wire.starts(clock::now());
        self.peeked.push(first[0]);
        let h2 = first[0] == H2_PREFACE[0] && timeout(limits.header_timeout, self.read_preface()).await??;
        if h2 && buf.len() == H2_PREFACE.len() {
            self.wire.is_h2();
            buf.copy_from_slice(H2_PREFACE);
        }
        Ok(true)
    }
}

#[async_trait]
impl Shutdown for Socket {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
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
