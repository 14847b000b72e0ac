//! One listening service in front of the gateway. Services differ in what they speak (HTTP/2 in clear text or not)
//! and share one gateway, so that they share its upstream connections.

use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::protocols::{ALPN, Shutdown, Ssl, Stream};
use pingora::server::ShutdownWatch;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::timeout;

use super::engine::Engine;
use super::farewell::{self, Farewells};
use super::leave::{Leaving, unless_idle};
use super::places::{Connections, Crowded, Entered, Places};
use super::settings::Limits;
use super::wire::{Socket, Wire};
use crate::telemetry::metrics::{self, DownstreamConnection};

/// A client that is turned away is given so long to read why.
const TURNED_AWAY: Duration = Duration::from_millis(500);
/// As many are given that at a time; the others are closed.
const TURNED_AWAY_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(63);
/// Kept, and for how long until its first head is the socket's to say.
const NO_LIMIT_OF_PINGORAS: u64 = 0;
const NO_ROOM: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
const TOO_MANY: &[u8] =
    b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// A listening service's application: it finds a place for each connection, and watches what comes over it.
pub struct Edge {
    http: Arc<Http>,
    limits: Limits,
    connections: Arc<Connections>,
    turned_away: Arc<Places>,
    farewells: Farewells,
    leaving: Leaving,
}

/// What an [`Edge`] is made of.
pub struct EdgeParts {
    /// Serves requests.
    pub engine: Arc<Engine>,
    /// Accept HTTP/2 in clear text by prior knowledge.
    pub h2c: bool,
    /// Bounds on downstream.
    pub limits: Limits,
    /// Places for connections, of all edges.
    pub connections: Arc<Connections>,
    /// Tells when to close idle connections.
    pub leaving: Leaving,
}

impl Edge {
    /// Puts the parts together.
    pub fn new(parts: EdgeParts) -> Self {
        let EdgeParts {
            engine,
            h2c,
            limits,
            connections,
            leaving,
        } = parts;
        let mut options = HttpServerOptions::default();
        options.h2c = h2c;
        // Pingora counts how often a connection is used again.
        options.keepalive_request_limit = Some(limits.keepalive_requests_max.get() - 1);
        options.h2_idle_timeout = Some(limits.keepalive_timeout);
        let http = Arc::new(Http {
            engine,
            options,
            h2: h2_options(&limits),
        });
        Self {
            http,
            limits,
            connections,
            turned_away: Places::new(TURNED_AWAY_MAX),
            farewells: Farewells::new(),
            leaving,
        }
    }

    /// A place for a connection, held as long as it is open; taken before anything is done for it, a TLS handshake above
    /// all.
    ///
    /// # Errors
    /// When there is none for it: that is counted, and the connection to be closed.
    pub fn enter(&self, stream: &Stream) -> Result<Entered, Crowded> {
        let client = stream.get_socket_digest();
        let client = client.and_then(|d| Some(d.peer_addr()?.as_inet()?.ip()));
        let entered = self.connections.enter(client);
        if let Err(crowded) = entered {
            metrics::refused(match crowded {
                Crowded::All => "connections",
                Crowded::Client => "connections_per_client",
            });
        }
        entered
    }

    /// Says in clear text why a connection has no place.
    pub async fn turn_away(&self, mut stream: Stream, crowded: Crowded) {
        let answer = match crowded {
            Crowded::All => NO_ROOM,
            Crowded::Client => TOO_MANY,
        };
        if let Some(_place) = self.turned_away.take() {
            let telling = async {
                stream.write_all(answer).await?;
                stream.flush().await?;
                farewell::part(&mut stream).await;
                Ok::<(), std::io::Error>(())
            };
            // However it ends, the connection does.
            drop(timeout(TURNED_AWAY, telling).await);
        }
    }

