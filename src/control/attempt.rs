//! One attempt at a change: a candidate formed of a state and what is asked for, checked, and committed.

use std::sync::Arc;
use std::time::Instant;

use super::already;
use super::apply::opened;
use super::check::{self, Moving, Terms};
use super::controller::Controller;
use super::describe::{self, Pins};
use super::request::{Asked, ChangeError, Outcome};
use super::resolve;
use super::snapshot::Snapshot;
use super::undoing;
use crate::clock;
use crate::rollout::{Change, Fact, Moment, Revision, RolloutName};
use crate::store::{Answered, Commit, CommitError, Committed, Record};
use crate::telemetry::metrics;

/// A change looked at against the present state.
pub(super) struct Candidate {
    facts: Arc<Vec<Fact>>,
    pub(super) outcome: Outcome,
    /// Not counted while others wait for their turn.
    members: Option<Moving>,
}

/// What became of an attempt to make a change.
pub(super) enum Attempt {
    /// There is nothing to make of it, or only what would be made was asked for.
    Unneeded(Candidate),
    /// It cannot be made of that state.
    Refused(ChangeError),
    /// Made before.
    Answered {
        revision: Revision,
        changed: bool,
        summary: &'static str,
    },
    /// Durable.
    Committed {
        candidate: Candidate,
        revision: Revision,
        began: Instant,
    },
    /// Another process committed in between.
    Moved,
}

impl Candidate {
    /// There is nothing to do.
    fn nothing(now: &Snapshot) -> Self {
        Self {
            facts: Arc::default(),
            outcome: Outcome::unchanged(now.revision()),
            members: None,
        }
    }

