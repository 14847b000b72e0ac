//! The only writer of live state: a change is formed and checked by the [`Controller`], committed by the store, and
//! published in order by the [`Follower`]. What requests see is one [`Snapshot`] behind one atomic pointer: a request loads
//! it once and sees one revision, its retries included.

mod already;
mod apply;
mod attempt;
mod check;
mod clerk;
mod controller;
mod describe;
mod follower;
mod freeze;
mod live;
mod merger;
mod release;
mod request;
mod resolve;
mod seen;
mod snapshot;
mod undoing;

pub use apply::ApplyProblem;
pub use clerk::Clerk;
pub use controller::Controller;
pub use describe::what as describe;
pub use follower::{Follower, LostUsers, StartError};
pub use live::Live;
pub use merger::Merger;
pub use release::LiveRollout;
pub use request::{Asked, ChangeError, Outcome, Request};
pub use seen::SeenUsers;
pub use snapshot::{PoolNumbers, Segment, Slot, Snapshot, Surroundings};
// What the admin side says of the store goes through here.
pub use crate::store::{
    Diff, HistoryEntry, HistoryQuery, Idempotency, MemoryStore, Most, OURSELVES, Source, Store, StoreError,
    StoreStatus, UserPage,
};
