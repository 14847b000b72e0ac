//! Segments: named lists of users.

use axum::Json;
use axum::extract::{Request, State as Shared};
use axum::response::Response;

use super::answer::{change, tagged};
use super::document::{Api, Operation};
use super::lists::{self, Format, Reading};
use super::parameters::{Named, Parameters};
use super::refusal::{Kind, Refusal};
use super::sent::{Nothing, Sent};
use super::state::State;
use super::terms::Terms;
use super::users::{format, page, paged};
use super::wire::{EditBody, MemberPage, Segment, Segments};
use crate::control::{Segment as LiveSegment, Snapshot};
use crate::rollout::{Change, SegmentName};

const ONE: &str = "/api/v1/segments/{segment}";

/// The operations.
pub fn operations(api: Api) -> Api {
    api.add(
        Operation::read("get", "/api/v1/segments", "listSegments", "All segments.").answer::<Segments>(200, "They."),
        list,
    )
    .add(
        Operation::read("get", ONE, "getSegment", "One segment.")
            .answer::<Segment>(200, "It; its revision is the ETag."),
        get,
    )
    .add(
        paged(Operation::read(
            "get",
            "/api/v1/segments/{segment}/users",
            "listMembers",
            "Users of a segment, in pages.",
        ))
        .answer::<MemberPage>(200, "A page."),
        members,
    )
    .add(
        format(Operation::change(
            "put",
            ONE,
            "putSegment",
            "Creates a segment, or replaces its users.",
        ))
        .takes_lines(),
        put,
    )
    .add(
        Operation::change("post", "/api/v1/segments/{segment}/add", "addMembers", "Adds users.")
            .takes::<EditBody>(true),
        add,
    )
    .add(
        Operation::change(
            "post",
            "/api/v1/segments/{segment}/remove",
            "removeMembers",
            "Removes users.",
        )
        .takes::<EditBody>(true),
        remove,
    )
    .add(
        Operation::change("delete", ONE, "deleteSegment", "Removes a segment."),
        delete,
    )
}

async fn list(Shared(state): Shared<State>) -> Json<Segments> {
    let snapshot = state.pin();
    let segments = snapshot.segments().iter();
    Json(Segments {
        segments: segments.map(|(name, segment)| (name.clone(), shown(segment))).collect(),
    })
}

async fn get(Shared(state): Shared<State>, Named(name): Named<SegmentName>) -> Result<Response, Refusal> {
    let snapshot = state.pin();
    let segment = known(&snapshot, &name)?;
    Ok(tagged(segment.revision, &shown(segment)))
}

fn shown(segment: &LiveSegment) -> Segment {
    Segment {
        revision: segment.revision.0,
        users: segment.members.len(),
    }
}

fn known<'a>(snapshot: &'a Snapshot, name: &SegmentName) -> Result<&'a LiveSegment, Refusal> {
    let segment = snapshot.segments().get(name);
    segment.ok_or_else(|| Refusal::new(Kind::NotFound, format!("there is no segment {name}")))
}

async fn members(
    Shared(state): Shared<State>,
    Named(name): Named<SegmentName>,
    query: Parameters,
) -> Result<Response, Refusal> {
    let (after, limit) = page(query)?;
    let revision = known(&state.pin(), &name)?.revision;
    let store = state.controller.store();
    let mut users = store.members(&name, after.as_deref(), limit + 1).await?;
    let more = users.len() > limit;
    users.truncate(limit);
    let body = MemberPage {
        revision: revision.0,
        next: users.last().filter(|_| more).map(ToString::to_string),
        users: users.into_iter().map(String::from).collect(),
    };
    Ok(tagged(revision, &body))
}

async fn put(
    Shared(state): Shared<State>,
    Named(segment): Named<SegmentName>,
    request: Request,
) -> Result<Response, Refusal> {
    let (parts, body) = request.into_parts();
    let (terms, mut query) = Terms::read(&parts)?;
    let format = Format::of(query.take("format"), &parts.headers)?;
    query.end()?;
    let turn = state.lists.try_acquire();
    let _turn = turn.map_err(|_| Refusal::new(Kind::Busy, "other lists are being read: try again"))?;
    let (users, digest) = lists::read(Reading::of_members(format), &parts, body).await?;
    let users = users.into_ids();
    change(&state, terms, digest, Change::PutSegment { segment, users }).await
}

async fn add(
    Shared(state): Shared<State>,
    Named(segment): Named<SegmentName>,
    terms: Terms,
    Sent(body, digest): Sent<EditBody>,
) -> Result<Response, Refusal> {
    let (add, remove) = (boxed(body), Vec::new());
    change(&state, terms, digest, Change::EditSegment { segment, add, remove }).await
}

async fn remove(
    Shared(state): Shared<State>,
    Named(segment): Named<SegmentName>,
    terms: Terms,
    Sent(body, digest): Sent<EditBody>,
) -> Result<Response, Refusal> {
    let (add, remove) = (Vec::new(), boxed(body));
    change(&state, terms, digest, Change::EditSegment { segment, add, remove }).await
}

fn boxed(body: EditBody) -> Vec<Box<str>> {
    body.users.into_iter().map(String::into_boxed_str).collect()
}

async fn delete(
    Shared(state): Shared<State>,
    Named(segment): Named<SegmentName>,
    terms: Terms,
    Nothing(digest): Nothing,
) -> Result<Response, Refusal> {
    change(&state, terms, digest, Change::DeleteSegment { segment }).await
}
