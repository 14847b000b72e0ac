//! What is asked of the controller, what it answers, and why it refuses.

use thiserror::Error;

use super::apply::ApplyProblem;
use crate::rollout::{Change, Moment, Plan, ReleaseName, Revision, RolloutName, SegmentName, Turnover};
use crate::store::{Diff, Idempotency, Source, StoreError};

/// A change that is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is to be made.
    pub change: Change,
    /// By whom, and on what conditions.
    pub asked: Asked,
}

/// Who asks for a change, and on what conditions.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The name of who asks.
    pub actor: String,
    /// Why, in their words.
    pub reason: Option<String>,
    /// Where it comes from.
    pub source: Source,
    /// The revision that what is changed must have.
    pub expected: Option<Revision>,
    /// Makes a repeated request harmless.
    pub idempotency: Option<Idempotency>,
    /// When it is to be made; now where left out.
    pub at: Option<Moment>,
    /// Only say what would be done.
    pub dry_run: bool,
    /// Users may move backwards out of a growing release.
    pub allow_flips: bool,
}

/// What became of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The revision of it; the current one where nothing was changed.
    pub revision: Revision,
    /// Whether requests on this node see it.
    pub live: bool,
    /// Whether there was anything to change; always false for a dry run.
    pub changed: bool,
    /// One line.
    pub summary: String,
    /// The change, readable.
    pub diff: Vec<Diff>,
    /// Who would move, for a rollout whose spec or split changes.
    pub plans: Vec<(RolloutName, Plan)>,
    /// Who comes into the segment that it is about, and who goes out.
    pub members: Option<Turnover>,
}

impl Outcome {
    /// There was nothing to change, and that revision is the current one.
    pub(super) fn unchanged(revision: Revision) -> Self {
        Self {
            revision,
            live: true,
            changed: false,
            summary: String::new(),
            diff: Vec::new(),
            plans: Vec::new(),
            members: None,
        }
    }
}

/// Why a change was not made. Nothing of it is kept.
#[derive(Debug, Error)]
pub enum ChangeError {
    /// There is no such rollout, segment, user or scheduled change.
    #[error("{0}")]
    NotFound(String),
    /// All that is wrong with it.
    #[error("{}", lines(.0))]
    Invalid(Vec<ApplyProblem>),
    /// What is asked for cannot be.
    #[error("{0}")]
    Refused(String),
    /// What is changed has another revision than the expected one.
    #[error("it is at revision {}, not at the expected one: read it again, and repeat", .current.0)]
    Conflict {
        /// The one it has.
        current: Revision,
    },
    /// Replacing or deleting what exists needs the expected revision.
    #[error("it exists, at revision {}: say which revision you replace or delete (If-Match)", .current.0)]
    Unconditional {
        /// The one it has.
        current: Revision,
    },
    /// Users would leave a release that grows or stays.
    #[error("users would move backwards out of {}: allow it (allow_flips), or keep salt and ranges", names(.0))]
    Flips(Vec<ReleaseName>),
    /// The rollout is frozen.
    #[error(
        "rollout {rollout} is frozen, and new users would enter {}{}: unfreeze it first",
        names(.releases),
        by(.segment.as_ref())
    )]
    Frozen {
        /// Which.
        rollout: RolloutName,
        /// Where users would enter.
        releases: Vec<ReleaseName>,
        /// The segment that they would be in, if it is by one.
        segment: Option<SegmentName>,
    },
    /// This node has the rollout as it was before its latest change, which it cannot compile.
    #[error(
        "rollout {rollout} was changed by another process to what this one cannot use ({why}){}: make the change there, \
         undo that one, or start this process with a configuration that has what it names",
        naming(.segment.as_ref())
    )]
    Stuck {
        /// Which.
        rollout: RolloutName,
        /// What is wrong with its latest spec here.
        why: String,
        /// The segment that is to go, and that it may name.
        segment: Option<SegmentName>,
    },
    /// This node has not caught up with the store.
    #[error("this node is at revision {}, the store at {}: try again, and see the error log", .live.0, .stored.0)]
    Behind {
        /// What is live here.
        live: Revision,
        /// What the store has.
        stored: Revision,
    },
    /// Another request used the idempotency key.
    #[error("the idempotency key was used for another request: choose another key")]
    KeyReused,
    /// The store is open for reading only.
    #[error("the store is read-only ({0}): changes are refused, traffic is not affected")]
    ReadOnly(String),
    /// The store does not do its work.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ChangeError {
    /// Whether the same request may succeed later, without anybody doing anything about it but the store.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            // What one process cannot use, its successor may.
            Self::Stuck { .. } | Self::Behind { .. } | Self::ReadOnly(_) | Self::Store(_) | Self::Conflict { .. } => {
                true
            }
            Self::NotFound(_)
            | Self::Invalid(_)
            | Self::Refused(_)
            | Self::Unconditional { .. }
            | Self::Flips(_)
            | Self::Frozen { .. }
            | Self::KeyReused => false,
        }
    }
}

fn lines(problems: &[ApplyProblem]) -> String {
    let line = |p: &ApplyProblem| format!("rollout {}: {}: {}", p.rollout, p.problem.path, p.problem.message);
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn by(segment: Option<&SegmentName>) -> String {
    segment.map_or_else(String::new, |segment| format!(" by segment {segment}"))
}

fn naming(segment: Option<&SegmentName>) -> String {
    segment.map_or_else(String::new, |segment| format!(", and may name segment {segment}"))
}

fn names(releases: &[ReleaseName]) -> String {
    releases.iter().map(ReleaseName::as_str).collect::<Vec<_>>().join(", ")
}
