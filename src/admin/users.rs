//! Single users of a rollout: read in pages, set, unset, imported and exported.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State as Shared};
use axum::response::Response;
use serde_json::json;

use super::answer::{change, tagged};
use super::document::{Api, Operation};
use super::export;
use super::ids;
use super::lists::{self, Format, Reading};
use super::parameters::{Named, Parameters};
use super::refusal::{Kind, Refusal};
use super::rollouts::known;
use super::sent::{Nothing, Sent};
use super::state::State;
use super::terms::{Terms, moment};
use super::wire::{NDJSON, User, UserBody, UserList};
use crate::clock;
use crate::control::{Store, StoreError};
use crate::identity::UserId;
use crate::rollout::{Change, Moment, ReleaseName, RolloutName, UserEntry};

/// Users in a page.
pub const PAGE_MAX: u64 = 1_000;
/// Users in a page, where nothing is said.
pub const PAGE_DEFAULT: u64 = 100;
/// Users that an export reads at a time, whose ids are no longer than a piece.
const EXPORT_PAGE: usize = export::PIECE_BYTES / UserId::BYTES_MAX;

const MANY: &str = "/api/v1/rollouts/{rollout}/users";
const ONE: &str = "/api/v1/rollouts/{rollout}/users/{user}";

/// The operations.
pub fn operations(api: Api) -> Api {
    let mode = json!({"type": "string", "enum": ["merge", "replace"], "default": "merge"});
    let release = json!({"type": "string", "pattern": "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"});
    api.add(
        paged(Operation::read("get", MANY, "listUsers", "Single users, in pages.")).answer::<UserList>(200, "A page."),
        list,
    )
    .add(
        format(Operation::change(
            "post",
            MANY,
            "importUsers",
            "Pins many users in one change.",
        ))
        .query("mode", mode, "Whether all others are unpinned.")
        .query("release", release, "What users get whose line does not say it.")
        .takes_lines(),
        import,
    )
    .add(
        Operation::read(
            "get",
            "/api/v1/rollouts/{rollout}/export",
            "exportUsers",
            "All single users.",
        )
        .answer_as(200, NDJSON, "One JSON object a line."),
        export,
    )
    .add(
        Operation::read("get", ONE, "getUser", "Where one user is pinned.").answer::<User>(200, "Where."),
        get,
    )
    .add(
        Operation::change("put", ONE, "setUser", "Pins one user.").takes::<UserBody>(true),
        set,
    )
    .add(Operation::change("delete", ONE, "unsetUser", "Unpins one user."), unset)
}

/// The parameters of a page.
pub fn paged(operation: Operation) -> Operation {
    let limit = json!({"type": "integer", "minimum": 1, "maximum": PAGE_MAX, "default": PAGE_DEFAULT});
    operation
        .query(
            "after",
            json!({"type": "string", "maxLength": 1024}),
            "What the page before had as next.",
        )
        .query("limit", limit, "At most so many.")
}

/// The parameter that says what lines are.
pub fn format(operation: Operation) -> Operation {
    let format = json!({"type": "string", "enum": ["ndjson", "csv", "plain"]});
    operation.query(
        "format",
        format,
        "What the lines are; the Content-Type says it otherwise.",
    )
}

/// Where a page begins, and how long it is.
///
/// # Errors
/// When the parameters are wrong.
pub fn page(mut query: Parameters) -> Result<(Option<String>, usize), Refusal> {
    let after = query.take("after");
    let limit = query.number("limit", 1, PAGE_MAX)?.unwrap_or(PAGE_DEFAULT);
    query.end()?;
    Ok((after, usize::try_from(limit).unwrap_or(usize::MAX)))
}

async fn list(
    Shared(state): Shared<State>,
    Named(name): Named<RolloutName>,
    query: Parameters,
) -> Result<Response, Refusal> {
    let (after, limit) = page(query)?;
    let snapshot = state.pin();
    let revision = known(&snapshot, &name)?.revision();
    let page = state.controller.store().users(&name, after.as_deref(), limit).await?;
    let body = UserList {
        revision: revision.0,
        users: page.users.into_iter().map(shown).collect(),
        next: page.next,
    };
    Ok(tagged(revision, &body))
}

fn shown((user, entry): (Box<str>, UserEntry)) -> User {
    User {
        user: user.into(),
        release: entry.release,
        until: entry.until.map(|until| clock::rfc3339(until.0)),
    }
}

