//! Segments as they were.

use std::collections::BTreeMap;

use crate::rollout::{Fact, SegmentName};
use crate::store::USERS_IN_A_FACT;

use super::Present;

/// What is said of a segment: whether it exists, whether those in `said` are in it, and that all others are out, if
/// `others_out`, or nothing of them.
#[derive(Default)]
pub(super) struct Members {
    exists: bool,
    others_out: bool,
    said: BTreeMap<Box<str>, bool>,
}

impl Members {
    pub(super) fn end(&mut self) {
        self.exists = false;
        self.clear();
    }

    pub(super) fn edit(&mut self, replace: bool, remove: Vec<Box<str>>, add: Vec<Box<str>>) {
        self.exists = true;
        if replace {
            self.clear();
        }
        self.said.extend(remove.into_iter().map(|user| (user, false)));
        self.said.extend(add.into_iter().map(|user| (user, true)));
    }

    fn clear(&mut self) {
        self.others_out = true;
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
        let edits = self.edits(present, segment)?;
        if there && edits.is_empty() {
            return Ok(());
        }
        let mut pieces = edits.chunks(USERS_IN_A_FACT);
        facts.push(edited(segment, pieces.next().unwrap_or_default()));
        facts.extend(pieces.map(|piece| edited(segment, piece)));
        Ok(())
    }

    /// Who must come in, and who must go out.
    fn edits<P: Present>(mut self, present: &P, segment: &SegmentName) -> Result<Vec<(Box<str>, bool)>, P::Error> {
        let mut edits = Vec::new();
        if self.others_out {
            present.each_member(segment, &mut |user| {
                if self.said.remove(user) != Some(true) {
                    edits.push((user.into(), false));
                }
            })?;
            self.said.retain(|_, is_in| *is_in);
        }
        for (user, is_in) in self.said {
            if self.others_out || present.is_member(segment, &user)? != is_in {
                edits.push((user, is_in));
            }
        }
        Ok(edits)
    }
}

fn edited(segment: &SegmentName, piece: &[(Box<str>, bool)]) -> Fact {
    let side = |wanted: bool| {
        let users = piece.iter().filter(|(_, is_in)| *is_in == wanted);
        users.map(|(user, _)| user.clone()).collect()
    };
    Fact::Segment {
        segment: segment.clone(),
        replace: false,
        remove: side(false),
        add: side(true),
    }
}
