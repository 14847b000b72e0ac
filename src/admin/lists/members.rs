//! The users of a segment, as they are gathered while the list is read.

use super::Sink;
use crate::rollout::{Gathered, Moment, ReleaseName};

impl Sink for Gathered {
    /// More than twice what a segment may hold: some may come more than once.
    const LINES_MAX: u32 = 250_000_000;
    const BYTES_MAX: u64 = 32 << 30;

    fn take(
        &mut self,
        user: &str,
        _release: Option<ReleaseName>,
        _until: Option<Moment>,
        _number: u32,
    ) -> Result<(), String> {
        // That a line says no more than a user was seen when it was read.
        self.add(user);
        Ok(())
    }

    fn too_many(&self) -> Option<String> {
        Gathered::too_many(self).map(|too_many| too_many.to_string())
    }
}
