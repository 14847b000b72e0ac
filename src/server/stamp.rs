//! Tells whether a file has changed.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// How often files are looked at.
pub const LOOK_EACH: Duration = Duration::from_secs(1);

/// When a file was written, how long it is, and which file it is, for one that was put in the place of another within a
/// tick of the file system's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    written: SystemTime,
    bytes: u64,
    inode: u64,
}

impl Stamp {
    /// Of the file at a path, if there is one.
    pub fn of(path: &Path) -> Option<Self> {
        let found = std::fs::metadata(path).ok()?;
        Some(Self {
            written: found.modified().ok()?,
            bytes: found.len(),
            inode: found.ino(),
        })
    }
}
