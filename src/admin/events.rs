//! Server-sent events: revisions that go live, endpoints whose health changes, and each second the figures of every
//! release. One task makes them for all listeners, and rests while there are none.

mod figures;
mod hub;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State as Shared;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::{OwnedSemaphorePermit, watch};

use super::document::{Api, Operation};
use super::parameters::Parameters;
use super::refusal::{Kind, Refusal};
use super::state::State;

pub use hub::{Hub, Told};

/// Proxies in between cut connections that are silent for long.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// Tells when the process stops serving.
#[derive(Clone)]
pub struct Shutdown(pub watch::Receiver<bool>);

/// The operation.
pub fn operations(api: Api) -> Api {
    api.add(
        Operation::read(
            "get",
            "/api/v1/events",
            "events",
            "Events: revision, health and, each second, figures; see LiveRevision, EndpointHealth and Figures.",
        )
        .answer_as(200, "text/event-stream", "Events, until the process stops serving."),
        events,
    )
    .describes::<(
        super::wire::LiveRevision,
        super::wire::EndpointHealth,
        super::wire::Figures,
    )>()
}

/// One who listens.
struct Listener {
    backlog: VecDeque<Arc<Told>>,
    told: Receiver<Arc<Told>>,
    shutdown: watch::Receiver<bool>,
    /// Revisions up to here were told.
    revision: u64,
    _place: OwnedSemaphorePermit,
}

async fn events(
    Shared(state): Shared<State>,
    Extension(Shutdown(shutdown)): Extension<Shutdown>,
    headers: HeaderMap,
    query: Parameters,
) -> Result<Response, Refusal> {
    query.end()?;
    let (told, place) = state
        .hub
        .listen()
        .ok_or_else(|| Refusal::new(Kind::Busy, "as many listen as may: close one"))?;
    let now = state.pin().revision().0;
    // A browser that comes back says what it had last.
    let last = headers
        .get("last-event-id")
        .and_then(|id| id.to_str().ok()?.parse().ok());
    let after = last
        .filter(|last| *last <= now)
        .unwrap_or_else(|| now.saturating_sub(1));
    let listener = Listener {
        backlog: state.hub.revisions(after, now).await.into(),
        told,
        shutdown,
        revision: now,
        _place: place,
    };
    let events = stream::unfold(listener, |mut listener| async move {
        let told = listener.next().await?;
        let event = Event::default().event(told.name).data(&told.text);
        let event = match told.revision {
            Some(revision) => event.id(revision.to_string()),
            None => event,
        };
        Some((Ok::<_, Infallible>(event), listener))
    });
    let heartbeat = KeepAlive::new().interval(HEARTBEAT).text("");
    Ok(Sse::new(events).keep_alive(heartbeat).into_response())
}

impl Listener {
    /// None at the end: the process stops serving, or this listener is too slow and comes back better anew.
    async fn next(&mut self) -> Option<Arc<Told>> {
        if let Some(told) = self.backlog.pop_front() {
            return Some(told);
        }
        loop {
            let told = tokio::select! {
                told = self.told.recv() => told.ok()?,
                _ = self.shutdown.wait_for(|over| *over) => return None,
            };
            match told.revision {
                Some(revision) if revision <= self.revision => {}
                Some(revision) => {
                    self.revision = revision;
                    return Some(told);
                }
                None => return Some(told),
            }
        }
    }
}
