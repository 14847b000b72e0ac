//! The admin side as a Pingora application, so that its listener is handed over in upgrades like the others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use log::{debug, warn};
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::sync::Semaphore;

use super::events::Shutdown;
use super::gate::Peer;
use crate::telemetry::targets;

/// How long a client may take to send a head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest head, and what is read ahead of a body.
const BUFFER_BYTES: usize = 64 * 1024;
/// Connections at a time; more are closed.
const CONNECTIONS_MAX: usize = 1_024;

/// Serves a router on connections that Pingora accepts.
pub struct Admin {
    router: Router,
    places: Semaphore,
}

/// The router, for one connection.
struct Served {
    router: TowerToHyperService<Router>,
    peer: Peer,
    shutdown: Shutdown,
}

impl Admin {
    /// Serves `router`.
    pub fn new(router: Router) -> Self {
        Self {
            router,
            places: Semaphore::new(CONNECTIONS_MAX),
        }
    }
}

impl Service<Request<Incoming>> for Served {
    type Response = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Response;
    type Error = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Error;
    type Future = <TowerToHyperService<Router> as Service<Request<Incoming>>>::Future;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(self.peer);
        request.extensions_mut().insert(self.shutdown.clone());
        self.router.call(request)
    }
}

#[async_trait]
impl ServerApp for Admin {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let Ok(_place) = self.places.try_acquire() else {
            warn!(target: targets::ADMIN, "more than {CONNECTIONS_MAX} admin connections: one is closed");
            return None;
        };
        let service = Served {
            router: TowerToHyperService::new(self.router.clone()),
            peer: Peer(peer(&stream)),
            shutdown: Shutdown(shutdown.clone()),
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(BUFFER_BYTES)
            .serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut watch = shutdown.clone();
        // The guard that the wait yields must not be held while the connection ends.
        let over = async move { watch.wait_for(|over| *over).await.is_ok() };
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            _ = over => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(e) = ended {
            debug!(target: targets::ADMIN, "admin connection ended: {e}");
        }
        None
    }
}

fn peer(stream: &Stream) -> Option<SocketAddr> {
    let digest = stream.get_socket_digest()?;
    digest.peer_addr()?.as_inet().copied()
}
