//! A bare Pingora proxy with one fixed peer: what `make bench-peers` holds Switchyard against to see its own share.
//!
//! `bare --listen ADDR --upstream ADDR` serves with one thread until it is killed. The listener, keep-alive, pool and
//! timeouts are those of Switchyard's defaults; nothing is routed, logged, counted or rewritten.
//! `--pingora-defaults` leaves every timeout unset, as Pingora does. Without arguments it prints its usage and exits 0.

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use async_trait::async_trait;
use pingora::modules::http::HttpModules;
use pingora::prelude::{HttpPeer, ProxyHttp, Result, Server, Session, http_proxy_service};
use pingora::protocols::TcpKeepalive;
use pingora::server::configuration::ServerConf;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(all(feature = "jemalloc", not(feature = "mimalloc")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ALLOCATOR_NAME: &str = if cfg!(feature = "mimalloc") {
    "mimalloc"
} else if cfg!(feature = "jemalloc") {
    "jemalloc"
} else {
    "system"
};

const USAGE: &str = "usage: bare --listen ADDR --upstream ADDR [--pingora-defaults] | --version";

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

struct Arguments {
    listen: String,
    upstream: SocketAddr,
    pingora_defaults: bool,
}

/// Flags that it does not know, such as the `--bench` that cargo adds, are passed over.
fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Arguments>, String> {
    let (mut listen, mut upstream, mut pingora_defaults) = (None, None, false);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--listen" => listen = words.next(),
            "--upstream" => upstream = words.next(),
            "--pingora-defaults" => pingora_defaults = true,
            _unknown => {}
        }
    }
    match (listen, upstream) {
        (None, None) => Ok(None),
        (Some(listen), Some(upstream)) => {
            let upstream = upstream.parse().map_err(|e| format!("--upstream {upstream}: {e}"))?;
            Ok(Some(Arguments {
                listen,
                upstream,
                pingora_defaults,
            }))
        }
        (Some(_), None) => Err("--upstream is missing".to_owned()),
        (None, Some(_)) => Err("--listen is missing".to_owned()),
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

fn serve(arguments: &Arguments) -> ! {
    let conf = ServerConf {
        threads: 1,
        upstream_keepalive_pool_size: MAX_IDLE,
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let proxy = Bare {
        peer: peer(arguments.upstream, arguments.pingora_defaults),
        downstream_keepalive: (!arguments.pingora_defaults).then_some(DOWNSTREAM_KEEPALIVE_SECONDS),
    };
    let mut service = http_proxy_service(&server.configuration, proxy);
    service.add_tcp(&arguments.listen);
    server.add_service(service);
    server.run_forever()
}

fn main() -> ExitCode {
    if std::env::args().any(|word| word == "--version") {
        println!("bare Pingora 0.9.1, {ALLOCATOR_NAME}");
        return ExitCode::SUCCESS;
    }
    match parse(std::env::args().skip(1)) {
        Ok(Some(arguments)) => serve(&arguments),
        Ok(None) => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        Err(problem) => {
            eprintln!("bare: {problem}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}
