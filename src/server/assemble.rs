//! Load → compile → publish, and only then listeners.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use log::{info, warn};
use parking_lot::Mutex;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use pingora::services::background::background_service;
use tokio::sync::watch;

use super::daemon::{self, Starter};
use super::drain::{Counted, Drain};
use super::duty::Duty;
use super::handover::{Successor, Waiting};
use super::keys::KeyFeeds;
use super::listen::{Entrance, Opened, Sockets, buffered};
use super::panics;
use super::settings::ListenerSettings;
use super::signals::{Armed, Signals};
use super::slots::Slots;
use super::start::{RunOptions, StartError};
use super::state;
use super::supervisor::Alive;
use super::takeover::{PidPlace, Takeover};
use super::tls::{Renewal, Secured, Terminator};
use super::{descriptors, memory};
use crate::admin;
use crate::config::Config;
use crate::control::{Controller, Follower, Live, Surroundings};
use crate::identity;
use crate::precedence;
use crate::proxy::settings::RouteTarget;
use crate::proxy::{Connections, Edge, EdgeParts, Engine, Gateway, GatewayParts, Relays, Routes, Target, engine};
use crate::rollout::PoolIdx;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::metrics::{self, ConnectionSample};
use crate::telemetry::targets;
use crate::upstream::{Pools, Upkeep};

/// Attempts that Pingora allows at all; each pool's own `retries.attempts` is below it.
const ATTEMPTS_MAX: usize = 16;
/// After the drain, how long tasks have to end.
const RUNTIME_SHUTDOWN_SECONDS: u64 = 1;

/// Runs until a signal ends the process. `announce` is given every address that is listened on.
///
/// # Errors
/// When something that is needed cannot be had; nothing is served then.
pub fn run(mut config: Config, options: RunOptions, announce: &dyn Fn(&str, &str)) -> Result<(), StartError> {
    let starter = if daemon::is_child() {
        Some(Arc::new(Starter::meet().map_err(StartError::Starter)?))
    } else {
        None
    };
    memory::in_small_pages();
    descriptors::fit(&mut config);
    let serves = panics::end_the_start(starter.clone());
    let ended = serve(config, options, starter.clone(), serves, announce);
    if let (Some(starter), Err(e)) = (&starter, &ended) {
        starter.failed(&e.to_string());
    }
    ended
}

fn serve(
    config: Config,
    options: RunOptions,
    starter: Option<Arc<Starter>>,
    serves: Arc<AtomicBool>,
    announce: &dyn Fn(&str, &str),
) -> Result<(), StartError> {
    // Held until the end: the file goes with the process.
    let pid_file = PidPlace::new(&config.server, options)?;
    introduce(&config);
    let draining = Arc::new(AtomicBool::new(false));
    let access_log = Arc::new(AccessLog::open(&config.access_log)?);
    let pools = Arc::new(Pools::build(config.pools.clone(), &|name| std::env::var(name).ok())?);
    watch_connections(&pools);
    let follower = followed(&config, options, &pools)?;
    let controller = Arc::new(Controller::new(Arc::clone(&follower)));
    let identity = identity::Reader::new(config.identity.clone());
    let keys = KeyFeeds::open(identity.token_sources(), options.upgrade)?;
    let gateway = gateway(&config, identity, controller.live(), &pools, &access_log, &draining);
    let (sockets, successor) = take_over(&config, options, starter.as_deref(), &follower)?;
    let mut server = server(&config);
    let (armed, caught) = watch::channel(false);
    let (count, services) = watch::channel(None);
    let duty = Duty::new();
    let takeover = Takeover {
        successor: Mutex::new(successor),
        drain: Drain::new(),
        services,
        follower,
        seed: config.rollouts.clone(),
        pid_file: Arc::clone(&pid_file),
        starter,
        serves,
        duty: duty.clone(),
    };
    let mut entrance = entrance(&mut server, Armed(caught), &pools, takeover);
    let engine = engine(&server.configuration, gateway);
    let mut open = Opening { sockets, announce };
    listeners(&mut server, &config, &engine, &mut entrance, &mut open)?;
    if let Some(settings) = &config.admin {
        let tokens = settings.tokens_file.as_deref().map(admin::Tokens::open).transpose()?;
        let ids = identity::Normaliser::new(&config.identity.normalise);
        let parts = admin::Parts::new(Arc::clone(&controller), pools, Arc::clone(&draining), tokens, ids);
        admin_listener(&mut server, settings.address, parts, &mut entrance, &mut open)?;
    }
    // Those that the configuration names no more are closed.
    drop(open);
    count.send_replace(Some(entrance.services));
    let following = state::Following::new(&controller, config.store.keep_history, duty.clone());
    follow(&mut server, following, keys);
    server.bootstrap();
    let signals = Signals {
        upgrade_sock: config.server.upgrade_sock.clone(),
        drain_delay: config.server.drain_delay,
        drain_max: config.server.drain,
        draining,
        drain: entrance.drain,
        armed,
        access_log: Arc::clone(&access_log),
        duty,
        controller,
    };
    start_access_log(&access_log);
    server.run(RunArgs {
        shutdown_signal: Box::new(signals),
    });
    access_log.flush(Duration::from_secs(1));
    pid_file.remove();
    Ok(())
}

