//! Hands commits from who makes them to who watches, inside this program, so that nobody reads back from the disk what
//! was just written to it. What does not come this way is found on the disk by its revision.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;

use crate::rollout::Revision;
use crate::store::Committed;

/// Commits that wait for one watcher; those beyond are read from the disk. Bounds what a watcher that stands still
/// keeps in memory.
const WAITING_MAX: usize = 64;

/// The watchers of this program.
pub(super) struct Feed {
    /// Held from `COMMIT` to the delivery, so that a commit of this program is not taken for another's in between.
    committing: Mutex<()>,
    queues: Mutex<Vec<Weak<Queue>>>,
    latest: watch::Sender<Revision>,
}

/// What waits for one watcher.
#[derive(Default)]
pub(super) struct Queue(Mutex<VecDeque<Committed>>);

/// A commit that is about to be made and delivered.
pub(super) struct Delivery<'a> {
    feed: &'a Feed,
    _committing: MutexGuard<'a, ()>,
}

impl Feed {
    pub(super) fn new(latest: Revision) -> Self {
        Self {
            committing: Mutex::new(()),
            queues: Mutex::default(),
            latest: watch::Sender::new(latest),
        }
    }

    /// The latest revision that is known of, and news of it.
    pub(super) fn latest(&self) -> watch::Receiver<Revision> {
        self.latest.subscribe()
    }

    /// A queue that gets all commits from now on.
    pub(super) fn queue(&self) -> Arc<Queue> {
        let queue = Arc::new(Queue::default());
        self.queues.lock().push(Arc::downgrade(&queue));
        queue
    }

    /// Begins a commit of this program.
    pub(super) fn begin(&self) -> Delivery<'_> {
        Delivery {
            feed: self,
            _committing: self.committing.lock(),
        }
    }

    /// Looks for commits of others, while this program makes none.
    pub(super) fn look<E>(&self, latest: impl FnOnce() -> Result<Revision, E>) -> Result<(), E> {
        let _committing = self.committing.lock();
        self.note(latest()?);
        Ok(())
    }

    /// A revision is on the disk.
    pub(super) fn note(&self, revision: Revision) {
        self.latest.send_if_modified(|latest| {
            let newer = revision > *latest;
            if newer {
                *latest = revision;
            }
            newer
        });
    }
}

impl Delivery<'_> {
    /// The commit is durable.
    pub(super) fn deliver(self, committed: &Committed) {
        self.feed.queues.lock().retain(|queue| {
            let Some(queue) = queue.upgrade() else {
                return false;
            };
            let mut waiting = queue.0.lock();
            if waiting.len() < WAITING_MAX {
                waiting.push_back(committed.clone());
            }
            true
        });
        self.feed.note(committed.revision);
    }
}

impl Queue {
    /// The commit after `from`, if it waits here. What is older is dropped.
    pub(super) fn after(&self, from: Revision) -> Option<Committed> {
        let mut waiting = self.0.lock();
        while waiting.front().is_some_and(|first| first.revision <= from) {
            waiting.pop_front();
        }
        let first = waiting.front()?;
        if first.revision.0 == from.0 + 1 {
            waiting.pop_front()
        } else {
            None
        }
    }
}
