//! What a change must satisfy before it is committed: the expected revision, a candidate that compiles, freezes, and
//! nobody moved backwards unasked. Pure.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::apply::Opened;
use super::describe::subject;
use super::freeze;
use super::request::{Asked, ChangeError};
use super::snapshot::{Snapshot, Surroundings};
use crate::clock;
use crate::precedence;
use crate::rollout::{Change, Fact, Members, Moment, Plan, Revision, RolloutName, Scheduled, Turnover};

/// More scheduled changes are a mistake of whoever schedules them.
const SCHEDULED_MAX: usize = 1_000;

/// What a candidate is allowed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Users may move backwards out of a growing release.
    pub allow_flips: bool,
    /// It will not be made: say what it would do, whatever that is.
    pub dry_run: bool,
    /// Users may enter a release of a rollout that is frozen: the time of a pin is over, and that was said when it was made.
    pub may_enter: bool,
}

/// What a change would do.
#[derive(Default)]
pub(super) struct Candidate {
    /// What would become of users, by rollout.
    pub plans: Vec<(RolloutName, Plan)>,
    /// Who would come into the segment that it is about, and who would go out.
    pub members: Option<Moving>,
    /// The state after it; not formed where it is about single users alone.
    pub next: Option<Snapshot>,
}

/// Who comes into a segment and who goes out.
pub(super) enum Moving {
    /// So many.
    Counted(Turnover),
    /// To be counted, which takes a second for a hundred million users: these members become those.
    Uncounted(Box<(Members, Members)>),
}

impl Moving {
    /// Counts, off the threads that must not wait.
    pub(super) async fn counted(self) -> Option<Turnover> {
        let both = match self {
            Self::Counted(turnover) => return Some(turnover),
            Self::Uncounted(both) => both,
        };
        // Nobody hears of it where the program is ending.
        precedence::at_length(move || both.0.turnover(&both.1)).await.flatten()
    }
}

/// Compares the expected revision with that of what is changed. Replacing and deleting what exists needs one.
///
/// The revision of the whole state is as good an expectation: where it still is the latest, nothing at all has changed.
/// A dry run needs none.
pub(super) fn expected(
    change: &Change,
    expected: Option<Revision>,
    dry_run: bool,
    now: &Snapshot,
) -> Result<(), ChangeError> {
    let rollout = |name: &RolloutName| now.named(name).map(|live| live.revision());
    let (current, needed) = match change {
        Change::Apply { rollouts } => match rollouts.as_slice() {
            [(name, _)] => (rollout(name), true),
            several => {
                let exists = several.iter().any(|(name, _)| now.named(name).is_some());
                (exists.then(|| now.revision()), true)
            }
        },
        Change::Patch { rollout: name, .. } | Change::Delete { rollout: name } => (rollout(name), true),
        Change::PutSegment { segment, .. } | Change::PutRoster { segment, .. } | Change::DeleteSegment { segment } => {
            (now.segments().get(segment).map(|s| s.revision), true)
        }
        Change::EditSegment { segment, .. } => (now.segments().get(segment).map(|s| s.revision), false),
        Change::Undo { .. } | Change::Unschedule { .. } => (Some(now.revision()), false),
        Change::Split { .. }
        | Change::Kill { .. }
        | Change::Resume { .. }
        | Change::Freeze { .. }
        | Change::Unfreeze { .. }
        | Change::SetUser { .. }
        | Change::UnsetUser { .. }
        | Change::Expire { .. }
        | Change::ImportUsers { .. } => (subject(change).and_then(|name| rollout(&name)), false),
    };
    match (expected, current) {
        (Some(wanted), Some(current)) if wanted != current && wanted != now.revision() => {
            Err(ChangeError::Conflict { current })
        }
        (Some(_), None) => Err(ChangeError::NotFound(
            "it does not exist, so it has no revision to expect: leave If-Match out to create it".to_owned(),
        )),
        (None, Some(current)) if needed && !dry_run => Err(ChangeError::Unconditional { current }),
        _ => Ok(()),
    }
}

/// A revision that undo can go back to.
pub(super) fn is_past(to: Revision, now: &Snapshot) -> Result<(), ChangeError> {
    if to <= now.revision() {
        return Ok(());
    }
    Err(ChangeError::NotFound(format!(
        "there is no revision {} yet: the latest is {}",
        to.0,
        now.revision().0
    )))
}

