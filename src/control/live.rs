//! The live snapshot: loaded by every request, published by nobody but the follower.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use super::snapshot::{Snapshot, Surroundings};
use crate::rollout::Revision;
use crate::telemetry::metrics;

/// The live state of this node.
pub struct Live {
    current: ArcSwap<Snapshot>,
    revision: watch::Sender<Revision>,
    around: Surroundings,
}

impl Live {
    /// Nothing yet.
    #[must_use]
    pub fn new(around: Surroundings) -> Self {
        Self {
            current: ArcSwap::from_pointee(Snapshot::empty(&around)),
            revision: watch::Sender::new(Revision::default()),
            around,
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

    /// Makes a state visible to every request that begins from now on. Yields the one before, which requests may still
    /// see.
    pub(super) fn publish(&self, next: Snapshot) -> Arc<Snapshot> {
        let next = Arc::new(next);
        let held = self.current.load();
        let news = next.rollouts().filter(|(name, rollout)| {
            let known = held.named(name);
            known.is_none_or(|known| !Arc::ptr_eq(known, rollout))
        });
        // Before any request needs its counters.
        news.for_each(|(_, rollout)| rollout.show());
        drop(held);
        let before = self.current.swap(Arc::clone(&next));
        metrics::set_revision(next.revision().0);
        for (name, gone) in before.rollouts() {
            match next.named(name) {
                None => metrics::forget_rollout(name.as_str()),
                Some(present) => {
                    let names = |r: &crate::rollout::Release| r.name.clone();
                    let kept: Vec<_> = present.table().releases().iter().map(names).collect();
                    let all = gone.table().releases().iter().map(names);
                    all.filter(|release| !kept.contains(release))
                        .for_each(|release| metrics::forget_release(name.as_str(), release.as_str()));
                }
            }
        }
        self.revision.send_replace(next.revision());
        before
    }
}
