//! The store in a file of this machine: SQLite, with a write-ahead log, synced on every commit. An old and a new program
//! may have it open at once, during an upgrade.

mod answers;
mod apply;
mod column;
mod copy;
mod fault;
mod feed;
mod file;
mod members;
mod packed;
mod pins;
mod present;
mod prune;
mod read;
mod readers;
mod schema;
mod upkeep;
mod watch;
mod write_ahead;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rusqlite::Connection;
use tokio::sync::{Mutex, mpsc};

use crate::clock;
use crate::rollout::{Fact, Moment, Revision, RolloutName, SegmentName, UserEntry};

use self::fault::Fault;
use self::feed::Feed;
use self::file::StoreFile;
use self::members::Segments;
use self::readers::Readers;
use self::upkeep::Upkeep;
use self::watch::EmbeddedWatch;
use self::writer::Writer;
use super::{
    Answered, Commit, CommitError, Committed, Expired, HistoryEntry, HistoryQuery, Idempotency, Loaded, Most, Rosters,
    SegmentRecord, Store, StoreError, StoreStatus, UserPage, Watch, one_thread,
};

/// Copying reads and writes the whole file; what a damaged file costs at most is the changes of this time.
const COPY_EVERY: Duration = Duration::from_secs(60);

/// Where the store is, and how it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EmbeddedSettings {
    /// The file. Its folder is made where it is missing. On a local disk: network file systems do not lock reliably.
    pub path: PathBuf,
    /// How often the copy beside it (`.snapshot`) is made anew at most, while the state changes.
    pub copy_every: Duration,
}

impl EmbeddedSettings {
    /// The usual settings for a file.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            copy_every: COPY_EVERY,
        }
    }
}

/// Keeps everything in a file.
pub struct EmbeddedStore {
    /// Dropped first: its threads use the rest.
    _upkeep: Option<Upkeep>,
    writing: Writing,
    shared: Arc<Shared>,
}

/// Whether changes can be made.
enum Writing {
    /// By one at a time, in the order of asking.
    Open(Arc<Mutex<Writer>>),
    /// Not, and why.
    Closed(String),
}

/// What watchers and threads share.
struct Shared {
    file: StoreFile,
    rosters: Arc<Rosters>,
    readers: Readers,
    feed: Feed,
    /// Why the last commit failed, if it did.
    failing: parking_lot::Mutex<Option<String>>,
}

impl EmbeddedStore {
    /// Opens a store, or makes a new one. Blocks while it does.
    ///
    /// # Errors
    /// When the file cannot be read and written, is damaged, is no store, or was written by a newer program.
    pub fn open(settings: &EmbeddedSettings) -> Result<Self, StoreError> {
        let file = StoreFile::live(&settings.path);
        let rosters = Arc::new(Rosters::in_folder(rosters_beside(&settings.path)));
        let open = || {
            file.create()?;
            let writer = Writer::open(file.clone(), rosters.clone())?;
            let shared = Arc::new(Shared::open(file.clone(), rosters.clone())?);
            let writer = Arc::new(Mutex::new(writer));
            let upkeep = Upkeep::start(&shared, &writer, settings.copy_every)?;
            Ok(Self {
                _upkeep: Some(upkeep),
                writing: Writing::Open(writer),
                shared,
            })
        };
        open().map_err(|fault: Fault| fault.told(file.place()))
    }

    /// Opens the copy of the store at `path`, for reading: the way to serve while the store itself is damaged. Blocks
    /// while it does.
    ///
    /// # Errors
    /// When there is no copy, or it cannot be read.
    pub fn open_snapshot(path: &Path) -> Result<Self, StoreError> {
        let copy = StoreFile::copy_of(path);
        if !copy.path().exists() {
            return Err(Fault::NoCopy.told(copy.place()));
        }
        let rosters = Arc::new(Rosters::in_folder(rosters_beside(path)));
        let shared = Shared::open(copy.clone(), rosters).map_err(|fault| fault.told(copy.place()))?;
        Ok(Self {
            _upkeep: None,
            writing: Writing::Closed(format!("running from the copy {}", copy.place())),
            shared: Arc::new(shared),
        })
    }

    /// Whether there is a copy of the store at `path` to be opened.
    #[must_use]
    pub fn has_snapshot(path: &Path) -> bool {
        StoreFile::copy_of(path).path().exists()
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.shared.read(work).await
    }
}

impl Shared {
    fn open(file: StoreFile, rosters: Arc<Rosters>) -> Result<Self, Fault> {
        let readers = Readers::new(file.clone());
        let latest = readers.read(read::revision)?;
        Ok(Self {
            file,
            rosters,
            readers,
            feed: Feed::new(latest),
            failing: parking_lot::Mutex::default(),
        })
    }

    /// Reads within one transaction, of which the rosters of its segments are opened where they are needed.
    async fn read_segments<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(Segments<'_>) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let rosters = self.rosters.clone();
        self.read(move |db| work(Segments { db, rosters: &rosters })).await
    }

    async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, StoreError> {
        let done = one_thread::may_block(self.reading(work).await).await?;
        done.map_err(|fault| fault.told(self.file.place()))
    }

    /// What reads within one transaction, once it may.
    async fn reading<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> impl FnOnce() -> Result<T, Fault> + Send + 'static {
        let shared = self.clone();
        // It lasts as long as the thread reads, even if nobody waits for that any more.
        let turn = self.readers.turn().await;
        move || {
            let done = shared.readers.read(work);
            drop(turn);
            done
        }
    }
}

/// The folder of rosters beside a store.
fn rosters_beside(path: &Path) -> PathBuf {
    file::with_suffix(path, ".segments")
}

fn now() -> u64 {
    clock::unix_micros() / 1000
}