/// The fact that a change waits for its time.
pub(super) fn scheduled(change: &Change, at: Moment, asked: &Asked, now: &Snapshot) -> Result<Fact, ChangeError> {
    if at.0 <= clock::unix_millis() {
        let text = format!("{} is over: write a time to come", clock::rfc3339(at.0));
        return Err(ChangeError::Refused(text));
    }
    if let Change::SetUser { until: Some(until), .. } = change
        && *until <= at
    {
        let (until, at) = (clock::rfc3339(until.0), clock::rfc3339(at.0));
        return Err(ChangeError::Refused(format!(
            "until: {until} is not after {at}, when it is to begin: write a later time"
        )));
    }
    if change.is_of_a_list() || matches!(change, Change::Undo { .. } | Change::Unschedule { .. }) {
        return Err(ChangeError::Refused(
            "imports, segments and undo cannot be scheduled: make them now, and schedule the split".to_owned(),
        ));
    }
    if now.schedule().len() >= SCHEDULED_MAX {
        let text = format!("{SCHEDULED_MAX} changes are scheduled already: take some back");
        return Err(ChangeError::Refused(text));
    }
    Ok(Fact::Scheduled {
        id: Revision(now.revision().0 + 1),
        entry: Box::new(Scheduled {
            at,
            change: change.clone(),
            actor: asked.actor.clone(),
            reason: asked.reason.clone(),
            allow_flips: asked.allow_flips,
            replaces: asked.expected.is_some(),
        }),
    })
}

/// Compiles the candidate, and says what it would do.
pub(super) fn candidate(
    facts: &[Fact],
    terms: Terms,
    now: &Snapshot,
    opened: &Opened,
    around: &Surroundings,
) -> Result<Candidate, ChangeError> {
    let pins_alone = facts.iter().all(|fact| matches!(fact, Fact::Users { .. }));
    // Single users move nobody but themselves, so that nothing is formed anew where all may enter.
    if pins_alone && (terms.may_enter || !freeze::concerns(facts, now)) {
        now.check_users(facts).map_err(ChangeError::Invalid)?;
        return Ok(Candidate::default());
    }
    let mut next = now.clone();
    let problems = next.apply(now.revision(), facts, opened, around);
    if !problems.is_empty() {
        return Err(ChangeError::Invalid(problems));
    }
    still_selected(now, &next, around)?;
    let mut plans = Vec::new();
    for (name, after) in next.rollouts() {
        let Some(before) = now.named(name).filter(|before| !Arc::ptr_eq(before, after)) else {
            continue;
        };
        if !terms.may_enter {
            freeze::stays(facts, name, now, &next)?;
        }
        if pins_alone {
            continue;
        }
        let lately = if terms.dry_run {
            before.seen().lately(clock::tick())
        } else {
            Vec::new()
        };
        let plan = before.table().plan(after.table(), &lately);
        if !plan.flips.is_empty() && !terms.allow_flips && !terms.dry_run {
            return Err(ChangeError::Flips(plan.flips));
        }
        plans.push((name.clone(), plan));
    }
    Ok(Candidate {
        plans,
        members: turnover(facts, now, &next),
        next: Some(next),
    })
}

/// Who would come into the one segment that the facts are about, and who would go out.
fn turnover(facts: &[Fact], now: &Snapshot, next: &Snapshot) -> Option<Moving> {
    let mut named = facts.iter().map(|fact| match fact {
        Fact::Segment { segment, .. } | Fact::Roster { segment, .. } => Some(segment),
        Fact::Rollout { .. }
        | Fact::Users { .. }
        | Fact::Merged { .. }
        | Fact::NoSegment { .. }
        | Fact::Scheduled { .. }
        | Fact::NotScheduled { .. } => None,
    });
    let segment = named.next()??;
    if !named.all(|other| other == Some(segment)) {
        return None;
    }
    let before = now.segments().get(segment).map(|s| s.members.clone());
    let (before, after) = (
        before.unwrap_or_else(Members::none),
        &next.segments().get(segment)?.members,
    );
    let mut touched = BTreeSet::new();
    for fact in facts {
        match fact {
            // What a few users come to is found without looking at millions.
            Fact::Segment {
                replace: false,
                remove,
                add,
                ..
            } => touched.extend(remove.iter().chain(add)),
            _all => return Some(Moving::Uncounted(Box::new((before, after.clone())))),
        }
    }
    let (mut added, mut removed) = (0, 0);
    for user in touched {
        let (was, is) = (before.contains(user), after.contains(user));
        added += u64::from(is && !was);
        removed += u64::from(was && !is);
    }
    Some(Moving::Counted(Turnover {
        added,
        removed,
        kept: before.len() as u64 - removed,
    }))
}

fn still_selected(now: &Snapshot, next: &Snapshot, around: &Surroundings) -> Result<(), ChangeError> {
    let gone = around
        .slots
        .iter()
        .find(|name| now.named(name).is_some() && next.named(name).is_none());
    match gone {
        None => Ok(()),
        Some(name) => Err(ChangeError::Refused(format!(
            "rollout {name} would be no more, but a route selects it: take it out of routes first"
        ))),
    }
}
