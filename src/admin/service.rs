//! The admin side as a Pingora application, so that its listener is handed over in upgrades like the others.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use log::debug;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;

use crate::telemetry::targets;

/// How long a client may take to send a head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves a router on connections that Pingora accepts.
pub struct Admin {
    router: Router,
}

impl Admin {
    /// Serves `router`.
    pub fn new(router: Router) -> Self {
        Self { router }
    }
}

#[async_trait]
impl ServerApp for Admin {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let service = TowerToHyperService::new(self.router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
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
