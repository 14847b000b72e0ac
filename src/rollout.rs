//! The product: who gets which release. Pure: values in, values out; no I/O, no clock, no randomness, no locks.

mod bucket;
mod change;
mod compile;
mod decision;
mod edit;
mod explain;
mod members;
mod name;
mod patch;
mod plan;
mod prefix;
mod rule;
mod spec;
mod split;
mod table;
mod users;
mod weight;

pub use bucket::{Bucket, Salt};
pub use change::{Change, Fact, Moment, Revision, Scheduled, UserEntry, UserGroup};
pub use decision::{Attributes, Decision, NoAttributes, Reason};
pub use edit::{EditError, check_ids};
pub use explain::{Entry, Explanation, Step};
pub use members::{
    Draft, Gathered, KeyPart, Members, Merged, NamesMark, Order, Roster, RosterBytes, RosterDigest, RosterFault,
    RosterKey, RosterName, Sorted, TooMany, Turnover, WeakRoster, write_roster,
};
pub use name::{NameError, PoolName, ReleaseName, RolloutName, RouteId, SegmentName};
pub use patch::{RolloutPatch, UsersPatch};
pub use plan::{Move, Plan, Seen, SeenUser, ShareMove};
pub use prefix::check_prefix;
pub use spec::{ReleaseSpec, RolloutSpec, TargetSpec, Unhealthy, When};
pub use split::{Range, Split, SplitError};
pub use table::{Known, PoolIdx, Problem, Release, ReleaseIdx, Table};
pub use users::UserHash;
pub use weight::{Weight, WeightError};
