//! Rosters on the disk: files beside the store that are named by their digest, written once, mapped for reading, and
//! removed when nothing names them any more. A store in memory keeps their bytes instead.

mod folder;
mod names;
mod page;

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use self::folder::Folder;
use self::names::{Names, NamesWriter};
use super::StoreError;
use crate::rollout::{
    Draft, Fact, Gathered, Merged, NamesMark, Roster, RosterBytes, RosterDigest, RosterFault, RosterKey, RosterName,
    SegmentName, Sorted, WeakRoster, write_roster,
};

/// A file that nothing names is kept for so long: whoever wrote it may be about to commit a change that does.
const UNNAMED_KEPT: Duration = Duration::from_secs(3600);

/// All rosters of a store.
pub struct Rosters {
    place: Place,
    /// For rosters of segments that have none.
    fresh_key: RosterKey,
    open: Mutex<HashMap<RosterDigest, WeakRoster>>,
    /// Those that were read last: a list is read in many pages.
    names: Mutex<Option<(RosterDigest, Arc<Names>)>>,
}

enum Place {
    Memory(Mutex<HashMap<RosterDigest, InMemory>>),
    Folder(Folder),
}

#[derive(Clone)]
struct InMemory {
    roster: RosterBytes,
    names: RosterBytes,
}

impl Rosters {
    /// In memory.
    #[must_use]
    pub(super) fn in_memory() -> Self {
        Self::at(Place::Memory(Mutex::default()))
    }

    /// In a folder, which is made when the first roster is.
    #[must_use]
    pub(super) fn in_folder(path: PathBuf) -> Self {
        Self::at(Place::Folder(Folder::new(path)))
    }

    fn at(place: Place) -> Self {
        // The system's randomness, as hash maps have it.
        let random = || RandomState::new().hash_one(0);
        Self {
            place,
            fresh_key: RosterKey([random(), random()]),
            open: Mutex::default(),
            names: Mutex::default(),
        }
    }

    /// The key for the roster of a segment that has none yet.
    #[must_use]
    pub fn fresh_key(&self) -> RosterKey {
        self.fresh_key
    }

    /// Keeps a list, durably. Blocks while it does.
    ///
    /// # Errors
    /// When it cannot be written; then nothing of it is kept.
    pub fn keep(&self, sorted: Sorted) -> Result<Roster, StoreError> {
        self.write(sorted, |sorted, names| {
            sorted.names().try_for_each(|name| names.add(name))
        })
    }

    /// Keeps a roster, if there is one, and what changed since as a new roster, durably. Blocks while it does. `since` says
    /// who came in and who went out, nobody for whom the roster is right already.
    ///
    /// # Errors
    /// When it cannot be written, or the names beside the roster cannot be read; then nothing of it is kept.
    pub fn merge<'a>(
        &self,
        roster: Option<&Roster>,
        since: impl Iterator<Item = (&'a str, bool)>,
    ) -> Result<Roster, StoreError> {
        let Some(roster) = roster else {
            let mut gathered = Gathered::new(self.fresh_key, 1);
            since
                .filter(|(_, is_in)| *is_in)
                .for_each(|(user, _)| gathered.add(user));
            let sorted = gathered.sorted();
            return self.keep(sorted.map_err(|too_many| unwritten("a list", &std::io::Error::other(too_many)))?);
        };
        let merged = Merged::new(roster, since);
        let kept = self.names(roster)?;
        self.write(merged, |merged, names| {
            merged.names(kept.from(0), |name| names.add(name))
        })
    }

