//! Connections that read: as many as read at once, some kept for the next.

use parking_lot::Mutex;
use rusqlite::Connection;

use super::fault::Fault;
use super::file::StoreFile;

/// Connections that are kept open while nobody reads; each holds a cache.
const IDLE_MAX: usize = 4;

/// Reads the file.
pub(super) struct Readers {
    file: StoreFile,
    idle: Mutex<Vec<Connection>>,
}

impl Readers {
    pub(super) fn new(file: StoreFile) -> Self {
        Self {
            file,
            idle: Mutex::default(),
        }
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
        if idle.len() < IDLE_MAX {
            idle.push(db);
        }
        Ok(done)
    }
}
