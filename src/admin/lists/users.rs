//! The users of a list, as they are gathered while it is read: each once, by what they get.

use std::collections::HashMap;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use xxhash_rust::xxh3::xxh3_64;

use super::Sink;
use crate::rollout::{Moment, ReleaseName, UserGroup};

/// Different pairs of release and time; a list with more is not one of a rollout.
const GROUPS_MAX: usize = 10_000;

/// Users as they are kept while a list is read.
#[derive(Debug, Default)]
pub struct Users {
    groups: Vec<Group>,
    by_terms: HashMap<(ReleaseName, Option<Moment>), u32>,
    /// The group and the place in it of each user.
    places: HashTable<(u32, u32)>,
}

#[derive(Debug)]
struct Group {
    release: Option<ReleaseName>,
    until: Option<Moment>,
    ids: Vec<Box<str>>,
    /// The line of each.
    lines: Vec<u32>,
}

impl Sink for Users {
    const LINES_MAX: u32 = 5_000_000;
    const BYTES_MAX: u64 = 256 * 1024 * 1024;

    fn take(
        &mut self,
        user: &str,
        release: Option<ReleaseName>,
        until: Option<Moment>,
        number: u32,
    ) -> Result<(), String> {
        let group = self.group(release, until)?;
        let groups = &mut self.groups;
        let id = |(group, place): (u32, u32)| -> &str { &groups[group as usize].ids[place as usize] };
        let hash = xxh3_64(user.as_bytes());
        let entry = self
            .places
            .entry(hash, |at| id(*at) == user, |at| xxh3_64(id(*at).as_bytes()));
        match entry {
            Entry::Occupied(known) => {
                let (other, place) = *known.get();
                if other == group {
                    return Ok(());
                }
                let first = groups[other as usize].lines[place as usize];
                Err(format!(
                    "the user is in line {first} already, and gets something else there"
                ))
            }
            Entry::Vacant(free) => {
                let into = &mut groups[group as usize];
                // Fewer than LINES_MAX, which fits.
                free.insert((group, into.ids.len() as u32));
                into.ids.push(user.into());
                into.lines.push(number);
                Ok(())
            }
        }
    }

    /// Each is taken once, and there are no more than lines.
    fn too_many(&self) -> Option<String> {
        None
    }
}

impl Users {
    fn group(&mut self, release: Option<ReleaseName>, until: Option<Moment>) -> Result<u32, String> {
        // Most lists say the same in every line.
        if let Some(last) = self.groups.last() {
            if last.release == release && last.until == until {
                return Ok(self.groups.len() as u32 - 1);
            }
        }
        let number = self.groups.len() as u32;
        if let Some(name) = &release {
            let place = self.by_terms.entry((name.clone(), until)).or_insert(number);
            if *place != number {
                return Ok(*place);
            }
        }
        if self.groups.len() >= GROUPS_MAX {
            return Err(format!(
                "there are more than {GROUPS_MAX} different pairs of release and time"
            ));
        }
        self.groups.push(Group {
            release,
            until,
            ids: Vec::new(),
            lines: Vec::new(),
        });
        Ok(number)
    }

    /// Who gets what.
    pub fn into_groups(self) -> Vec<UserGroup> {
        let group = |group: Group| {
            group.release.map(|release| UserGroup {
                release,
                until: group.until,
                users: group.ids,
            })
        };
        self.groups.into_iter().filter_map(group).collect()
    }

    /// The ids alone.
    pub fn into_ids(self) -> Vec<Box<str>> {
        self.groups.into_iter().flat_map(|group| group.ids).collect()
    }
}
