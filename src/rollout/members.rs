//! The users of a segment: a roster that does not change, and who came in or went out since. Copies share what did not
//! change.

mod digest;
mod digits;
mod draft;
mod gather;
mod key;
mod merge;
mod outline;
mod roster;
mod shelf;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::key::UserKey;
use super::users::{UserHash, UserMap};

pub use self::digest::{NamesMark, RosterDigest, RosterName};
pub use self::draft::{Draft, write_roster};
pub use self::gather::{Gathered, Sorted, TooMany};
pub use self::key::{KeyPart, RosterKey};
pub use self::merge::{Merged, Order};
pub use self::roster::{Roster, RosterBytes, RosterFault, WeakRoster};

/// A set of user ids.
#[derive(Debug, Clone)]
pub struct Members {
    roster: Option<Roster>,
    /// Who is in and not in the roster, and who is in the roster and yet out: nobody for whom the roster is right.
    since: Arc<UserMap<bool>>,
    /// Of those, how many are in.
    came: usize,
}

/// What becomes of a segment's members.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Turnover {
    /// Who comes in.
    pub added: u64,
    /// Who goes out.
    pub removed: u64,
    /// Who stays.
    pub kept: u64,
}

/// Who asks, hashed once for all lists of a rollout, and only if one of them wants it.
pub(super) struct Asking<'a> {
    id: &'a [u8],
    hash: Option<UserHash>,
    key: Option<UserKey>,
}

impl<'a> Asking<'a> {
    pub(super) fn new(id: &'a [u8]) -> Self {
        Self {
            id,
            hash: None,
            key: None,
        }
    }

    /// What a list says of the user.
    pub(super) fn found_in<V: Copy>(&mut self, users: &UserMap<V>) -> Option<V> {
        if users.is_empty() {
            return None;
        }
        users.get(self.hash(), self.id)
    }

    fn hash(&mut self) -> UserHash {
        *self.hash.get_or_insert_with(|| UserHash::of(self.id))
    }

    fn key(&mut self) -> UserKey {
        if let Some(key) = self.key {
            return key;
        }
        let key = UserKey::or_text(self.id, || self.hash());
        self.key = Some(key);
        key
    }
}

impl Members {
    /// Nobody.
    #[must_use]
    pub fn none() -> Self {
        Self {
            roster: None,
            since: Arc::new(UserMap::new()),
            came: 0,
        }
    }

    /// Those of a roster.
    #[must_use]
    pub fn of(roster: Roster) -> Self {
        Self {
            roster: Some(roster),
            ..Self::none()
        }
    }

    /// The roster that they stand on, if there is one.
    #[must_use]
    pub fn roster(&self) -> Option<&Roster> {
        self.roster.as_ref()
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        let listed = self.roster.as_ref().map_or(0, |roster| roster.name().users) as usize;
        listed + self.came - (self.since.len() - self.came)
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Who came in (true) and who went out (false) since the roster was made, in no order.
    pub fn since(&self) -> impl Iterator<Item = (&str, bool)> {
        // They came as text.
        let text = |id| std::str::from_utf8(id).unwrap_or_default();
        self.since.iter().map(move |(id, is_in)| (text(id), is_in))
    }

    /// How many came in and went out since the roster was made.
    #[must_use]
    pub fn since_len(&self) -> usize {
        self.since.len()
    }

    /// Whether the user who asks is one of them.
    pub(super) fn holds(&self, who: &mut Asking<'_>) -> bool {
        if let Some(is_in) = who.found_in(&self.since) {
            return is_in;
        }
        match &self.roster {
            Some(roster) => roster.holds(who.key(), who.id),
            None => false,
        }
    }

    /// Whether that id is one of them.
    #[must_use]
    pub fn contains(&self, user: &str) -> bool {
        self.holds(&mut Asking::new(user.as_bytes()))
    }

    /// Whether the user of whom only hashes are known is one of them.
    #[must_use]
    pub fn holds_part(&self, hash: UserHash, part: KeyPart) -> bool {
        let since = self.since.get_by_hash(hash);
        since.unwrap_or_else(|| self.roster.as_ref().is_some_and(|roster| roster.holds_part(part)))
    }

    /// Takes users out, then in; first all out if `replace`.
    pub fn edit(&mut self, replace: bool, remove: &[Box<str>], add: &[Box<str>]) {
        if replace {
            *self = Self::none();
        }
        for (users, is_in) in [(remove, false), (add, true)] {
            for id in users {
                self.set(id.as_bytes(), is_in);
            }
        }
    }

    /// Who comes in and who goes out, if these members become those. Exact; none where fingerprints of the two were made with
    /// different keys, which happens between segments and not to one of them.
    #[must_use]
    pub fn turnover(&self, after: &Self) -> Option<Turnover> {
        let mut kept = match (&self.roster, &after.roster) {
            (Some(before), Some(after)) if before == after => before.name().users,
            (Some(before), Some(after)) => before.shared(after)?,
            (None, _) | (_, None) => 0,
        };
        // Whom one of the rosters is not right about.
        let twice = |id: &str| self.since.get(UserHash::of(id.as_bytes()), id.as_bytes()).is_some();
        let of_after = after.since().filter(|(id, _)| !twice(id));
        for (id, _) in self.since().chain(of_after) {
            let listed = |members: &Self| members.roster.as_ref().is_some_and(|roster| roster.contains(id));
            let (was, is) = (listed(self) && listed(after), self.contains(id) && after.contains(id));
            kept = kept + u64::from(is) - u64::from(was);
        }
        Some(Turnover {
            added: after.len() as u64 - kept,
            removed: self.len() as u64 - kept,
            kept,
        })
    }

    fn set(&mut self, id: &[u8], is_in: bool) {
        let mut who = Asking::new(id);
        let before = who.found_in(&self.since);
        let listed = self.roster.as_ref().is_some_and(|roster| roster.holds(who.key(), id));
        if before.unwrap_or(listed) == is_in {
            return;
        }
        let since = Arc::make_mut(&mut self.since);
        if listed == is_in {
            // Back to what the roster says.
            since.remove(id);
            self.came -= usize::from(!is_in);
        } else {
            since.set(id, is_in, false);
            self.came += usize::from(is_in);
        }
    }
}
