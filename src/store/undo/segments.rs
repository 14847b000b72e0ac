//! Segments as they were.

use std::collections::BTreeMap;

use crate::rollout::{Fact, RosterName, SegmentName};
use crate::store::USERS_IN_A_FACT;

use super::Present;

/// What is said of a segment: whether it exists, whether those in `said` are in it, and what of all others.
#[derive(Default)]
pub(super) struct Members {
    exists: bool,
    others: Others,
    said: BTreeMap<Box<str>, bool>,
}

/// What is said of those who are not named.
#[derive(Default)]
enum Others {
    /// Nothing.
    #[default]
    Untold,
    /// They are out.
    Out,
    /// They are in if they are in the roster.
    Listed(RosterName),
}

impl Members {
    pub(super) fn end(&mut self) {
        self.exists = false;
        self.all(Others::Out);
    }

    pub(super) fn stand_on(&mut self, roster: RosterName) {
        self.exists = true;
        self.all(Others::Listed(roster));
    }

    pub(super) fn edit(&mut self, replace: bool, remove: Vec<Box<str>>, add: Vec<Box<str>>) {
        self.exists = true;
        if replace {
            self.all(Others::Out);
        }
        self.said.extend(remove.into_iter().map(|user| (user, false)));
        self.said.extend(add.into_iter().map(|user| (user, true)));
    }

    fn all(&mut self, others: Others) {
        self.others = others;
        self.said.clear();
    }

    pub(super) fn beside<P: Present>(
        self,
        present: &P,
        segment: &SegmentName,
        facts: &mut Vec<Fact>,
    ) -> Result<(), P::Error> {
        let there = present.has_segment(segment)?;
        if !self.exists {
            if there {
                facts.push(Fact::NoSegment {
                    segment: segment.clone(),
                });
            }
            return Ok(());
        }
        let stands_on = if there { present.roster(segment)? } else { None };
        let (mut first, edits) = match (self.others, stands_on) {
            (Others::Listed(said), Some(now)) if said == now => (None, unlike(self.said, false, present, segment)?),
            (Others::Listed(roster), _) => {
                let segment = segment.clone();
                (Some(Fact::Roster { segment, roster }), self.said.into_iter().collect())
            }
            (Others::Out, Some(_)) => {
                // Millions may be in the roster: they go out all at once.
                let fact = edited(segment, true, &[]);
                (Some(fact), self.said.into_iter().filter(|(_, is_in)| *is_in).collect())
            }
            (Others::Out, None) => (None, unlike(self.said, true, present, segment)?),
            (Others::Untold, _) => (None, untold(self.said, present, segment)?),
        };
        if !there && first.is_none() && edits.is_empty() {
            first = Some(edited(segment, false, &[]));
        }
        facts.extend(first);
        facts.extend(edits.chunks(USERS_IN_A_FACT).map(|piece| edited(segment, false, piece)));
        Ok(())
    }
}

type Edits = Vec<(Box<str>, bool)>;

/// Who must come in and who must go out, so that the members are those of the roster, or nobody, but for what is said.
fn unlike<P: Present>(
    mut said: BTreeMap<Box<str>, bool>,
    others_out: bool,
    present: &P,
    segment: &SegmentName,
) -> Result<Edits, P::Error> {
    let mut edits = Vec::new();
    present.each_since(segment, &mut |user, is_in| {
        let wanted = said.remove(user).unwrap_or(!is_in);
        if wanted != is_in {
            edits.push((user.into(), wanted));
        }
    })?;
    if others_out {
        said.retain(|_, is_in| *is_in);
        edits.extend(said);
        return Ok(edits);
    }
    edits.extend(untold(said, present, segment)?);
    Ok(edits)
}

/// Of those who are named, who must come in and who must go out.
fn untold<P: Present>(said: BTreeMap<Box<str>, bool>, present: &P, segment: &SegmentName) -> Result<Edits, P::Error> {
    let mut edits = Vec::new();
    for (user, is_in) in said {
        if present.is_member(segment, &user)? != is_in {
            edits.push((user, is_in));
        }
    }
    Ok(edits)
}

fn edited(segment: &SegmentName, replace: bool, piece: &[(Box<str>, bool)]) -> Fact {
    let side = |wanted: bool| {
        let users = piece.iter().filter(|(_, is_in)| *is_in == wanted);
        users.map(|(user, _)| user.clone()).collect()
    };
    Fact::Segment {
        segment: segment.clone(),
        replace,
        remove: side(false),
        add: side(true),
    }
}
