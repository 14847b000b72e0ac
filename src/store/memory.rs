//! A store that forgets when the program ends: for tests, and for trying things out.

mod segments;
mod state;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::clock;
use crate::rollout::{Fact, Moment, Revision, RolloutName, RosterDigest, SegmentName, UserEntry};

use self::state::State;
use super::history::{HistoryQuery, OURSELVES};
use super::undo::Undo;
use super::{
    ANSWERS_KEPT_MILLIS, Answered, Commit, CommitError, Committed, Event, Expired, HistoryEntry, Idempotency, Loaded,
    Most, Record, Rosters, SegmentRecord, Store, StoreError, StoreStatus, UserPage, Watch, standing,
};

/// Keeps everything in memory.
pub struct MemoryStore {
    kept: Arc<Mutex<Kept>>,
    latest: watch::Sender<Revision>,
    rosters: Arc<Rosters>,
}

#[derive(Default)]
struct Kept {
    state: State,
    revision: Revision,
    /// The changes that are not forgotten, the latest last.
    log: VecDeque<Logged>,
    answers: HashMap<(String, String), Answer>,
}

struct Logged {
    committed: Committed,
    record: Record,
    undo: Vec<Fact>,
}

#[derive(Clone, Copy)]
struct Answer {
    digest: [u8; 32],
    revision: Revision,
    changed: bool,
    at: Moment,
}

impl Answer {
    fn is_over(&self, now: u64) -> bool {
        self.at.0 + ANSWERS_KEPT_MILLIS <= now
    }

    fn to(&self, asked: &Idempotency) -> Answered {
        if self.digest != asked.digest {
            Answered::Other
        } else if self.changed {
            Answered::Same(self.revision)
        } else {
            Answered::Unchanged(self.revision)
        }
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self {
            kept: Arc::default(),
            latest: watch::Sender::new(Revision(0)),
            rosters: Arc::new(Rosters::in_memory()),
        }
    }
}

impl Kept {
    fn commit(&mut self, base: Revision, commit: Commit, rosters: &Rosters) -> Result<Committed, CommitError> {
        if self.revision != base {
            return Err(CommitError::Moved(self.revision));
        }
        standing::check(&commit.facts, "memory", |rollout| {
            Ok(self.state.rollouts.contains_key(rollout))
        })?;
        let opened = rosters.named_by(&commit.facts)?;
        let mut undo: Vec<Vec<Fact>> = {
            let next = (Revision(base.0 + 1), commit.record.at);
            let facts = commit.facts.iter();
            facts.map(|fact| self.state.apply(next, fact, &opened)).collect()
        };
        undo.reverse();
        self.revision = Revision(base.0 + 1);
        let committed = Committed {
            revision: self.revision,
            at: commit.record.at,
            facts: commit.facts,
        };
        if let Some(asked) = commit.idempotency {
            let answer = Answer {
                digest: asked.digest,
                revision: self.revision,
                changed: true,
                at: commit.record.at,
            };
            self.answers.insert((asked.actor, asked.key), answer);
        }
        self.log.push_back(Logged {
            committed: committed.clone(),
            record: commit.record,
            undo: undo.concat(),
        });
        Ok(committed)
    }

    /// The latest revision that is before everything logged.
    fn begins_after(&self) -> Revision {
        let first = self.log.front();
        first.map_or(self.revision, |first| Revision(first.committed.revision.0 - 1))
    }

    /// What comes after `from`: nothing yet, the next commit, or nothing that could be told.
    fn after(&self, from: Revision) -> Option<Event> {
        if from == self.revision {
            return None;
        }
        let at = from.0.checked_sub(self.begins_after().0);
        let next = at
            .and_then(|at| usize::try_from(at).ok())
            .and_then(|at| self.log.get(at));
        Some(next.map_or(Event::Resync, |logged| Event::Committed(logged.committed.clone())))
    }
}

