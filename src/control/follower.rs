//! Receives committed changes in order and publishes one snapshot for each; nobody else publishes. Also makes what is
//! due: scheduled changes, and pins whose time is over.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use log::{error, info};
use thiserror::Error;
use tokio::sync::mpsc;

use super::apply::{Opened, opened};
use super::controller::Controller;
use super::live::Live;
use super::publish;
use super::request::{Asked, Request};
use super::snapshot::Snapshot;
use crate::clock;
use crate::rollout::{Change, Fact, Moment, Revision, RolloutName, RolloutSpec};
use crate::store::{Commit, CommitError, Event, Loaded, Record, Source, Store, StoreError};
use crate::telemetry::{metrics, targets};

/// How many pieces of the state are on their way from the store at a time.
const PIECES: usize = 4;
/// How often states that no request sees any more are freed.
const RETIRED_EACH: Duration = Duration::from_secs(1);
/// Pause after a failure of the store.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often the schedule and expiries are looked at.
const DUE_EACH: Duration = Duration::from_millis(500);
/// How many expired pins one change takes off.
const EXPIRED_MAX: usize = 1_000;
/// How often the history is shortened.
const PRUNE_EACH: Duration = Duration::from_secs(3600);

/// Why there is no first state.
#[derive(Debug, Error)]
pub enum StartError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The seed cannot be committed.
    #[error("the rollouts of the configuration cannot be stored: {0}")]
    Seed(CommitError),
    /// What is stored does not fit the configuration.
    #[error("{}", .0.join("\n"))]
    Unfit(Vec<String>),
}

/// What becomes of segments whose users cannot be read when the state is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LostUsers {
    /// There is no state without them.
    #[default]
    Refused,
    /// Nobody is in such a segment but who came since, until its users are imported again. The store keeps what it has.
    Missed,
}

/// Keeps the live state as the store has it.
pub struct Follower {
    store: Arc<dyn Store>,
    live: Arc<Live>,
    lost: LostUsers,
}

