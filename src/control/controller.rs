//! The one writer: forms a candidate of the present state and a change, checks it, has it committed, and waits until it
//! is live on this node.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::already;
use super::apply::opened;
use super::check::{self, Moving, Terms};
use super::describe::{self, Pins};
use super::live::Live;
use super::merger;
use super::request::{Asked, ChangeError, Outcome, Request};
use super::resolve;
use super::snapshot::Snapshot;
use crate::clock;
use crate::rollout::{Change, Fact, Members, Moment, Revision, RolloutName, Roster, Scheduled, SegmentName};
use crate::store::{Answered, Commit, CommitError, Committed, Record, Source, Store};
use crate::telemetry::metrics;

/// How long an answer waits until its revision is live here; after that it says that it is not yet.
const LIVE_WAIT: Duration = Duration::from_secs(5);
/// How often a change is formed again because another process committed in between, which only an upgrade brings about.
const ATTEMPTS_MAX: usize = 4;

/// Makes changes, one at a time.
pub struct Controller {
    store: Arc<dyn Store>,
    live: Arc<Live>,
    /// Held from forming a candidate to its commit, so that changes of this process never meet; the last one's revision.
    turn: Mutex<Revision>,
}

/// A change looked at against the present state.
struct Candidate {
    facts: Arc<Vec<Fact>>,
    outcome: Outcome,
    /// Not counted while others wait for their turn.
    members: Option<Moving>,
}

impl Candidate {
    async fn counted(self) -> Outcome {
        let members = match self.members {
            Some(moving) => moving.counted().await,
            None => None,
        };
        Outcome {
            members,
            ..self.outcome
        }
    }
}

