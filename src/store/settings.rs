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

impl StoreSettings {
    /// Where an embedded store is, by default.
    pub const PATH: &'static str = "var/switchyard.db";
    /// How long changes can be seen and undone, by default: a quarter of a year.
    pub const KEEP_HISTORY: Duration = Duration::from_secs(90 * 24 * 3600);
}
