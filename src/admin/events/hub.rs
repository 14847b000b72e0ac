//! Makes the events, once for all who listen.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::warn;
use parking_lot::Mutex;
use serde::Serialize;
use tokio::sync::broadcast::{self, Receiver, Sender};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::figures;
use crate::admin::wire::{EndpointHealth, LiveRevision};
use crate::clock;
use crate::control::{Controller, HistoryQuery};
use crate::rollout::Revision;
use crate::telemetry::metrics::{ReleaseTotals, release_totals};
use crate::telemetry::targets;
use crate::upstream::Pools;

const LISTENERS_MAX: usize = 64;
/// Events that a slow listener may be behind.
const BEHIND_MAX: usize = 256;
/// More revisions are not told one by one to who comes back after long.
const REVISIONS_MAX: u64 = 1_000;
/// Revisions that are read of the history at a time, for those who are there.
const REVISIONS_AT_ONCE: u64 = 100;
/// How often health is looked at; every fourth time figures are told.
const LOOK_EACH: Duration = Duration::from_millis(250);
const LOOKS_A_FIGURE: u32 = 4;

/// One event.
#[derive(Debug)]
pub struct Told {
    /// `revision`, `health` or `figures`.
    pub name: &'static str,
    /// The revision, where it is one.
    pub revision: Option<u64>,
    /// JSON.
    pub text: String,
}

/// Makes events while anybody listens.
pub struct Hub {
    controller: Arc<Controller>,
    pools: Arc<Pools>,
    events: Sender<Arc<Told>>,
    places: Arc<Semaphore>,
    /// Whether the task that makes events runs.
    running: Mutex<bool>,
}

impl Hub {
    /// Of this node.
    pub fn new(controller: Arc<Controller>, pools: Arc<Pools>) -> Self {
        Self {
            controller,
            pools,
            events: broadcast::channel(BEHIND_MAX).0,
            places: Arc::new(Semaphore::new(LISTENERS_MAX)),
            running: Mutex::new(false),
        }
    }

    /// A place to listen, if there is one.
    pub fn listen(self: &Arc<Self>) -> Option<(Receiver<Arc<Told>>, OwnedSemaphorePermit)> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let mut running = self.running.lock();
        let receiver = self.events.subscribe();
        if !*running {
            *running = true;
            // Ends by itself when nobody listens.
            tokio::spawn(Arc::clone(self).make(self.controller.live().pin().revision().0));
        }
        Some((receiver, place))
    }

    /// The revisions after one, up to another, with what the history says of them.
    pub async fn revisions(&self, after: u64, to: u64) -> Vec<Arc<Told>> {
        if after >= to {
            return Vec::new();
        }
        let wanted = HistoryQuery {
            before: Some(Revision(to + 1)),
            limit: usize::try_from((to - after).min(REVISIONS_MAX)).unwrap_or(0),
            ..HistoryQuery::default()
        };
        let entries = self.controller.store().history(&wanted).await;
        let entries = entries.unwrap_or_else(|e| {
            warn!(target: targets::ADMIN, "events go without what was changed: {e}");
            Vec::new()
        });
        let newer = entries.into_iter().rev().filter(|entry| entry.revision.0 > after);
        let mut told: Vec<_> = newer
            .filter_map(|entry| {
                told_revision(LiveRevision {
                    revision: entry.revision.0,
                    summary: entry.record.summary,
                    actor: entry.record.actor,
                })
            })
            .collect();
        if told.last().is_none_or(|last| last.revision != Some(to)) {
            told.extend(told_revision(LiveRevision {
                revision: to,
                summary: String::new(),
                actor: String::new(),
            }));
        }
        told
    }

    async fn make(self: Arc<Self>, mut revision: u64) {
        let mut revisions = self.controller.live().revisions();
        // One may have gone live since the first listener came.
        revisions.mark_changed();
        let mut turn = tokio::time::interval(LOOK_EACH);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut seen = Seen {
            health: self.health(),
            totals: release_totals(),
            since: clock::now(),
            looks: 0,
        };
        loop {
            tokio::select! {
                changed = revisions.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = revisions.borrow_and_update().0;
                    while revision < now {
                        let to = now.min(revision + REVISIONS_AT_ONCE);
                        for told in self.revisions(revision, to).await {
                            self.tell(told);
                        }
                        revision = to;
                    }
                }
                _ = turn.tick() => self.look(&mut seen, revision),
            }
            let mut running = self.running.lock();
            if self.events.receiver_count() == 0 {
                *running = false;
                return;
            }
        }
    }

    fn look(&self, seen: &mut Seen, revision: u64) {
        let health = self.health();
        for ((pool, endpoint), healthy) in &health {
            let before = seen.health.get(&(pool.clone(), endpoint.clone()));
            if before.is_some_and(|before| before != healthy) {
                let body = EndpointHealth {
                    pool: pool.clone(),
                    endpoint: endpoint.clone(),
                    healthy: *healthy,
                };
                told("health", None, &body).into_iter().for_each(|told| self.tell(told));
            }
        }
        seen.health = health;
        seen.looks += 1;
        if seen.looks.is_multiple_of(LOOKS_A_FIGURE) {
            let (totals, now) = (release_totals(), clock::now());
            let body = figures::between(&seen.totals, &totals, now - seen.since, revision);
            (seen.totals, seen.since) = (totals, now);
            told("figures", None, &body)
                .into_iter()
                .for_each(|told| self.tell(told));
        }
    }

    fn health(&self) -> BTreeMap<(String, String), bool> {
        let each = self.pools.status().into_iter().flat_map(|pool| {
            let name = pool.name;
            let endpoints = pool.endpoints.into_iter();
            endpoints.map(move |e| ((name.clone(), e.address), e.healthy && !e.ejected))
        });
        each.collect()
    }

    fn tell(&self, told: Arc<Told>) {
        // Nobody there is no failure: the task ends with its next turn.
        drop(self.events.send(told));
    }
}

struct Seen {
    health: BTreeMap<(String, String), bool>,
    totals: BTreeMap<(String, String), ReleaseTotals>,
    since: Instant,
    looks: u32,
}

fn told_revision(body: LiveRevision) -> Option<Arc<Told>> {
    told("revision", Some(body.revision), &body)
}

fn told(name: &'static str, revision: Option<u64>, body: &impl Serialize) -> Option<Arc<Told>> {
    let text = serde_json::to_string(body).ok()?;
    Some(Arc::new(Told { name, revision, text }))
}
