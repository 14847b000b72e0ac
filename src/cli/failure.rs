//! Why a verb did not do what it was told, in words that say what to do, and with which exit code.

use std::fmt::Write as _;

use thiserror::Error;

use crate::admin::wire::Problem;
use crate::server::DaemonError;

/// The exit codes beside 0.
pub const FAILED: u8 = 1;
/// Usage, or invalid input.
pub const INVALID: u8 = 2;
/// What was to be changed has another revision, or exists already.
pub const CONFLICT: u8 = 3;
/// Committed, but not yet live everywhere.
pub const NOT_LIVE: u8 = 4;

/// Why there is no success.
#[derive(Debug, Error)]
pub enum Failure {
    /// The admin side gave no answer.
    #[error("{0}")]
    Unanswered(String),
    /// The admin side refused.
    #[error("{}", told(.0))]
    Refused(Box<Problem>),
    /// What was typed, or what is in a file, is wrong.
    #[error("{0}")]
    Invalid(String),
    /// What exists was not to be touched, or has moved on.
    #[error("{0}")]
    Conflict(String),
    /// The answer was no.
    #[error("nothing was changed")]
    Declined,
    /// The change is durable, but not yet live everywhere.
    #[error("{0}")]
    NotLive(String),
    /// No successor came to serve; this process does.
    #[error("{1}\nprocess {0} serves on")]
    NotReplaced(u32, DaemonError),
    /// There is no process that could be replaced.
    #[error("{0}")]
    NothingToReplace(DaemonError),
    /// It could not be printed.
    #[error("the output cannot be written: {0}")]
    Output(#[from] std::io::Error),
}

impl Failure {
    /// The exit code.
    pub fn code(&self) -> u8 {
        match self {
            Self::Invalid(_) => INVALID,
            Self::Conflict(_) => CONFLICT,
            Self::NotLive(_) => NOT_LIVE,
            Self::Refused(problem) => refused(problem),
            Self::NotReplaced(_, cause) | Self::NothingToReplace(cause) => cause.code(),
            Self::Unanswered(_) | Self::Declined | Self::Output(_) => FAILED,
        }
    }
}

/// What is right and cannot be now is a failure, not invalid input.
fn refused(problem: &Problem) -> u8 {
    match (problem.status, problem.kind.as_str()) {
        (409 | 428, _) => CONFLICT,
        (422, "refused" | "frozen" | "flips" | "key-reused") => FAILED,
        (400 | 413 | 415 | 422, _) => INVALID,
        _ => FAILED,
    }
}

/// Every problem, one a line; then what to do, where the command line knows a flag for it.
fn told(problem: &Problem) -> String {
    let mut text = String::new();
    for item in &problem.problems {
        let _infallible = writeln!(text, "{}: {}", item.key, item.message);
    }
    if problem.problems.is_empty() {
        let words = if problem.detail.is_empty() {
            &problem.title
        } else {
            &problem.detail
        };
        let _infallible = writeln!(text, "{words}");
    }
    if let Some(remedy) = remedy(problem) {
        let _infallible = writeln!(text, "  {remedy}");
    }
    text.trim_end().to_owned()
}

fn remedy(problem: &Problem) -> Option<String> {
    match (problem.kind.as_str(), problem.revision) {
        ("unauthorised", _) => {
            let text = "give a token that the program knows: --token-file FILE, or the variable SWITCHYARD_TOKEN";
            Some(text.to_owned())
        }
        ("conflict" | "unconditional", Some(revision)) => Some(format!(
            "look at what is there now, and repeat it with --if-match {revision}"
        )),
        ("flips", _) => Some("look with `switchyard rollout plan`; if that is meant: --allow-flips".to_owned()),
        ("frozen", _) => Some("`switchyard rollout unfreeze` ends the freeze".to_owned()),
        _ => None,
    }
}
