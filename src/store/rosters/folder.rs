//! The folder of rosters: `DIGEST.roster` and, where there are ids that are neither numbers nor UUIDs, `DIGEST.names`. A
//! file gets its name when it is whole and on the disk, and is never written again.

use std::collections::HashSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use memmap2::{Advice, Mmap};

use crate::clock;
use crate::precedence;
use crate::rollout::{NamesMark, RosterBytes, RosterDigest, RosterName};

/// What the names of files begin with that are being written.
const UNFINISHED: &str = "unfinished-";
/// Bytes that are handed to the disk together: the kernel takes about 20 µs for them, during which no request goes first.
/// It takes as many times that for a whole file when that is synced.
const HANDED_AT_ONCE: u64 = 256 * 1024;

pub(super) struct Folder {
    path: PathBuf,
    written: AtomicU64,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            written: AtomicU64::new(0),
        }
    }

    pub(super) fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn file(&self, digest: RosterDigest, kind: &str) -> PathBuf {
        self.path.join(format!("{digest}.{kind}"))
    }

    pub(super) fn roster_place(&self, digest: RosterDigest) -> String {
        self.file(digest, "roster").display().to_string()
    }

    pub(super) fn names_place(&self, digest: RosterDigest) -> String {
        self.file(digest, "names").display().to_string()
    }

    pub(super) fn roster(&self, digest: RosterDigest) -> io::Result<RosterBytes> {
        mapped(&self.file(digest, "roster"))
    }

    pub(super) fn names(&self, digest: RosterDigest) -> io::Result<RosterBytes> {
        mapped(&self.file(digest, "names"))
    }

    /// Writes both files of a draft, syncs them, names them and syncs the folder.
    pub(super) fn write<D>(
        &self,
        draft: &mut D,
        names: impl FnOnce(&D, &mut BufWriter<Handed>) -> io::Result<NamesMark>,
        roster: impl FnOnce(&mut D, NamesMark, &mut BufWriter<Handed>) -> io::Result<RosterName>,
    ) -> io::Result<RosterName> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let mut names_file = self.unfinished()?;
        let mark = names(draft, &mut names_file.file)?;
        let mut roster_file = self.unfinished()?;
        let name = roster(draft, mark, &mut roster_file.file)?;
        if mark.bytes > 0 {
            names_file.finish(&self.file(name.digest, "names"))?;
        }
        roster_file.finish(&self.file(name.digest, "roster"))?;
        File::open(&self.path)?.sync_all()?;
        Ok(name)
    }

    fn unfinished(&self) -> io::Result<Unfinished> {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{UNFINISHED}{}-{number}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)?;
        Ok(Unfinished {
            path,
            file: BufWriter::new(Handed::new(file)),
        })
    }

    /// Removes files that are older and that nothing names. Who has one mapped keeps its pages: only the name goes.
    pub(super) fn tidy(&self, named: &HashSet<RosterDigest>, older: Duration) -> io::Result<()> {
        let entries = match std::fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let now = Duration::from_micros(clock::unix_micros());
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            let digest = name
                .split_once('.')
                .and_then(|(digest, _)| RosterDigest::from_str(digest).ok());
            let is_ours = digest.is_some() || name.starts_with(UNFINISHED);
            if !is_ours || digest.is_some_and(|digest| named.contains(&digest)) {
                continue;
            }
            let written = entry.metadata()?.modified()?.duration_since(std::time::UNIX_EPOCH);
            let age = now.saturating_sub(written.unwrap_or_default());
            if age >= older {
                match std::fs::remove_file(entry.path()) {
                    Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                    // Another program may have been at it.
                    Ok(()) | Err(_) => {}
                }
            }
        }
        Ok(())
    }
}

/// A file that is gone when it is dropped before it is whole.
struct Unfinished {
    path: PathBuf,
    file: BufWriter<Handed>,
}

/// A file whose bytes are on their way to the disk soon after they are written.
pub(super) struct Handed {
    file: File,
    written: u64,
    handed: u64,
}

impl Unfinished {
    /// Takes the place of a file of the same contents, whose age it makes new.
    fn finish(mut self, name: &Path) -> io::Result<()> {
        self.file.flush()?;
        self.file.get_ref().file.sync_all()?;
        std::fs::rename(&self.path, name)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            // It has its name by now, as a rule.
            if error.kind() != ErrorKind::NotFound {
                log::warn!(target: crate::telemetry::targets::STORE, "{}: {error}", self.path.display());
            }
        }
    }
}

impl Handed {
    fn new(file: File) -> Self {
        Self {
            file,
            written: 0,
            handed: 0,
        }
    }
}

impl Write for Handed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.written += written as u64;
        if self.written - self.handed >= HANDED_AT_ONCE {
            begin_to_sync(&self.file, self.handed, self.written - self.handed)?;
            self.handed = self.written;
            precedence::give_way();
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// sync_file_range(2): what is dirty there is sent to the disk, and not waited for. It promises nothing.
fn begin_to_sync(file: &File, from: u64, bytes: u64) -> io::Result<()> {
    let (Ok(from), Ok(bytes)) = (libc::off64_t::try_from(from), libc::off64_t::try_from(bytes)) else {
        return Ok(());
    };
    // SAFETY: the descriptor is open as long as the file is borrowed; nothing else is passed but numbers.
    #[expect(unsafe_code, reason = "no safe form of the call is at hand")]
    let begun = unsafe { libc::sync_file_range(file.as_raw_fd(), from, bytes, libc::SYNC_FILE_RANGE_WRITE) };
    match io::Error::last_os_error() {
        _ if begun == 0 => Ok(()),
        // A file system that does not know it syncs all at the end.
        error if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL | libc::ESPIPE)) => Ok(()),
        error => Err(error),
    }
}

fn mapped(path: &Path) -> io::Result<RosterBytes> {
    let map = map(&File::open(path)?)?;
    // All of it is read soon, to compare its digest: in large pieces where it is not in memory yet.
    map.advise(Advice::WillNeed)?;
    Ok(RosterBytes::from_owner(map))
}

#[expect(unsafe_code, reason = "the one place where a file is mapped")]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the bytes must not change while they are mapped. A file of this folder is written under another name, synced,
    // renamed, and from then on only ever unlinked, which leaves the mapped pages as they are; the folder can be entered by
    // the program's user only. Who writes to it or cuts it short in spite of that ends the program (SIGBUS), as who writes
    // to its executable would.
    unsafe { Mmap::map(file) }
}
