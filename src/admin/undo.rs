//! What takes changes back: undo, for those that were made, and the end of those that wait.

use axum::extract::State as Shared;
use axum::response::Response;

use super::answer::change;
use super::document::{Api, Operation};
use super::parameters::Named;
use super::refusal::{Kind, Refusal};
use super::sent::{Nothing, Optional};
use super::state::State;
use super::terms::Terms;
use super::wire::UndoBody;
use crate::control::HistoryQuery;
use crate::rollout::{Change, Revision};

/// The operations.
pub fn operations(api: Api) -> Api {
    api.add(
        Operation::change(
            "post",
            "/api/v1/undo",
            "undo",
            "Restores the state of an earlier revision.",
        )
        .takes::<UndoBody>(false),
        undo,
    )
    .add(
        Operation::change(
            "delete",
            "/api/v1/schedule/{id}",
            "unschedule",
            "Takes a scheduled change back.",
        ),
        unschedule,
    )
}

async fn undo(
    Shared(state): Shared<State>,
    mut terms: Terms,
    Optional(body, digest): Optional<UndoBody>,
) -> Result<Response, Refusal> {
    let to = match body.to {
        Some(to) => Revision(to),
        None => {
            // The last change as it was seen here: another one in between is not to be undone in its place.
            terms.expected = terms.expected.or(Some(state.pin().revision()));
            before_the_last(&state).await?
        }
    };
    change(&state, terms, digest, Change::Undo { to }).await
}

/// The revision before the last change that somebody asked for: what the program did by itself since is not what is meant.
async fn before_the_last(state: &State) -> Result<Revision, Refusal> {
    let wanted = HistoryQuery {
        asked_for: true,
        limit: 1,
        ..HistoryQuery::default()
    };
    let last = state.controller.store().history(&wanted).await?.pop();
    let before = last.and_then(|last| last.revision.0.checked_sub(1));
    before
        .map(Revision)
        .ok_or_else(|| Refusal::new(Kind::Refused, "nothing was changed yet, as far as the history reaches"))
}

async fn unschedule(
    Shared(state): Shared<State>,
    Named(id): Named<u64>,
    terms: Terms,
    Nothing(digest): Nothing,
) -> Result<Response, Refusal> {
    change(&state, terms, digest, Change::Unschedule { id: Revision(id) }).await
}
