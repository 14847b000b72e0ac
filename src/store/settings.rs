//! What the store is told at start.

use std::path::PathBuf;
use std::time::Duration;

/// Which store, and how long the history is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreSettings {
    /// Where the state is kept.
    pub place: StorePlace,
    /// How long changes can be seen and undone.
    pub keep_history: Duration,
}

/// Where the state is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StorePlace {
    /// In this process only.
    Memory,
    /// In a file of this machine.
    Embedded(PathBuf),
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            place: StorePlace::Embedded(PathBuf::from("var/switchyard.db")),
            keep_history: Duration::from_secs(90 * 24 * 3600),
        }
    }
}
