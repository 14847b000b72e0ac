//! Receives committed changes in order and publishes one snapshot for each; nobody else publishes. What this process
//! commits is handed to it at once, where it is the next: its own thread may wait for a turn on a busy core.

use std::sync::Arc;
use std::time::Duration;

use log::{error, info, warn};
use thiserror::Error;
use tokio::sync::mpsc;

use super::apply::{Opened, opened};
use super::live::Live;
use super::snapshot::Snapshot;
use crate::clock;
use crate::rollout::{Change, Fact, Moment, Revision, RolloutName, RolloutSpec};
use crate::store::{Commit, CommitError, Committed, Event, Loaded, OURSELVES, Record, Source, Store, StoreError};
use crate::telemetry::{metrics, targets};

/// How many pieces of the state are on their way from the store at a time.
const PIECES: usize = 4;
/// How often states that no request sees any more are freed.
const RETIRED_EACH: Duration = Duration::from_secs(1);
/// Pause after a failure of the store.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How often seeding is tried again because another process committed in between.
const SEEDED_ATTEMPTS_MAX: usize = 4;

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

    /// Whether all that the store has is live, as far as it can be compiled.
    #[must_use]
    pub fn has_all(&self) -> bool {
        self.lost == LostUsers::Refused
    }

    /// Where the changes come from.
    pub(super) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What requests see.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Seeds an empty store, loads the state, compiles and publishes it; yields its revision.
    ///
    /// # Errors
    /// When there is no state to serve by.
    pub async fn start(&self, seed: &[(RolloutName, RolloutSpec)]) -> Result<Revision, StartError> {
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
            return Ok(self.begin(snapshot));
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
            return Ok(self.begin(snapshot));
        }
        Err(StartError::Unfit(problems))
    }

    /// Seeds the rollouts that routes lead to and the store does not have: a file with a new route and its rollout works
    /// without another step. Nobody took such a rollout away, as what a route leads to cannot be deleted.
    ///
    /// # Errors
    /// When the store cannot be written.
    pub async fn complete(&self, seed: &[(RolloutName, RolloutSpec)]) -> Result<(), StartError> {
        let writable = self.store.status().read_only.is_none();
        for _ in 0..SEEDED_ATTEMPTS_MAX {
            let live = self.live.pin();
            let missing = self
                .live
                .around()
                .slots
                .iter()
                .filter(|name| live.named(name).is_none());
            let missing: Vec<&RolloutName> = missing.collect();
            let wanted = seed.iter().filter(|(name, _)| writable && missing.contains(&name));
            let wanted: Vec<(RolloutName, RolloutSpec)> = wanted.cloned().collect();
            if wanted.is_empty() {
                tell_of(&missing);
                return Ok(());
            }
            let facts = seed_facts(&wanted, &mut Snapshot::clone(&live), &self.live);
            match self.store.commit(live.revision(), seed_commit(facts, &wanted)).await {
                Ok(committed) => {
                    info!(
                        target: targets::CONTROL,
                        "revision {}: {}", committed.revision.0, seeded(&wanted)
                    );
                    self.receive(&committed).await;
                }
                Err(CommitError::Moved(_)) => self.replace(self.load().await?.0),
                Err(e) => return Err(StartError::Seed(e)),
            }
        }
        Ok(())
    }

    fn begin(&self, snapshot: Snapshot) -> Revision {
        self.replace(snapshot);
        // A copy that serves for reading is not the store.
        metrics::set_store_connected(self.store.status().read_only.is_none());
        self.live.pin().revision()
    }

    async fn load(&self) -> Result<(Snapshot, Vec<String>), StoreError> {
        let (sender, mut pieces) = mpsc::channel(PIECES);
        let mut snapshot = Snapshot::empty(self.live.around());
        let mut problems = Vec::new();
        let build = async {
            while let Some(Loaded { revision, fact }) = pieces.recv().await {
                let mut facts = Arc::new(vec![fact]);
                let mut lost = None;
                let opened = match opened(&self.store, &facts).await {
                    Err(error) if self.lost == LostUsers::Missed => {
                        error!(target: targets::CONTROL, "{error}; until then nobody is in it but who came since");
                        lost = facts.iter().find_map(Fact::roster).map(|(segment, _)| segment.clone());
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
                if let Some(segment) = lost {
                    snapshot.lose(&segment);
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

    /// Publishes a committed change, unless that was done, or another is to be published before.
    pub(super) async fn receive(&self, committed: &Committed) {
        let revision = committed.revision.0;
        let is_next = |live: &Snapshot| revision == live.revision().0 + 1;
        if !is_next(&self.live.pin()) {
            return;
        }
        let opened = opened(&self.store, &committed.facts).await;
        self.live
            .publish(|live| is_next(live).then(|| self.with(live, committed, opened)));
    }

    fn with(&self, live: &Snapshot, committed: &Committed, opened: Result<Opened, StoreError>) -> Snapshot {
        let revision = committed.revision.0;
        let opened = opened.unwrap_or_else(|e| {
            error!(target: targets::CONTROL, "revision {revision}: {e}: the segment stays as it was");
            Opened::new()
        });
        let mut next = live.clone();
        for p in next.apply(committed.revision, &committed.facts, &opened, self.live.around()) {
            let (name, path, message) = (p.rollout, p.problem.path, p.problem.message);
            if self.live.around().slots.contains(&name) || live.named(&name).is_some() {
                error!(
                    target: targets::CONTROL,
                    "revision {revision}: rollout {name}: {path}: {message}: this rollout stays as it was"
                );
            } else {
                // Of a successor, most likely, whose configuration has more.
                info!(
                    target: targets::CONTROL,
                    "revision {revision}: rollout {name}, to which no route leads here: {path}: {message}: not served"
                );
            }
        }
        next
    }

    /// Publishes a state that was loaded, unless requests see a later one by now.
    fn replace(&self, loaded: Snapshot) {
        self.live
            .publish(|live| (loaded.revision() >= live.revision()).then_some(loaded));
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
            self.live.free_retired();
            let Some(next) = next else { continue };
            match next {
                Ok(Event::Committed(committed)) => {
                    metrics::set_store_connected(true);
                    self.receive(&committed).await;
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
                    return self.replace(snapshot);
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

/// Requests of a route to a rollout that does not exist are answered with 503.
fn tell_of(missing: &[&RolloutName]) {
    for name in missing {
        warn!(
            target: targets::CONTROL,
            "rollout {name}: a route leads to it, and it does not exist: its requests get 503 until it is created \
             (switchyard rollout create {name})"
        );
    }
}

fn seeded(rollouts: &[(RolloutName, RolloutSpec)]) -> String {
    let names: Vec<&str> = rollouts.iter().map(|(name, _)| name.as_str()).collect();
    format!("{} seeded from the configuration", names.join(", "))
}

fn seed_facts(seed: &[(RolloutName, RolloutSpec)], next: &mut Snapshot, live: &Live) -> Vec<Fact> {
    let named = seed
        .iter()
        .flat_map(|(_, spec)| spec.targets.iter().filter_map(|t| t.segment.clone()));
    let named = named.filter(|segment| !next.segments().contains_key(segment));
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
            actor: OURSELVES.to_owned(),
            reason: None,
            source: Source::Seed,
            rollouts: seed.iter().map(|(name, _)| name.clone()).collect(),
            summary: seeded(seed),
            diff: Vec::new(),
        },
        idempotency: None,
    }
}
