//! Load → compile → publish, and only then listeners.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use log::{info, warn};
use pingora::listeners::tls::TlsSettings;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::protocols::ALPN;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::server::{RunArgs, Server};
use pingora::services::background::background_service;
use pingora::services::listening::Service as Listening;
use pingora_proxy::{HttpProxy, http_proxy};
use thiserror::Error;
use tokio::sync::watch;

use super::drain::{Counted, Drain};
use super::listen::{Entrance, Opened};
use super::settings::{ListenerSettings, ServerSettings};
use super::signals::{Armed, Signals};
use super::state::{self, StateError};
use super::tls::{Certificate, Renewal};
use crate::admin;
use crate::config::Config;
use crate::control::{Clerk, Controller, Follower, Live, Slot, Surroundings};
use crate::identity;
use crate::proxy::settings::RouteTarget;
use crate::proxy::{Edge, Gateway, GatewayParts, Routes, Target};
use crate::rollout::{PoolIdx, RolloutName};
use crate::telemetry::access_log::{AccessLog, OpenError};
use crate::telemetry::metrics::{self, ConnectionSample};
use crate::telemetry::targets;
use crate::upstream::{BuildError, Pools, Upkeep};

/// One read of plain-text requests needs no more; Pingora's 64 KiB for each idle connection would be most of the memory.
const DOWNSTREAM_BUFFER_BYTES: usize = 8 * 1024;
/// What Pingora has for writes: about one segment.
const DOWNSTREAM_WRITE_BYTES: usize = 1460;
/// Attempts that Pingora allows at all; each pool's own `retries.attempts` is below it.
const ATTEMPTS_MAX: usize = 16;
/// After the drain, how long tasks have to end.
const RUNTIME_SHUTDOWN_SECONDS: u64 = 1;

/// How the command line wants it run.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// Detach from the terminal.
    pub daemon: bool,
    /// Take the listening sockets over from a running process.
    pub upgrade: bool,
    /// Serve by the copy of the store, for reading only: the way on when the store itself is damaged.
    pub from_snapshot: bool,
}

