//! What is read of the node: health, status, metrics, history, schedule.

use axum::Json;
use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};

use super::document::{Api, Operation};
use super::parameters::Parameters;
use super::refusal::Refusal;
use super::state::State;
use super::wire::{EndpointState, HistoryItem, HistoryPage, PoolState, Schedule, ScheduledItem, Status, StoreState};
use crate::clock;
use crate::control::{HistoryEntry, HistoryQuery, describe};
use crate::rollout::{Revision, RolloutName};
use crate::telemetry::metrics;
use crate::upstream::PoolStatus;
use serde_json::json;

/// Changes in a page of the history.
const HISTORY_MAX: u64 = 1_000;
const HISTORY_DEFAULT: u64 = 50;

/// The operations.
pub fn operations(api: Api) -> Api {
    let name = json!({"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"});
    let number = json!({"type": "integer", "format": "int64", "minimum": 0});
    let limit = json!({"type": "integer", "minimum": 1, "maximum": HISTORY_MAX, "default": HISTORY_DEFAULT});
    api.add(
        Operation::open("/healthz", "health", "Whether the process answers.").answer_as(200, "text/plain", "It does."),
        health,
    )
    .add(
        Operation::open("/readyz", "readiness", "Whether it takes requests.")
            .answer_as(200, "text/plain", "It does.")
            .answer_as(503, "text/plain", "It is going away."),
        ready,
    )
    .add(
        Operation::open("/", "page", "A page with links.").answer_as(200, "text/html", "The page."),
        page,
    )
    .add(
        Operation::read("get", "/metrics", "metrics", "The metrics, as Prometheus reads them.").answer_as(
            200,
            "text/plain",
            "The metrics.",
        ),
        exposition,
    )
    .add(
        Operation::read("get", "/api/v1/openapi.json", "document", "This document.")
            .answer::<serde_json::Value>(200, "This document."),
        document,
    )
    .add(
        Operation::read("get", "/api/v1/status", "status", "How this node is doing.")
            .answer::<Status>(200, "How it is doing."),
        status,
    )
    .add(
        Operation::read(
            "get",
            "/api/v1/history",
            "history",
            "What was changed, the latest first.",
        )
        .query("rollout", name, "Only changes of this rollout.")
        .query("before", number, "Only changes before this revision.")
        .query("limit", limit, "At most so many.")
        .answer::<HistoryPage>(200, "The changes."),
        history,
    )
    .add(
        Operation::read(
            "get",
            "/api/v1/schedule",
            "schedule",
            "The changes that wait for their time.",
        )
        .answer::<Schedule>(200, "The changes."),
        schedule,
    )
}

async fn health() -> &'static str {
    "ok\n"
}

async fn ready(Shared(state): Shared<State>) -> Response {
    if state.ready() {
        return "ready\n".into_response();
    }
    (StatusCode::SERVICE_UNAVAILABLE, "draining\n").into_response()
}

async fn page() -> Html<&'static str> {
    Html(include_str!("page.html"))
}

async fn exposition() -> Response {
    ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], metrics::render()).into_response()
}

async fn document(Shared(state): Shared<State>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], state.document.clone()).into_response()
}

async fn status(Shared(state): Shared<State>) -> Json<Status> {
    let snapshot = state.pin();
    let store = state.controller.store().status();
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        uptime_seconds: clock::uptime().as_secs(),
        revision: snapshot.revision().0,
        ready: state.ready(),
        store: StoreState {
            kind: store.kind.to_owned(),
            place: store.place,
            read_only: store.read_only,
            failing: store.failing,
        },
        stuck: snapshot.stuck().clone(),
        pools: state.pools.status().into_iter().map(pool).collect(),
        rollouts: snapshot.rollouts().count(),
        segments: snapshot.segments().len(),
        scheduled: snapshot.schedule().len(),
    })
}

fn pool(status: PoolStatus) -> PoolState {
    let endpoint = |e: crate::upstream::EndpointStatus| EndpointState {
        address: e.address,
        healthy: e.healthy,
        ejected: e.ejected,
        in_flight: e.in_flight,
        connections: e.connections,
    };
    PoolState {
        name: status.name,
        endpoints: status.endpoints.into_iter().map(endpoint).collect(),
    }
}

async fn history(Shared(state): Shared<State>, mut query: Parameters) -> Result<Json<HistoryPage>, Refusal> {
    let rollout = query.parsed::<RolloutName>("rollout")?;
    // The store's numbers are signed.
    let before = query.number("before", 0, i64::MAX as u64)?.map(Revision);
    let limit = query.number("limit", 1, HISTORY_MAX)?.unwrap_or(HISTORY_DEFAULT);
    query.end()?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let wanted = HistoryQuery {
        rollout,
        before,
        limit: limit + 1,
        ..HistoryQuery::default()
    };
    let mut entries = state.controller.store().history(&wanted).await?;
    let more = entries.len() > limit;
    entries.truncate(limit);
    Ok(Json(HistoryPage {
        next: entries.last().filter(|_| more).map(|entry| entry.revision.0),
        changes: entries.into_iter().map(item).collect(),
    }))
}

fn item(entry: HistoryEntry) -> HistoryItem {
    HistoryItem {
        revision: entry.revision.0,
        at: clock::rfc3339(entry.record.at.0),
        actor: entry.record.actor,
        reason: entry.record.reason,
        source: entry.record.source,
        rollouts: entry.record.rollouts,
        summary: entry.record.summary,
        diff: entry.record.diff,
    }
}

async fn schedule(Shared(state): Shared<State>) -> Json<Schedule> {
    let snapshot = state.pin();
    let mut entries: Vec<_> = snapshot.schedule().iter().collect();
    entries.sort_by_key(|(id, entry)| (entry.at, **id));
    let item = |(id, entry): (&Revision, &std::sync::Arc<crate::rollout::Scheduled>)| ScheduledItem {
        id: id.0,
        at: clock::rfc3339(entry.at.0),
        actor: entry.actor.clone(),
        reason: entry.reason.clone(),
        summary: describe(&entry.change),
    };
    Json(Schedule {
        scheduled: entries.into_iter().map(item).collect(),
    })
}
