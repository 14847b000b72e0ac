//! `switchyard rollout apply`: the rollouts of a file as one change, on the state that its diff was shown against.

use std::collections::BTreeMap;

use super::args::{Ask, Input};
use super::call::Call;
use super::failure::Failure;
use super::file;
use super::session::{Session, conditions, post};
use crate::admin::wire::{ApplyBody, Changed, Rollouts};
use crate::rollout::RolloutName;

/// How often the change is formed again because another one came in between.
const ATTEMPTS_MAX: u32 = 3;

/// Applies a file.
///
/// # Errors
/// When it could not.
pub fn run(session: &Session, name: Option<&RolloutName>, file: &Input, ask: &Ask) -> Result<(), Failure> {
    let written = match name {
        Some(name) => vec![file::named(file, name)?],
        None => file::rollouts(file)?,
    };
    let mut rollouts = BTreeMap::new();
    let mut read_at = BTreeMap::new();
    for one in written {
        let Some(name) = one.name.or_else(|| name.cloned()) else {
            let text = format!("{file}: does not say the rollout's name: `switchyard rollout apply NAME -f {file}`");
            return Err(Failure::Invalid(text));
        };
        if let Some(revision) = one.revision {
            read_at.insert(name.clone(), revision);
        }
        rollouts.insert(name, one.spec);
    }
    if rollouts.is_empty() {
        return Err(Failure::Invalid(format!("{file}: holds no rollout")));
    }
    let body = ApplyBody { rollouts };
    let mut attempts = ATTEMPTS_MAX;
    loop {
        attempts -= 1;
        match once(session, &body, &read_at, ask) {
            Err(Failure::Refused(problem)) if problem.status == 409 && ask.if_match.is_none() && attempts > 0 => {}
            other => return other,
        }
    }
}

fn once(session: &Session, body: &ApplyBody, read_at: &BTreeMap<RolloutName, u64>, ask: &Ask) -> Result<(), Failure> {
    let (now, _) = session.client.read::<Rollouts>(&Call::get(&["rollouts"]))?;
    let mut ask = ask.clone();
    ask.if_match = ask.if_match.or_else(|| expected(body, &now));
    let call = post(&["apply"]).json(body)?;
    if !ask.dry_run && ask.at.is_none() && ask.if_match.is_some() {
        let look = Ask {
            dry_run: true,
            allow_flips: true,
            ..ask.clone()
        };
        let seen = session.client.call(&conditions(call.clone(), &look)?)?;
        let seen: Changed = session.client.understood(&seen)?;
        // A file that was applied before says the same again, however old its revision is.
        if !seen.diff.is_empty() {
            is_current(read_at, &now)?;
        }
    }
    session.change(&ask, call)
}

/// What the API compares with: one rollout's revision, or that of everything for several.
fn expected(body: &ApplyBody, now: &Rollouts) -> Option<u64> {
    let mut names = body.rollouts.keys();
    let first = names.next()?;
    if names.next().is_none() {
        return now.rollouts.get(first).map(|one| one.revision);
    }
    let exists = body.rollouts.keys().any(|name| now.rollouts.contains_key(name));
    exists.then_some(now.revision)
}

/// A file that came from the API is about the revision that it was read at.
fn is_current(read_at: &BTreeMap<RolloutName, u64>, now: &Rollouts) -> Result<(), Failure> {
    for (name, revision) in read_at {
        let current = now.rollouts.get(name).map(|one| one.revision);
        if let Some(current) = current.filter(|current| current != revision) {
            return Err(Failure::Conflict(format!(
                "rollout {name} is at revision {current}, and the file was read at {revision}: get it again, or take \
                 `revision` out of the file to replace what is there"
            )));
        }
    }
    Ok(())
}