    /// Serves a connection that has its place, until it is over.
    pub async fn serve(&self, stream: Stream, entered: Entered, shutdown: &ShutdownWatch) {
        let counted = (entered, DownstreamConnection::open());
        let watched = Box::new(Socket::new(stream, self.limits));
        let wire = Arc::clone(watched.wire());
        let mut shutdown = shutdown.clone();
        // Pingora tells an HTTP/2 client to go (GOAWAY) when the process does; here also when it has had its share.
        let (go, going) = watch::channel(*shutdown.borrow());
        let told = async {
            tokio::select! {
                _ = shutdown.wait_for(|over| *over) => {}
                () = wire.spent() => {}
            }
            go.send_replace(true);
            std::future::pending::<()>().await;
        };
        let serving = async {
            tokio::select! {
                biased;
                () = self.http.serve(watched, &going) => {}
                () = told => {}
            }
        };
        unless_idle(serving, &wire, &self.leaving).await;
        let left = wire.left().take();
        self.http.engine.ledger().close(&wire, left.as_ref());
        if let Some(stream) = left {
            self.farewells.bid(stream, counted);
        }
    }

    /// Ends what waits for a request.
    pub async fn cleanup(&self) {
        self.http.cleanup().await;
    }
}

/// Pingora's bounds with ours: the head of a request is bounded as over HTTP/1.
fn h2_options(limits: &Limits) -> H2Options {
    let mut options = default_h2_options();
    options.max_header_list_size(u32::try_from(limits.header_bytes_max).unwrap_or(u32::MAX));
    options.max_concurrent_streams(limits.http2_streams_max.get());
    options
}

/// Requests, of whatever version.
struct Http {
    engine: Arc<Engine>,
    options: HttpServerOptions,
    h2: H2Options,
}

impl Http {
    /// Serves a connection until it is over. In place of Pingora's own loop, which has all that a request needs wait for
    /// its first byte: here that is made when something has come.
    async fn serve(self: &Arc<Self>, mut socket: Box<Socket>, going: &ShutdownWatch) {
        let Some(h2) = self.is_h2(&mut socket).await else {
            return;
        };
        if h2 {
            Box::pin(self.process_new(socket, going)).await;
            return;
        }
        let mut settings = None;
        while socket.begins().await {
            let Some(reused) = self.request(socket, settings, going).await else {
                return;
            };
            let (stream, kept) = reused.consume();
            let Ok(watched) = stream.into_any().downcast::<Socket>() else {
                return;
            };
            socket = watched;
            settings = kept;
            socket.wire().head_begins();
        }
        Shutdown::shutdown(&mut *socket).await;
    }

    /// Has a request served, whose first bytes are there. No async function, which would keep room for the session.
    fn request<'a>(
        self: &'a Arc<Self>,
        socket: Box<Socket>,
        settings: Option<HttpPersistentSettings>,
        going: &'a ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'a>> {
        let mut session = ServerSession::new_http1(socket);
        match settings {
            Some(settings) => settings.apply_to_session(&mut session),
            None => {
                session.set_keepalive(Some(NO_LIMIT_OF_PINGORAS));
                session.set_keepalive_reuses_remaining(self.options.keepalive_request_limit);
            }
        }
        self.process_new_http(session, going)
    }

    /// Whether it is to be HTTP/2; none if the connection is over before that is known.
    async fn is_h2(&self, socket: &mut Socket) -> Option<bool> {
        if socket.get_ssl_digest().is_some() {
            return Some(matches!(socket.selected_alpn_proto(), Some(ALPN::H2)));
        }
        if !self.options.h2c {
            return Some(false);
        }
        if !socket.begins().await {
            return None;
        }
        socket.speaks_h2().await.ok()
    }
}

// Written out rather than with `#[async_trait]`, which would box every request's future a second time.
impl HttpServerApp for Http {
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
        if let Some(wire) = Wire::of(&session) {
            wire.head_begins();
        }
        if let ServerSession::H1(session) = &mut session {
            // Off by default, and then a request that is sent while another is in flight fails both.
            session.set_pipelining_enabled(true);
        }
        self.engine.proxy().process_new_http(session, shutdown)
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.h2.clone())
    }

    fn http_cleanup<'life0, 'async_trait>(&'life0 self) -> Pin<Box<dyn Future<Output = ()> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        self.engine.proxy().http_cleanup()
    }
}
