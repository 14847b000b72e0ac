//! One listening service in front of the gateway. Services differ in what they speak (HTTP/2 in clear text or not)
//! and share one gateway, so that they share its upstream connections.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream};
use pingora::protocols::http::ServerSession;
use pingora::server::ShutdownWatch;
use pingora_proxy::HttpProxy;

use super::gateway::Gateway;

/// Requests on one downstream connection before it is closed, so that no connection lives for ever.
const REQUESTS_PER_CONNECTION: u32 = 100_000;

/// A listening service's application.
pub struct Edge {
    proxy: Arc<HttpProxy<Gateway>>,
    options: HttpServerOptions,
}

impl Edge {
    /// In front of `proxy`; `h2c` accepts HTTP/2 in clear text by prior knowledge.
    pub fn new(proxy: Arc<HttpProxy<Gateway>>, h2c: bool, idle: Duration) -> Self {
        let mut options = HttpServerOptions::default();
        options.h2c = h2c;
        options.keepalive_request_limit = Some(REQUESTS_PER_CONNECTION);
        options.h2_idle_timeout = Some(idle);
        Self { proxy, options }
    }
}

// Written out rather than with `#[async_trait]`, which would box every request's future a second time.
impl HttpServerApp for Edge {
    fn process_new_http<'life0, 'life1, 'async_trait>(
        self: &'life0 Arc<Self>,
        session: ServerSession,
        shutdown: &'life1 ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        Self: 'async_trait,
    {
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
