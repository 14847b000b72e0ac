//! The users of a segment; copies share what did not change.

use std::sync::Arc;

use super::users::{UserHash, UserMap};

/// A set of user ids.
#[derive(Debug, Clone)]
pub struct Members(Arc<UserMap<()>>);

impl Members {
    /// Nobody.
    #[must_use]
    pub fn none() -> Self {
        Self(Arc::new(UserMap::new()))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is nobody.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a user is one of them.
    #[must_use]
    pub fn holds(&self, hash: UserHash, id: &[u8]) -> bool {
        self.0.get(hash, id).is_some()
    }

    /// Whether that id is one of them.
    #[must_use]
    pub fn contains(&self, user: &str) -> bool {
        self.holds(UserHash::of(user.as_bytes()), user.as_bytes())
    }

    /// Whether the user with that hash is one of them.
    #[must_use]
    pub fn holds_hash(&self, hash: UserHash) -> bool {
        self.0.get_by_hash(hash).is_some()
    }

    /// Takes users out, then in; first all out if `replace`.
    pub fn edit(&mut self, replace: bool, remove: &[Box<str>], add: &[Box<str>]) {
        if replace {
            *self = Self::none();
        }
        let users = Arc::make_mut(&mut self.0);
        for id in remove {
            users.remove(id.as_bytes());
        }
        for id in add {
            users.set(id.as_bytes(), (), true);
        }
    }
}
