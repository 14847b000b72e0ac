//! A table after a fact about users or segments: what did not change is shared with the table before, so that moving
//! one user of a million copies a thousandth of them.

use thiserror::Error;

use super::change::UserGroup;
use super::members::Members;
use super::name::{ReleaseName, SegmentName};
use super::table::{Matcher, Table};
use crate::identity::UserId;

/// Of an id that is none, so many characters are shown.
const SHOWN_CHARS: usize = 60;

/// Users that a table cannot take.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EditError {
    /// A release that the rollout has not.
    #[error("release {release:?} does not exist: write one of {known}")]
    Release {
        /// As written.
        release: String,
        /// Those that do.
        known: String,
    },
    /// An id that is none.
    #[error("user id {user:?} {cause}")]
    User {
        /// As written.
        user: String,
        /// Why.
        cause: crate::identity::IdError,
    },
    /// Single users would be left on a release that is no more.
    #[error(
        "{users} single users are pinned to releases that the new spec has not: unset them first, or keep the release"
    )]
    Stranded {
        /// How many.
        users: usize,
    },
}

/// Checks user ids.
///
/// # Errors
/// On the first that is none.
pub fn check_ids(users: &[Box<str>]) -> Result<(), EditError> {
    for user in users {
        UserId::new(user.as_bytes()).map_err(|cause| EditError::User {
            user: shortened(user),
            cause,
        })?;
    }
    Ok(())
}

/// So much of an id as a message has room for.
fn shortened(id: &str) -> String {
    match id.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &id[..end]),
        None => id.to_owned(),
    }
}

impl Table {
    /// Checks users that are to be pinned.
    ///
    /// # Errors
    /// On the first release that does not exist, or id that is none.
    pub fn check_users(&self, groups: &[UserGroup]) -> Result<(), EditError> {
        for group in groups {
            self.known_release(&group.release)?;
            check_ids(&group.users)?;
        }
        Ok(())
    }

    fn known_release(&self, name: &ReleaseName) -> Result<super::table::ReleaseIdx, EditError> {
        let known = || self.releases.iter().map(|r| r.name.as_str()).collect::<Vec<_>>();
        self.index(name).ok_or_else(|| EditError::Release {
            release: name.to_string(),
            known: known().join(", "),
        })
    }

    /// Pins and unpins single users: first all are unpinned if `replace`, then `unset`, then `set`.
    ///
    /// # Errors
    /// On a release that does not exist; the table is then half changed and to be thrown away.
    pub fn edit_users(&mut self, replace: bool, unset: &[Box<str>], set: &[UserGroup]) -> Result<(), EditError> {
        if replace {
            self.users = super::users::UserMap::new();
        }
        for user in unset {
            self.users.remove(user.as_bytes());
        }
        let many: usize = set.iter().map(|group| group.users.len()).sum();
        if many > self.users.len() {
            self.users.reserve(many);
        }
        for group in set {
            let release = self.known_release(&group.release)?;
            for user in &group.users {
                self.users.set(user.as_bytes(), release, false);
            }
        }
        Ok(())
    }

    /// Takes over the single users of the table before, and yields those who are pinned to a release that this table has
    /// not: they are left out.
    pub fn adopt_users(&mut self, before: &Self) -> Vec<Box<str>> {
        let same = before.releases.len() == self.releases.len()
            && before
                .releases
                .iter()
                .zip(&self.releases)
                .all(|(a, b)| a.name == b.name);
        if same {
            self.users = before.users.clone();
            return Vec::new();
        }
        let to = |index| self.index(&before.release(index).name);
        let (users, left) = before.users.mapped(&to);
        self.users = users;
        left
    }

    /// Where a single user is pinned.
    #[must_use]
    pub fn single_user(&self, user: &str) -> Option<&ReleaseName> {
        let hash = super::users::UserHash::of(user.as_bytes());
        let release = self.users.get(hash, user.as_bytes())?;
        Some(&self.release(release).name)
    }

    /// All single users, in no order.
    pub fn each_single_user(&self) -> impl Iterator<Item = &str> {
        // They came as text.
        self.users.iter().filter_map(|(id, _)| std::str::from_utf8(id).ok())
    }

    /// The segments that targets name.
    pub fn segments(&self) -> impl Iterator<Item = &SegmentName> {
        self.targets.iter().filter_map(|target| match &target.what {
            Matcher::Segment(name, _) => Some(name),
            Matcher::Users(_) | Matcher::When(_) => None,
        })
    }

    /// Takes new members of a segment where targets name it.
    pub fn set_segment(&mut self, segment: &SegmentName, members: &Members) {
        for target in &mut self.targets {
            match &mut target.what {
                Matcher::Segment(name, present) if name == segment => *present = members.clone(),
                Matcher::Segment(..) | Matcher::Users(_) | Matcher::When(_) => {}
            }
        }
    }
}