/// The state of the store is live.
fn followed(config: &Config, options: RunOptions, pools: &Arc<Pools>) -> Result<Arc<Follower>, StartError> {
    let live = Arc::new(Live::new(surroundings(config, pools)));
    let store = state::open(&config.store, options.from_snapshot)?;
    let follower = Follower::new(store, live, options.lost());
    state::start(&follower, &config.rollouts)?;
    Ok(Arc::new(follower))
}

/// What goes on in the background: changes are followed, history is kept short, keys are fetched.
fn follow(server: &mut Server, following: state::Following, keys: KeyFeeds) {
    server.add_service(background_service("state", following));
    keys.follow(server);
}

fn introduce(config: &Config) {
    metrics::set_build(env!("CARGO_PKG_VERSION"));
    for warning in &config.warnings {
        warn!(target: targets::CONFIG, "{warning}");
    }
}

/// What listeners wait for: all is prepared, and a process that is replaced has been told.
fn entrance(server: &mut Server, armed: Armed, pools: &Arc<Pools>, takeover: Takeover) -> Entrance {
    let prepared = [
        server.add_service(background_service("signals", armed)),
        server.add_service(background_service("upkeep", Upkeep::new(Arc::clone(pools)))),
    ];
    server.add_service(background_service("watchdog", Alive));
    let drain = Arc::clone(&takeover.drain);
    let takeover = server.add_service(background_service("takeover", takeover));
    for needed in &prepared {
        takeover.add_dependency(needed);
    }
    Entrance {
        needs: vec![takeover],
        drain,
        services: 0,
    }
}

/// Where the listening sockets come from; with the running process at the other end of `-u`, which waits until this one
/// accepts.
fn take_over(
    config: &Config,
    options: RunOptions,
    starter: Option<&Starter>,
    follower: &Follower,
) -> Result<(Sockets, Option<Successor>), StartError> {
    if !options.upgrade {
        return Ok((Sockets::default(), None));
    }
    let waiting = Waiting::at(&config.server.upgrade_sock)?;
    info!(target: targets::SERVER, "waiting for the sockets at {}", config.server.upgrade_sock.display());
    if let Some(starter) = starter {
        starter.waiting();
    }
    let (sockets, successor) = waiting.sockets()?;
    if let Some(starter) = starter {
        starter.has_sockets();
    }
    // What the running process committed while this one waited.
    state::start(follower, &[])?;
    Ok((Sockets::inherited(sockets), Some(successor)))
}

/// Opens listening sockets, and says so.
struct Opening<'a> {
    sockets: Sockets,
    announce: &'a dyn Fn(&str, &str),
}

impl Opening<'_> {
    fn at(&mut self, what: &str, address: SocketAddr) -> Result<Opened, StartError> {
        let opened = self.sockets.take(address);
        let opened = opened.map_err(|cause| match self.sockets.in_the_way(address) {
            Some(held) => StartError::Held {
                address,
                held: held.to_owned(),
            },
            None => StartError::Listen { address, cause },
        })?;
        (self.announce)(what, &opened.name);
        Ok(opened)
    }
}

fn start_access_log(access_log: &AccessLog) {
    if let Err(e) = access_log.start() {
        warn!(target: targets::SERVER, "the access log's thread did not start: {e}; lines are dropped");
    }
}

fn surroundings(config: &Config, pools: &Arc<Pools>) -> Surroundings {
    let by_name = Arc::clone(pools);
    let slots = Slots::of(&config.routes);
    Surroundings {
        slots: slots.names,
        routes: slots.routes,
        pool: Box::new(move |name| by_name.index(name)),
    }
}

