//! Segments: named lists of users.

use std::num::NonZeroUsize;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Request, State as Shared};
use axum::response::Response;
use bytes::Bytes;
use serde_json::json;

use super::answer::{change, tagged};
use super::document::{Api, Operation};
use super::export;
use super::ids;
use super::lists::{self, Format, Reading};
use super::parameters::{Named, Parameters};
use super::refusal::{Kind, Refusal};
use super::sent::{Nothing, Sent};
use super::state::State;
use super::terms::Terms;
use super::users::{format, page, paged};
use super::wire::{self, EditBody, MemberPage, NDJSON, PLAIN, Segment, Segments};
use crate::clock;
use crate::control::{ChangeError, Most, Segment as LiveSegment, Snapshot};
use crate::precedence;
use crate::rollout::{Change, Members, Moment, Roster, SegmentName};

/// A list of as many users or fewer is kept in the store itself, a row each.
const SHORT_MAX: u64 = 65_536;
/// Users that are read at once for an export.
const EXPORT_PAGE: Most = Most {
    users: 50_000,
    bytes: export::PIECE_BYTES,
};
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
        Operation::read(
            "get",
            "/api/v1/segments/{segment}/export",
            "exportMembers",
            "All users of a segment, as they are while they are read.",
        )
        .query(
            "format",
            json!({ "enum": ["ndjson", "plain"], "default": "ndjson" }),
            "One JSON object a line, or an id a line.",
        )
        .answer_as(200, NDJSON, "One JSON object a line.")
        .or_answer_as(200, PLAIN),
        export,
    )
    .add(
        format(Operation::change(
            "put",
            ONE,
            "putSegment",
            "Creates a segment, or replaces its users. The list may be packed by gzip or Zstandard.",
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
    let record = state.controller.store().segment(&name).await?;
    let moment = |at: Moment| clock::rfc3339(at.0);
    let body = Segment {
        created: record.map(|record| moment(record.created)),
        changed: record.map(|record| moment(record.changed)),
        ..shown(segment)
    };
    Ok(tagged(segment.revision, &body))
}

fn shown(segment: &LiveSegment) -> Segment {
    Segment {
        revision: segment.revision.0,
        users: segment.members.len(),
        created: None,
        changed: None,
        roster: segment.members.roster().map(|roster| wire::Roster {
            digest: roster.name().digest.to_string(),
            users: roster.name().users,
            bytes: roster.size() + roster.names().bytes,
        }),
        since: segment.members.since_len(),
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
    let mut users = store.members(&name, after.as_deref(), Most::users(limit + 1)).await?;
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
    let store = state.controller.store();
    let read_only = store.status().read_only;
    let read_only = read_only.map(|why| Refusal::from(ChangeError::ReadOnly(why)));
    if let Some(refused) = read_only.clone().filter(|_| !terms.dry_run) {
        return Err(refused);
    }
    let rosters = Arc::clone(store.rosters());
    let key = {
        let snapshot = state.pin();
        let members = snapshot.segments().get(&segment).map(|known| &known.members);
        // The same key as before, so that it can be told who comes in and who goes out.
        let roster = members.and_then(Members::roster);
        roster.map_or_else(|| rosters.fresh_key(), Roster::key)
    };
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let reading = Reading::of_members(format, key, threads).asked_through(state.normaliser.clone());
    let (gathered, digest) = lists::read(reading, &parts, body).await?;
    let keeping = precedence::at_length(move || {
        let sorted = gathered.sorted();
        let sorted = sorted.map_err(|too_many| Refusal::new(Kind::TooLarge, too_many.to_string()))?;
        if sorted.users() <= SHORT_MAX {
            return Ok((
                Change::PutSegment {
                    segment,
                    users: sorted.ids(),
                },
                None,
            ));
        }
        // Nothing would ever remove the file.
        if let Some(refused) = read_only {
            return Err(refused);
        }
        let roster = rosters.keep(sorted).map_err(Refusal::from)?;
        let change = Change::PutRoster {
            segment,
            roster: roster.name(),
        };
        Ok::<_, Refusal>((change, Some(roster)))
    });
    // Held until it is live, so that it is not opened a second time.
    let (asked, _roster) = keeping.await.ok_or_else(lists::ending)??;
    change(&state, terms, digest, asked).await
}

async fn export(
    Shared(state): Shared<State>,
    Named(name): Named<SegmentName>,
    mut query: Parameters,
) -> Result<Response, Refusal> {
    let (plain, media) = match query.take("format").as_deref() {
        None | Some("ndjson") => (false, NDJSON),
        Some("plain") => (true, PLAIN),
        Some(other) => {
            let text = format!("{other:?} is none of ndjson and plain");
            return Err(Refusal::at(Kind::Malformed, "format", text));
        }
    };
    query.end()?;
    let revision = known(&state.pin(), &name)?.revision;
    let turn = export::Turn::take(&state)?;
    let store = Arc::clone(state.controller.store());
    Ok(turn.send(media, revision, move |after| {
        let (store, name) = (Arc::clone(&store), name.clone());
        async move {
            let users = store.members(&name, after.as_deref(), EXPORT_PAGE).await?;
            // After the last of them comes a page of nobody.
            Ok((lines(&users, plain), users.last().cloned()))
        }
    }))
}

fn lines(users: &[Box<str>], plain: bool) -> Bytes {
    let mut text = Vec::new();
    for user in users {
        if plain {
            text.extend_from_slice(user.as_bytes());
        } else {
            text.extend_from_slice(json!({ "user": user }).to_string().as_bytes());
        }
        text.push(b'\n');
    }
    text.into()
}

async fn add(
    Shared(state): Shared<State>,
    Named(segment): Named<SegmentName>,
    terms: Terms,
    Sent(body, digest): Sent<EditBody>,
) -> Result<Response, Refusal> {
    let users = body.users.iter().map(String::as_str);
    ids::may_come(&state.normaliser, users, |place, _| format!("users[{place}]"))?;
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
