//! Values as they stand in columns.

use rusqlite::Row;

use crate::rollout::{Moment, ReleaseName, Revision};
use crate::store::UserEntry;

use super::fault::Fault;

/// Revisions and moments, as SQLite's signed numbers. Beyond them is the year 292 million.
pub(super) fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(super) fn number(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or(0)
}

pub(super) fn limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

pub(super) fn revision(row: &Row<'_>, at: usize) -> rusqlite::Result<Revision> {
    row.get(at).map(|stored| Revision(number(stored)))
}

pub(super) fn until(row: &Row<'_>, at: usize) -> rusqlite::Result<Option<Moment>> {
    let stored: Option<i64> = row.get(at)?;
    Ok(stored.map(|stored| Moment(number(stored))))
}

/// Text that is borrowed from the row; an error where the column has something else.
pub(super) fn text<'a>(row: &'a Row<'_>, at: usize) -> Result<&'a str, Fault> {
    let value = row.get_ref(at)?;
    value.as_str().map_err(|error| Fault::Unreadable(error.to_string()))
}

/// The releases of a long list of users are few: each name is made once.
#[derive(Default)]
pub(super) struct Releases(Vec<ReleaseName>);

impl Releases {
    pub(super) fn named(&mut self, text: &str) -> Result<ReleaseName, Fault> {
        if let Some(known) = self.0.iter().find(|known| known.as_str() == text) {
            return Ok(known.clone());
        }
        let new = ReleaseName::parse(text).map_err(|error| Fault::Unreadable(error.to_string()))?;
        self.0.push(new.clone());
        Ok(new)
    }

    /// The columns `release, until`, the first of them at `at`.
    pub(super) fn entry(&mut self, row: &Row<'_>, at: usize) -> Result<UserEntry, Fault> {
        Ok(UserEntry {
            release: self.named(text(row, at)?)?,
            until: until(row, at + 1)?,
        })
    }
}