    fn write<D: Draft>(
        &self,
        mut draft: D,
        names: impl FnOnce(&D, &mut NamesWriter<'_>) -> std::io::Result<()>,
    ) -> Result<Roster, StoreError> {
        let name = match &self.place {
            Place::Memory(kept) => {
                let mut bytes = Vec::new();
                let mark = NamesWriter::write(&mut bytes, |out| names(&draft, out));
                let written = mark.and_then(|mark| {
                    let mut roster = Vec::new();
                    let name = write_roster(&mut draft, mark, &mut roster)?;
                    Ok((name, roster))
                });
                let (name, roster) = written.map_err(|error| unwritten("memory", &error))?;
                let both = InMemory {
                    roster: roster.into(),
                    names: bytes.into(),
                };
                kept.lock().insert(name.digest, both);
                name
            }
            Place::Folder(folder) => {
                let draft = &mut draft;
                let written = folder.write(
                    draft,
                    |draft, out| NamesWriter::write(out, |out| names(draft, out)),
                    |draft, mark, out| write_roster(draft, mark, out),
                );
                written.map_err(|error| unwritten(&folder.place(), &error))?
            }
        };
        // What it was written from is not needed beside it.
        drop(draft);
        self.opened(&name, None, Roster::written)
    }

    /// Opens a roster: maps its file and compares its digest, once for as long as anybody has it. Blocks while it does.
    ///
    /// # Errors
    /// When it is missing, cut short or damaged; the error names the file and the segment.
    pub fn open(&self, segment: &SegmentName, name: &RosterName) -> Result<Roster, StoreError> {
        self.opened(name, Some(segment), Roster::open)
    }

    fn opened(
        &self,
        name: &RosterName,
        segment: Option<&SegmentName>,
        open_bytes: impl FnOnce(RosterBytes, RosterDigest) -> Result<Roster, RosterFault>,
    ) -> Result<Roster, StoreError> {
        // Held all the while, so that nobody reads the same file a second time.
        let mut open = self.open.lock();
        if let Some(roster) = open.get(&name.digest).and_then(WeakRoster::upgrade) {
            return Ok(roster);
        }
        let (bytes, place): (RosterBytes, String) = match &self.place {
            Place::Memory(kept) => {
                let kept = kept.lock().get(&name.digest).cloned();
                let kept = kept.ok_or_else(|| unreadable("memory", segment, &"there is no such list of users"))?;
                (kept.roster, "memory".to_owned())
            }
            Place::Folder(folder) => {
                let place = folder.roster_place(name.digest);
                let bytes = folder
                    .roster(name.digest)
                    .map_err(|error| unreadable(&place, segment, &error))?;
                (bytes, place)
            }
        };
        let roster = open_bytes(bytes, name.digest).map_err(|fault| unreadable(&place, segment, &fault))?;
        open.retain(|_, weak| weak.upgrade().is_some());
        open.insert(name.digest, roster.downgrade());
        Ok(roster)
    }

    /// The rosters that facts name, opened. Blocks while it does.
    ///
    /// # Errors
    /// As [`Rosters::open`].
    pub fn named_by(&self, facts: &[Fact]) -> Result<HashMap<RosterDigest, Roster>, StoreError> {
        let named = facts.iter().filter_map(Fact::roster);
        named
            .map(|(segment, name)| Ok((name.digest, self.open(segment, &name)?)))
            .collect()
    }

    /// The names beside a roster.
    fn names(&self, roster: &Roster) -> Result<Arc<Names>, StoreError> {
        let (mark, digest) = (roster.names(), roster.name().digest);
        if mark == NamesMark::default() {
            return Ok(Arc::new(Names::none()));
        }
        let mut known = self.names.lock();
        if let Some((_, names)) = known.as_ref().filter(|(of, _)| *of == digest) {
            return Ok(names.clone());
        }
        let bytes: std::io::Result<RosterBytes> = match &self.place {
            Place::Memory(kept) => match kept.lock().get(&digest) {
                Some(kept) => Ok(kept.names.clone()),
                None => Err(std::io::ErrorKind::NotFound.into()),
            },
            Place::Folder(folder) => folder.names(digest),
        };
        let names = bytes.and_then(|bytes| Names::open(bytes, mark));
        let names = Arc::new(names.map_err(|error| self.names_unreadable(roster, &error))?);
        *known = Some((digest, names.clone()));
        Ok(names)
    }

    fn names_unreadable(&self, roster: &Roster, error: &std::io::Error) -> StoreError {
        match &self.place {
            Place::Memory(_) => unreadable("memory", None, error),
            Place::Folder(folder) => unreadable(&folder.names_place(roster.name().digest), None, error),
        }
    }

    /// Forgets the rosters that nothing names.
    ///
    /// # Errors
    /// When the folder cannot be read or changed.
    pub(super) fn tidy(&self, named: &HashSet<RosterDigest>) -> Result<(), StoreError> {
        *self.names.lock() = None;
        match &self.place {
            Place::Memory(kept) => {
                let open = self.open.lock();
                let in_use = |digest: &RosterDigest| open.get(digest).is_some_and(|weak| weak.upgrade().is_some());
                kept.lock().retain(|digest, _| named.contains(digest) || in_use(digest));
                Ok(())
            }
            Place::Folder(folder) => folder
                .tidy(named, UNNAMED_KEPT)
                .map_err(|error| unwritten(&folder.place(), &error)),
        }
    }
}

fn unwritten(place: &str, error: &std::io::Error) -> StoreError {
    StoreError::Failed {
        place: place.to_owned(),
        cause: format!("a segment's users cannot be written: {error}"),
        remedy: "check that the folder is writable and has room; nothing was changed",
    }
}

fn unreadable(place: &str, segment: Option<&SegmentName>, cause: &dyn std::fmt::Display) -> StoreError {
    let whose = segment.map_or_else(
        || "a segment's users".to_owned(),
        |name| format!("the users of segment {name}"),
    );
    StoreError::Failed {
        place: place.to_owned(),
        cause: format!("{whose} cannot be read: {cause}"),
        remedy: "put the file back from a backup, or import the segment again, where the program runs, or starts with \
                 serve --without-lost-users",
    }
}
