//! The state as the tables hold it, for undoing.

use rusqlite::Connection;

use crate::rollout::{Revision, RolloutName, RolloutSpec, Scheduled, SegmentName, UserEntry};
use crate::store::undo::Present;

use super::column::Releases;
use super::fault::Fault;
use super::{apply, members, pins};

/// The tables, as they are read.
pub(super) struct Tables<'a>(pub(super) &'a Connection);

impl Present for Tables<'_> {
    type Error = Fault;

    fn spec(&self, rollout: &RolloutName) -> Result<Option<RolloutSpec>, Fault> {
        apply::spec(self.0, rollout)
    }

    fn user(&self, rollout: &RolloutName, user: &str) -> Result<Option<UserEntry>, Fault> {
        pins::find(self.0, rollout, user, &mut Releases::default())
    }

    fn each_user(&self, rollout: &RolloutName, each: &mut dyn FnMut(&str, UserEntry)) -> Result<(), Fault> {
        pins::each(self.0, rollout, |user, entry| {
            each(user, entry);
            Ok(())
        })
    }

    fn has_segment(&self, segment: &SegmentName) -> Result<bool, Fault> {
        members::exists(self.0, segment)
    }

    fn is_member(&self, segment: &SegmentName, user: &str) -> Result<bool, Fault> {
        members::is_in(self.0, segment, user)
    }

    fn each_member(&self, segment: &SegmentName, each: &mut dyn FnMut(&str)) -> Result<(), Fault> {
        members::each(self.0, segment, |user| {
            each(user);
            Ok(())
        })
    }

    fn scheduled(&self, id: Revision) -> Result<Option<Scheduled>, Fault> {
        apply::waiting(self.0, id)
    }
}
