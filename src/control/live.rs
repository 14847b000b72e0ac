//! The live snapshot: loaded by every request, published by one at a time.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::snapshot::{Snapshot, Surroundings};
use crate::rollout::{Release, Revision};
use crate::telemetry::metrics;

/// The live state of this node.
pub struct Live {
    current: ArcSwap<Snapshot>,
    revision: watch::Sender<Revision>,
    around: Surroundings,
    /// Held by who publishes: what is published comes of what was live before.
    retired: Mutex<Retired>,
}

/// States that were live, until no request sees them any more. A request whose state is the last of its kind would have to
/// free it, and with it a list of a million users that was replaced meanwhile: so they are freed elsewhere.
#[derive(Default)]
struct Retired(Vec<Arc<Snapshot>>);

impl Live {
    /// Nothing yet.
    #[must_use]
    pub fn new(around: Surroundings) -> Self {
        Self {
            current: ArcSwap::from_pointee(Snapshot::empty(&around)),
            revision: watch::Sender::new(Revision::default()),
            around,
            retired: Mutex::default(),
        }
    }

    /// The state that a request which begins now is to see, all through.
    #[must_use]
    pub fn pin(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// What tables are compiled against.
    #[must_use]
    pub fn around(&self) -> &Surroundings {
        &self.around
    }

    /// Tells every revision that goes live.
    pub fn revisions(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Makes what is formed of the present state, if anything is, visible to every request that begins from now on.
    pub(super) fn publish(&self, form: impl FnOnce(&Snapshot) -> Option<Snapshot>) {
        let mut retired = self.retired.lock();
        let held = self.current.load();
        let Some(next) = form(&held) else { return };
        let next = Arc::new(next);
        let news = next.rollouts().filter(|(name, rollout)| {
            let known = held.named(name);
            known.is_none_or(|known| !Arc::ptr_eq(known, rollout))
        });
        // Before any request needs its counters.
        news.for_each(|(_, rollout)| rollout.show());
        drop(held);
        let before = self.current.swap(Arc::clone(&next));
        metrics::set_revision(next.revision().0);
        forget_what_is_gone(&before, &next);
        self.revision.send_replace(next.revision());
        // Requests may still see it.
        retired.0.push(before);
    }

    /// Frees the states that no request sees any more.
    pub(super) fn free_retired(&self) {
        let seen = |state: &Arc<Snapshot>| Arc::strong_count(state) > 1;
        let mut retired = self.retired.lock();
        let (kept, free) = std::mem::take(&mut retired.0).into_iter().partition(seen);
        retired.0 = kept;
        // Others may publish meanwhile.
        drop(retired);
        drop::<Vec<_>>(free);
    }
}

/// Counters of rollouts and releases that are not there any more.
fn forget_what_is_gone(before: &Snapshot, next: &Snapshot) {
    for (name, gone) in before.rollouts() {
        match next.named(name) {
            None => metrics::forget_rollout(name.as_str()),
            Some(present) => {
                let names = |r: &Release| r.name.clone();
                let kept: Vec<_> = present.table().releases().iter().map(names).collect();
                let all = gone.table().releases().iter().map(names);
                all.filter(|release| !kept.contains(release))
                    .for_each(|release| metrics::forget_release(name.as_str(), release.as_str()));
            }
        }
    }
}
