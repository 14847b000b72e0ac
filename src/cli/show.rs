//! What the admin side answers, as text for people. Pure: values and a screen in, text out.

mod change;
mod decision;
mod event;
mod read;
mod rollout;

pub use change::{changed, diff, history, planned, schedule};
pub use decision::{decided, explained};
pub use event::{figures, health, revision};
pub use read::{pinned, segment, segments, status};
pub use rollout::{rollout, rollouts};
