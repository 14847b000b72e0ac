//! The live snapshot: loaded by every request, published by one at a time.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, MutexGuard, watch};

use super::snapshot::{Snapshot, Surroundings};
use crate::rollout::Revision;
use crate::telemetry::metrics;

/// The live state of this node.
pub struct Live {
    current: ArcSwap<Snapshot>,
    revision: watch::Sender<Revision>,
    around: Surroundings,
    retired: Mutex<Retired>,
}

/// States that were live, until no request sees them any more. A request whose state is the last of its kind would have to
/// free it, and with it a list of a million users that was replaced meanwhile: so they are freed elsewhere.
#[derive(Default)]
struct Retired(Vec<Arc<Snapshot>>);

/// The right to publish, which one has at a time: what is published comes of what was live before.
pub(super) struct Turn<'a> {
    live: &'a Live,
    retired: MutexGuard<'a, Retired>,
}

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

    /// Waits for the right to publish.
    pub(super) async fn turn(&self) -> Turn<'_> {
        Turn {
            live: self,
            retired: self.retired.lock().await,
        }
    }

    /// Frees the states that no request sees any more.
    pub(super) async fn free_retired(&self) {
        let seen = |state: &Arc<Snapshot>| Arc::strong_count(state) > 1;
        let mut retired = self.retired.lock().await;
        let (kept, free) = std::mem::take(&mut retired.0).into_iter().partition(seen);
        retired.0 = kept;
        // Others may publish meanwhile.
        drop(retired);
        drop::<Vec<_>>(free);
    }
}

impl Turn<'_> {
    /// What is published to.
    pub(super) fn live(&self) -> &Live {
        self.live
    }

    /// Makes a state visible to every request that begins from now on.
    pub(super) fn publish(&mut self, next: Snapshot) {
        let Live { current, revision, .. } = self.live;
        let next = Arc::new(next);
        let held = current.load();
        let news = next.rollouts().filter(|(name, rollout)| {
            let known = held.named(name);
            known.is_none_or(|known| !Arc::ptr_eq(known, rollout))
        });
        // Before any request needs its counters.
        news.for_each(|(_, rollout)| rollout.show());
        drop(held);
        let before = current.swap(Arc::clone(&next));
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
        revision.send_replace(next.revision());
        // Requests may still see it.
        self.retired.0.push(before);
    }
}
