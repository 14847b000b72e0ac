//! Connections that read: as many as read at once, kept for the next.

use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::fault::Fault;
use super::file::StoreFile;

/// Each more would be a thread more that takes its share of the cores beside requests, however many ask at once, and a
/// connection more that holds a cache.
const AT_ONCE: usize = 2;

/// Reads the file.
pub(super) struct Readers {
    file: StoreFile,
    idle: Mutex<Vec<Connection>>,
    turns: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new(file: StoreFile) -> Self {
        Self {
            file,
            idle: Mutex::default(),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// Waits until a thread may read, for as long as what is given back is held.
    pub(super) async fn turn(&self) -> OwnedSemaphorePermit {
        let turn = Arc::clone(&self.turns).acquire_owned().await;
        // invariant: nobody closes it
        turn.expect("open")
    }

    /// Reads within one transaction. A connection that fails is not used again.
    pub(super) fn read<T>(&self, work: impl FnOnce(&Connection) -> Result<T, Fault>) -> Result<T, Fault> {
        let idle = self.idle.lock().pop();
        let db = match idle {
            Some(db) => db,
            None => self.file.open_to_read()?,
        };
        let tx = db.unchecked_transaction()?;
        let done = work(&tx)?;
        tx.finish()?;
        let mut idle = self.idle.lock();
        if idle.len() < AT_ONCE {
            idle.push(db);
        }
        Ok(done)
    }
}
