//! The one writer: forms a candidate of the present state and a change, checks it, has it committed, and waits until it
//! is live on this node.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard};

use super::attempt::Attempt;
use super::follower::Follower;
use super::live::Live;
use super::merger;
use super::request::{Asked, ChangeError, Outcome, Request};
use super::snapshot::Snapshot;
use crate::clock;
use crate::rollout::{Change, Members, Moment, Revision, Roster, Scheduled, SegmentName};
use crate::store::{Commit, CommitError, OURSELVES, Record, Source, Store, StoreError, on_one_thread};
use crate::telemetry::metrics;

/// How long an answer waits until its revision is live here; after that it says that it is not yet.
const LIVE_WAIT: Duration = Duration::from_secs(5);
/// How often a change is formed again because another process committed in between, which only an upgrade brings about.
const ATTEMPTS_MAX: usize = 4;

/// Makes changes, one at a time.
pub struct Controller {
    follower: Arc<Follower>,
    /// Held from forming a candidate to its commit, so that changes of this process never meet; the last one's revision.
    turn: Arc<Mutex<Revision>>,
    /// Another process makes changes now.
    retired: AtomicBool,
}

impl Controller {
    /// Commits to the store that is followed.
    #[must_use]
    pub fn new(follower: Arc<Follower>) -> Self {
        Self {
            follower,
            turn: Arc::default(),
            retired: AtomicBool::new(false),
        }
    }

    /// Another process has taken over: it may know of more pools, routes and rollouts, so that changes are its own to judge.
    /// Those that are asked for here from now on are refused.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Who publishes what is committed.
    pub fn follower(&self) -> &Arc<Follower> {
        &self.follower
    }

    /// The store, for reading.
    #[must_use]
    pub fn store(&self) -> &Arc<dyn Store> {
        self.follower.store()
    }

    /// What requests see.
    #[must_use]
    pub fn live(&self) -> &Arc<Live> {
        self.follower.live()
    }

    /// Makes a change: durable when this returns, and live on this node unless the outcome says otherwise.
    ///
    /// # Errors
    /// When it was not made; then nothing of it is kept.
    pub async fn change(self: &Arc<Self>, request: Request) -> Result<Outcome, ChangeError> {
        if self.retired.load(Ordering::Acquire) {
            return Err(ChangeError::Store(StoreError::Ending));
        }
        let Request { change, asked } = request;
        self.make(change, asked, None).await
    }

    /// Makes a scheduled change whose time has come, and takes it off the schedule in the same commit; does nothing where
    /// it is on the schedule no more.
    pub(super) async fn make_scheduled(
        self: &Arc<Self>,
        id: Revision,
        entry: &Scheduled,
    ) -> Result<Outcome, ChangeError> {
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
        self.make(entry.change.clone(), asked, Some(id)).await
    }