impl Follower {
    /// From a store to what requests see.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, live: Arc<Live>, lost: LostUsers) -> Self {
        Self { store, live, lost }
    }

    /// Seeds an empty store, loads the state, compiles and publishes it.
    ///
    /// # Errors
    /// When there is no state to serve by.
    pub async fn start(&self, seed: &[(RolloutName, RolloutSpec)]) -> Result<(), StartError> {
        let (snapshot, problems) = match self.load().await {
            Ok(loaded) => loaded,
            // Another program may have merged a segment meanwhile, and have removed a roster that the state of then names.
            Err(_) => self.load().await?,
        };
        if !problems.is_empty() {
            return Err(StartError::Unfit(problems));
        }
        if snapshot.revision() > Revision::default() || seed.is_empty() {
            if !seed.is_empty() {
                info!(
                    target: targets::CONTROL,
                    "rollouts: of the configuration are a seed and not used: the store is at revision {}",
                    snapshot.revision().0
                );
            }
            self.begin(snapshot).await;
            return Ok(());
        }
        let mut next = snapshot.clone();
        let facts = seed_facts(seed, &mut next, &self.live);
        match self.store.commit(snapshot.revision(), seed_commit(facts, seed)).await {
            // Another process seeded it at the same moment: its state is the truth.
            Ok(_) | Err(CommitError::Moved(_)) => {}
            Err(e) => return Err(StartError::Seed(e)),
        }
        let (snapshot, problems) = self.load().await?;
        if problems.is_empty() {
            self.begin(snapshot).await;
            return Ok(());
        }
        Err(StartError::Unfit(problems))
    }

    async fn begin(&self, snapshot: Snapshot) {
        publish::replace(&self.live, snapshot).await;
        // A copy that serves for reading is not the store.
        metrics::set_store_connected(self.store.status().read_only.is_none());
    }

    async fn load(&self) -> Result<(Snapshot, Vec<String>), StoreError> {
        let (sender, mut pieces) = mpsc::channel(PIECES);
        let mut snapshot = Snapshot::empty(self.live.around());
        let mut problems = Vec::new();
        let build = async {
            while let Some(Loaded { revision, fact }) = pieces.recv().await {
                let mut facts = Arc::new(vec![fact]);
                let opened = match opened(&self.store, &facts).await {
                    Err(error) if self.lost == LostUsers::Missed => {
                        error!(target: targets::CONTROL, "{error}; until then nobody is in it but who came since");
                        facts = Arc::new(facts.iter().map(without_roster).collect());
                        Opened::new()
                    }
                    opened => opened?,
                };
                for p in snapshot.apply(revision, &facts, &opened, self.live.around()) {
                    problems.push(format!(
                        "rollout {}: {}: {}",
                        p.rollout, p.problem.path, p.problem.message
                    ));
                }
            }
            // Who sends finds nobody who receives, where this ended early.
            drop(pieces);
            Ok::<_, StoreError>(())
        };
        let (loaded, built) = tokio::join!(self.store.load(sender), build);
        built?;
        snapshot.set_revision(loaded?);
        Ok((snapshot, problems))
    }

    /// Follows the store for ever.
    pub async fn run(&self) {
        let mut watch = self.store.watch(self.live.pin().revision());
        let mut turn = tokio::time::interval(RETIRED_EACH);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let next = tokio::select! {
                next = watch.next() => Some(next),
                _ = turn.tick() => None,
            };
            self.live.free_retired().await;
            let Some(next) = next else { continue };
            match next {
                Ok(Event::Committed(committed)) => {
                    metrics::set_store_connected(true);
                    publish::follow(&self.store, &self.live, &committed).await;
                }
                Ok(Event::Resync) => {
                    self.resync().await;
                    watch = self.store.watch(self.live.pin().revision());
                }
                Err(e) => {
                    metrics::set_store_connected(false);
                    error!(target: targets::CONTROL, "the store is not readable, the last state stays live: {e}");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }

    async fn resync(&self) {
        loop {
            match self.load().await {
                Ok((snapshot, problems)) => {
                    for problem in problems {
                        error!(target: targets::CONTROL, "{problem}: this rollout is not served");
                    }
                    info!(target: targets::CONTROL, "state loaded again at revision {}", snapshot.revision().0);
                    metrics::set_store_connected(true);
                    return publish::replace(&self.live, snapshot).await;
                }
                Err(e) => {
                    error!(target: targets::CONTROL, "the state cannot be loaded, the last one stays live: {e}");
                    tokio::time::sleep(RETRY_AFTER).await;
                }
            }
        }
    }
}

/// The same without the roster that cannot be read.
fn without_roster(fact: &Fact) -> Fact {
    let (segment, add) = match fact {
        Fact::Roster { segment, .. } => (segment, Vec::new()),
        Fact::Merged { segment, add, .. } => (segment, add.clone()),
        other => return other.clone(),
    };
    Fact::Segment {
        segment: segment.clone(),
        replace: true,
        remove: Vec::new(),
        add,
    }
}

fn seed_facts(seed: &[(RolloutName, RolloutSpec)], next: &mut Snapshot, live: &Live) -> Vec<Fact> {
    let named = seed
        .iter()
        .flat_map(|(_, spec)| spec.targets.iter().filter_map(|t| t.segment.clone()));
    let mut facts: Vec<Fact> = named
        .map(|segment| Fact::Segment {
            segment,
            replace: false,
            remove: Vec::new(),
            add: Vec::new(),
        })
        .collect();
    next.apply(Revision::default(), &facts, &Opened::new(), live.around());
    let apply = Change::Apply {
        rollouts: seed.to_vec(),
    };
    // The configuration was checked when it was read; what is wrong still is told when the state is loaded.
    facts.extend(super::resolve::facts(apply, next, live.around()).unwrap_or_default());
    facts
}

fn seed_commit(facts: Vec<Fact>, seed: &[(RolloutName, RolloutSpec)]) -> Commit {
    Commit {
        facts: Arc::new(facts),
        record: Record {
            at: Moment(clock::unix_millis()),
            actor: "switchyard".to_owned(),
            reason: None,
            source: Source::Seed,
            rollouts: seed.iter().map(|(name, _)| name.clone()).collect(),
            summary: "seeded from the configuration".to_owned(),
            diff: Vec::new(),
        },
        idempotency: None,
    }
}

/// Makes what is due: scheduled changes, pins whose time is over, and history that is kept no longer.
pub struct Clerk {
    controller: Arc<Controller>,
    keep_history: Duration,
}

impl Clerk {
    /// Changes are made through `controller`; history is kept for `keep_history`.
    #[must_use]
    pub fn new(controller: Arc<Controller>, keep_history: Duration) -> Self {
        Self {
            controller,
            keep_history,
        }
    }

    /// Works for ever.
    pub async fn run(&self) {
        let mut turn = tokio::time::interval(DUE_EACH);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut pruned: Option<std::time::Instant> = None;
        let mut late = BTreeSet::new();
        if self.controller.store().status().read_only.is_some() {
            return;
        }
        loop {
            turn.tick().await;
            let now = Moment(clock::unix_millis());
            self.make_scheduled(now, &mut late).await;
            self.take_off_expired(now).await;
            if pruned.is_none_or(|last| last.elapsed() >= PRUNE_EACH) {
                pruned = Some(clock::now());
                let keep = u64::try_from(self.keep_history.as_millis()).unwrap_or(u64::MAX);
                if let Err(e) = self.controller.store().prune(Moment(now.0.saturating_sub(keep))).await {
                    error!(target: targets::CONTROL, "old history cannot be removed: {e}");
                }
            }
        }
    }

    /// `late` are those that could not be made yet, and have been told of.
    async fn make_scheduled(&self, now: Moment, late: &mut BTreeSet<Revision>) {
        let snapshot = self.controller.live().pin();
        let due = snapshot.schedule().iter().filter(|(_, entry)| entry.at <= now);
        for (id, entry) in due {
            match self.controller.make_scheduled(*id, entry).await {
                Ok(_) => {
                    late.remove(id);
                }
                Err(e) if e.may_pass() => {
                    if late.insert(*id) {
                        error!(target: targets::CONTROL, "scheduled change {} is late, and tried again: {e}", id.0);
                    }
                }
                Err(e) => {
                    error!(target: targets::CONTROL, "scheduled change {} is not made, and given up: {e}", id.0);
                    let take_back = Change::Unschedule { id: *id };
                    let why = format!("could not be made: {e}");
                    self.request(take_back, Source::Schedule, why).await;
                }
            }
        }
    }

    async fn take_off_expired(&self, now: Moment) {
        let expired = match self.controller.store().expired(now, EXPIRED_MAX).await {
            Ok(expired) => expired,
            Err(e) => {
                error!(target: targets::CONTROL, "expired users cannot be read: {e}");
                return;
            }
        };
        for (rollout, user) in expired.users {
            let change = Change::Expire { rollout, user };
            self.request(change, Source::Expiry, "its time was over".to_owned())
                .await;
        }
    }

    async fn request(&self, change: Change, source: Source, reason: String) {
        let request = Request {
            change,
            asked: Asked {
                actor: "switchyard".to_owned(),
                reason: Some(reason),
                source,
                expected: None,
                idempotency: None,
                at: None,
                dry_run: false,
                allow_flips: false,
            },
        };
        if let Err(e) = self.controller.change(request).await {
            error!(target: targets::CONTROL, "a change that was due is not made: {e}");
        }
    }
}