impl Controller {
    /// Over a store whose commits a follower publishes to `live`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, live: Arc<Live>) -> Self {
        Self {
            store,
            live,
            turn: Mutex::default(),
        }
    }

    /// The store, for reading.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// What requests see.
    #[must_use]
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Makes a change: durable when this returns, and live on this node unless the outcome says otherwise.
    ///
    /// # Errors
    /// When it was not made; then nothing of it is kept.
    pub async fn change(&self, request: Request) -> Result<Outcome, ChangeError> {
        let Request { change, asked } = request;
        self.make(change, &asked, None).await
    }

    /// Makes a scheduled change whose time has come, and takes it off the schedule in the same commit.
    pub(super) async fn make_scheduled(&self, id: Revision, entry: &Scheduled) -> Result<Outcome, ChangeError> {
        let asked = Asked {
            actor: entry.actor.clone(),
            reason: entry.reason.clone(),
            source: Source::Schedule,
            expected: entry.replaces.then_some(id),
            idempotency: None,
            at: None,
            dry_run: false,
            allow_flips: entry.allow_flips,
        };
        self.make(entry.change.clone(), &asked, Some(Fact::NotScheduled { id }))
            .await
    }

    async fn make(&self, change: Change, asked: &Asked, beside: Option<Fact>) -> Result<Outcome, ChangeError> {
        let mut turn = self.turn.lock().await;
        // A list of a million users is not copied for the sake of a second attempt.
        let once = change.is_bulk();
        let mut change = Some(change);
        for attempt in 0..ATTEMPTS_MAX {
            // What this process knows of is all there is, but during an upgrade: then the commit finds that the store has
            // moved. So the store is not asked first, unless the answer would be another than a commit.
            let surmised = attempt == 0 && !once && !asked.dry_run;
            let now = if surmised {
                self.live_from(*turn).await
            } else {
                self.caught_up().await
            };
            // Looked for after that state was read: a request whose client has gone may still be committed under the same
            // key, either before, and is found, or later, and the commit finds that the store has moved.
            if let Some(answered) = self.answered(asked).await? {
                return Ok(answered);
            }
            let now = now?;
            let Some(this) = (if once { change.take() } else { change.clone() }) else {
                break;
            };
            let candidate = match self.candidate(this, asked, beside.clone(), &now).await {
                Ok(unchanged) if surmised && unchanged.facts.is_empty() => continue,
                Err(_) if surmised => continue,
                candidate => candidate?,
            };
            if asked.dry_run || candidate.facts.is_empty() {
                if let Some(idempotency) = asked.idempotency.clone().filter(|_| !asked.dry_run) {
                    self.store.nothing_to_change(idempotency, now.revision()).await?;
                }
                drop(turn);
                return Ok(candidate.counted().await);
            }
            let began = clock::now();
            match self.commit(asked, &candidate, &now).await {
                Ok(committed) => {
                    *turn = committed.revision;
                    drop(turn);
                    let live = self.wait_live(committed.revision).await;
                    metrics::commit_to_live(began.elapsed());
                    return Ok(Outcome {
                        revision: committed.revision,
                        live,
                        changed: true,
                        ..candidate.counted().await
                    });
                }
                Err(CommitError::Moved(_)) => {}
                Err(CommitError::ReadOnly(why)) => return Err(ChangeError::ReadOnly(why)),
                Err(CommitError::Store(e)) => {
                    // Until something is committed again.
                    metrics::set_store_connected(false);
                    return Err(ChangeError::Store(e));
                }
            }
        }
        let current = self.live.pin().revision();
        Err(ChangeError::Conflict { current })
    }

    /// Lets a segment stand on a roster that was written from the members of `then`; what came meanwhile stays beside it.
    /// False if the segment has been replaced or removed, or was merged by another process.
    ///
    /// # Errors
    /// When it was not done; then nothing of it is kept.
    pub(super) async fn merged(
        &self,
        segment: &SegmentName,
        then: &Members,
        roster: &Roster,
    ) -> Result<bool, ChangeError> {
        let mut turn = self.turn.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            let now = self.caught_up().await?;
            let present = now.segments().get(segment).map(|s| &s.members);
            let Some(present) = present.filter(|members| members.roster() == then.roster()) else {
                return Ok(false);
            };
            let facts = Arc::new(vec![merger::beside(segment, then, roster, present)]);
            let commit = Commit {
                record: Record {
                    at: Moment(clock::unix_millis()),
                    actor: "switchyard".to_owned(),
                    reason: None,
                    source: Source::Merge,
                    rollouts: Vec::new(),
                    summary: format!("segment {segment}: users written to a new file, none changed"),
                    diff: Vec::new(),
                },
                facts,
                idempotency: None,
            };
            match self.store.commit(now.revision(), commit).await {
                Ok(committed) => {
                    *turn = committed.revision;
                    self.wait_live(committed.revision).await;
                    return Ok(true);
                }
                Err(CommitError::Moved(_)) => {}
                Err(CommitError::ReadOnly(why)) => return Err(ChangeError::ReadOnly(why)),
                Err(CommitError::Store(e)) => return Err(ChangeError::Store(e)),
            }
        }
        Ok(false)
    }

    async fn answered(&self, asked: &Asked) -> Result<Option<Outcome>, ChangeError> {
        let Some(idempotency) = &asked.idempotency else {
            return Ok(None);
        };
        let (revision, changed, summary) = match self.store.answered(idempotency).await? {
            None => return Ok(None),
            Some(Answered::Other) => return Err(ChangeError::KeyReused),
            Some(Answered::Same(revision)) => (revision, true, "made before, under the same idempotency key"),
            Some(Answered::Unchanged(revision)) => {
                let summary = "there was nothing to change before, under the same idempotency key";
                (revision, false, summary)
            }
        };
        Ok(Some(Outcome {
            revision,
            live: self.wait_live(revision).await,
            changed,
            summary: summary.to_owned(),
            diff: Vec::new(),
            plans: Vec::new(),
            members: None,
        }))
    }

    /// The live snapshot, once it is as new as the store.
    async fn caught_up(&self) -> Result<Arc<Snapshot>, ChangeError> {
        let stored = self.store.revision().await?;
        self.live_from(stored).await
    }

    /// The live snapshot, once it has that revision.
    async fn live_from(&self, stored: Revision) -> Result<Arc<Snapshot>, ChangeError> {
        if self.wait_live(stored).await {
            return Ok(self.live.pin());
        }
        Err(ChangeError::Behind {
            live: self.live.pin().revision(),
            stored,
        })
    }

    async fn wait_live(&self, revision: Revision) -> bool {
        let mut revisions = self.live.revisions();
        let waited = tokio::time::timeout(LIVE_WAIT, revisions.wait_for(|live| *live >= revision)).await;
        matches!(waited, Ok(Ok(_)))
    }

    async fn candidate(
        &self,
        change: Change,
        asked: &Asked,
        beside: Option<Fact>,
        now: &Snapshot,
    ) -> Result<Candidate, ChangeError> {
        // What a scheduled change replaces was named when it was scheduled, and is replaced whatever became of it since.
        let expected = asked
            .expected
            .map(|then| if beside.is_some() { now.revision() } else { then });
        check::expected(&change, expected, asked.dry_run, now)?;
        let around = self.live.around();
        let change = match &beside {
            Some(_) => resolve::still_stopped(change, now),
            None => resolve::narrowed(change, now),
        };
        let title = describe::title(&change);
        let later = match asked.at {
            Some(at) => Some(check::scheduled(&change, at, asked, now)?),
            None => None,
        };
        let mut terms = Terms {
            allow_flips: asked.allow_flips,
            dry_run: asked.dry_run,
        };
        let facts = match change {
            Change::Undo { to } => {
                // Whoever undoes means the state of then, whoever moves back by it.
                terms.allow_flips = true;
                check::is_past(to, now)?;
                self.store.undoing(to).await?
            }
            // The pin may have been renewed since it was found to be over.
            Change::Expire { rollout, user } if !self.is_over(&rollout, &user).await? => Vec::new(),
            change => resolve::facts(change, now, around)?,
        };
        let tried = Arc::new(facts);
        let opened = opened(&self.store, &tried).await?;
        let check::Candidate { plans, members } = check::candidate(&tried, terms, now, &opened, around)?;
        // Nobody else has them.
        let mut facts = Arc::unwrap_or_clone(tried);
        let pins = self.pins(&facts).await?;
        if describe::is_so_already(&facts, &pins) || already::pinned(&*self.store, &facts, now).await? {
            facts.clear();
        }
        if let Some(later) = later {
            // It was tried against the present state, so that nonsense is refused now.
            facts = vec![later];
        }
        facts.extend(beside);
        let diff = describe::diff(&facts, &pins, now);
        let summary = describe::summary(title.filter(|_| asked.at.is_none()), &diff);
        Ok(Candidate {
            facts: Arc::new(facts),
            outcome: Outcome {
                revision: now.revision(),
                live: true,
                changed: false,
                summary,
                diff,
                plans,
                members: None,
            },
            members,
        })
    }

    async fn is_over(&self, rollout: &RolloutName, user: &str) -> Result<bool, ChangeError> {
        let until = self.store.user(rollout, user).await?.and_then(|entry| entry.until);
        Ok(until.is_some_and(|until| until.0 <= clock::unix_millis()))
    }

    /// Where single users are pinned, as far as a diff lists them one by one.
    async fn pins(&self, facts: &[Fact]) -> Result<Pins, ChangeError> {
        let mut pins = Pins::new();
        for (rollout, user) in describe::listed_users(facts) {
            if let Some(entry) = self.store.user(&rollout, &user).await? {
                pins.insert((rollout, user), entry);
            }
        }
        Ok(pins)
    }

    async fn commit(&self, asked: &Asked, candidate: &Candidate, now: &Snapshot) -> Result<Committed, CommitError> {
        let commit = Commit {
            facts: Arc::clone(&candidate.facts),
            record: Record {
                at: Moment(clock::unix_millis()),
                actor: asked.actor.clone(),
                reason: asked.reason.clone(),
                source: asked.source,
                rollouts: describe::rollouts(&candidate.facts, now),
                summary: candidate.outcome.summary.clone(),
                diff: candidate.outcome.diff.clone(),
            },
            idempotency: asked.idempotency.clone(),
        };
        self.store.commit(now.revision(), commit).await
    }
}
