//! The product: who gets which release. Pure: values in, values out; no I/O, no clock, no randomness, no locks.

mod bucket;
mod change;
mod compile;
mod decision;
mod name;
mod rule;
mod spec;
mod split;
mod table;
mod users;
mod weight;

pub use bucket::{Bucket, Salt};
pub use change::{Change, Fact, Moment, Revision, Scheduled, UserEntry, UserGroup};
pub use decision::{Attributes, Decision, Reason};
pub use name::{NameError, PoolName, ReleaseName, RolloutName, RouteId, SegmentName};
pub use spec::{ReleaseSpec, RolloutSpec, TargetSpec, Unhealthy, When};
pub use split::{Range, Split, SplitError};
pub use table::{PoolIdx, Problem, Release, ReleaseIdx, Table};
pub use weight::{Weight, WeightError};
