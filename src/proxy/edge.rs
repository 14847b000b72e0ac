//! One listening service in front of the gateway. Services differ in what they speak (HTTP/2 in clear text or not)
//! and share one gateway, so that they share its upstream connections.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use pingora_proxy::HttpProxy;

use super::gateway::Gateway;
use super::leave::{Leaving, unless_idle};
use super::settings::Limits;
use super::wire::{Socket, Wire};
use crate::telemetry::metrics::DownstreamConnection;

/// Requests on one downstream connection before it is closed, so that no connection lives for ever.
const REQUESTS_PER_CONNECTION: u32 = 100_000;

/// A listening service's application: it watches what comes over each connection.
pub struct Edge {
    http: Arc<Http>,
    limits: Limits,
    leaving: Leaving,
}

impl Edge {
    /// In front of `proxy`; `h2c` accepts HTTP/2 in clear text by prior knowledge; `leaving` tells when to close idle
    /// connections.
    pub fn new(proxy: Arc<HttpProxy<Gateway>>, h2c: bool, limits: Limits, leaving: Leaving) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = h2c;
        options.keepalive_request_limit = Some(REQUESTS_PER_CONNECTION);
        options.h2_idle_timeout = Some(limits.keepalive_timeout);
        let http = Arc::new(Http { proxy, options });
        Self { http, limits, leaving }
    }
}

#[async_trait]
impl ServerApp for Edge {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let _open = DownstreamConnection::open();
        let watched = Box::new(Socket::new(stream, self.limits));
        let wire = Arc::clone(watched.wire());
        let serving = self.http.process_new(watched, shutdown);
        unless_idle(serving, &wire, &self.leaving).await
    }

    async fn cleanup(&self) {
        self.http.cleanup().await;
    }
}

/// Requests, of whatever version.
struct Http {
    proxy: Arc<HttpProxy<Gateway>>,
    options: HttpServerOptions,
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
