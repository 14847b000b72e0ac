//! Connections in clear text to endpoints that speak HTTP/1: opened here rather than by Pingora, so that of most large
//! responses no more is read than their clients take. Pingora's own read 64 KiB at a time, up to ten of them for a client
//! that takes nothing. Between requests they wait in [`Kept`], for Pingora each is a new one with each request.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use memchr::memmem;
use pingora::connectors::http::custom::{Connection as Opened, Connector};
use pingora::protocols::l4::stream::Stream as Connected;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::CustomALPN;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, TimingDigest, UniqueID,
    UniqueIDType,
};
use pingora::upstreams::peer::{HttpPeer, HttpUpstreamRequestPolicy, Peer};
use pingora::{Error, ErrorType, Result};
use std::os::fd::AsRawFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use super::connection::Connection;
use super::held::Held;
use super::kept::is_silent;
use super::progress::{FIRST_BYTES, Progress};
use crate::clock;

const NO_DESCRIPTOR: UniqueIDType = -1;
const HEAD_END: &[u8] = b"\r\n\r\n";

/// What has Pingora come here for a connection. It is in clear text, so nobody is ever told.
const PROTOCOL: &[u8] = b"switchyard";

/// Asks for a [`Paced`] connection.
pub(super) fn alpn() -> ALPN {
    ALPN::Custom(CustomALPN::new(PROTOCOL.to_vec()))
}

/// Lets the head of a request to this peer be written here, if its connection is one of these: then Pingora must not look for
/// what to take from it.
pub fn writes_head(peer: &mut HttpPeer) -> bool {
    let ours = matches!(peer.options.alpn, ALPN::Custom(_));
    if ours {
        peer.options.http_upstream_request_policy = HttpUpstreamRequestPolicy::preserve();
    }
    ours
}

/// Opens connections that are read as their clients take what is read.
#[derive(Debug, Default)]
pub struct Streams;

#[async_trait]
impl Connector for Streams {
    type Session = ();

    async fn get_http_session<P: Peer + Send + Sync + 'static>(&self, peer: &P) -> Result<(Opened<()>, bool)> {
        let dial = peer.get_peer_options().and_then(|options| options.custom_l4.clone());
        let Some(dial) = dial else {
            return Error::e_explain(ErrorType::InternalError, "each endpoint has its dial");
        };
        let mut inner = dial.connect(peer.address()).await?;
        if inner.get_socket_digest().is_none() {
            inner.set_nodelay()?;
            let digest = SocketDigest::from_raw_fd(inner.as_raw_fd());
            digest.peer_addr.get_or_init(|| Some(peer.address().clone()));
            inner.set_socket_digest(digest);
        }
        let Some(connection) = inner.get_proxy_digest().as_deref().and_then(Connection::of) else {
            return Error::e_explain(ErrorType::InternalError, "each connection is watched");
        };
        connection.next_head().watch();
        let stream = Paced {
            inner: Some(inner),
            held: Held::default(),
            coming: None,
            read: BytesMut::new(),
            connection,
            progress: Progress::default(),
            idle_timeout: peer.idle_timeout().unwrap_or_default(),
        };
        Ok((Opened::Stream(Box::new(stream)), false))
    }

    /// None: Pingora looks in its own pool next.
    async fn reused_http_session<P: Peer + Send + Sync + 'static>(&self, _peer: &P) -> Option<()> {
        None
    }

    async fn release_http_session<P: Peer + Send + Sync + 'static>(
        &self,
        (): (),
        _peer: &P,
        _idle_timeout: Option<Duration>,
    ) {
    }
}

/// A connection that is read as its client takes, for one request.
struct Paced {
    /// Until it waits for the next request.
    inner: Option<Connected>,
    held: Held,
    /// Once the head of the request is written: what of its body is here and will be at once.
    coming: Option<usize>,
    /// Came with a head.
    read: BytesMut,
    connection: Arc<Connection>,
    progress: Progress,
    /// How long it may wait for the next request; zero: it is closed.
    idle_timeout: Duration,
}

impl Paced {
    fn open(&mut self) -> io::Result<&mut Connected> {
        self.inner.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.inner {
            Some(inner) => self.held.poll_send(inner, cx),
            None => Poll::Ready(Ok(())),
        }
    }

    /// The request is over: the connection waits for the next one, if it may and nothing came behind the response.
    fn wait(&mut self) {
        let home = self.connection.home().filter(|_| !self.idle_timeout.is_zero());
        if let (Some(mut inner), Some(home)) = (self.inner.take(), home) {
            if self.held.is_empty() && is_silent(&mut inner) {
                home.put(inner, clock::tick().after(self.idle_timeout));
            }
        }
    }

