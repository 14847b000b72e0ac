//! Rollouts: read, created, replaced, deleted, divided, killed, frozen.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State as Shared;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;

use super::answer::{change, tagged};
use super::document::{Api, Operation};
use super::ids;
use super::parameters::Named;
use super::refusal::{Kind, Refusal};
use super::sent::{Nothing, Sent};
use super::state::State;
use super::terms::Terms;
use super::wire::{ApplyBody, Changed, PlanBody, Planned, Rollout, Rollouts, SplitBody};
use crate::control::{LiveRollout, Request, Snapshot};
use crate::rollout::{Change, Plan, RolloutName, RolloutPatch, RolloutSpec};

const ALL: &str = "/api/v1/rollouts";
const ONE: &str = "/api/v1/rollouts/{rollout}";

/// The operations.
pub fn operations(api: Api) -> Api {
    let created = "Created, and live on this node.";
    let api = api
        .add(
            Operation::read("get", ALL, "listRollouts", "All rollouts.").answer::<Rollouts>(200, "They."),
            list,
        )
        .add(
            Operation::read("get", ONE, "getRollout", "One rollout.")
                .answer::<Rollout>(200, "It; its revision is the ETag."),
            get,
        )
        .add(
            Operation::change("put", ONE, "putRollout", "Creates or replaces a rollout.")
                .takes::<RolloutSpec>(true)
                .answer::<Changed>(201, created),
            put,
        )
        .add(
            Operation::change("patch", ONE, "patchRollout", "Changes parts of a rollout (RFC 7396).")
                .takes::<RolloutPatch>(true)
                .or_as("application/merge-patch+json"),
            patch,
        )
        .add(
            Operation::change(
                "delete",
                ONE,
                "deleteRollout",
                "Removes a rollout, its single users, and the changes that are scheduled for it alone.",
            ),
            delete,
        )
        .add(
            Operation::change(
                "post",
                "/api/v1/apply",
                "applyRollouts",
                "Creates or replaces rollouts in one change.",
            )
            .takes::<ApplyBody>(true),
            apply,
        );
    acts(api)
}

fn acts(api: Api) -> Api {
    let api = switches(api);
    api.add(
        Operation::change(
            "put",
            "/api/v1/rollouts/{rollout}/split",
            "splitRollout",
            "Sets the shares.",
        )
        .takes::<SplitBody>(true),
        split,
    )
    .add(
        Operation::read(
            "post",
            "/api/v1/rollouts/{rollout}/plan",
            "planRollout",
            "Who would move.",
        )
        .if_match("The revision that is looked at: of the rollout, or of the whole state.")
        .takes::<PlanBody>(true)
        .answer::<Planned>(200, "Who would move; nothing is changed."),
        plan,
    )
}

fn switches(api: Api) -> Api {
    api.add(
        Operation::change(
            "post",
            "/api/v1/rollouts/{rollout}/kill",
            "killRollout",
            "Everyone to stable, now.",
        ),
        kill,
    )
    .add(
        Operation::change(
            "post",
            "/api/v1/rollouts/{rollout}/resume",
            "resumeRollout",
            "Ends a kill.",
        ),
        resume,
    )
    .add(
        Operation::change(
            "post",
            "/api/v1/rollouts/{rollout}/freeze",
            "freezeRollout",
            "No new users enter a release, those in it stay: a change by which anybody would is refused (`frozen`), that of a \
             segment included. Attributes of requests are not seen, nor where users go who leave a segment whose list is \
             replaced.",
        ),
        freeze,
    )
    .add(
        Operation::change(
            "post",
            "/api/v1/rollouts/{rollout}/unfreeze",
            "unfreezeRollout",
            "Ends a freeze.",
        ),
        unfreeze,
    )
}

async fn list(Shared(state): Shared<State>) -> Response {
    let snapshot = state.pin();
    let rollouts = snapshot.rollouts();
    let body = Rollouts {
        revision: snapshot.revision().0,
        rollouts: rollouts
            .map(|(name, live)| (name.clone(), shown(&snapshot, live)))
            .collect(),
    };
    tagged(snapshot.revision(), &body)
}

async fn get(Shared(state): Shared<State>, Named(name): Named<RolloutName>) -> Result<Response, Refusal> {
    let snapshot = state.pin();
    let live = known(&snapshot, &name)?;
    Ok(tagged(live.revision(), &shown(&snapshot, live)))
}

fn shown(snapshot: &Snapshot, live: &LiveRollout) -> Rollout {
    let table = live.table();
    Rollout {
        revision: live.revision().0,
        spec: live.spec().clone(),
        weights: table.weights().map(|(name, weight)| (name.clone(), weight)).collect(),
        users: table.single_users(),
        stuck: snapshot.stuck().get(table.name()).cloned(),
    }
}

/// A rollout that exists.
///
/// # Errors
/// When it does not.
pub fn known<'a>(snapshot: &'a Snapshot, name: &RolloutName) -> Result<&'a LiveRollout, Refusal> {
    let live = snapshot.named(name);
    live.map(AsRef::as_ref)
        .ok_or_else(|| Refusal::new(Kind::NotFound, format!("there is no rollout {name}")))
}

