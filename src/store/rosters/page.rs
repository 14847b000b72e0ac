//! Members in pages: by kind and key, which is the order of the roster, those who came in since in between.

use super::Rosters;
use crate::rollout::{Order, Roster};
use crate::store::{Most, StoreError};

impl Rosters {
    /// Members, after a member: of those in the roster, and of those who came in (true) and went out
    /// (false) since. Blocks while it reads.
    ///
    /// # Errors
    /// When the names beside the roster cannot be read.
    pub(in crate::store) fn page<'a>(
        &self,
        roster: &Roster,
        since: impl Iterator<Item = (&'a str, bool)>,
        after: Option<&str>,
        most: Most,
    ) -> Result<Vec<Box<str>>, StoreError> {
        let after = after.map(|id| Order::of(id, roster.key()));
        let (mut came, mut went) = (Vec::new(), Vec::new());
        for (id, is_in) in since {
            let order = Order::of(id, roster.key());
            if !is_in {
                went.push(order);
            } else if after.is_none_or(|after| order > after) {
                came.push((order, id));
            }
        }
        came.sort_unstable();
        went.sort_unstable();
        let listed = roster
            .listed(after)
            .filter(|(order, _)| went.binary_search(order).is_err());
        let (mut listed, mut came) = (listed.peekable(), came.into_iter().peekable());
        let mut page: Vec<Place<'_>> = Vec::new();
        while page.len() < most.users {
            let next = listed.peek().map(|(order, _)| *order);
            let new = came.next_if(|(new, _)| next.is_none_or(|next| *new < next));
            match (new, next) {
                (Some((_, id)), _) => page.push(Place::Since(id)),
                (None, Some(order)) => {
                    let nth = listed.next().map_or(0, |(_, nth)| nth);
                    page.push(order.id().map_or(Place::Named(nth), Place::Had));
                }
                (None, None) => break,
            }
        }
        self.filled(roster, page, most)
    }

    /// The page with its names, which are read from the first of them on.
    fn filled(&self, roster: &Roster, page: Vec<Place<'_>>, most: Most) -> Result<Vec<Box<str>>, StoreError> {
        let first = page.iter().find_map(|place| match place {
            Place::Named(nth) => Some(*nth),
            Place::Had(_) | Place::Since(_) => None,
        });
        let names = match first {
            Some(_) => Some(self.names(roster)?),
            None => None,
        };
        let mut names = names.iter().flat_map(|names| names.from(first.unwrap_or_default()));
        let mut next = first.unwrap_or_default();
        let fill = |place| match place {
            Place::Had(id) => Ok(id.into()),
            Place::Since(id) => Ok(id.into()),
            Place::Named(nth) => {
                let name = names.nth(nth - next);
                next = nth + 1;
                let name = name.unwrap_or_else(|| Err(std::io::Error::other("it ends early")));
                name.map_err(|error| self.names_unreadable(roster, &error))
            }
        };
        most.of(page.into_iter().map(fill))
    }
}

/// Where a member's id is.
enum Place<'a> {
    /// Here.
    Had(String),
    /// Among those who came in.
    Since(&'a str),
    /// The nth of the names beside the roster.
    Named(usize),
}
