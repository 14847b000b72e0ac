//! Durable truth: what was committed, in order, and who asked for it. A commit is a compare-and-set on the revision; a
//! watch delivers every commit after a revision, in order, or says that the state must be loaded again.

mod embedded;
mod history;
mod memory;
mod one_thread;
mod piece;
mod rosters;
pub mod settings;
mod standing;
mod undo;

use std::sync::Arc;

use async_trait::async_trait;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::rollout::{Fact, Moment, Revision, RolloutName, SegmentName, UserEntry};

pub use embedded::{EmbeddedSettings, EmbeddedStore};
pub use history::{Diff, HistoryEntry, HistoryQuery, OURSELVES, Source};
pub use memory::MemoryStore;
pub use one_thread::on_one_thread;
pub use rosters::Rosters;

/// Facts that are loaded or delivered together are cut into pieces of at most so many users.
pub const USERS_IN_A_FACT: usize = 16_384;

/// How long an idempotency key is known: longer than anything repeats a request, and what the API promises.
const ANSWERS_KEPT_MILLIS: u64 = 24 * 60 * 60 * 1000;

/// What is committed: facts, and the record of who asked for them.
#[derive(Debug, Clone)]
pub struct Commit {
    /// In their order. Never empty. Users are of a rollout that exists by then, or all is refused.
    pub facts: Arc<Vec<Fact>>,
    /// Who, why, from where, and what it comes to in words.
    pub record: Record,
    /// The key under which a repeated request gets the same answer, and a digest of the request.
    pub idempotency: Option<Idempotency>,
}

/// The record of a change, kept in the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it was asked for.
    pub at: Moment,
    /// Who asked: the name of a token, `local` without tokens, [`OURSELVES`] where nobody did.
    pub actor: String,
    /// Why, in the words of who asked.
    pub reason: Option<String>,
    /// Where it came from.
    pub source: Source,
    /// The rollouts it is about; none for segments.
    pub rollouts: Vec<RolloutName>,
    /// One line: `checkout: canary 5% → 12.5%`.
    pub summary: String,
    /// The change, readable.
    pub diff: Vec<Diff>,
}

/// Makes a repeated request harmless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idempotency {
    /// Chosen by who asks; 1 to 255 bytes, unique for the actor.
    pub key: String,
    /// The actor's name.
    pub actor: String,
    /// Of the method, path and body, so that another request under the same key is refused.
    pub digest: [u8; 32],
}

/// A commit that is durable.
#[derive(Debug, Clone)]
pub struct Committed {
    /// Its number.
    pub revision: Revision,
    /// When it was asked for.
    pub at: Moment,
    /// What is true from it on.
    pub facts: Arc<Vec<Fact>>,
}

/// A piece of the state.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The revision of the last change to the rollout or segment that it is about.
    pub revision: Revision,
    /// What is true.
    pub fact: Fact,
}

/// What a watch yields next.
#[derive(Debug, Clone)]
pub enum Event {
    /// The next commit, in order.
    Committed(Committed),
    /// Commits were missed and are no longer kept: load the state again, and watch from its revision.
    Resync,
}

/// When a segment came to be, and when it was changed last; merging its roster with what changed since is no change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentRecord {
    /// When it was created.
    pub created: Moment,
    /// When it was changed last.
    pub changed: Moment,
}

/// How much of a list is read at once: a page ends with the user who makes it as long as either says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Most {
    /// So many users.
    pub users: usize,
    /// Ids of so many bytes, all together.
    pub bytes: usize,
}

impl Most {
    /// So many users, however long their ids are.
    #[must_use]
    pub fn users(users: usize) -> Self {
        let bytes = usize::MAX;
        Self { users, bytes }
    }

    /// The ids that a page has; none after the first that cannot be read.
    fn of<E>(self, ids: impl Iterator<Item = Result<Box<str>, E>>) -> Result<Vec<Box<str>>, E> {
        let mut bytes = 0;
        let fits = |id: &Result<Box<str>, E>| {
            let fits = bytes < self.bytes;
            bytes = bytes.saturating_add(id.as_ref().map_or(0, |id| id.len()));
            fits
        };
        ids.take(self.users).take_while(fits).collect()
    }
}

/// A page of single users, in the order of the store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserPage {
    /// The users and where they are pinned.
    pub users: Vec<(Box<str>, UserEntry)>,
    /// Pass it as `after` for the next page; none after the last.
    pub next: Option<String>,
}

