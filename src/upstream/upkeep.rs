//! What pools need in the background: names resolved, endpoints probed, overdue response heads ended. One Pingora
//! background service owns all of it and ends with the process.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;
use log::error;
use pingora::server::ShutdownWatch;
use pingora::services::ServiceReadyNotifier;
use pingora::services::background::BackgroundService;
use tokio::task::JoinSet;

use super::pool::Pool;
use super::pools::Pools;
use super::probe::Prober;
use super::resolve::Directory;
use super::settings::HealthCheck;
use crate::clock;
use crate::telemetry::targets;

/// The background work of all pools.
pub struct Upkeep {
    pools: Arc<Pools>,
}

impl Upkeep {
    /// For these pools.
    pub fn new(pools: Arc<Pools>) -> Self {
        Self { pools }
    }

    async fn run(&self, mut shutdown: ShutdownWatch) {
        let mut work = JoinSet::new();
        for place in 0..self.pools.directories().len() {
            let pools = Arc::clone(&self.pools);
            work.spawn(async move { keep_resolved(&pools.directories()[place]).await });
        }
        for pool in self.pools.iter() {
            work.spawn(sweep(Arc::clone(pool)));
            if let Some(check) = pool.settings().health_check.clone() {
                work.spawn(keep_probed(Arc::clone(pool), check));
            }
        }
        // Dropping the set ends all of it. An error means that the server is gone, which ends it too.
        drop(shutdown.wait_for(|over| *over).await);
    }
}

#[async_trait]
impl BackgroundService for Upkeep {
    async fn start_with_ready_notifier(&self, shutdown: ShutdownWatch, ready: ServiceReadyNotifier) {
        // The first answers are there before the first request is.
        for directory in self.pools.directories().iter().filter(|d| d.has_names()) {
            directory.resolve().await;
        }
        ready.notify_ready();
        self.run(shutdown).await;
    }
}

async fn keep_resolved(directory: &Directory) {
    if !directory.has_names() {
        return;
    }
    loop {
        tokio::time::sleep(directory.pool().settings().resolve_interval).await;
        directory.resolve().await;
    }
}

async fn sweep(pool: Arc<Pool>) {
    let mut turn = tokio::time::interval(pool.sweep_interval());
    loop {
        turn.tick().await;
        let now = clock::tick();
        for endpoint in pool.endpoints() {
            endpoint.sweep(now);
        }
    }
}

async fn keep_probed(pool: Arc<Pool>, check: HealthCheck) {
    let mut probers: HashMap<SocketAddr, Prober> = HashMap::new();
    let mut turn = tokio::time::interval(check.interval);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let endpoints = pool.endpoints();
        probers.retain(|address, _| endpoints.iter().any(|e| e.address() == *address));
        let mut round = JoinSet::new();
        for endpoint in endpoints {
            let prober = match probers.remove(&endpoint.address()) {
                Some(prober) => Ok(prober),
                None => Prober::new(&check, &endpoint),
            };
            match prober {
                Ok(mut prober) => {
                    let pool = Arc::clone(&pool);
                    round.spawn(async move {
                        prober.probe(&pool, &endpoint).await;
                        (endpoint.address(), prober)
                    });
                }
                Err(e) => error!(
                    target: targets::UPSTREAM,
                    "pool {}: endpoint {} cannot be probed: {e}", pool.name(), endpoint.label()
                ),
            }
        }
        while let Some(done) = round.join_next().await {
            probers.extend(done);
        }
    }
}
