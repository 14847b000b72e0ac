//! Single users as they were.

use std::collections::BTreeMap;

use crate::rollout::{Fact, RolloutName, UserEntry, UserGroup};
use crate::store::piece::UsersPiece;

use super::Present;

/// What is said of a rollout's single users: of those in `said`, and of all others that they are unpinned, if
/// `others_unpinned`, or nothing.
#[derive(Default)]
pub(super) struct Pins {
    others_unpinned: bool,
    said: BTreeMap<Box<str>, Option<UserEntry>>,
}

impl Pins {
    pub(super) fn clear(&mut self) {
        self.others_unpinned = true;
        self.said.clear();
    }

    pub(super) fn add(&mut self, replace: bool, unset: Vec<Box<str>>, set: Vec<UserGroup>) {
        if replace {
            self.clear();
        }
        self.said.extend(unset.into_iter().map(|user| (user, None)));
        for group in set {
            let entry = UserEntry {
                release: group.release,
                until: group.until,
            };
            let pinned = group.users.into_iter().map(|user| (user, Some(entry.clone())));
            self.said.extend(pinned);
        }
    }

    pub(super) fn beside<P: Present>(
        mut self,
        present: &P,
        rollout: &RolloutName,
        facts: &mut Vec<Fact>,
    ) -> Result<(), P::Error> {
        let mut piece = UsersPiece::new(rollout, false);
        if self.others_unpinned {
            present.each_user(rollout, &mut |user, entry| match self.said.get(user) {
                Some(Some(was)) if *was == entry => {
                    self.said.remove(user);
                }
                Some(Some(_)) => {}
                Some(None) | None => facts.extend(piece.unpin(user)),
            })?;
            self.said.retain(|_, was| was.is_some());
        }
        for (user, was) in self.said {
            if !self.others_unpinned && present.user(rollout, &user)? == was {
                continue;
            }
            facts.extend(match was {
                Some(entry) => piece.pin(&user, &entry.release, entry.until),
                None => piece.unpin(&user),
            });
        }
        facts.extend(piece.finish());
        Ok(())
    }
}