/// Why something was not committed.
#[derive(Debug, Error)]
pub enum CommitError {
    /// Somebody else committed in between.
    #[error("the store is at revision {}, not at the expected one: read again, and repeat", .0.0)]
    Moved(Revision),
    /// The store is open for reading only.
    #[error("the store is read-only ({0}): changes are refused, traffic is not affected")]
    ReadOnly(String),
    /// It is not durable; whether it will ever be is known: it will not.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why the store does not do its work.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file cannot be opened, or is damaged, or the disk is full or failing.
    #[error("store {place}: {cause}: {remedy}")]
    Failed {
        /// Which file or address.
        place: String,
        /// What it said.
        cause: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Written by a newer program.
    #[error("store {place} has schema {found}, this program knows up to {known}: use the newer program")]
    Newer {
        /// Which file.
        place: String,
        /// Its schema.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// The history does not reach back so far.
    #[error("the history begins after revision {}: the state of then is not kept", .0.0)]
    Forgotten(Revision),
    /// Nothing is read or written any more.
    #[error("the program is ending: ask the one that runs now")]
    Ending,
}

/// What keeps the state of all rollouts.
#[async_trait]
pub trait Store: Send + Sync {
    /// Sends the whole state as facts, in pieces of at most [`USERS_IN_A_FACT`] users, and yields its revision. Each
    /// rollout and segment comes before its users. Ends early, without error, when the receiver is gone.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn load(&self, facts: mpsc::Sender<Loaded>) -> Result<Revision, StoreError>;

    /// Makes a commit durable if the store still stands at `base`. When this returns, a crash loses nothing of it.
    ///
    /// # Errors
    /// When it was not done; then nothing of it is kept.
    async fn commit(&self, base: Revision, commit: Commit) -> Result<Committed, CommitError>;

    /// The commits after `from`, in order, those of other processes included, as long as the store is there.
    fn watch(&self, from: Revision) -> Box<dyn Watch>;

    /// The latest revision.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn revision(&self) -> Result<Revision, StoreError>;

    /// What restores the state as it was at `to`, as facts in the order in which to apply them; none if nothing
    /// differs. Expired pins come back as they were.
    ///
    /// # Errors
    /// [`StoreError::Forgotten`] when the history does not reach back.
    async fn undoing(&self, to: Revision) -> Result<Vec<Fact>, StoreError>;

    /// The record of changes, the latest first.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryEntry>, StoreError>;

    /// Single users of a rollout, at most `limit`, after the cursor that the page before ended with.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn users(&self, rollout: &RolloutName, after: Option<&str>, limit: usize) -> Result<UserPage, StoreError>;

    /// Where a single user is pinned.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn user(&self, rollout: &RolloutName, user: &str) -> Result<Option<UserEntry>, StoreError>;

    /// When a segment was created and changed; none where there is no such segment.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn segment(&self, segment: &SegmentName) -> Result<Option<SegmentRecord>, StoreError>;

    /// Where long lists of segments' users are kept; a commit names them.
    fn rosters(&self) -> &Arc<Rosters>;

    /// Members of a segment, at most so many, after a member, in an order that edits and merges do not change.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn members(
        &self,
        segment: &SegmentName,
        after: Option<&str>,
        most: Most,
    ) -> Result<Vec<Box<str>>, StoreError>;

    /// Up to `limit` single users whose time was over at `now`, and when the next one's will be.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn expired(&self, now: Moment, limit: usize) -> Result<Expired, StoreError>;

    /// Keeps that a request with this key had nothing to change at a revision, durably: repeated when the state is another,
    /// it is not to be made then. A key that is known already stays as it is; a store that is read-only keeps nothing, and
    /// will not be another.
    ///
    /// # Errors
    /// When it was not done.
    async fn nothing_to_change(&self, idempotency: Idempotency, at: Revision) -> Result<(), StoreError>;

    /// What a request with this key was answered, if it was within the last day.
    ///
    /// # Errors
    /// When it cannot be read.
    async fn answered(&self, idempotency: &Idempotency) -> Result<Option<Answered>, StoreError>;

    /// Forgets history older than `before`, and idempotency keys older than a day before it would be useful.
    ///
    /// # Errors
    /// When it cannot be written.
    async fn prune(&self, before: Moment) -> Result<(), StoreError>;

    /// For `status`: which store, where, whether it can be written.
    fn status(&self) -> StoreStatus;
}

/// Delivers commits in order.
#[async_trait]
pub trait Watch: Send {
    /// The next event; waits for it. Cancelling the wait loses nothing.
    ///
    /// # Errors
    /// When the store cannot be read; calling again tries again.
    async fn next(&mut self) -> Result<Event, StoreError>;
}

/// Single users whose time is over.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expired {
    /// They.
    pub users: Vec<(RolloutName, Box<str>)>,
    /// When the next one's time is over, if there is one.
    pub next: Option<Moment>,
}

/// What is known of an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answered {
    /// The same request; it was committed as this revision.
    Same(Revision),
    /// The same request; at this revision it had nothing to change.
    Unchanged(Revision),
    /// Another request used the key.
    Other,
}

/// How a store is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreStatus {
    /// `memory` or `embedded`.
    pub kind: &'static str,
    /// The file; empty for memory.
    pub place: String,
    /// Why it cannot be written, if it cannot.
    pub read_only: Option<String>,
    /// Why the disk refused the last change, if it did; the next one that it takes ends that.
    pub failing: Option<String>,
}