#[async_trait]
impl Store for EmbeddedStore {
    async fn load(&self, facts: mpsc::Sender<Loaded>) -> Result<Revision, StoreError> {
        let rosters = self.shared.rosters.clone();
        let load = move |db: &Connection| read::load(Segments { db, rosters: &rosters }, &facts);
        // As a rule the task that asks also receives the facts.
        let loaded = one_thread::elsewhere(self.shared.reading(load).await).await?;
        loaded.map_err(|fault| fault.told(self.shared.file.place()))
    }

    async fn commit(&self, base: Revision, commit: Commit) -> Result<Committed, CommitError> {
        let writer = match &self.writing {
            Writing::Open(writer) => writer.clone(),
            Writing::Closed(why) => return Err(CommitError::ReadOnly(why.clone())),
        };
        let mut writer = writer.lock_owned().await;
        let shared = self.shared.clone();
        // From here on it is carried through, even if nobody waits for it any more.
        let done = one_thread::may_block(move || writer.commit(base, commit, &shared.feed)).await?;
        let done = done.map_err(|fault| fault.refused(self.shared.file.place()));
        match &done {
            Ok(_) => *self.shared.failing.lock() = None,
            Err(CommitError::Store(error)) => *self.shared.failing.lock() = Some(error.to_string()),
            Err(CommitError::Moved(_) | CommitError::ReadOnly(_)) => {}
        }
        done
    }

    fn watch(&self, from: Revision) -> Box<dyn Watch> {
        Box::new(EmbeddedWatch::new(self.shared.clone(), from))
    }

    async fn revision(&self) -> Result<Revision, StoreError> {
        self.read(read::revision).await
    }

    async fn undoing(&self, to: Revision) -> Result<Vec<Fact>, StoreError> {
        self.shared
            .read_segments(move |segments| read::undoing(segments, to))
            .await
    }

    async fn history(&self, query: &HistoryQuery) -> Result<Vec<HistoryEntry>, StoreError> {
        let query = query.clone();
        self.read(move |db| read::history(db, &query)).await
    }

    async fn users(&self, rollout: &RolloutName, after: Option<&str>, limit: usize) -> Result<UserPage, StoreError> {
        let (rollout, after) = (rollout.clone(), after.map(ToOwned::to_owned));
        self.read(move |db| read::users(db, &rollout, after.as_deref(), limit))
            .await
    }

    async fn user(&self, rollout: &RolloutName, user: &str) -> Result<Option<UserEntry>, StoreError> {
        let (rollout, user) = (rollout.clone(), user.to_owned());
        self.read(move |db| read::user(db, &rollout, &user)).await
    }

    async fn members(
        &self,
        segment: &SegmentName,
        after: Option<&str>,
        most: Most,
    ) -> Result<Vec<Box<str>>, StoreError> {
        let (segment, after) = (segment.clone(), after.map(ToOwned::to_owned));
        let page = move |segments: Segments<'_>| segments.page(&segment, after.as_deref(), most);
        self.shared.read_segments(page).await
    }

    async fn segment(&self, segment: &SegmentName) -> Result<Option<SegmentRecord>, StoreError> {
        let segment = segment.clone();
        self.shared
            .read_segments(move |segments| segments.record(&segment))
            .await
    }

    fn rosters(&self) -> &Arc<Rosters> {
        &self.shared.rosters
    }

    async fn expired(&self, now: Moment, limit: usize) -> Result<Expired, StoreError> {
        self.read(move |db| read::expired(db, now, limit)).await
    }

    async fn nothing_to_change(&self, idempotency: Idempotency, at: Revision) -> Result<(), StoreError> {
        let Writing::Open(writer) = &self.writing else {
            return Ok(());
        };
        let mut writer = writer.clone().lock_owned().await;
        let kept = one_thread::may_block(move || writer.with(|db| answers::unchanged(db, &idempotency, at, now())));
        kept.await?.map_err(|fault| fault.told(self.shared.file.place()))
    }

    async fn answered(&self, idempotency: &Idempotency) -> Result<Option<Answered>, StoreError> {
        let asked = idempotency.clone();
        self.read(move |db| answers::answered(db, &asked, now())).await
    }

    async fn prune(&self, before: Moment) -> Result<(), StoreError> {
        let Writing::Open(writer) = &self.writing else {
            return Ok(());
        };
        loop {
            // Whoever waits to commit goes first.
            let mut writer = writer.clone().lock_owned().await;
            let some = one_thread::elsewhere(move || writer.with(|db| prune::some(db, before, now()))).await?;
            if !some.map_err(|fault| fault.told(self.shared.file.place()))? {
                break;
            }
        }
        // Nobody commits meanwhile what names a file that is about to go.
        let mut writer = writer.clone().lock_owned().await;
        let shared = self.shared.clone();
        let tidied = one_thread::elsewhere(move || {
            let mut named = writer.with(|db| read::rosters(db))?;
            let copy = StoreFile::copy_of(shared.file.path());
            if copy.path().exists() {
                match copy.open_to_read().and_then(|db| read::rosters(&db)) {
                    Ok(of_copy) => named.extend(of_copy),
                    // Of an older program, or damaged: the next one tells what it needs.
                    Err(_unread) => return Ok(()),
                }
            }
            Ok(shared.rosters.tidy(&named)?)
        });
        tidied
            .await?
            .map_err(|fault: Fault| fault.told(self.shared.file.place()))
    }

    fn status(&self) -> StoreStatus {
        StoreStatus {
            kind: "embedded",
            place: self.shared.file.place().to_owned(),
            read_only: match &self.writing {
                Writing::Open(_) => None,
                Writing::Closed(why) => Some(why.clone()),
            },
            failing: self.shared.failing.lock().clone(),
        }
    }
}
