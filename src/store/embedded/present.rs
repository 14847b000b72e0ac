//! The state as the tables hold it, for undoing.

use crate::rollout::{Revision, RolloutName, RolloutSpec, RosterName, Scheduled, SegmentName, UserEntry};
use crate::store::undo::Present;

use super::column::Releases;
use super::fault::Fault;
use super::members::Segments;
use super::{apply, pins};

/// The tables, as they are read.
pub(super) struct Tables<'a>(pub(super) Segments<'a>);

impl Present for Tables<'_> {
    type Error = Fault;

    fn spec(&self, rollout: &RolloutName) -> Result<Option<RolloutSpec>, Fault> {
        apply::spec(self.0.db, rollout)
    }

    fn user(&self, rollout: &RolloutName, user: &str) -> Result<Option<UserEntry>, Fault> {
        pins::find(self.0.db, rollout, user, &mut Releases::default())
    }

    fn each_user(&self, rollout: &RolloutName, each: &mut dyn FnMut(&str, UserEntry)) -> Result<(), Fault> {
        pins::each(self.0.db, rollout, |user, entry| {
            each(user, entry);
            Ok(())
        })
    }

    fn has_segment(&self, segment: &SegmentName) -> Result<bool, Fault> {
        self.0.exists(segment)
    }

    fn is_member(&self, segment: &SegmentName, user: &str) -> Result<bool, Fault> {
        self.0.is_in(segment, user)
    }

    fn roster(&self, segment: &SegmentName) -> Result<Option<RosterName>, Fault> {
        self.0.roster(segment)
    }

    fn each_since(&self, segment: &SegmentName, each: &mut dyn FnMut(&str, bool)) -> Result<(), Fault> {
        self.0.each_since(segment, |user, is_in| {
            each(user, is_in);
            Ok(())
        })
    }

    fn scheduled(&self, id: Revision) -> Result<Option<Scheduled>, Fault> {
        apply::waiting(self.0.db, id)
    }
}
