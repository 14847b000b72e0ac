//! The bare proxy itself.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use pingora::modules::http::HttpModules;
use pingora::prelude::{HttpPeer, ProxyHttp, Result, Server, Session, http_proxy_service};
use pingora::protocols::TcpKeepalive;
use pingora::server::configuration::ServerConf;

const MAX_IDLE: usize = 5000;
const DOWNSTREAM_KEEPALIVE_SECONDS: u64 = 75;

struct Bare {
    peer: HttpPeer,
    downstream_keepalive: Option<u64>,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) -> Self::CTX {}

    /// No modules: Pingora's default adds response compression at level 0, which Switchyard leaves out too.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, session: &mut Session, _ctx: &mut Self::CTX) -> Result<()> {
        if self.downstream_keepalive.is_some() {
            session.set_keepalive(self.downstream_keepalive);
        }
        Ok(())
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut Self::CTX) -> Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }
}

/// The peer that Switchyard's `connections:` defaults make of a plaintext endpoint.
fn peer(upstream: SocketAddr, pingora_defaults: bool) -> HttpPeer {
    let mut peer = HttpPeer::new(upstream, false, String::new());
    if !pingora_defaults {
        let options = &mut peer.options;
        options.connection_timeout = Some(Duration::from_secs(3));
        options.total_connection_timeout = Some(Duration::from_secs(8));
        options.read_timeout = Some(Duration::from_secs(60));
        options.idle_timeout = Some(Duration::from_secs(120));
        options.tcp_keepalive = Some(TcpKeepalive {
            idle: Duration::from_secs(30),
            interval: Duration::from_secs(15),
            count: 9,
            #[cfg(target_os = "linux")]
            user_timeout: Duration::ZERO,
        });
    }
    peer
}

/// Serves with one thread until the process ends.
pub fn serve(listen: &str, upstream: SocketAddr, pingora_defaults: bool) -> ! {
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: MAX_IDLE,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let proxy = Bare {
        peer: peer(upstream, pingora_defaults),
        downstream_keepalive: (!pingora_defaults).then_some(DOWNSTREAM_KEEPALIVE_SECONDS),
    };
    let mut service = http_proxy_service(&server.configuration, proxy);
    service.add_tcp(listen);
    server.add_service(service);
    server.run_forever()
}