async fn get(
    Shared(state): Shared<State>,
    Named((name, user)): Named<(RolloutName, String)>,
) -> Result<Json<User>, Refusal> {
    known(&state.pin(), &name)?;
    let found = state.controller.store().user(&name, &user).await?;
    let entry = found.ok_or_else(|| Refusal::new(Kind::NotFound, format!("user {user:?} is not pinned in {name}")))?;
    Ok(Json(shown((user.into(), entry))))
}

async fn set(
    Shared(state): Shared<State>,
    Named((rollout, user)): Named<(RolloutName, String)>,
    terms: Terms,
    Sent(body, digest): Sent<UserBody>,
) -> Result<Response, Refusal> {
    let only = std::iter::once(user.as_str());
    ids::may_come(&state.normaliser, only, |_, id| format!("user {id}"))?;
    let until = body.until.map(|text| to_come("until", &text)).transpose()?;
    let asked = Change::SetUser {
        rollout,
        user: user.into(),
        release: body.release,
        until,
    };
    change(&state, terms, digest, asked).await
}

/// A moment that is not over.
///
/// # Errors
/// When it is none, or is over.
fn to_come(key: &str, text: &str) -> Result<Moment, Refusal> {
    let until = moment(key, text).map_err(|_| {
        let text = format!("{text:?} is no time: write one such as 2026-11-24T15:30:00Z");
        Refusal::at(Kind::Invalid, key, text)
    })?;
    if until.0 <= clock::unix_millis() {
        return Err(Refusal::at(
            Kind::Invalid,
            key,
            format!("{text} is over: write a time to come"),
        ));
    }
    Ok(until)
}

async fn unset(
    Shared(state): Shared<State>,
    Named((rollout, user)): Named<(RolloutName, String)>,
    terms: Terms,
    Nothing(digest): Nothing,
) -> Result<Response, Refusal> {
    let user = user.into();
    change(&state, terms, digest, Change::UnsetUser { rollout, user }).await
}

async fn import(
    Shared(state): Shared<State>,
    Named(rollout): Named<RolloutName>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let (terms, mut query) = Terms::read(&parts)?;
    let replace = match query.take("mode").as_deref() {
        None | Some("merge") => false,
        Some("replace") => true,
        Some(other) => {
            let text = format!("{other:?} is neither merge nor replace");
            return Err(Refusal::at(Kind::Malformed, "mode", text));
        }
    };
    let default = query.parsed::<ReleaseName>("release")?;
    let format = Format::of(query.take("format"), &parts.headers)?;
    query.end()?;
    let releases: Vec<ReleaseName> = {
        let snapshot = state.pin();
        let table = known(&snapshot, &rollout)?.table();
        table.releases().iter().map(|r| r.name.clone()).collect()
    };
    let turn = state.lists.try_acquire();
    let _turn = turn.map_err(|_| Refusal::new(Kind::Busy, "other lists are being read: try again"))?;
    let reading = Reading::of_users(format, releases, default, clock::unix_millis())?;
    let reading = reading.asked_through(state.normaliser.clone());
    let (users, digest) = lists::read(reading, &parts, body).await?;
    let asked = Change::ImportUsers {
        rollout,
        replace,
        groups: users.into_groups(),
    };
    change(&state, terms, digest, asked).await
}

async fn export(Shared(state): Shared<State>, Named(name): Named<RolloutName>) -> Result<Response, Refusal> {
    let revision = known(&state.pin(), &name)?.revision();
    let turn = export::Turn::take(&state)?;
    let store = Arc::clone(state.controller.store());
    Ok(turn.send(NDJSON, revision, move |after| {
        let (store, name) = (Arc::clone(&store), name.clone());
        async move { lines(store.as_ref(), &name, after.as_deref()).await }
    }))
}

async fn lines(store: &dyn Store, name: &RolloutName, after: Option<&str>) -> Result<export::Piece, StoreError> {
    let page = store.users(name, after, EXPORT_PAGE).await?;
    let mut text = Vec::new();
    for user in page.users.into_iter().map(shown) {
        // Text and numbers always can be written.
        if serde_json::to_writer(&mut text, &user).is_ok() {
            text.push(b'\n');
        }
    }
    Ok((text.into(), page.next.map(String::into_boxed_str)))
}
