//! `switchyard segment`

use http::Method;

use super::args::{Ask, Segment, SegmentVerb};
use super::call::Call;
use super::failure::Failure;
use super::list;
use super::screen;
use super::session::{Session, post};
use super::show;
use crate::admin::wire::{self, EditBody, MemberPage};
use crate::rollout::SegmentName;

/// How many users one page of a segment brings.
const PAGE: usize = 1000;
/// More users are not printed unasked.
const LISTED_MAX: usize = 10_000;

/// Does what is asked.
///
/// # Errors
/// When it could not.
pub fn run(segment: &Segment) -> Result<(), Failure> {
    let session = Session::new(&segment.reach)?;
    match &segment.verb {
        SegmentVerb::List => session.show(&Call::get(&["segments"]), show::segments),
        SegmentVerb::Get { name } => get(&session, name),
        SegmentVerb::Create {
            name,
            file,
            replace,
            format,
            ask,
        } => {
            let mut ask = ask.clone();
            if *replace {
                ask.if_match = present(&session, name, &ask, "replace the users of")?;
            } else if ask.if_match.is_none() {
                ask.if_match = empty(&session, name)?;
            }
            let call = Call::new(Method::PUT, &["segments", name.as_str()]);
            let answer = list::send(&session, &ask, call, file, *format);
            let answer = answer.map_err(|failure| match failure {
                Failure::Refused(problem) if problem.status == 428 => exists(name, problem.revision),
                other => other,
            })?;
            session.changed(&ask, &answer)
        }
        SegmentVerb::Export { name, plain } => {
            let call = Call::get(&["segments", name.as_str(), "export"]);
            let format = if *plain { "plain" } else { "ndjson" };
            list::receive(session.client.stream(&call.query("format", format))?)
        }
        SegmentVerb::Add { name, users, ask } => edit(&session, name, "add", users, ask),
        SegmentVerb::Remove { name, users, ask } => edit(&session, name, "remove", users, ask),
        SegmentVerb::Delete { name, ask } => {
            let mut ask = ask.clone();
            ask.if_match = present(&session, name, &ask, "delete")?;
            session.change(&ask, Call::new(Method::DELETE, &["segments", name.as_str()]))
        }
    }
}

fn edit(session: &Session, name: &SegmentName, verb: &str, users: &[String], ask: &Ask) -> Result<(), Failure> {
    let body = EditBody { users: users.to_vec() };
    session.change(ask, post(&["segments", name.as_str(), verb]).json(&body)?)
}

/// A segment; none where it does not exist.
fn found(session: &Session, name: &SegmentName) -> Result<Option<wire::Segment>, Failure> {
    let call = Call::get(&["segments", name.as_str()]);
    match session.client.read::<wire::Segment>(&call) {
        Ok((one, _)) => Ok(Some(one)),
        Err(Failure::Refused(problem)) if problem.status == 404 => Ok(None),
        Err(other) => Err(other),
    }
}

/// The revision of a segment without users: one that a rollout names before it is created exists so.
fn empty(session: &Session, name: &SegmentName) -> Result<Option<u64>, Failure> {
    match found(session, name)? {
        Some(one) if one.users > 0 => Err(exists(name, Some(one.revision))),
        other => Ok(other.map(|one| one.revision)),
    }
}

/// The revision that is to be lost, once somebody who sits there has agreed; none where there is no such segment.
fn present(session: &Session, name: &SegmentName, ask: &Ask, what: &str) -> Result<Option<u64>, Failure> {
    let Some(one) = found(session, name)? else {
        return Ok(ask.if_match);
    };
    if session.asks(ask) {
        let (users, revision) = (screen::counted(one.users, "user"), one.revision);
        screen::confirm(&format!("{what} segment {name} ({users}, revision {revision})?"))?;
    }
    Ok(ask.if_match.or(Some(one.revision)))
}

fn exists(name: &SegmentName, revision: Option<u64>) -> Failure {
    let revision = revision.map(|n| format!(" at revision {n}")).unwrap_or_default();
    Failure::Conflict(format!("segment {name} exists{revision}: --replace replaces its users"))
}

/// The segment, and its users a line each.
fn get(session: &Session, name: &SegmentName) -> Result<(), Failure> {
    session.show(&Call::get(&["segments", name.as_str()]), |screen, one| {
        show::segment(screen, name.as_str(), one)
    })?;
    if session.is_json() {
        return Ok(());
    }
    let one = found(session, name)?;
    if one.is_some_and(|one| one.users > LISTED_MAX) {
        return screen::put(&format!("  all of them: switchyard segment export {name}"));
    }
    let mut after: Option<String> = None;
    loop {
        let mut call = Call::get(&["segments", name.as_str(), "users"]).query("limit", PAGE);
        if let Some(after) = &after {
            call = call.query("after", after);
        }
        let (page, _) = session.client.read::<MemberPage>(&call)?;
        let lines: Vec<String> = page.users.iter().map(|user| format!("  {user}")).collect();
        screen::put(&lines.join("\n"))?;
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(()),
        }
    }
}
