//! What pools need in the background: names resolved, endpoints probed, overdue response heads ended. One Pingora
//! background service owns all of it and ends with the process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use log::{error, warn};
use pingora::server::ShutdownWatch;
use pingora::services::ServiceReadyNotifier;
use pingora::services::background::BackgroundService;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::endpoint::EndpointKey;
use super::pool::Pool;
use super::pools::Pools;
use super::probe::Prober;
use super::resolve::Directory;
use super::settings::HealthCheck;
use crate::clock;
use crate::telemetry::targets;

/// How long the start waits for the first answer of every name. A name without one must not keep all others away.
const FIRST_ANSWERS: Duration = Duration::from_secs(3);
/// A name without an answer is asked for again sooner than after `resolve_interval`: its pool may have no endpoint.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// The background work of all pools.
pub struct Upkeep {
    pools: Arc<Pools>,
}

impl Upkeep {
    /// For these pools.
    pub fn new(pools: Arc<Pools>) -> Self {
        Self { pools }
    }

    /// Begins to resolve every name. What is returned yields nothing, and ends when each was looked up once.
    fn resolve(&self, work: &mut JoinSet<()>) -> mpsc::Receiver<()> {
        let (looking, looked) = mpsc::channel(1);
        for (number, directory) in self.pools.directories().iter().enumerate() {
            for place in directory.names() {
                let (pools, looking) = (Arc::clone(&self.pools), looking.clone());
                work.spawn(async move { keep_resolved(&pools.directories()[number], place, looking).await });
            }
        }
        looked
    }

    fn look_after(&self, work: &mut JoinSet<()>) {
        for pool in self.pools.iter() {
            work.spawn(sweep(Arc::clone(pool)));
            if let Some(check) = pool.settings().health_check.clone() {
                work.spawn(keep_probed(Arc::clone(pool), check));
            }
        }
    }
}

#[async_trait]
impl BackgroundService for Upkeep {
    /// Ready when every name was looked up once, or has had its time: listeners wait for it.
    async fn start_with_ready_notifier(&self, mut shutdown: ShutdownWatch, ready: ServiceReadyNotifier) {
        let mut work = JoinSet::new();
        let mut looked = self.resolve(&mut work);
        if tokio::time::timeout(FIRST_ANSWERS, looked.recv()).await.is_err() {
            warn!(
                target: targets::UPSTREAM,
                "not every name of the pools has an answer after {FIRST_ANSWERS:?}: serving without"
            );
        }
        ready.notify_ready();
        self.look_after(&mut work);
        // Dropping the set ends all of it. An error means that the server is gone, which ends it too.
        drop(shutdown.wait_for(|over| *over).await);
    }
}

async fn keep_resolved(directory: &Directory, place: usize, looking: mpsc::Sender<()>) {
    let interval = directory.pool().settings().resolve_interval;
    let mut found = directory.resolve(place).await;
    drop(looking);
    loop {
        tokio::time::sleep(if found { interval } else { interval.min(ASK_AGAIN) }).await;
        found = directory.resolve(place).await;
    }
}

async fn sweep(pool: Arc<Pool>) {
    let mut turn = tokio::time::interval(pool.sweep_interval());
    loop {
        turn.tick().await;
        pool.sweep(clock::tick());
    }
}

async fn keep_probed(pool: Arc<Pool>, check: HealthCheck) {
    let mut probers: HashMap<EndpointKey, Prober> = HashMap::new();
    let mut turn = tokio::time::interval(check.interval);
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        turn.tick().await;
        let endpoints = pool.endpoints();
        probers.retain(|key, _| endpoints.iter().any(|e| e.key() == *key));
        let mut round = JoinSet::new();
        for endpoint in endpoints {
            let prober = match probers.remove(&endpoint.key()) {
                Some(prober) => Ok(prober),
                None => Prober::new(&check, &endpoint),
            };
            match prober {
                Ok(mut prober) => {
                    let pool = Arc::clone(&pool);
                    round.spawn(async move {
                        prober.probe(&pool, &endpoint).await;
                        (endpoint.key(), prober)
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