    pub(super) async fn counted(self) -> Outcome {
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
    /// Forms a candidate and has it committed, all on the thread that it is called on.
    pub(super) async fn attempt(
        &self,
        turn: &mut Revision,
        change: Change,
        asked: &Asked,
        due: Option<Revision>,
        now: Result<Arc<Snapshot>, ChangeError>,
    ) -> Result<Attempt, ChangeError> {
        // Looked for after that state was read: a request whose client has gone may still be committed under the same
        // key, either before, and is found, or later, and the commit finds that the store has moved.
        if let Some(answered) = self.answered(asked).await? {
            return Ok(answered);
        }
        let now = now?;
        let candidate = match self.candidate(change, asked, due, &now).await {
            Ok(candidate) => candidate,
            Err(why) => return Ok(Attempt::Refused(why)),
        };
        if asked.dry_run || candidate.facts.is_empty() {
            return Ok(Attempt::Unneeded(candidate));
        }
        let began = clock::now();
        match self.commit(asked, &candidate, &now).await {
            Ok(committed) => {
                let revision = committed.revision;
                *turn = revision;
                self.follower().receive(&committed).await;
                Ok(Attempt::Committed {
                    candidate,
                    revision,
                    began,
                })
            }
            Err(CommitError::Moved(_)) => Ok(Attempt::Moved),
            Err(CommitError::ReadOnly(why)) => Err(ChangeError::ReadOnly(why)),
            Err(CommitError::Store(e)) => {
                // Until something is committed again.
                metrics::set_store_connected(false);
                Err(ChangeError::Store(e))
            }
        }
    }

    async fn answered(&self, asked: &Asked) -> Result<Option<Attempt>, ChangeError> {
        let Some(idempotency) = &asked.idempotency else {
            return Ok(None);
        };
        let (revision, changed, summary) = match self.store().answered(idempotency).await? {
            None => return Ok(None),
            Some(Answered::Other) => return Err(ChangeError::KeyReused),
            Some(Answered::Same(revision)) => (revision, true, "made before, under the same idempotency key"),
            Some(Answered::Unchanged(revision)) => {
                let summary = "there was nothing to change before, under the same idempotency key";
                (revision, false, summary)
            }
        };
        Ok(Some(Attempt::Answered {
            revision,
            changed,
            summary,
        }))
    }

    async fn candidate(
        &self,
        change: Change,
        asked: &Asked,
        due: Option<Revision>,
        now: &Snapshot,
    ) -> Result<Candidate, ChangeError> {
        if due.is_some_and(|id| !now.schedule().contains_key(&id)) {
            // Made or taken back since its time was seen to have come.
            return Ok(Candidate::nothing(now));
        }
        // What a scheduled change replaces was named when it was scheduled, and is replaced whatever became of it since.
        let expected = asked
            .expected
            .map(|then| if due.is_some() { now.revision() } else { then });
        check::expected(&change, expected, asked.dry_run, now)?;
        let around = self.live().around();
        let change = match due {
            Some(_) => resolve::still_stopped(change, now),
            None => resolve::narrowed(change, now),
        };
        let title = describe::title(&change);
        let later = match asked.at {
            Some(at) => Some(check::scheduled(&change, at, asked, now)?),
            None => None,
        };
        let terms = Terms {
            // Whoever undoes means the state of then, whoever moves back by it.
            allow_flips: asked.allow_flips || matches!(change, Change::Undo { .. }),
            dry_run: asked.dry_run,
            may_enter: matches!(change, Change::Expire { .. }),
        };
        let facts = self.comes_to(change, now).await?;
        let tried = Arc::new(facts);
        let opened = opened(self.store(), &tried).await?;
        let check::Candidate { plans, members, next } = check::candidate(&tried, terms, now, &opened, around)?;
        // Nobody else has them.
        let mut facts = Arc::unwrap_or_clone(tried);
        let pins = self.pins(&facts).await?;
        if describe::is_so_already(&facts, &pins) || already::pinned(&**self.store(), &facts, now).await? {
            facts.clear();
        }
        if let Some(later) = later {
            // It was tried against the present state, so that nonsense is refused now.
            facts = vec![later];
        }
        // A deletion takes itself off the schedule, too.
        let done = due.map(|id| Fact::NotScheduled { id });
        facts.extend(done.filter(|fact| !facts.contains(fact)));
        let diff = describe::diff(&facts, &pins, now, next.as_ref().unwrap_or(now));
        let summary = describe::summary(title.filter(|_| asked.at.is_none()), &diff);
        Ok(Candidate {
            facts: Arc::new(facts),
            outcome: Outcome {
                summary,
                diff,
                plans,
                ..Outcome::unchanged(now.revision())
            },
            members,
        })
    }

    /// The facts that a change comes to.
    async fn comes_to(&self, change: Change, now: &Snapshot) -> Result<Vec<Fact>, ChangeError> {
        let around = self.live().around();
        match change {
            Change::Undo { to } => {
                check::is_past(to, now)?;
                let facts = self.store().undoing(to).await?;
                Ok(undoing::still_to_be_made(
                    facts,
                    Moment(clock::unix_millis()),
                    now,
                    &around.slots,
                ))
            }
            // Pins may have been renewed since they were found to be over.
            Change::Expire { rollout, users } => {
                let users = self.expired(&rollout, users).await?;
                resolve::facts(Change::Expire { rollout, users }, now, around)
            }
            change => resolve::facts(change, now, around),
        }
    }

    /// Those of the users whose time is over.
    async fn expired(&self, rollout: &RolloutName, users: Vec<Box<str>>) -> Result<Vec<Box<str>>, ChangeError> {
        let mut expired = Vec::with_capacity(users.len());
        for user in users {
            let until = self.store().user(rollout, &user).await?.and_then(|entry| entry.until);
            if until.is_some_and(|until| until.0 <= clock::unix_millis()) {
                expired.push(user);
            }
        }
        Ok(expired)
    }

    /// Where single users are pinned, as far as a diff lists them one by one.
    async fn pins(&self, facts: &[Fact]) -> Result<Pins, ChangeError> {
        let mut pins = Pins::new();
        for (rollout, user) in describe::listed_users(facts) {
            if let Some(entry) = self.store().user(&rollout, &user).await? {
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
        self.store().commit(now.revision(), commit).await
    }
}