/// Why it does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address cannot be had.
    #[error("cannot listen on {address}: {cause}: free the address, or write another")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
    /// A certificate or key.
    #[error("{0}")]
    Certificate(String),
    /// The pools.
    #[error(transparent)]
    Pools(#[from] BuildError),
    /// The access log.
    #[error(transparent)]
    AccessLog(#[from] OpenError),
    /// The tokens of the admin side.
    #[error(transparent)]
    Tokens(#[from] admin::TokensError),
    /// The store, or what is in it.
    #[error(transparent)]
    State(#[from] StateError),
}

/// Runs until a signal ends the process. `announce` is given every address that is listened on.
///
/// # Errors
/// When something that is needed cannot be had; nothing is served then.
pub fn run(config: Config, options: RunOptions, announce: &dyn Fn(&str, &str)) -> Result<(), StartError> {
    metrics::set_build(env!("CARGO_PKG_VERSION"));
    for warning in &config.warnings {
        warn!(target: targets::CONFIG, "{warning}");
    }
    let draining = Arc::new(AtomicBool::new(false));
    let access_log = Arc::new(AccessLog::open(&config.access_log)?);
    let max_idle = config.pools.first().map_or(0, |p| p.connections.max_idle);
    let pools = Arc::new(Pools::build(config.pools.clone(), &|name| std::env::var(name).ok())?);
    watch_connections(&pools);
    let live = Arc::new(Live::new(surroundings(&config, &pools)));
    let store = state::open(&config.store, options.from_snapshot)?;
    state::start(&store, &live, &config.rollouts)?;
    let controller = Arc::new(Controller::new(Arc::clone(&store), Arc::clone(&live)));
    let gateway = gateway(&config, &live, &pools, &access_log, &draining);
    let mut server = server(&config.server, options, max_idle);
    let (armed, caught) = watch::channel(false);
    let entrance = Entrance {
        needs: vec![
            server.add_service(background_service("signals", Armed(caught))),
            server.add_service(background_service("upkeep", Upkeep::new(Arc::clone(&pools)))),
        ],
        drain: Drain::new(),
    };
    let proxy = Arc::new(http_proxy(&server.configuration, gateway));
    listeners(&mut server, &config, &proxy, &entrance, options, announce)?;
    if let Some(settings) = &config.admin {
        let tokens = settings.tokens_file.as_deref().map(admin::Tokens::open).transpose()?;
        let state = admin::State::new(Arc::clone(&controller), pools, Arc::clone(&draining), tokens);
        let app = Counted::new(admin::Admin::new(admin::router(state)), &entrance.drain);
        let mut service = Listening::new("admin".to_owned(), app);
        service.threads = Some(1);
        let opened = open(settings.address, options)?;
        announce("admin", &opened.0);
        service.add_tcp(&opened.0);
        entrance.add(&mut server, service, opened.1);
    }
    let follower = Follower::new(store, live);
    let clerk = Clerk::new(controller, config.store.keep_history);
    server.add_service(background_service("state", state::Following { follower, clerk }));
    server.bootstrap();
    let signals = Signals {
        upgrade_sock: config.server.upgrade_sock.clone(),
        drain_delay: config.server.drain_delay,
        drain_max: config.server.drain,
        draining,
        drain: entrance.drain,
        armed,
        access_log: Arc::clone(&access_log),
    };
    start_access_log(&access_log);
    server.run(RunArgs {
        shutdown_signal: Box::new(signals),
    });
    access_log.flush(Duration::from_secs(1));
    Ok(())
}

fn start_access_log(access_log: &AccessLog) {
    if let Err(e) = access_log.start() {
        warn!(target: targets::SERVER, "the access log's thread did not start: {e}; lines are dropped");
    }
}

fn surroundings(config: &Config, pools: &Arc<Pools>) -> Surroundings {
    let by_name = Arc::clone(pools);
    Surroundings {
        slots: slots(config),
        routes: config.routes.iter().map(|r| r.id.to_string()).collect(),
        pool: Box::new(move |name| by_name.index(name)),
    }
}

/// The rollouts that routes select, each once.
fn slots(config: &Config) -> Vec<RolloutName> {
    let mut slots = Vec::new();
    for route in &config.routes {
        if let RouteTarget::Rollout(name) = &route.to {
            if !slots.contains(name) {
                slots.push(name.clone());
            }
        }
    }
    slots
}

fn gateway(
    config: &Config,
    live: &Arc<Live>,
    pools: &Arc<Pools>,
    access_log: &Arc<AccessLog>,
    draining: &Arc<AtomicBool>,
) -> Gateway {
    let slots = slots(config);
    let target = |to: &RouteTarget| match to {
        RouteTarget::Rollout(name) => {
            let place = slots.iter().position(|slot| slot == name);
            Target::Rollout(Slot(place.and_then(|p| u16::try_from(p).ok()).unwrap_or(u16::MAX)))
        }
        RouteTarget::Pool(name) => Target::Pool(pools.index(name).unwrap_or(PoolIdx(0))),
    };
    Gateway::new(GatewayParts {
        live: Arc::clone(live),
        pools: Arc::clone(pools),
        routes: Routes::new(&config.routes, &target),
        identity: identity::Reader::new(config.identity.clone()),
        limits: config.limits,
        access_log: Arc::clone(access_log),
        draining: Arc::clone(draining),
    })
}

fn watch_connections(pools: &Arc<Pools>) {
    let pools = Arc::clone(pools);
    let now = move || {
        let each = pools.iter().flat_map(|pool| {
            let name = pool.name().to_string();
            pool.endpoints().into_iter().map(move |e| {
                let active = e.in_flight();
                ConnectionSample {
                    pool: name.clone(),
                    endpoint: e.label().to_owned(),
                    idle: e.open().saturating_sub(active) as u64,
                    active: active as u64,
                    healthy: e.healthy(),
                }
            })
        });
        each.collect()
    };
    metrics::set_connection_probe(Box::new(now));
}

fn server(settings: &ServerSettings, options: RunOptions, max_idle: usize) -> Server {
    let path = |path: &std::path::Path| path.display().to_string();
    let conf = ServerConf {
        threads: settings.threads,
        pid_file: path(&settings.pid_file),
        upgrade_sock: path(&settings.upgrade_sock),
        // The drain is over when Pingora hears of a signal.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(RUNTIME_SHUTDOWN_SECONDS),
        error_log: settings.error_log.as_deref().map(path),
        user: settings.user.clone(),
        group: settings.group.clone(),
        max_retries: ATTEMPTS_MAX,
        // Pingora multiplies it by the threads.
        upstream_keepalive_pool_size: max_idle.div_ceil(settings.threads),
        ..ServerConf::default()
    };
    let opt = Opt {
        upgrade: options.upgrade,
        daemon: options.daemon,
        ..Opt::default()
    };
    Server::new_with_opt_and_conf(opt, conf)
}

fn open(address: SocketAddr, options: RunOptions) -> Result<(String, Vec<Opened>), StartError> {
    if options.upgrade {
        return Ok((address.to_string(), Vec::new()));
    }
    let opened = Opened::on(address).map_err(|cause| StartError::Listen { address, cause })?;
    Ok((opened.name.clone(), vec![opened]))
}

fn listeners(
    server: &mut Server,
    config: &Config,
    proxy: &Arc<HttpProxy<Gateway>>,
    entrance: &Entrance,
    options: RunOptions,
    announce: &dyn Fn(&str, &str),
) -> Result<(), StartError> {
    let mut certificates = Vec::new();
    for h2c in [false, true] {
        let mine: Vec<&ListenerSettings> = config.listeners.iter().filter(|l| l.h2c == h2c).collect();
        if mine.is_empty() {
            continue;
        }
        let edge = Edge::new(Arc::clone(proxy), h2c, config.limits);
        let name = if h2c { "edge h2c" } else { "edge" };
        let mut service = Listening::new(name.to_owned(), Counted::new(edge, &entrance.drain));
        let mut sockets = Vec::new();
        for listener in mine {
            let (address, opened) = open(listener.address, options)?;
            sockets.extend(opened);
            announce(if listener.tls.is_some() { "https" } else { "http" }, &address);
            let mut endpoint = ListenerConfig::tcp(address)
                .l4_buffer(L4BufferSettings::new(DOWNSTREAM_BUFFER_BYTES, DOWNSTREAM_WRITE_BYTES));
            if let Some(files) = &listener.tls {
                let certificate = Certificate::load(files).map_err(StartError::Certificate)?;
                endpoint = endpoint.tls(tls_settings(&certificate));
                certificates.push(certificate);
            }
            service.add_listener(endpoint);
        }
        entrance.add(server, service, sockets);
    }
    if !certificates.is_empty() {
        server.add_service(background_service("certificates", Renewal(certificates)));
    }
    info!(target: targets::SERVER, "switchyard {} with {} threads", env!("CARGO_PKG_VERSION"), config.server.threads);
    Ok(())
}

fn tls_settings(certificate: &Arc<Certificate>) -> TlsSettings {
    // invariant: this constructor only stores the paths, which the resolver makes unused.
    let mut settings = TlsSettings::intermediate("", "").expect("nothing is read");
    settings.set_cert_resolver(Arc::clone(certificate) as _);
    settings.set_alpn(ALPN::H2H1);
    settings
}