async fn put(
    Shared(state): Shared<State>,
    Named(name): Named<RolloutName>,
    terms: Terms,
    Sent(spec, digest): Sent<RolloutSpec>,
) -> Result<Response, Refusal> {
    pins_may_come(&state, "", &spec)?;
    let is_new = state.pin().named(&name).is_none() && !terms.dry_run && terms.at.is_none();
    let rollouts = vec![(name.clone(), spec)];
    let mut response = change(&state, terms, digest, Change::Apply { rollouts }).await?;
    if is_new && response.status() == StatusCode::OK {
        *response.status_mut() = StatusCode::CREATED;
        // Names are made of letters, digits, `.`, `_` and `-`, so the place is a valid header value.
        if let Ok(place) = HeaderValue::try_from(format!("{ALL}/{name}")) {
            response.headers_mut().insert(header::LOCATION, place);
        }
    }
    Ok(response)
}

fn pins_may_come(state: &State, within: &str, spec: &RolloutSpec) -> Result<(), Refusal> {
    let pinned = spec.users.keys().map(String::as_str);
    ids::may_come(&state.normaliser, pinned, |_, id| format!("{within}users.{id}"))
}

async fn patch(
    Shared(state): Shared<State>,
    Named(rollout): Named<RolloutName>,
    terms: Terms,
    Sent(patch, digest): Sent<Box<RolloutPatch>>,
) -> Result<Response, Refusal> {
    ids::may_come(&state.normaliser, patch.pinned(), |_, id| format!("users.{id}"))?;
    change(&state, terms, digest, Change::Patch { rollout, patch }).await
}

async fn delete(
    Shared(state): Shared<State>,
    Named(rollout): Named<RolloutName>,
    terms: Terms,
    Nothing(digest): Nothing,
) -> Result<Response, Refusal> {
    change(&state, terms, digest, Change::Delete { rollout }).await
}

async fn apply(
    Shared(state): Shared<State>,
    terms: Terms,
    Sent(body, digest): Sent<ApplyBody>,
) -> Result<Response, Refusal> {
    for (name, spec) in &body.rollouts {
        pins_may_come(&state, &format!("rollouts.{name}."), spec)?;
    }
    let rollouts = body.rollouts.into_iter().collect();
    change(&state, terms, digest, Change::Apply { rollouts }).await
}

async fn split(
    Shared(state): Shared<State>,
    Named(rollout): Named<RolloutName>,
    terms: Terms,
    Sent(split, digest): Sent<SplitBody>,
) -> Result<Response, Refusal> {
    change(&state, terms, digest, Change::Split { rollout, split }).await
}

async fn plan(
    Shared(state): Shared<State>,
    Named(rollout): Named<RolloutName>,
    mut terms: Terms,
    Sent(body, digest): Sent<PlanBody>,
) -> Result<Json<Planned>, Refusal> {
    let snapshot = state.pin();
    let live = known(&snapshot, &rollout)?;
    let candidate = match (body.split, body.spec) {
        (Some(split), None) => Change::Split {
            rollout: rollout.clone(),
            split,
        },
        (None, Some(spec)) => Change::Apply {
            rollouts: vec![(rollout.clone(), spec)],
        },
        (None, None) | (Some(_), Some(_)) => {
            return Err(Refusal::new(Kind::Invalid, "write exactly one of split and spec"));
        }
    };
    terms.dry_run = true;
    let asked = terms.asked(digest);
    let outcome = state
        .controller
        .change(Request {
            change: candidate,
            asked,
        })
        .await?;
    let mut plans: BTreeMap<RolloutName, Plan> = outcome.plans.into_iter().collect();
    // Nothing is to be changed: nobody moves.
    let none = || {
        let lately = live.seen().lately(crate::clock::tick());
        live.table().plan(live.table(), &lately)
    };
    Ok(Json(Planned {
        revision: outcome.revision.0,
        plan: plans.remove(&rollout).unwrap_or_else(none),
    }))
}

async fn kill(
    Shared(state): Shared<State>,
    Named(rollout): Named<RolloutName>,
    terms: Terms,
    Nothing(digest): Nothing,
) -> Result<Response, Refusal> {
    change(&state, terms, digest, Change::Kill { rollout }).await
}

async fn resume(
    Shared(state): Shared<State>,
    Named(rollout): Named<RolloutName>,
    terms: Terms,
    Nothing(digest): Nothing,
) -> Result<Response, Refusal> {
    change(&state, terms, digest, Change::Resume { rollout }).await
}

async fn freeze(
    Shared(state): Shared<State>,
    Named(rollout): Named<RolloutName>,
    terms: Terms,
    Nothing(digest): Nothing,
) -> Result<Response, Refusal> {
    change(&state, terms, digest, Change::Freeze { rollout }).await
}

async fn unfreeze(
    Shared(state): Shared<State>,
    Named(rollout): Named<RolloutName>,
    terms: Terms,
    Nothing(digest): Nothing,
) -> Result<Response, Refusal> {
    change(&state, terms, digest, Change::Unfreeze { rollout }).await
}
