//! One listening service in front of the gateway. Services differ in what they speak (HTTP/2 in clear text or not)
//! and share one gateway, so that they share its upstream connections.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::stream::Stream as Socket;
use pingora::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use tokio::io::AsyncReadExt;

use super::gateway::Gateway;

/// Requests on one downstream connection before it is closed, so that no connection lives for ever.
const REQUESTS_PER_CONNECTION: u32 = 100_000;

/// What every HTTP/2 connection begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A listening service's application.
pub struct Edge {
    plain: Arc<Speaker>,
    /// For connections that begin with the preface, where they may.
    h2c: Option<Arc<Speaker>>,
    idle: Duration,
}

impl Edge {
    /// In front of `proxy`; `h2c` accepts HTTP/2 in clear text by prior knowledge. `idle` bounds how long a connection
    /// may be silent.
    pub fn new(proxy: Arc<HttpProxy<Gateway>>, h2c: bool, idle: Duration) -> Self {
        let speaker = |h2c| {
            let mut options = HttpServerOptions::default();
            options.h2c = h2c;
            options.keepalive_request_limit = Some(REQUESTS_PER_CONNECTION);
            options.h2_idle_timeout = Some(idle);
            let proxy = Arc::clone(&proxy);
            Arc::new(Speaker { proxy, options })
        };
        Self {
            plain: speaker(false),
            h2c: h2c.then(|| speaker(true)),
            idle,
        }
    }
}

#[async_trait]
impl ServerApp for Edge {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        match &self.h2c {
            // With TLS, the handshake has settled what is spoken.
            Some(h2c) if stream.as_any().is::<Socket>() => {
                let look = first_look(stream);
                let (stream, http2) = tokio::time::timeout(self.idle, look).await.ok()??;
                let speaker = if http2 { h2c } else { &self.plain };
                speaker.process_new(stream, shutdown).await
            }
            Some(_) | None => self.plain.process_new(stream, shutdown).await,
        }
    }

    async fn cleanup(&self) {
        self.plain.cleanup().await;
    }
}

/// Whether a connection begins as HTTP/2; what was read to know it is there to be read again. Pingora waits for as many
/// bytes as the preface has, which the shortest request of HTTP/1.0 does not have, and waits for ever.
async fn first_look(stream: Stream) -> Option<(Stream, bool)> {
    let mut socket = stream.into_any().downcast::<Socket>().ok()?;
    let mut seen = [0; PREFACE.len()];
    let mut length = 0;
    while length < seen.len() && seen[..length] == PREFACE[..length] {
        match socket.read(&mut seen[length..]).await.ok()? {
            0 => break,
            more => length += more,
        }
    }
    socket.rewind(&seen[..length]);
    Some((socket, seen == *PREFACE))
}

/// Speaks HTTP on connections of one kind.
struct Speaker {
    proxy: Arc<HttpProxy<Gateway>>,
    options: HttpServerOptions,
}

// Written out rather than with `#[async_trait]`, which would box every request's future a second time.
impl HttpServerApp for Speaker {
    fn process_new_http<'life0, 'life1, 'async_trait>(
        self: &'life0 Arc<Self>,
        mut session: ServerSession,
        shutdown: &'life1 ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
        if let ServerSession::H1(session) = &mut session {
            // Off by default, and then a request that is sent while another is in flight fails both.
            session.set_pipelining_enabled(true);
        }
        self.proxy.process_new_http(session, shutdown)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    fn http_cleanup<'life0, 'async_trait>(&'life0 self) -> Pin<Box<dyn Future<Output = ()> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        self.proxy.http_cleanup()
    }
}
