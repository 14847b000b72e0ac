//! The admin side as a Pingora application, so that its listener is handed over in upgrades like the others.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::extract::Request as Asked;
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
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
use tokio::sync::{Semaphore, watch};

use super::events::Shutdown;
use super::gate::Peer;
use super::taking::Taking;
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
    ending: watch::Sender<bool>,
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
            router: router.layer(middleware::from_fn(told_to_go)),
            ending: watch::Sender::new(false),
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
    /// hyper's graceful end drops a connection whose request is not there yet, so it waits for `cleanup`.
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
            .serve_connection(TokioIo::new(Taking::new(stream)), service);
        let mut connection = std::pin::pin!(connection);
        let mut ending = self.ending.subscribe();
        // The guard that the wait yields must not be held while the connection ends.
        let over = async move { ending.wait_for(|over| *over).await.is_ok() };
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

    async fn cleanup(&self) {
        self.ending.send_replace(true);
    }
}

/// Once the listeners are closed, every answer says that its connection closes.
async fn told_to_go(request: Asked, next: Next) -> Response {
    let shutdown = request.extensions().get::<Shutdown>().cloned();
    let mut response = next.run(request).await;
    if shutdown.is_some_and(|shutdown| *shutdown.0.borrow()) {
        let fields = response.headers_mut();
        fields.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

fn peer(stream: &Stream) -> Option<SocketAddr> {
    let digest = stream.get_socket_digest()?;
    digest.peer_addr()?.as_inet().copied()
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    use super::super::taking::TAKE_WITHIN;
    use super::*;

    fn served(closing: &watch::Receiver<bool>) -> (Arc<Admin>, DuplexStream) {
        let admin = Arc::new(Admin::new(Router::new().route("/", get(|| async { "here" }))));
        let (client, server) = tokio::io::duplex(4096);
        let (app, closing) = (Arc::clone(&admin), closing.clone());
        tokio::spawn(async move { app.process_new(Box::new(server), &closing).await });
        (admin, client)
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_accepted_before_the_listener_closed_gets_its_answer() {
        let (close, closing) = watch::channel(false);
        let (_admin, mut client) = served(&closing);
        tokio::task::yield_now().await;
        close.send_replace(true);
        tokio::task::yield_now().await;
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .expect("open");
        let mut answer = String::new();
        client
            .read_to_string(&mut answer)
            .await
            .expect("an answer, and the end");
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(
            answer.contains("connection: close") && answer.ends_with("here"),
            "{answer}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_loses_its_place_and_its_answer() {
        let (place, free) = tokio::sync::oneshot::channel::<()>();
        let place = Arc::new(std::sync::Mutex::new(Some(place)));
        let endless = move || {
            let place = place.lock().expect("nobody failed").take();
            let pieces = futures_util::stream::repeat_with(move || {
                let _held = &place;
                Ok::<_, std::io::Error>(bytes::Bytes::from_static(&[b'x'; 1024]))
            });
            std::future::ready(axum::body::Body::from_stream(pieces))
        };
        let admin = Arc::new(Admin::new(Router::new().route("/", get(endless))));
        let (mut client, server) = tokio::io::duplex(4096);
        let (_close, closing) = watch::channel(false);
        tokio::spawn(async move { admin.process_new(Box::new(server), &closing).await });
        let asked = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        client.write_all(asked).await.expect("open");
        // Who takes a little now and then keeps it.
        for _ in 0..4 {
            client.read_exact(&mut [0; 2048]).await.expect("some of it");
            tokio::time::sleep(TAKE_WITHIN - Duration::from_secs(1)).await;
        }
        let since = tokio::time::Instant::now();
        assert!(free.await.is_err(), "it is dropped");
        assert!(since.elapsed() <= TAKE_WITHIN);
        client
            .read_to_end(&mut Vec::new())
            .await
            .expect("what was written, and the end");
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_connection_ends_with_the_cleanup() {
        let (_close, closing) = watch::channel(true);
        let (admin, mut client) = served(&closing);
        tokio::task::yield_now().await;
        admin.cleanup().await;
        assert_eq!(client.read(&mut [0]).await.expect("closed, not broken"), 0);
    }
}
