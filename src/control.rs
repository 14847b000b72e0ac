//! The only writer of live state. What requests see is one [`Snapshot`] behind one atomic pointer: a request loads it
//! once and sees one revision, its retries included.

mod live;
mod snapshot;

pub use live::Live;
pub use snapshot::{LiveRollout, PoolNumbers, Slot, Snapshot, Surroundings};