    async fn make(
        self: &Arc<Self>,
        change: Change,
        asked: Asked,
        due: Option<Revision>,
    ) -> Result<Outcome, ChangeError> {
        let asked = Arc::new(asked);
        let mut turn = Arc::clone(&self.turn).lock_owned().await;
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
            let Some(this) = (if once { change.take() } else { change.clone() }) else {
                break;
            };
            let attempt = {
                let (own, asked) = (Arc::clone(self), Arc::clone(&asked));
                let work = async move {
                    let done = own.attempt(&mut turn, this, &asked, due, now).await;
                    (turn, done)
                };
                on_one_thread(work).await
            };
            let (held, done) = attempt?;
            turn = held;
            match done? {
                Attempt::Moved => {}
                Attempt::Unneeded(_) | Attempt::Refused(_) if surmised => {}
                ended => return self.told(ended, turn, &asked).await,
            }
        }
        let current = self.live().pin().revision();
        Err(ChangeError::Conflict { current })
    }

    /// The answer to who asked for it, once the others may have their turn and this node has made it live.
    async fn told(
        &self,
        ended: Attempt,
        turn: OwnedMutexGuard<Revision>,
        asked: &Asked,
    ) -> Result<Outcome, ChangeError> {
        match ended {
            Attempt::Moved => Err(ChangeError::Conflict { current: *turn }),
            Attempt::Refused(why) => Err(why),
            Attempt::Unneeded(candidate) => {
                if let Some(idempotency) = asked.idempotency.clone().filter(|_| !asked.dry_run) {
                    let at = candidate.outcome.revision;
                    self.store().nothing_to_change(idempotency, at).await?;
                }
                drop(turn);
                Ok(candidate.counted().await)
            }
            Attempt::Answered {
                changed,
                revision,
                summary,
            } => {
                drop(turn);
                Ok(Outcome {
                    live: self.wait_live(revision).await,
                    changed,
                    summary: summary.to_owned(),
                    ..Outcome::unchanged(revision)
                })
            }
            Attempt::Committed {
                candidate,
                revision,
                began,
            } => {
                drop(turn);
                let live = self.wait_live(revision).await;
                metrics::commit_to_live(began.elapsed());
                Ok(Outcome {
                    revision,
                    live,
                    changed: true,
                    ..candidate.counted().await
                })
            }
        }
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
                    actor: OURSELVES.to_owned(),
                    reason: None,
                    source: Source::Merge,
                    rollouts: Vec::new(),
                    summary: format!("segment {segment}: users written to a new file, none changed"),
                    diff: Vec::new(),
                },
                facts,
                idempotency: None,
            };
            match self.store().commit(now.revision(), commit).await {
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

    /// The live snapshot, once it is as new as the store.
    async fn caught_up(&self) -> Result<Arc<Snapshot>, ChangeError> {
        let stored = self.store().revision().await?;
        self.live_from(stored).await
    }

    /// The live snapshot, once it has that revision.
    async fn live_from(&self, stored: Revision) -> Result<Arc<Snapshot>, ChangeError> {
        if self.wait_live(stored).await {
            return Ok(self.live().pin());
        }
        Err(ChangeError::Behind {
            live: self.live().pin().revision(),
            stored,
        })
    }

    async fn wait_live(&self, revision: Revision) -> bool {
        let mut revisions = self.live().revisions();
        let waited = tokio::time::timeout(LIVE_WAIT, revisions.wait_for(|live| *live >= revision)).await;
        matches!(waited, Ok(Ok(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::{LostUsers, Surroundings};
    use crate::rollout::{PoolIdx, RolloutName};
    use crate::store::MemoryStore;

    #[tokio::test]
    async fn what_is_on_the_schedule_no_more_is_not_made() {
        let shop = RolloutName::parse("shop").expect("name");
        let live = Arc::new(Live::new(Surroundings {
            slots: vec![shop.clone()],
            routes: [].into(),
            pool: Box::new(|_| Some(PoolIdx(0))),
        }));
        let follower = Arc::new(Follower::new(Arc::new(MemoryStore::new()), live, LostUsers::Refused));
        let spec = serde_json::json!({ "releases": { "stable": { "pool": "s" } } });
        let seed = (shop.clone(), serde_json::from_value(spec).expect("spec"));
        follower.start(&[seed]).await.expect("starts");
        let controller = Arc::new(Controller::new(follower));
        let entry = Scheduled {
            at: Moment(1),
            change: Change::Kill { rollout: shop.clone() },
            actor: "anna".to_owned(),
            reason: None,
            allow_flips: false,
            replaces: false,
        };
        // It was there when its time was seen to have come.
        let made = controller
            .make_scheduled(Revision(7), &entry)
            .await
            .expect("nothing to do");
        assert_eq!((made.changed, made.revision), (false, Revision(1)));
        let snapshot = controller.live().pin();
        assert!(!snapshot.named(&shop).expect("it is there").spec().killed);
    }
}
