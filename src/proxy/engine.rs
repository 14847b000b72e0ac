//! Pingora's proxy with our gateway, and our way to open connections.

use std::mem::ManuallyDrop;
use std::sync::Arc;

use pingora::server::configuration::ServerConf;
use pingora_proxy::{HttpProxy, ProcessCustomSession, ProxyServiceBuilder};

use super::gateway::Gateway;
use super::unread::Ledger;
use crate::upstream::Streams;

type Proxy = HttpProxy<Gateway, Streams>;

/// Serves requests of whatever version.
pub struct Engine {
    proxy: Arc<Proxy>,
    ledger: Ledger,
}

impl Engine {
    /// What Pingora takes for requests is served here.
    pub(super) fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// What else is answered is written down here.
    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }
}

/// Puts them together.
pub fn engine(configuration: &Arc<ServerConf>, gateway: Gateway) -> Arc<Engine> {
    let ledger = gateway.ledger();
    // No listener says yes to a protocol of its own.
    let closed: ProcessCustomSession<Gateway, Streams> = Arc::new(|_, _, _| Box::pin(async { None }));
    let service = ProxyServiceBuilder::new(configuration, gateway)
        .custom(Streams, closed)
        .build();
    Arc::new(Engine {
        proxy: Arc::new(taken_out(service)),
        ledger,
    })
}

/// Pingora makes a proxy with a connector only as a part of a service, and shows it there; our own listening services
/// share one.
fn taken_out(service: pingora::services::listening::Service<Proxy>) -> Proxy {
    let service = ManuallyDrop::new(service);
    // invariant: a service has its application until it is started
    let engine = service.app_logic().expect("a service that was not started");
    // SAFETY: the service is never used again nor dropped, so that this is the one owner from here on.
    #[expect(unsafe_code, reason = "no other way out of the service")]
    unsafe {
        std::ptr::read(engine)
    }
}
