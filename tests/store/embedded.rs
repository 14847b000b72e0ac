//! What a store in a file does beyond the contract.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use switchyard::store::{EmbeddedSettings, EmbeddedStore};

/// A folder of one test's own, removed at its end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let n = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("switchyard-store-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&path).expect("folder");
        Self(path)
    }

    pub fn path(&self) -> PathBuf {
        self.0.join("rollouts.db")
    }

    pub fn open(&self) -> EmbeddedStore {
        EmbeddedStore::open(&EmbeddedSettings::new(self.path())).expect("opens")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}
