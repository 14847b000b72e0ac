//! All operations under the rules that hold for all: who is let in, how many and how long, and that every error is a
//! problem in JSON.

use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State as Shared};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

use super::document::Api;
use super::gate::let_in;
use super::refusal::{Kind, Refusal};
use super::state::{Parts, State};
use super::wire::{LIST_WITHIN, PROBLEM_JSON};
use super::{events, explain, reads, rollouts, segments, undo, users};
use crate::precedence;

/// How long a request waits for its turn.
const TURN_MAX: Duration = Duration::from_secs(5);
/// How long a request may take, its body included.
const REQUEST_MAX: Duration = Duration::from_secs(30);

/// The admin side's answers.
pub fn router(mut parts: Parts) -> Router {
    let api = reads::operations(Api::new());
    let api = rollouts::operations(api);
    let api = undo::operations(api);
    let api = users::operations(api);
    let api = explain::operations(api);
    let api = segments::operations(api);
    let (routes, document) = events::operations(api).build();
    parts.document = document.to_string().into();
    let state = State::from(parts);
    routes
        .fallback(nothing)
        .layer(middleware::from_fn_with_state(state.clone(), bounded))
        .layer(middleware::from_fn_with_state(state.clone(), let_in))
        .layer(middleware::from_fn(finished))
        .with_state(state)
}

async fn nothing(request: Request) -> Refusal {
    let text = format!("there is nothing at {}: see /api/v1/openapi.json", request.uri().path());
    Refusal::new(Kind::NotFound, text)
}

async fn bounded(Shared(state): Shared<State>, request: Request, next: Next) -> Response {
    let Ok(Ok(_turn)) = tokio::time::timeout(TURN_MAX, state.requests.acquire()).await else {
        return Refusal::new(Kind::Busy, "too many requests are being answered: try again").into_response();
    };
    let kind = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_list = kind.is_some_and(|kind| kind.starts_with(b"text/") || kind.starts_with(b"application/x-ndjson"));
    let most = if is_list { LIST_WITHIN } else { REQUEST_MAX };
    match tokio::time::timeout(most, next.run(request)).await {
        Ok(response) => response,
        Err(_) => {
            let text = format!(
                "it took longer than {} s: a change may be made all the same, see history",
                most.as_secs()
            );
            Refusal::new(Kind::Timeout, text).into_response()
        }
    }
}

/// What the framework refuses by itself is a problem like any other; no answer is kept, guessed at or framed.
async fn finished(request: Request, next: Next) -> Response {
    let (path, method) = (request.uri().path().to_owned(), request.method().clone());
    // Many requests one after the other are long work, too.
    precedence::give_way();
    let response = next.run(request).await;
    // Sending it is another stretch, within the kernel.
    precedence::give_way();
    let mut response = match own(&response) {
        Some(kind) => {
            let text = match kind {
                // The framework adds the field to this answer.
                Kind::Method => format!("{path} does not take {method}: the Allow field says what it takes"),
                _ => format!("{path} cannot be asked so: see /api/v1/openapi.json"),
            };
            Refusal::new(kind, text).into_response()
        }
        None => response,
    };
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'self'; frame-ancestors 'none'"),
    );
    response
}

fn own(response: &Response) -> Option<Kind> {
    let kind = response.headers().get(header::CONTENT_TYPE);
    if kind.is_some_and(|kind| kind.as_bytes() == PROBLEM_JSON.as_bytes()) {
        return None;
    }
    match response.status() {
        StatusCode::BAD_REQUEST => Some(Kind::Malformed),
        StatusCode::NOT_FOUND => Some(Kind::NotFound),
        StatusCode::METHOD_NOT_ALLOWED => Some(Kind::Method),
        StatusCode::PAYLOAD_TOO_LARGE => Some(Kind::TooLarge),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Some(Kind::MediaType),
        StatusCode::UNPROCESSABLE_ENTITY => Some(Kind::Invalid),
        StatusCode::INTERNAL_SERVER_ERROR => Some(Kind::Broken),
        _ => None,
    }
}
