//! Answers: JSON with its revision as ETag, and what became of a change.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::refusal::Refusal;
use super::state::State;
use super::terms::Terms;
use super::wire::Changed;
use crate::control::{Outcome, Request};
use crate::rollout::{Change, Revision};

/// A revision as an ETag.
pub fn etag(revision: Revision) -> HeaderValue {
    // invariant: digits and quotes are a header value.
    HeaderValue::try_from(format!("\"{}\"", revision.0)).expect("digits in quotes")
}

/// JSON of what is at that revision.
pub fn tagged(revision: Revision, body: &impl Serialize) -> Response {
    ([(header::ETAG, etag(revision))], Json(body)).into_response()
}

/// Has a change made, and says what became of it.
///
/// # Errors
/// When it was not made.
pub async fn change(state: &State, terms: Terms, digest: [u8; 32], change: Change) -> Result<Response, Refusal> {
    let (dry_run, later) = (terms.dry_run, terms.at.is_some());
    let asked = terms.asked(digest);
    let outcome = state.controller.change(Request { change, asked }).await?;
    Ok(became(outcome, dry_run, later))
}

/// The answer to a change.
pub fn became(outcome: Outcome, dry_run: bool, later: bool) -> Response {
    let scheduled = (later && outcome.changed).then_some(outcome.revision.0);
    let status = if outcome.live && scheduled.is_none() {
        StatusCode::OK
    } else {
        StatusCode::ACCEPTED
    };
    let revision = outcome.revision;
    let tag = outcome.changed && scheduled.is_none();
    let body = Changed {
        revision: revision.0,
        live: outcome.live,
        changed: outcome.changed,
        dry_run,
        scheduled,
        summary: outcome.summary,
        diff: outcome.diff,
        plans: outcome.plans.into_iter().collect(),
        members: outcome.members,
    };
    let mut response = (status, Json(body)).into_response();
    if tag {
        response.headers_mut().insert(header::ETAG, etag(revision));
    }
    response
}