impl Logged {
    fn entry(&self) -> HistoryEntry {
        HistoryEntry {
            revision: self.committed.revision,
            record: self.record.clone(),
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn load(&self, facts: mpsc::Sender<Loaded>) -> Result<Revision, StoreError> {
        let (all, revision) = {
            let kept = self.kept.lock();
            (kept.state.facts(), kept.revision)
        };
        for fact in all {
            if facts.send(fact).await.is_err() {
                break;
            }
        }
        Ok(revision)
    }

    async fn commit(&self, base: Revision, commit: Commit) -> Result<Committed, CommitError> {
        let mut kept = self.kept.lock();
        let committed = kept.commit(base, commit, &self.rosters)?;
        self.latest.send_replace(committed.revision);
        Ok(committed)
    }

    fn watch(&self, from: Revision) -> Box<dyn Watch> {
        Box::new(MemoryWatch {
            kept: self.kept.clone(),
            latest: self.latest.subscribe(),
            from,
        })
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        Ok(self.kept.lock().revision)
    }

    async fn undoing(&self, to: Revision) -> Result<Vec<Fact>, StoreError> {
        let kept = self.kept.lock();
        let begins_after = kept.begins_after();
        if to < begins_after {
            return Err(StoreError::Forgotten(begins_after));
        }
        let undone = kept
            .log
            .iter()
            .rev()
            .take_while(|logged| logged.committed.revision > to);
        let mut undo = Undo::default();
        for fact in undone.flat_map(|logged| &logged.undo) {
            undo.add(fact.clone());
        }
        match undo.beside(&kept.state) {
            Ok(facts) => Ok(facts),
            Err(never) => match never {},
        }
    }

    async fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryEntry>, StoreError> {
        let kept = self.kept.lock();
        let wanted = kept.log.iter().rev().filter(|logged| {
            let revision = logged.committed.revision;
            let about = |name: &RolloutName| logged.record.rollouts.contains(name);
            query.before.is_none_or(|before| revision < before)
                && query.rollout.as_ref().is_none_or(about)
                && !(query.asked_for && logged.record.actor == OURSELVES)
        });
        Ok(wanted.take(query.limit).map(Logged::entry).collect())
    }

    async fn users(&self, rollout: &RolloutName, after: Option<&str>, limit: usize) -> Result<UserPage, StoreError> {
        let kept = self.kept.lock();
        let Some(all) = kept.state.users.get(rollout) else {
            return Ok(UserPage::default());
        };
        let mut rest = all.range::<str, _>((bound(after), std::ops::Bound::Unbounded));
        let page = rest
            .by_ref()
            .take(limit)
            .map(|(user, entry)| (user.clone(), entry.clone()));
        let users: Vec<(Box<str>, UserEntry)> = page.collect();
        let more = rest.next().is_some();
        let next = users.last().filter(|_| more).map(|(user, _)| user.to_string());
        Ok(UserPage { users, next })
    }

    async fn user(&self, rollout: &RolloutName, user: &str) -> Result<Option<UserEntry>, StoreError> {
        let kept = self.kept.lock();
        Ok(kept.state.users.get(rollout).and_then(|all| all.get(user)).cloned())
    }

    async fn members(
        &self,
        segment: &SegmentName,
        after: Option<&str>,
        most: Most,
    ) -> Result<Vec<Box<str>>, StoreError> {
        let kept = self.kept.lock();
        let Some(all) = kept.state.segments.get(segment) else {
            return Ok(Vec::new());
        };
        if let Some(roster) = &all.roster {
            let since = all.since.iter().map(|(user, is_in)| (&**user, *is_in));
            return self.rosters.page(roster, since, after, most);
        }
        let rest = all.since.range::<str, _>((bound(after), std::ops::Bound::Unbounded));
        most.of(rest.map(|(user, _)| Ok(user.clone())))
    }

    async fn segment(&self, segment: &SegmentName) -> Result<Option<SegmentRecord>, StoreError> {
        let kept = self.kept.lock();
        Ok(kept.state.segments.get(segment).map(|listed| SegmentRecord {
            created: listed.created,
            changed: listed.changed,
        }))
    }

    fn rosters(&self) -> &Arc<Rosters> {
        &self.rosters
    }

    async fn expired(&self, now: Moment, limit: usize) -> Result<Expired, StoreError> {
        let kept = self.kept.lock();
        let timed = kept.state.users.iter().flat_map(|(rollout, users)| {
            let timed = users.iter().filter_map(|(user, entry)| Some((entry.until?, user)));
            timed.map(move |(until, user)| (until, rollout, user))
        });
        let mut timed: Vec<(Moment, &RolloutName, &Box<str>)> = timed.collect();
        timed.sort_unstable();
        let over = timed.iter().take(limit).take_while(|(until, ..)| *until <= now).count();
        Ok(Expired {
            users: timed[..over]
                .iter()
                .map(|(_, rollout, user)| ((*rollout).clone(), (*user).clone()))
                .collect(),
            next: timed.get(over).map(|(until, ..)| *until),
        })
    }

    async fn nothing_to_change(&self, idempotency: Idempotency, at: Revision) -> Result<(), StoreError> {
        let now = now();
        let answer = Answer {
            digest: idempotency.digest,
            revision: at,
            changed: false,
            at: Moment(now),
        };
        let mut kept = self.kept.lock();
        let known = kept.answers.entry((idempotency.actor, idempotency.key));
        known
            .and_modify(|known| {
                if known.is_over(now) {
                    *known = answer;
                }
            })
            .or_insert(answer);
        Ok(())
    }

    async fn answered(&self, idempotency: &Idempotency) -> Result<Option<Answered>, StoreError> {
        let kept = self.kept.lock();
        let key = (idempotency.actor.clone(), idempotency.key.clone());
        let answer = kept.answers.get(&key).filter(|answer| !answer.is_over(now()));
        Ok(answer.map(|answer| answer.to(idempotency)))
    }

    async fn prune(&self, before: Moment) -> Result<(), StoreError> {
        let mut kept = self.kept.lock();
        while kept.log.len() > 1 && kept.log.front().is_some_and(|logged| logged.committed.at < before) {
            kept.log.pop_front();
        }
        kept.answers.retain(|_, answer| !answer.is_over(now()));
        let undoing = kept.log.iter().flat_map(|logged| &logged.undo);
        let mut named: HashSet<RosterDigest> = undoing.filter_map(Fact::roster).map(|(_, name)| name.digest).collect();
        let standing = kept.state.segments.values().filter_map(|listed| listed.roster.as_ref());
        named.extend(standing.map(|roster| roster.name().digest));
        self.rosters.tidy(&named)
    }

    fn status(&self) -> StoreStatus {
        StoreStatus {
            kind: "memory",
            place: String::new(),
            read_only: None,
            failing: None,
        }
    }
}

fn bound(after: Option<&str>) -> std::ops::Bound<&str> {
    after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded)
}

fn now() -> u64 {
    clock::unix_micros() / 1000
}

struct MemoryWatch {
    kept: Arc<Mutex<Kept>>,
    latest: watch::Receiver<Revision>,
    from: Revision,
}

#[async_trait]
impl Watch for MemoryWatch {
    async fn next(&mut self) -> Result<Event, StoreError> {
        loop {
            self.latest.mark_unchanged();
            let event = self.kept.lock().after(self.from);
            match event {
                Some(Event::Committed(committed)) => {
                    self.from = committed.revision;
                    return Ok(Event::Committed(committed));
                }
                Some(Event::Resync) => return Ok(Event::Resync),
                None => {
                    if self.latest.changed().await.is_err() {
                        // The store is gone: nothing will be committed to it any more.
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }
}
