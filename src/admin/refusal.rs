//! Every error of the admin side as `application/problem+json`: one table from what went wrong to a status.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::wire::{PROBLEM_JSON, Problem, ProblemItem};
use crate::control::{ApplyProblem, ChangeError, StoreError};

/// What went wrong: a status, a word for programs, and a few for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A header, query, path or body that cannot be read.
    Malformed,
    /// No token, or one that nobody has.
    Unauthorised,
    /// The token's role is too low, or the peer is not to be here.
    Forbidden,
    /// A browser's page of another origin.
    CrossOrigin,
    /// There is no such thing.
    NotFound,
    /// There is, but not with this method.
    Method,
    /// What is changed has another revision.
    Conflict,
    /// More bytes, lines or users than are taken.
    TooLarge,
    /// A body of a type that is not taken here.
    MediaType,
    /// The Host names another.
    Misdirected,
    /// It can be read, and is wrong.
    Invalid,
    /// It is right, and cannot be.
    Refused,
    /// New users would enter a release of a frozen rollout.
    Frozen,
    /// Users would move backwards.
    Flips,
    /// The idempotency key was used for another request.
    KeyReused,
    /// The revision that is replaced must be said.
    Unconditional,
    /// Too much at a time.
    Busy,
    /// It took too long.
    Timeout,
    /// The store does not do its work.
    Store,
    /// The store is open for reading only.
    ReadOnly,
    /// This node has not caught up with the store.
    Behind,
    /// A fault of ours.
    Broken,
}

impl Kind {
    const fn parts(self) -> (StatusCode, &'static str, &'static str) {
        match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, "malformed", "the request cannot be read"),
            Self::Unauthorised => (StatusCode::UNAUTHORIZED, "unauthorised", "no token that is known"),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "not allowed"),
            Self::CrossOrigin => (StatusCode::FORBIDDEN, "cross-origin", "a page of another origin"),
            Self::NotFound => (StatusCode::NOT_FOUND, "not-found", "there is no such thing"),
            Self::Method => (StatusCode::METHOD_NOT_ALLOWED, "method", "not with this method"),
            Self::Conflict => (StatusCode::CONFLICT, "conflict", "it was changed in between"),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too-large", "too large"),
            Self::MediaType => (StatusCode::UNSUPPORTED_MEDIA_TYPE, "media-type", "not this media type"),
            Self::Misdirected => (StatusCode::MISDIRECTED_REQUEST, "misdirected", "not this host"),
            Self::Invalid => (StatusCode::UNPROCESSABLE_ENTITY, "invalid", "it is not valid"),
            Self::Refused => (StatusCode::UNPROCESSABLE_ENTITY, "refused", "it cannot be"),
            Self::Frozen => (StatusCode::UNPROCESSABLE_ENTITY, "frozen", "the rollout is frozen"),
            Self::Flips => (StatusCode::UNPROCESSABLE_ENTITY, "flips", "users would move backwards"),
            Self::KeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "key-reused",
                "the idempotency key is taken",
            ),
            Self::Unconditional => (
                StatusCode::PRECONDITION_REQUIRED,
                "unconditional",
                "the expected revision is missing",
            ),
            Self::Busy => (StatusCode::TOO_MANY_REQUESTS, "busy", "too much at a time"),
            Self::Timeout => (StatusCode::SERVICE_UNAVAILABLE, "timeout", "it took too long"),
            Self::Store => (
                StatusCode::SERVICE_UNAVAILABLE,
                "store",
                "the store does not do its work",
            ),
            Self::ReadOnly => (StatusCode::SERVICE_UNAVAILABLE, "read-only", "changes are refused"),
            Self::Behind => (
                StatusCode::SERVICE_UNAVAILABLE,
                "behind",
                "this node is behind the store",
            ),
            Self::Broken => (StatusCode::INTERNAL_SERVER_ERROR, "broken", "a fault of the program"),
        }
    }

    /// The status of the answer.
    pub const fn status(self) -> StatusCode {
        self.parts().0
    }
}

/// An error on its way to whoever asked.
#[derive(Debug, Clone)]
pub struct Refusal {
    kind: Kind,
    detail: String,
    problems: Vec<ProblemItem>,
    revision: Option<u64>,
}

impl Refusal {
    /// Says what is wrong, and what to do.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self {
            kind,
            detail: detail.into(),
            problems: Vec::new(),
            revision: None,
        }
    }

    /// One thing is wrong, at one place.
    pub fn at(kind: Kind, key: impl Into<String>, message: impl Into<String>) -> Self {
        let (key, message) = (key.into(), message.into());
        let detail = format!("{key}: {message}");
        Self::new(kind, detail).with(vec![ProblemItem { key, message }])
    }

    /// Several things are wrong.
    pub fn with(mut self, problems: Vec<ProblemItem>) -> Self {
        self.problems = problems;
        self
    }

    fn current(mut self, revision: u64) -> Self {
        self.revision = Some(revision);
        self
    }

    /// The body of the answer.
    pub fn problem(&self) -> Problem {
        let (status, word, title) = self.kind.parts();
        Problem {
            kind: word.to_owned(),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: self.detail.clone(),
            problems: self.problems.clone(),
            revision: self.revision,
        }
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = (self.kind.status(), Json(self.problem())).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_JSON));
        if self.kind == Kind::Unauthorised {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if matches!(self.kind, Kind::Busy | Kind::Behind) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        let text = error.to_string();
        match error {
            ChangeError::NotFound(_) => Self::new(Kind::NotFound, text),
            ChangeError::Invalid(problems) => Self::new(Kind::Invalid, text).with(items(&problems)),
            ChangeError::Refused(_) | ChangeError::Stuck { .. } => Self::new(Kind::Refused, text),
            ChangeError::Conflict { current } => Self::new(Kind::Conflict, text).current(current.0),
            ChangeError::Unconditional { current } => Self::new(Kind::Unconditional, text).current(current.0),
            ChangeError::Flips(releases) => {
                let item = |release: &crate::rollout::ReleaseName| ProblemItem {
                    key: release.to_string(),
                    message: "it does not shrink, and yet would lose users".to_owned(),
                };
                Self::new(Kind::Flips, text).with(releases.iter().map(item).collect())
            }
            ChangeError::Frozen { .. } => Self::new(Kind::Frozen, text),
            ChangeError::Behind { live, .. } => Self::new(Kind::Behind, text).current(live.0),
            ChangeError::KeyReused => Self::new(Kind::KeyReused, text),
            ChangeError::ReadOnly(_) => Self::new(Kind::ReadOnly, text),
            ChangeError::Store(e) => e.into(),
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let kind = match error {
            StoreError::Forgotten(_) => Kind::NotFound,
            StoreError::Failed { .. } | StoreError::Newer { .. } | StoreError::Ending => Kind::Store,
        };
        Self::new(kind, error.to_string())
    }
}

fn items(problems: &[ApplyProblem]) -> Vec<ProblemItem> {
    let item = |p: &ApplyProblem| ProblemItem {
        key: format!("{}.{}", p.rollout, p.problem.path),
        message: p.problem.message.clone(),
    };
    problems.iter().map(item).collect()
}
