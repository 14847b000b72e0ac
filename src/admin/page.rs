//! What the admin listener answers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::extract::{Request, State as Shared};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::json;

use crate::clock;
use crate::control::Controller;
use crate::telemetry::metrics;
use crate::upstream::Pools;

/// What the answers are made of.
#[derive(Clone)]
pub struct State {
    /// Makes changes, and knows what requests see.
    pub controller: Arc<Controller>,
    /// The pools.
    pub pools: Arc<Pools>,
    /// Set while the process is going away.
    pub draining: Arc<AtomicBool>,
}

/// The admin side's answers.
pub fn router(state: State) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(exposition))
        .route("/api/v1/status", get(status))
        .layer(middleware::from_fn(only_loopback_host))
        .with_state(state)
}

async fn ready(Shared(state): Shared<State>) -> Response {
    if state.draining.load(Ordering::Relaxed) {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response();
    }
    "ready\n".into_response()
}

async fn exposition() -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render()).into_response()
}

async fn status(Shared(state): Shared<State>) -> Response {
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "pid": std::process::id(),
        "uptime_seconds": clock::uptime().as_secs(),
        "revision": state.controller.live().pin().revision(),
        "ready": !state.draining.load(Ordering::Relaxed),
        "pools": state.pools.status(),
    }))
    .into_response()
}

/// A page of another site that has its name point at loopback (DNS rebinding) gets nothing.
async fn only_loopback_host(request: Request, next: Next) -> Response {
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
        .unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|b| b.is_ascii_digit()) {
            name
        } else {
            host
        }
    });
    let address = name
        .trim_start_matches('[')
        .trim_end_matches(']')
        .parse::<std::net::IpAddr>();
    if name == "localhost" || address.is_ok_and(|ip| ip.is_loopback()) {
        next.run(request).await
    } else {
        (
            StatusCode::MISDIRECTED_REQUEST,
            "the admin side answers to a loopback host only\n",
        )
            .into_response()
    }
}
