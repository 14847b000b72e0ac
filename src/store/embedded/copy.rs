//! Keeps a copy of the file that is whole and on the disk, for the day on which the file itself is damaged.

use std::ffi::OsStr;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};

use super::fault::Fault;
use super::file::{StoreFile, with_suffix};
use super::upkeep::Stop;

/// No copy is written to for so long: whoever began an older one has ended.
const COPYING_MAX: Duration = Duration::from_secs(3600);
/// Pages that are copied before looking whether the program ends.
const PAGES_AT_ONCE: i32 = 4096;

/// Replaces the copy by one of the present state. Nobody waits for it: it reads like any reader.
pub(super) fn refresh(file: &StoreFile, stop: &Stop) -> Result<(), Fault> {
    let copy = StoreFile::copy_of(file.path());
    remove_left_behind(copy.path())?;
    // An old and a new program may both be at it.
    let made = with_suffix(copy.path(), &format!(".{}", std::process::id()));
    let done = make(file, &made, stop).and_then(|whole| {
        if whole {
            std::fs::rename(&made, copy.path())?;
            sync_folder(copy.path())?;
        }
        Ok(whole)
    });
    if !matches!(done, Ok(true)) && made.exists() {
        std::fs::remove_file(&made)?;
    }
    done.map(|_whole| ())
}

/// Copies; false when the program ends before it is done.
fn make(file: &StoreFile, made: &Path, stop: &Stop) -> Result<bool, Fault> {
    OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(made)?;
    let from = file.open_to_read()?;
    // Held to the end, or the copy would begin anew with each commit.
    let whole = from.unchecked_transaction()?;
    super::read::revision(&whole)?;
    let mut to = Connection::open(made)?;
    // Not needed while nobody knows of the file; it is synced once, when it is whole.
    to.pragma_update(None, "synchronous", "OFF")?;
    to.query_row("PRAGMA journal_mode = OFF", [], |_| Ok(()))?;
    {
        let pages = Backup::new(&whole, &mut to)?;
        while pages.step(PAGES_AT_ONCE)? != StepResult::Done {
            if stop.now() {
                return Ok(false);
            }
        }
    }
    to.close().map_err(|(_open, error)| error)?;
    File::open(made)?.sync_all()?;
    Ok(true)
}

/// Removes what programs that were killed while they copied left beside the copy.
fn remove_left_behind(copy: &Path) -> Result<(), Fault> {
    let (Some(name), Some(folder)) = (copy.file_name().and_then(OsStr::to_str), folder_of(copy)) else {
        return Ok(());
    };
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let file = entry.file_name();
        let suffix = file
            .to_str()
            .and_then(|file| file.strip_prefix(name)?.strip_prefix('.'));
        let is_ours = suffix.is_some_and(|pid| pid.parse::<u32>().is_ok());
        let age = |written: SystemTime| written.elapsed().unwrap_or_default();
        if is_ours && entry.metadata()?.modified().map(age)? >= COPYING_MAX {
            std::fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn folder_of(file: &Path) -> Option<&Path> {
    let folder = file.parent()?;
    Some(if folder.as_os_str().is_empty() {
        Path::new(".")
    } else {
        folder
    })
}

fn sync_folder(file: &Path) -> Result<(), Fault> {
    Ok(File::open(folder_of(file).unwrap_or(Path::new(".")))?.sync_all()?)
}
