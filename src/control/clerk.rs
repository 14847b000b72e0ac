//! Makes what is due: scheduled changes, pins whose time is over, and history that is kept no longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use log::error;

use super::controller::Controller;
use super::request::{Asked, ChangeError, Outcome, Request};
use crate::clock;
use crate::rollout::{Change, Moment, Revision, RolloutName};
use crate::store::{OURSELVES, Source};
use crate::telemetry::targets;

/// How often the schedule and expiries are looked at.
const DUE_EACH: Duration = Duration::from_millis(500);
/// How many expired pins one turn takes off, those of a rollout by one change.
const EXPIRED_MAX: usize = 10_000;
/// How often the history is shortened.
const PRUNE_EACH: Duration = Duration::from_secs(3600);

/// Keeps the schedule.
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
        let mut late = Late::default();
        if self.controller.store().status().read_only.is_some() {
            return;
        }
        loop {
            turn.tick().await;
            let now = Moment(clock::unix_millis());
            self.make_scheduled(now, &mut late).await;
            self.take_off_expired(now, &mut late).await;
            if pruned.is_none_or(|last| last.elapsed() >= PRUNE_EACH) {
                pruned = Some(clock::now());
                let keep = u64::try_from(self.keep_history.as_millis()).unwrap_or(u64::MAX);
                if let Err(e) = self.controller.store().prune(Moment(now.0.saturating_sub(keep))).await {
                    error!(target: targets::CONTROL, "old history cannot be removed: {e}");
                }
            }
        }
    }

    /// In the order of their times: what was to be last stays.
    async fn make_scheduled(&self, now: Moment, late: &mut Late) {
        let snapshot = self.controller.live().pin();
        let due = snapshot.schedule().iter().filter(|(_, entry)| entry.at <= now);
        let mut due: Vec<_> = due.collect();
        due.sort_by_key(|(id, entry)| (entry.at, **id));
        for (id, entry) in due {
            match self.controller.make_scheduled(*id, entry).await {
                Ok(_) => {
                    late.scheduled.remove(id);
                }
                Err(e) if e.may_pass() => {
                    if late.scheduled.insert(*id) {
                        error!(target: targets::CONTROL, "scheduled change {} is late, and tried again: {e}", id.0);
                    }
                    // Those that are due after it are not made before it; another rollout's need not wait for one that is stuck.
                    if !matches!(e, ChangeError::Stuck { .. }) {
                        return;
                    }
                }
                Err(e) => {
                    error!(target: targets::CONTROL, "scheduled change {} is not made, and given up: {e}", id.0);
                    let take_back = Change::Unschedule { id: *id };
                    let why = format!("could not be made: {e}");
                    if let Err(e) = self.request(take_back, Source::Schedule, why).await {
                        error!(target: targets::CONTROL, "scheduled change {} cannot be taken back: {e}", id.0);
                    }
                }
            }
        }
    }

    async fn take_off_expired(&self, now: Moment, late: &mut Late) {
        let expired = match self.controller.store().expired(now, EXPIRED_MAX).await {
            Ok(expired) => expired,
            Err(e) => {
                error!(target: targets::CONTROL, "expired users cannot be read: {e}");
                return;
            }
        };
        let mut by_rollout: BTreeMap<RolloutName, Vec<Box<str>>> = BTreeMap::new();
        for (rollout, user) in expired.users {
            by_rollout.entry(rollout).or_default().push(user);
        }
        for (rollout, users) in by_rollout {
            let change = Change::Expire {
                rollout: rollout.clone(),
                users,
            };
            match self
                .request(change, Source::Expiry, "its time was over".to_owned())
                .await
            {
                Ok(_) => {
                    late.expiries.remove(&rollout);
                }
                Err(e) => {
                    if late.expiries.insert(rollout.clone()) {
                        error!(
                            target: targets::CONTROL,
                            "rollout {rollout}: users whose time is over stay pinned, which is tried again: {e}"
                        );
                    }
                    if e.may_pass() {
                        return;
                    }
                }
            }
        }
    }

    async fn request(&self, change: Change, source: Source, reason: String) -> Result<Outcome, ChangeError> {
        let request = Request {
            change,
            asked: Asked {
                actor: OURSELVES.to_owned(),
                reason: Some(reason),
                source,
                expected: None,
                idempotency: None,
                at: None,
                dry_run: false,
                allow_flips: false,
            },
        };
        self.controller.change(request).await
    }
}

/// What could not be made yet, and has been told of.
#[derive(Default)]
struct Late {
    scheduled: BTreeSet<Revision>,
    /// The rollouts whose expired pins are still there.
    expiries: BTreeSet<RolloutName>,
}
