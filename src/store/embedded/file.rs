//! Opens the file: its place, its permissions, its connections. The file is never opened but through SQLite: closing
//! any other descriptor of it would drop the locks that this program holds on it (POSIX), and two programs would write
//! at once. For the same reason it must lie on a local disk.

use std::fs::{DirBuilder, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::column::stored;
use super::fault::Fault;
use super::schema;
use crate::clock;

/// How long a lock of another program is waited for. A program holds it while it commits; the longest, an import of a
/// million users, takes some seconds on a slow disk.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Between two tries to change a file's mode, which takes SQLite far less.
const MODE_LOOK_EACH: Duration = Duration::from_millis(2);
/// Pages a connection keeps, in KiB: the inner pages of a table of ten million users.
const CACHE_KIB: i64 = 16 * 1024;
/// The log is cut to this size when it begins anew, so that a large import does not hold its disk for ever.
pub(super) const LOG_BYTES_KEPT: u64 = 16 << 20;

/// A store's file.
#[derive(Debug, Clone)]
pub(super) struct StoreFile {
    path: PathBuf,
    place: String,
    /// A copy that nothing writes to.
    frozen: bool,
}

impl StoreFile {
    /// The file that is read and written.
    pub(super) fn live(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            place: path.display().to_string(),
            frozen: false,
        }
    }

    /// The copy of a live file.
    pub(super) fn copy_of(path: &Path) -> Self {
        let path = with_suffix(path, ".snapshot");
        Self {
            place: path.display().to_string(),
            path,
            frozen: true,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Its name, for messages.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The write-ahead log beside it.
    pub(super) fn log_path(&self) -> PathBuf {
        with_suffix(&self.path, "-wal")
    }

    /// Makes the folder and the file where they are missing, readable by their owner only.
    pub(super) fn create(&self) -> Result<(), Fault> {
        if let Some(folder) = self.path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        // An empty file is a new store, unless there was one: then its changes would be forgotten without a word.
        let is_empty = |path: &Path| std::fs::metadata(path).map_or(true, |file| file.len() == 0);
        if is_empty(&self.path) {
            let rests = [Self::copy_of(&self.path).path, self.log_path()];
            if let Some(rest) = rests.into_iter().find(|rest| !is_empty(rest)) {
                return Err(Fault::Lost(rest.display().to_string()));
            }
        }
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&self.path)
        {
            Ok(_new) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                std::fs::set_permissions(&self.path, Permissions::from_mode(0o600))?;
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// A connection that writes. The log is emptied by upkeep, not by whoever happens to commit.
    pub(super) fn open_to_write(&self) -> Result<Connection, Fault> {
        let db = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        let mode = write_ahead(&db)?;
        if mode != "wal" {
            return Err(Fault::Unreadable(format!("journal mode is {mode}, not wal")));
        }
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "foreign_keys", true)?;
        db.pragma_update(None, "wal_autocheckpoint", 0)?;
        db.pragma_update(None, "journal_size_limit", stored(LOG_BYTES_KEPT))?;
        Ok(db)
    }

    /// A connection that reads.
    pub(super) fn open_to_read(&self) -> Result<Connection, Fault> {
        if self.frozen {
            return self.connect(OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI);
        }
        // Opened for writing, because a reader of a write-ahead log takes part in its index.
        let db = self.connect(OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        db.pragma_update(None, "query_only", true)?;
        db.pragma_update(None, "wal_autocheckpoint", 0)?;
        Ok(db)
    }

    fn connect(&self, flags: OpenFlags) -> Result<Connection, Fault> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = if self.frozen {
            Connection::open_with_flags(self.frozen_address(), flags)?
        } else {
            Connection::open_with_flags(&self.path, flags)?
        };
        db.busy_timeout(LOCK_WAIT)?;
        // Or a query with `LIMIT ?` is parsed and planned again each time it is bound: 6 % of what many admin requests cost.
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        db.pragma_update(None, "cache_size", -CACHE_KIB)?;
        // A damaged page is found when it is read, not when it has been used.
        db.pragma_update(None, "cell_size_check", true)?;
        db.pragma_update(None, "trusted_schema", false)?;
        // As of one moment: another program may be making the tables of a new file.
        let look = db.unchecked_transaction()?;
        schema::check(&look)?;
        look.finish()?;
        Ok(db)
    }

    /// Nothing changes a copy, it is only ever replaced: no locks, and no index of a log that is not there.
    fn frozen_address(&self) -> String {
        let mut address = String::from("file:");
        for byte in self.path.as_os_str().as_bytes() {
            if byte.is_ascii_alphanumeric() || b"/-_.~".contains(byte) {
                address.push(char::from(*byte));
            } else {
                address.push_str(&format!("%{byte:02X}"));
            }
        }
        address.push_str("?immutable=1");
        address
    }
}

/// Gives a file its write-ahead log, and says what mode it has then. Others may be giving it the same, and SQLite does not
/// wait for a lock that a change of mode needs.
fn write_ahead(db: &Connection) -> Result<String, Fault> {
    let patience = clock::now() + LOCK_WAIT;
    loop {
        let mode = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
        let busy = |e: &rusqlite::Error| e.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy);
        match mode {
            Err(e) if busy(&e) && clock::now() < patience => std::thread::sleep(MODE_LOOK_EACH),
            mode => return Ok(mode?),
        }
    }
}

/// A file beside another: `store.db` and `.snapshot` make `store.db.snapshot`.
pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