fn gateway(
    config: &Config,
    identity: identity::Reader,
    live: &Arc<Live>,
    pools: &Arc<Pools>,
    access_log: &Arc<AccessLog>,
    draining: &Arc<AtomicBool>,
) -> Gateway {
    let slots = Slots::of(&config.routes);
    let target = |to: &RouteTarget| match to {
        RouteTarget::Rollout(name) => Target::Rollout(slots.slot(name)),
        RouteTarget::Pool(name) => Target::Pool(pools.index(name).unwrap_or(PoolIdx(0))),
    };
    Gateway::new(GatewayParts {
        live: Arc::clone(live),
        pools: Arc::clone(pools),
        routes: Routes::new(&config.routes, &target),
        identity,
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

/// Pingora neither detaches nor hands over: both are done here.
fn server(config: &Config) -> Server {
    let settings = &config.server;
    let max_idle = config.pools.first().map_or(0, |p| p.connections.max_idle);
    let conf = ServerConf {
        threads: settings.threads,
        // The drain is over when Pingora hears of a signal.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(RUNTIME_SHUTDOWN_SECONDS),
        max_retries: ATTEMPTS_MAX,
        // Pingora multiplies it by the threads.
        upstream_keepalive_pool_size: max_idle.div_ceil(settings.threads),
        ..ServerConf::default()
    };
    Server::new_with_opt_and_conf(None, conf)
}

/// Listeners by what their service has to know: each service has one answer for all of its own.
fn alike(all: &[ListenerSettings]) -> Vec<Vec<&ListenerSettings>> {
    let mut groups: Vec<Vec<&ListenerSettings>> = Vec::new();
    for listener in all {
        let like = |group: &&mut Vec<&ListenerSettings>| {
            let first = group[0];
            // TLS is one listener's own.
            first.tls.is_none()
                && listener.tls.is_none()
                && first.h2c == listener.h2c
                && first.relays == listener.relays
        };
        match groups.iter_mut().find(like) {
            Some(group) => group.push(listener),
            None => groups.push(vec![listener]),
        }
    }
    groups.sort_by_key(|group| group[0].h2c);
    groups
}

fn listeners(
    server: &mut Server,
    config: &Config,
    engine: &Arc<Engine>,
    entrance: &mut Entrance,
    open: &mut Opening<'_>,
) -> Result<(), StartError> {
    let mut secured = Vec::new();
    let reader = identity::Reader::new(config.identity.clone());
    let connections = Connections::new(&config.limits, Box::new(move |ip| reader.trusts(ip)));
    for mine in alike(&config.listeners) {
        let ListenerSettings { tls, h2c, relays, .. } = mine[0];
        let tls = tls.as_ref().map(Terminator::load).transpose()?;
        secured.extend(tls.clone());
        let patience = config.limits.header_timeout;
        let relays = relays.clone().map(|peers| Relays::new(peers, patience));
        let in_clear = tls.is_none() && relays.is_none();
        let (name, what) = match (&tls, h2c) {
            (Some(_), _) => ("edge tls", "https"),
            (None, true) => ("edge h2c", "http"),
            (None, false) => ("edge", "http"),
        };
        let edge = Edge::new(EdgeParts {
            engine: Arc::clone(engine),
            h2c: *h2c,
            limits: config.limits,
            connections: Arc::clone(&connections),
            leaving: entrance.drain.leaving(),
        });
        let app = Counted::new(Secured::new(edge, relays, tls), &entrance.drain, precedence::requests);
        let mut sockets = Vec::new();
        for listener in mine {
            sockets.push(open.at(what, listener.address)?);
        }
        let added = if in_clear {
            entrance.add_accepting(server, name, app, sockets, None)
        } else {
            entrance.add(server, buffered(name, app, &sockets), sockets)
        };
        added.map_err(StartError::Descriptors)?;
    }
    if !secured.is_empty() {
        server.add_service(background_service("certificates", Renewal(secured)));
    }
    info!(target: targets::SERVER, "switchyard {} with {} threads", env!("CARGO_PKG_VERSION"), config.server.threads);
    Ok(())
}

fn admin_listener(
    server: &mut Server,
    address: SocketAddr,
    parts: admin::Parts,
    entrance: &mut Entrance,
    open: &mut Opening<'_>,
) -> Result<(), StartError> {
    let app = Counted::new(
        admin::Admin::new(admin::router(parts)),
        &entrance.drain,
        precedence::changes,
    );
    let opened = open.at("admin", address)?;
    let added = entrance.add_accepting(server, "admin", app, vec![opened], Some(1));
    added.map_err(StartError::Descriptors)
}
