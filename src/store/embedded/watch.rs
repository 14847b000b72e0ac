//! Delivers commits in order: from this program as they are made, from the disk what other programs made.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::rollout::Revision;
use crate::store::{Committed, Event, StoreError, Watch};

use super::feed::Queue;
use super::{Shared, read};

type Reading = JoinHandle<Result<Vec<Committed>, StoreError>>;

pub(super) struct EmbeddedWatch {
    shared: Arc<Shared>,
    latest: watch::Receiver<Revision>,
    queue: Arc<Queue>,
    /// Read from the disk, not yet delivered.
    read: VecDeque<Committed>,
    /// Under way, and what it reads on from.
    reading: Option<(Revision, Reading)>,
    from: Revision,
}

impl EmbeddedWatch {
    pub(super) fn new(shared: Arc<Shared>, from: Revision) -> Self {
        Self {
            latest: shared.feed.latest(),
            queue: shared.feed.queue(),
            read: VecDeque::new(),
            reading: None,
            shared,
            from,
        }
    }

    /// The next commit, if it is in memory.
    fn at_hand(&mut self) -> Option<Committed> {
        let next = match self.read.pop_front() {
            Some(read) => read,
            None => self.queue.after(self.from)?,
        };
        self.from = next.revision;
        Some(next)
    }

    /// Reads what comes next from the disk; false if it is not there any more. Who gives up waiting finds the reading
    /// under way when coming back.
    async fn read_on(&mut self) -> Result<bool, StoreError> {
        let (from, reading) = self.reading.get_or_insert_with(|| {
            let (shared, from) = (self.shared.clone(), self.from);
            let reading = tokio::spawn(async move { shared.read(move |db| read::commits(db, from)).await });
            (from, reading)
        });
        let (from, read) = (*from, reading.await);
        self.reading = None;
        let read = match read {
            Ok(read) => read?,
            Err(_ending) => return Err(StoreError::Ending),
        };
        if from != self.from {
            // Meanwhile it came from this program.
            return Ok(true);
        }
        self.read = read.into();
        Ok(self.read.front().is_some_and(|first| first.revision.0 == from.0 + 1))
    }
}

#[async_trait]
impl Watch for EmbeddedWatch {
    async fn next(&mut self) -> Result<Event, StoreError> {
        loop {
            let latest = *self.latest.borrow_and_update();
            if let Some(next) = self.at_hand() {
                return Ok(Event::Committed(next));
            }
            if latest > self.from {
                if self.read_on().await? {
                    continue;
                }
                self.read.clear();
                return Ok(Event::Resync);
            }
            if latest < self.from {
                // Another program's commit was loaded before it was noticed; or the revision is from another file.
                let there = self.shared.read(read::revision).await?;
                if there < self.from {
                    return Ok(Event::Resync);
                }
                self.shared.feed.note(there);
                continue;
            }
            if self.latest.changed().await.is_err() {
                // The store is gone: nothing will be committed to it any more.
                std::future::pending::<()>().await;
            }
        }
    }
}
