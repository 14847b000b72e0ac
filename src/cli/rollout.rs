//! `switchyard rollout`

use std::collections::BTreeMap;

use http::Method;

use super::apply;
use super::args::{Ask, Input, Rollout, RolloutVerb, ScheduleVerb};
use super::call::{Answer, Call};
use super::failure::Failure;
use super::file;
use super::screen;
use super::session::{Session, conditions, post};
use super::show;
use crate::admin::wire::{self, Changed, HistoryPage, PlanBody, Planned, Schedule, UndoBody};
use crate::rollout::{ReleaseName, RolloutName, Weight};

/// Does what is asked.
///
/// # Errors
/// When it could not.
pub fn run(rollout: &Rollout) -> Result<(), Failure> {
    let session = Session::new(&rollout.reach)?;
    match &rollout.verb {
        RolloutVerb::List => session.show(&Call::get(&["rollouts"]), show::rollouts),
        RolloutVerb::Get { name } => {
            let call = Call::get(&["rollouts", name.as_str()]);
            session.show(&call, |screen, one| show::rollout(screen, name.as_str(), one))
        }
        RolloutVerb::Create { name, file, ask } => create(&session, name, file, ask),
        RolloutVerb::Apply { name, file, ask } => apply::run(&session, name.as_ref(), file, ask),
        RolloutVerb::Split { name, shares, ask } => {
            let call = Call::new(Method::PUT, &["rollouts", name.as_str(), "split"]);
            session.change(ask, call.json(&by_release(shares)?)?)
        }
        RolloutVerb::Kill(named) => session.change(&named.ask, verb(&named.name, "kill")),
        RolloutVerb::Resume(named) => session.change(&named.ask, verb(&named.name, "resume")),
        RolloutVerb::Freeze(named) => session.change(&named.ask, verb(&named.name, "freeze")),
        RolloutVerb::Unfreeze(named) => session.change(&named.ask, verb(&named.name, "unfreeze")),
        RolloutVerb::Delete(named) => delete(&session, &named.name, &named.ask),
        RolloutVerb::Plan { name, shares, file } => plan(&session, name, shares, file.as_ref()),
        RolloutVerb::History {
            name,
            limit,
            before,
            diff,
        } => {
            let mut call = Call::get(&["history"]).query("limit", limit);
            if let Some(name) = name {
                call = call.query("rollout", name);
            }
            if let Some(before) = before {
                call = call.query("before", before);
            }
            session.show(&call, |screen, page: &HistoryPage| show::history(screen, page, *diff))
        }
        RolloutVerb::Undo { to, ask } => undo(&session, *to, ask),
        RolloutVerb::Schedule { verb } => match verb {
            ScheduleVerb::List => session.show(&Call::get(&["schedule"]), |screen, all: &Schedule| {
                show::schedule(screen, all)
            }),
            ScheduleVerb::Cancel { id, ask } => {
                session.change(ask, Call::new(Method::DELETE, &["schedule", &id.to_string()]))
            }
        },
    }
}

fn verb(name: &RolloutName, verb: &str) -> Call {
    post(&["rollouts", name.as_str(), verb])
}

fn by_release(shares: &[(ReleaseName, Weight)]) -> Result<BTreeMap<ReleaseName, Weight>, Failure> {
    let mut split = BTreeMap::new();
    for (release, share) in shares {
        if split.insert(release.clone(), *share).is_some() {
            let text = format!("release {release} is given two shares: write one");
            return Err(Failure::Invalid(text));
        }
    }
    Ok(split)
}

fn create(session: &Session, name: &RolloutName, file: &Input, ask: &Ask) -> Result<(), Failure> {
    let spec = file::rollout(file, name)?;
    let exists = |revision: Option<u64>| {
        let revision = revision.map(|n| format!(" at revision {n}")).unwrap_or_default();
        Failure::Conflict(format!(
            "rollout {name} exists{revision}: `switchyard rollout apply {name} -f {file}` changes it"
        ))
    };
    let segments = ["rollouts", name.as_str()];
    // The API lets whoever only looks replace what is there without a word.
    if ask.dry_run && ask.if_match.is_none() {
        match session.client.read::<wire::Rollout>(&Call::get(&segments)) {
            Ok((one, _)) => return Err(exists(Some(one.revision))),
            Err(Failure::Refused(problem)) if problem.status == 404 => {}
            Err(other) => return Err(other),
        }
    }
    let call = Call::new(Method::PUT, &segments).json(&spec)?;
    session.change(ask, call).map_err(|failure| match failure {
        Failure::Refused(problem) if problem.status == 428 => exists(problem.revision),
        other => other,
    })
}

fn plan(
    session: &Session,
    name: &RolloutName,
    shares: &[(ReleaseName, Weight)],
    file: Option<&Input>,
) -> Result<(), Failure> {
    let body = match file {
        Some(file) => PlanBody {
            split: None,
            spec: Some(file::rollout(file, name)?),
        },
        None => PlanBody {
            split: Some(by_release(shares)?),
            spec: None,
        },
    };
    let call = verb(name, "plan").json(&body)?;
    session.show(&call, |screen, planned: &Planned| show::planned(screen, planned))
}

fn delete(session: &Session, name: &RolloutName, ask: &Ask) -> Result<(), Failure> {
    let mut ask = ask.clone();
    let segments = ["rollouts", name.as_str()];
    if ask.if_match.is_none() || session.asks(&ask) {
        let (one, _) = session.client.read::<wire::Rollout>(&Call::get(&segments))?;
        ask.if_match = ask.if_match.or(Some(one.revision));
        if session.asks(&ask) {
            let users = screen::grouped(one.users as u64);
            let revision = one.revision;
            screen::confirm(&format!(
                "delete rollout {name} (revision {revision}) and its {users} pinned users?"
            ))?;
        }
    }
    session.change(&ask, Call::new(Method::DELETE, &segments))
}

fn undo(session: &Session, to: Option<u64>, ask: &Ask) -> Result<(), Failure> {
    let call = post(&["undo"]).json(&UndoBody { to })?;
    let mut ask = ask.clone();
    if session.asks(&ask) {
        let look = Ask {
            dry_run: true,
            ..ask.clone()
        };
        let seen: Answer = session.client.call(&conditions(call.clone(), &look)?)?;
        let seen: Changed = session.client.understood(&seen)?;
        let mut lines = vec![seen.summary.clone()];
        lines.extend(show::diff(&session.screen, &seen.diff));
        let shown = lines.join("\n");
        screen::confirm(&format!("{shown}\ndo it?"))?;
        // What is undone is what was shown.
        ask.if_match = ask.if_match.or(Some(seen.revision));
    }
    session.change(&ask, call)
}
