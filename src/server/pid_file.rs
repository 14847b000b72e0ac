//! The file with the daemon's process id. The daemon holds a lock on it for as long as it lives, so that a file that is
//! left over is known from one that is in use.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// How often a file that is replaced by others at the same moment is opened again.
const TRIES: usize = 10;

/// Why the file is not this process's.
#[derive(Debug, Error)]
pub enum PidFileError {
    /// Another process has it.
    #[error("{}: process {pid} is running: end it, or replace it with serve -d -u", path.display())]
    Running {
        /// The file.
        path: PathBuf,
        /// Who.
        pid: String,
    },
    /// Nobody has it.
    #[error("{}: no process is running that could be replaced: start with serve -d", .0.display())]
    Nobody(PathBuf),
    /// It cannot be written.
    #[error("pid file {}: {cause}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
}

/// The file of this process. It is removed when this is dropped, unless a successor has put its own there.
pub struct PidFile {
    path: PathBuf,
    file: File,
}

impl PidFile {
    /// Writes this process's id, if no running process has the file.
    ///
    /// # Errors
    /// When one has, or it cannot be written.
    pub fn claim(path: &Path) -> Result<Self, PidFileError> {
        let failed = |cause| file_error(path, cause);
        make_folder(path).map_err(failed)?;
        for _ in 0..TRIES {
            let file = open(path, true).map_err(failed)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let pid = read(&file);
                    return Err(PidFileError::Running {
                        path: path.to_owned(),
                        pid,
                    });
                }
                Err(TryLockError::Error(e)) => return Err(failed(e)),
            }
            let own = Self {
                path: path.to_owned(),
                file,
            };
            if own.is_there() {
                own.write().map_err(failed)?;
                return Ok(own);
            }
        }
        Err(failed(io::Error::other("others replace it all the time")))
    }

    /// Puts a file of this process's own in the place of its predecessor's.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn replace(path: &Path) -> Result<Self, PidFileError> {
        let failed = |cause| file_error(path, cause);
        make_folder(path).map_err(failed)?;
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let new = PathBuf::from(new);
        // Left over by a process that was killed.
        drop(std::fs::remove_file(&new));
        let file = open(&new, true).map_err(failed)?;
        file.lock().map_err(failed)?;
        let own = Self {
            path: path.to_owned(),
            file,
        };
        own.write().map_err(failed)?;
        std::fs::rename(&new, path).map_err(failed)?;
        Ok(own)
    }

    fn write(&self) -> io::Result<()> {
        self.file.set_len(0)?;
        (&self.file).write_all(format!("{}\n", std::process::id()).as_bytes())
    }

    fn is_there(&self) -> bool {
        match (self.file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(own), Ok(there)) => own.ino() == there.ino() && own.dev() == there.dev(),
            (_, Err(_)) | (Err(_), Ok(_)) => false,
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        if self.is_there() {
            // What cannot be removed is unlocked, and the next start replaces it.
            drop(std::fs::remove_file(&self.path));
        }
    }
}

/// The id of the running process that has the file.
///
/// # Errors
/// When there is none.
pub fn running(path: &Path) -> Result<u32, PidFileError> {
    let nobody = || PidFileError::Nobody(path.to_owned());
    let file = match open(path, false) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(nobody()),
        Err(e) => return Err(file_error(path, e)),
    };
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => read(&file).parse().map_err(|_| nobody()),
        Ok(()) => Err(nobody()),
        Err(TryLockError::Error(e)) => Err(file_error(path, e)),
    }
}

fn open(path: &Path, create: bool) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(create).open(path)
}

/// What the file says, for people: an empty text if it cannot be read.
fn read(mut file: &File) -> String {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) => text.trim().to_owned(),
        Err(_) => String::new(),
    }
}

fn make_folder(path: &Path) -> io::Result<()> {
    match path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        Some(folder) => DirBuilder::new().recursive(true).mode(0o700).create(folder),
        None => Ok(()),
    }
}

fn file_error(path: &Path, cause: io::Error) -> PidFileError {
    PidFileError::File {
        path: path.to_owned(),
        cause,
    }
}