    /// Reads more than there is room for in `buf`, and keeps the rest. Of what is no small response only the head goes on
    /// before the client takes it: Pingora would copy what comes with it into a buffer that it keeps.
    fn poll_first(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut room = [MaybeUninit::uninit(); FIRST_BYTES];
        let mut all = ReadBuf::uninit(&mut room);
        ready!(Pin::new(self.open()?).poll_read(cx, &mut all))?;
        let all = all.filled();
        if self.connection.shortcut().leave(all, &mut *buf) {
            self.progress.begins(all.len(), 0);
            return Poll::Ready(Ok(()));
        }
        let mut now = all.len().min(buf.remaining());
        let head = memmem::find(all, HEAD_END).map_or(now, |end| end + HEAD_END.len());
        self.progress.begins(all.len(), head);
        if !self.progress.is_small() {
            now = now.min(head);
        }
        buf.put_slice(&all[..now]);
        self.read.extend_from_slice(&all[now..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Paced {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        // Pingora looks with a byte of its own whether the connection can be kept. For a response it has room that is
        // not initialized.
        let looks = buf.capacity() == 1 && buf.initialized().len() == 1;
        if looks && this.read.is_empty() {
            this.wait();
            // As if it were closed: Pingora is done with it.
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        // What came behind a response is told at once, whatever the pace: it must not be the next one's.
        let room = if looks || (this.progress.is_small() && !this.read.is_empty()) {
            FIRST_BYTES
        } else {
            if this.progress.has_begun() {
                this.held.free();
            }
            ready!(this.progress.poll_room(this.connection.pace(), cx))
        };
        if !this.read.is_empty() {
            let here = this.read.len().min(buf.remaining()).min(room);
            buf.put_slice(&this.read[..here]);
            this.read.advance(here);
            if this.read.is_empty() {
                this.read = BytesMut::new();
            }
        } else if !this.progress.has_begun() && buf.remaining() < FIRST_BYTES {
            ready!(this.poll_first(cx, buf))?;
        } else {
            let mut part = this.open()?.take(room as u64);
            let read = Pin::new(&mut part).poll_read(cx, buf);
            if read.is_pending() {
                this.progress.waits(clock::tick());
            }
            ready!(read)?;
        }
        this.progress.read(buf.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Paced {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        // The first that Pingora writes of a request is its head.
        if let Some(splice) = this.connection.next_head().take() {
            this.held.push_spliced(buf, splice);
            return Poll::Ready(Ok(buf.len()));
        }
        if let Some(coming) = &mut this.coming {
            let after = coming.saturating_sub(buf.len());
            *coming = after;
            if after > 0 {
                this.held.push(buf);
                return Poll::Ready(Ok(buf.len()));
            }
        }
        this.held.poll_write(inner, cx, buf)
    }

    /// Pingora asks for it after the head and after the body: both go together where the body is here.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if *this.coming.get_or_insert_with(|| this.connection.coming_body()) > 0 {
            return Poll::Ready(Ok(()));
        }
        ready!(self.poll_send(cx))?;
        Pin::new(self.open()?).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(self.open()?).poll_shutdown(cx)
    }
}

/// Nothing asks an upstream connection what it speaks.
impl Peek for Paced {}

#[async_trait]
impl Shutdown for Paced {
    async fn shutdown(&mut self) {
        if let Some(inner) = &mut self.inner {
            inner.shutdown().await;
        }
    }
}

impl UniqueID for Paced {
    fn id(&self) -> UniqueIDType {
        self.inner.as_ref().map_or(NO_DESCRIPTOR, UniqueID::id)
    }
}

impl Ssl for Paced {}

impl GetTimingDigest for Paced {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner
            .as_ref()
            .map_or_else(Vec::new, GetTimingDigest::get_timing_digest)
    }
}

impl GetProxyDigest for Paced {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.as_ref().and_then(GetProxyDigest::get_proxy_digest)
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        if let Some(inner) = &mut self.inner {
            inner.set_proxy_digest(digest);
        }
    }
}

impl GetSocketDigest for Paced {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.as_ref().and_then(GetSocketDigest::get_socket_digest)
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        if let Some(inner) = &mut self.inner {
            inner.set_socket_digest(digest);
        }
    }
}

impl fmt::Debug for Paced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Paced")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}
