//! Merges what changed of a segment into a new roster, once it is much: in the background, while changes go on. What comes
//! meanwhile stays beside the new roster. Nobody's membership changes, and the segment keeps its revision.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{error, info};

use super::controller::Controller;
use super::request::ChangeError;
use crate::clock;
use crate::precedence;
use crate::rollout::{Fact, Members, Roster, SegmentName};
use crate::telemetry::targets;

/// How often segments are looked at.
const LOOK_EACH: Duration = Duration::from_secs(1);
/// So many users beside a roster take a few megabytes, and a few tens of milliseconds to load: they are left alone.
const SINCE_KEPT: usize = 65_536;
/// Of a large segment, one in so many: writing a hundred million users takes seconds, and as many bytes on the disk as all
/// of them need.
const SINCE_SHARE: usize = 256;
/// After a failure, such as a full disk.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// Merges what is due.
pub struct Merger {
    controller: Arc<Controller>,
}

impl Merger {
    /// Changes are made through `controller`.
    #[must_use]
    pub fn new(controller: Arc<Controller>) -> Self {
        Self { controller }
    }

    /// Works for ever.
    pub async fn run(&self) {
        if self.controller.store().status().read_only.is_some() {
            return;
        }
        let mut turn = tokio::time::interval(LOOK_EACH);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failed: HashMap<SegmentName, Instant> = HashMap::new();
        loop {
            turn.tick().await;
            let now = clock::now();
            failed.retain(|_, at| now.duration_since(*at) < RETRY_AFTER);
            let due: Vec<(SegmentName, Members)> = {
                let snapshot = self.controller.live().pin();
                let segments = snapshot.segments().iter();
                // What is written anew must be all of it.
                let whole = segments.filter(|(name, segment)| !segment.lost && !failed.contains_key(*name));
                let due = whole.filter(|(_, segment)| is_due(&segment.members));
                due.map(|(name, segment)| (name.clone(), segment.members.clone()))
                    .collect()
            };
            for (name, members) in due {
                if let Err(e) = self.merge(&name, &members).await {
                    error!(target: targets::CONTROL, "segment {name} cannot be merged, and stays as it is: {e}");
                    failed.insert(name, clock::now());
                }
            }
        }
    }

    async fn merge(&self, name: &SegmentName, members: &Members) -> Result<(), ChangeError> {
        let began = clock::now();
        let rosters = Arc::clone(self.controller.store().rosters());
        let from = members.clone();
        let written = precedence::at_length(move || rosters.merge(from.roster(), from.since())).await;
        let Some(roster) = written.transpose()? else {
            // The program is ending.
            return Ok(());
        };
        let users = roster.name().users;
        if self.controller.merged(name, members, &roster).await? {
            let millis = began.elapsed().as_millis();
            info!(target: targets::CONTROL, "segment {name}: {users} users written to a new file in {millis} ms");
        }
        Ok(())
    }
}

fn is_due(members: &Members) -> bool {
    members.since_len() > SINCE_KEPT.max(members.len() / SINCE_SHARE)
}

/// What stands beside a roster, so that the members are those of now: it was written from those of `then`.
pub(super) fn beside(segment: &SegmentName, then: &Members, roster: &Roster, now: &Members) -> Fact {
    let (mut remove, mut add) = (Vec::new(), Vec::new());
    let mut look = |user: &str| {
        let is_in = now.contains(user);
        if is_in != roster.contains(user) {
            if is_in { &mut add } else { &mut remove }.push(user.into());
        }
    };
    // Only whom one of the two knows can differ from what was written.
    then.since().for_each(|(user, _)| look(user));
    let known: HashSet<&str> = then.since().map(|(user, _)| user).collect();
    let others = now.since().filter(|(user, _)| !known.contains(user));
    others.for_each(|(user, _)| look(user));
    Fact::Merged {
        segment: segment.clone(),
        roster: roster.name(),
        remove,
        add,
    }
}
