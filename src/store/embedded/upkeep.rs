//! What a store does by itself, on two threads of its own: it looks for commits of other programs, and it empties the
//! log into the file and keeps the copy. Both end when the store is dropped.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use log::{info, warn};
use parking_lot::{Condvar, Mutex};
use rusqlite::Connection;
use tokio::sync;

use crate::clock;
use crate::precedence;
use crate::rollout::Revision;
use crate::telemetry::targets;

use super::fault::Fault;
use super::write_ahead::Log;
use super::writer::Writer;
use super::{Shared, copy, read};

/// How late another program's commit is seen at most. Looking reads one number from shared memory.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often the length of the log is looked at.
const TEND_EVERY: Duration = Duration::from_millis(250);

/// Ends the threads when dropped.
pub(super) struct Upkeep {
    stop: Arc<Stop>,
    threads: Vec<JoinHandle<()>>,
}

/// Says when to stop.
#[derive(Default)]
pub(super) struct Stop {
    stopped: Mutex<bool>,
    news: Condvar,
}

impl Stop {
    /// Waits; true when it is time to stop.
    fn within(&self, wait: Duration) -> bool {
        let mut stopped = self.stopped.lock();
        if !*stopped {
            self.news.wait_for(&mut stopped, wait);
        }
        *stopped
    }

    pub(super) fn now(&self) -> bool {
        *self.stopped.lock()
    }
}

impl Upkeep {
    pub(super) fn start(
        shared: &Arc<Shared>,
        writer: &Arc<sync::Mutex<Writer>>,
        copy_every: Duration,
    ) -> Result<Self, Fault> {
        let mut upkeep = Self {
            stop: Arc::default(),
            threads: Vec::new(),
        };
        let (stop, looked) = (upkeep.stop.clone(), shared.clone());
        upkeep.spawn("store-look", move || look(&looked, &stop))?;
        let (stop, tended) = (upkeep.stop.clone(), shared.clone());
        let log = Log::new(writer);
        upkeep.spawn("store-upkeep", move || tend(&tended, &stop, log, copy_every))?;
        Ok(upkeep)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Fault> {
        let work = || {
            precedence::changes();
            work();
        };
        self.threads
            .push(std::thread::Builder::new().name(name.to_owned()).spawn(work)?);
        Ok(())
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        *self.stop.stopped.lock() = true;
        self.stop.news.notify_all();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                warn!(target: targets::STORE, "store: a thread of the store ended by a panic");
            }
        }
    }
}

/// Logs the first of a row of failures, and the end of them.
struct Complaint {
    about: &'static str,
    failing: bool,
}

impl Complaint {
    fn about(about: &'static str) -> Self {
        Self { about, failing: false }
    }

    fn heard<T>(&mut self, shared: &Shared, done: Result<T, Fault>) -> Option<T> {
        let (about, place) = (self.about, shared.file.place());
        match done {
            Ok(done) => {
                if std::mem::take(&mut self.failing) {
                    info!(target: targets::STORE, "store {place}: {about} works again");
                }
                Some(done)
            }
            Err(fault) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(target: targets::STORE, "{about} fails, and is tried again: {}", fault.told(place));
                }
                None
            }
        }
    }
}

fn look(shared: &Shared, stop: &Stop) {
    let mut complaint = Complaint::about("looking for changes by other programs");
    let (mut db, mut seen) = (None, None);
    while !stop.within(LOOK_EVERY) {
        let looked = look_once(shared, db.take(), seen);
        if let Some((open, version)) = complaint.heard(shared, looked) {
            (db, seen) = (Some(open), Some(version));
        }
    }
}

/// A look at the file's version, and at its revision if that moved.
fn look_once(shared: &Shared, db: Option<Connection>, seen: Option<i64>) -> Result<(Connection, i64), Fault> {
    let (db, seen) = match db {
        Some(db) => (db, seen),
        None => (shared.file.open_to_read()?, None),
    };
    let version = db
        .prepare_cached("PRAGMA data_version")?
        .query_row([], |row| row.get(0))?;
    if seen != Some(version) {
        shared.feed.look(|| read::revision(&db))?;
    }
    Ok((db, version))
}

fn tend(shared: &Shared, stop: &Stop, mut log: Log, copy_every: Duration) {
    let (mut emptying, mut copying) = (Complaint::about("emptying the log"), Complaint::about("copying"));
    let latest = shared.feed.latest();
    let mut copied: Option<(Revision, Instant)> = None;
    while !stop.within(TEND_EVERY) {
        emptying.heard(shared, log.keep(&shared.file));
        let (revision, now) = (*latest.borrow(), clock::now());
        let due = copied.is_none_or(|(of, at)| of != revision && now.duration_since(at) >= copy_every);
        if due && revision > Revision(0) {
            copying.heard(shared, copy::refresh(&shared.file, stop));
            copied = Some((revision, now));
        }
    }
}
