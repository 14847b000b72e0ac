//! What goes over the admin API: the bodies of requests and answers, the same for the server, the OpenAPI document and
//! the command line. Times are RFC 3339 text; user ids are text.

use std::time::Duration;

mod change;
mod event;
mod problem;
mod read;
mod values;

pub use change::{ApplyBody, Changed, EditBody, PlanBody, Planned, SplitBody, UndoBody, UserBody, UserLine};
pub use event::{EndpointHealth, Figures, LiveRevision, ReleaseFigures};
pub use problem::{Problem, ProblemItem};
pub use read::{
    EndpointState, ExplainBody, Explained, HistoryItem, HistoryPage, MemberPage, PoolState, Rollout, Rollouts, Roster,
    Schedule, ScheduledItem, Segment, Segments, Status, StoreState, User, UserList,
};
pub use values::{Named, Values};

// The words of the change itself are the domain's.
pub use crate::control::{Diff, Source};
pub use crate::rollout::{Entry, Explanation, Move, Plan, RolloutSpec, ShareMove, Step};

/// How long a list of users may take, until its change is answered: a hundred million of them over a slow line.
pub const LIST_WITHIN: Duration = Duration::from_secs(30 * 60);
/// The media type of an error.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// The media type of a list of users with one JSON object a line.
pub const NDJSON: &str = "application/x-ndjson";
/// The media type of a list of users as `user[,release[,until]]`.
pub const CSV: &str = "text/csv";
/// The media type of a list of users with one id a line.
pub const PLAIN: &str = "text/plain";
/// Why a change is made: at most 1,000 bytes of text, percent-encoded where it is not ASCII.
pub const X_REASON: &str = "x-reason";
/// Where a change comes from: `cli` or `console`.
pub const X_SOURCE: &str = "x-source";
/// Makes a repeated request harmless: 1 to 255 visible ASCII characters.
pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
