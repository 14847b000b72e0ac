//! From what is asked to what will be true: a change looked at against the present state. Pure.

use std::collections::{BTreeMap, HashSet};

use super::apply::ApplyProblem;
use super::describe::subject;
use super::release::LiveRollout;
use super::request::ChangeError;
use super::snapshot::{Segment, Snapshot, Surroundings};
use crate::rollout::{
    Change, Fact, Members, Problem, ReleaseName, RolloutName, RolloutPatch, RolloutSpec, SegmentName, Split, UserGroup,
    UsersPatch, Weight, check_ids,
};

/// The same change without what is so already: users of a segment who are in or out, or are named twice.
pub(super) fn narrowed(change: Change, now: &Snapshot) -> Change {
    let Change::EditSegment {
        segment,
        mut add,
        mut remove,
    } = change
    else {
        return change;
    };
    // Who is in one whose users are lost is not known.
    if let Some(present) = now.segments().get(&segment).filter(|present| !present.lost) {
        let mut seen = HashSet::new();
        remove.retain(|user| present.members.contains(user) && seen.insert(user.clone()));
        let gone = std::mem::take(&mut seen);
        add.retain(|user| (gone.contains(user) || !present.members.contains(user)) && seen.insert(user.clone()));
    }
    Change::EditSegment { segment, add, remove }
}

/// A replacement that was written before its time: what was killed or frozen since stays so.
pub(super) fn still_stopped(change: Change, now: &Snapshot) -> Change {
    let Change::Apply { mut rollouts } = change else {
        return change;
    };
    for (name, spec) in &mut rollouts {
        if let Some(live) = now.named(name) {
            spec.killed |= live.spec().killed;
            spec.frozen |= live.spec().frozen;
        }
    }
    Change::Apply { rollouts }
}

/// The facts that a change comes to; none if nothing is to be changed.
pub(super) fn facts(change: Change, now: &Snapshot, around: &Surroundings) -> Result<Vec<Fact>, ChangeError> {
    not_stuck(&change, now)?;
    match change {
        Change::Apply { rollouts } => apply(rollouts, now, around),
        Change::Patch { rollout, patch } => patched(rollout, *patch, now, around),
        Change::Delete { rollout } => delete(rollout, now, around),
        Change::Split { rollout, split } => edit(now, around, &rollout, |spec| spec.split = split),
        Change::Kill { rollout } => edit(now, around, &rollout, |spec| spec.killed = true),
        Change::Resume { rollout } => edit(now, around, &rollout, |spec| spec.killed = false),
        Change::Freeze { rollout } => edit(now, around, &rollout, |spec| spec.frozen = true),
        Change::Unfreeze { rollout } => edit(now, around, &rollout, |spec| spec.frozen = false),
        Change::SetUser {
            rollout,
            user,
            release,
            until,
        } => {
            let group = UserGroup {
                release,
                until,
                users: vec![user],
            };
            pin(now, rollout, false, Vec::new(), vec![group])
        }
        Change::UnsetUser { rollout, user } => pin(now, rollout, false, vec![user], Vec::new()),
        Change::Expire { users, .. } if users.is_empty() => Ok(Vec::new()),
        // The controller has asked the store whose time is over: whatever this process knows of the rollout.
        Change::Expire { rollout, users } => Ok(vec![Fact::Users {
            rollout,
            replace: false,
            unset: users,
            set: Vec::new(),
        }]),
        Change::ImportUsers {
            rollout,
            replace,
            groups,
        } => pin(now, rollout, replace, Vec::new(), groups),
        Change::PutSegment { segment, users } => {
            let present = whole(now, &segment);
            let same = present.is_some_and(|m| m.len() == users.len() && users.iter().all(|user| m.contains(user)));
            if same {
                return Ok(Vec::new());
            }
            segment_members(segment, true, Vec::new(), users)
        }
        Change::PutRoster { segment, roster } => {
            let present = whole(now, &segment);
            if present.is_some_and(|m| m.since_len() == 0 && m.roster().is_some_and(|r| r.name() == roster)) {
                return Ok(Vec::new());
            }
            Ok(vec![Fact::Roster { segment, roster }])
        }
        Change::EditSegment { segment, add, remove } => edit_segment(segment, remove, add, now),
        Change::DeleteSegment { segment } => delete_segment(segment, now),
        Change::Unschedule { id } => match now.schedule().get(&id) {
            Some(_) => Ok(vec![Fact::NotScheduled { id }]),
            None => Err(ChangeError::NotFound(format!("no change {} is scheduled", id.0))),
        },
        // The store knows what undoes; the controller asks it.
        Change::Undo { .. } => Ok(Vec::new()),
    }
}

/// A rollout whose latest spec this process cannot compile is here as it was before: what is formed of that would
/// overwrite what another process made, unseen.
fn not_stuck(change: &Change, now: &Snapshot) -> Result<(), ChangeError> {
    let among = |rollout: &RolloutName| now.stuck().get_key_value(rollout);
    let (found, segment) = match change {
        // Its targets are not known here.
        Change::DeleteSegment { segment } => (now.stuck().first_key_value(), Some(segment.clone())),
        Change::Apply { rollouts } => (rollouts.iter().find_map(|(rollout, _)| among(rollout)), None),
        // The store knows what becomes of that.
        Change::Expire { .. } => (None, None),
        other => (subject(other).as_ref().and_then(among), None),
    };
    match found {
        None => Ok(()),
        Some((rollout, why)) => Err(ChangeError::Stuck {
            rollout: rollout.clone(),
            why: why.clone(),
            segment,
        }),
    }
}

fn apply(
    rollouts: Vec<(RolloutName, RolloutSpec)>,
    now: &Snapshot,
    around: &Surroundings,
) -> Result<Vec<Fact>, ChangeError> {
    let mut facts = Vec::new();
    let mut problems = Vec::new();
    for (rollout, mut spec) in rollouts {
        let users = std::mem::take(&mut spec.users);
        match stored(&rollout, spec, now, around) {
            Ok(spec) => {
                if now.named(&rollout).is_none_or(|live| *live.spec() != spec) {
                    facts.push(Fact::Rollout {
                        rollout: rollout.clone(),
                        spec: Some(Box::new(spec)),
                    });
                }
            }
            Err(found) => problems.extend(found),
        }
        if !users.is_empty() {
            facts.push(Fact::Users {
                rollout,
                replace: true,
                unset: Vec::new(),
                set: grouped(users),
            });
        }
    }
    if problems.is_empty() {
        Ok(facts)
    } else {
        Err(ChangeError::Invalid(problems))
    }
}

/// What is patched is what there is now, under the turn of this change: never what was read before it.
fn patched(
    rollout: RolloutName,
    patch: RolloutPatch,
    now: &Snapshot,
    around: &Surroundings,
) -> Result<Vec<Fact>, ChangeError> {
    let live = now.named(&rollout).ok_or_else(|| no_rollout(&rollout))?;
    let (spec, users) = patch.onto(live.spec());
    let UsersPatch { replace, unset, set } = users;
    let (mut unset, set) = (unset, grouped(set));
    unset.retain(|user| live.table().single_user(user).is_some());
    let mut facts = apply(vec![(rollout.clone(), spec)], now, around)?;
    if facts.is_empty() {
        return pin(now, rollout, replace, unset, set);
    }
    if replace || !unset.is_empty() || !set.is_empty() {
        // Its releases may be new ones: they are looked at with the rest of the candidate.
        facts.push(Fact::Users {
            rollout,
            replace,
            unset,
            set,
        });
    }
    Ok(facts)
}

fn grouped(users: BTreeMap<String, ReleaseName>) -> Vec<UserGroup> {
    let mut groups: BTreeMap<ReleaseName, Vec<Box<str>>> = BTreeMap::new();
    for (user, release) in users {
        groups.entry(release).or_default().push(user.into());
    }
    let group = |(release, users)| UserGroup {
        release,
        until: None,
        users,
    };
    groups.into_iter().map(group).collect()
}

/// The spec as it is stored: with the ranges that its history leads to.
fn stored(
    rollout: &RolloutName,
    mut spec: RolloutSpec,
    now: &Snapshot,
    around: &Surroundings,
) -> Result<RolloutSpec, Vec<ApplyProblem>> {
    // A spec that was read, edited and sent back carries the ranges of the shares before.
    let stale = |live: &LiveRollout| live.spec().ranges == spec.ranges && live.spec().split != spec.split;
    if now.named(rollout).is_some_and(|live| stale(live)) {
        spec.ranges = None;
    }
    if spec.ranges.is_some() {
        now.compile(rollout, &spec, around)?;
        return Ok(spec);
    }
    let fresh = now.compile(rollout, &spec, around)?;
    let weights: Vec<(ReleaseName, Weight)> = spec
        .split
        .iter()
        .map(|(name, weight)| (name.clone(), *weight))
        .collect();
    let split = match now.named(rollout) {
        Some(live) => live.table().split().rebalance(&weights),
        None => Ok(fresh.split().clone()),
    };
    let split = split.map_err(|e| vec![problem(rollout, "split", e.to_string())])?;
    spec.ranges = Some(Split::ranges(&split).to_vec());
    Ok(spec)
}

fn edit(
    now: &Snapshot,
    around: &Surroundings,
    rollout: &RolloutName,
    change: impl FnOnce(&mut RolloutSpec),
) -> Result<Vec<Fact>, ChangeError> {
    let live = now.named(rollout).ok_or_else(|| no_rollout(rollout))?;
    let mut spec = live.spec().clone();
    change(&mut spec);
    if spec == *live.spec() {
        return Ok(Vec::new());
    }
    spec.ranges = None;
    let spec = stored(rollout, spec, now, around).map_err(ChangeError::Invalid)?;
    Ok(vec![Fact::Rollout {
        rollout: rollout.clone(),
        spec: Some(Box::new(spec)),
    }])
}

fn delete(rollout: RolloutName, now: &Snapshot, around: &Surroundings) -> Result<Vec<Fact>, ChangeError> {
    now.named(&rollout).ok_or_else(|| no_rollout(&rollout))?;
    if around.slots.contains(&rollout) {
        return Err(ChangeError::Refused(format!(
            "rollout {rollout} is selected by a route: take it out of routes first, or kill it"
        )));
    }
    // A later rollout of that name has nothing to do with what waits for this one.
    let waiting = now.schedule().iter();
    let its_own = waiting.filter(|(_, entry)| subject(&entry.change).as_ref() == Some(&rollout));
    let mut facts: Vec<Fact> = its_own.map(|(id, _)| Fact::NotScheduled { id: *id }).collect();
    facts.insert(0, Fact::Rollout { rollout, spec: None });
    Ok(facts)
}

fn pin(
    now: &Snapshot,
    rollout: RolloutName,
    replace: bool,
    unset: Vec<Box<str>>,
    set: Vec<UserGroup>,
) -> Result<Vec<Fact>, ChangeError> {
    let live = now.named(&rollout).ok_or_else(|| no_rollout(&rollout))?;
    let nothing = set.iter().all(|group| group.users.is_empty());
    if nothing && !replace && unset.iter().all(|user| live.table().single_user(user).is_none()) {
        return Ok(Vec::new());
    }
    Ok(vec![Fact::Users {
        rollout,
        replace,
        unset,
        set,
    }])
}

fn edit_segment(
    segment: SegmentName,
    remove: Vec<Box<str>>,
    add: Vec<Box<str>>,
    now: &Snapshot,
) -> Result<Vec<Fact>, ChangeError> {
    let present = known_segment(now, &segment)?;
    if present.lost && !remove.is_empty() {
        return Err(ChangeError::Refused(format!(
            "segment {segment}: its users cannot be read, so that nobody is taken out of it: replace the whole list \
             (`segment create {segment} -f FILE --replace`)"
        )));
    }
    if add.is_empty() && remove.is_empty() {
        return Ok(Vec::new());
    }
    segment_members(segment, false, remove, add)
}

fn segment_members(
    segment: SegmentName,
    replace: bool,
    remove: Vec<Box<str>>,
    add: Vec<Box<str>>,
) -> Result<Vec<Fact>, ChangeError> {
    check_ids(&add).map_err(|e| ChangeError::Refused(format!("segment {segment}: {e}")))?;
    Ok(vec![Fact::Segment {
        segment,
        replace,
        remove,
        add,
    }])
}

fn delete_segment(segment: SegmentName, now: &Snapshot) -> Result<Vec<Fact>, ChangeError> {
    known_segment(now, &segment)?;
    let uses = |live: &LiveRollout| live.table().segments().any(|used| *used == segment);
    let users: Vec<&str> = now
        .rollouts()
        .filter(|(_, live)| uses(live))
        .map(|(name, _)| name.as_str())
        .collect();
    if users.is_empty() {
        return Ok(vec![Fact::NoSegment { segment }]);
    }
    Err(ChangeError::Refused(format!(
        "segment {segment} is named by targets of {}: take it out there first",
        users.join(", ")
    )))
}

/// The members of a segment, if it exists and all of them are known.
fn whole<'a>(now: &'a Snapshot, segment: &SegmentName) -> Option<&'a Members> {
    let present = now.segments().get(segment).filter(|present| !present.lost);
    present.map(|present| &present.members)
}

fn known_segment<'a>(now: &'a Snapshot, segment: &SegmentName) -> Result<&'a Segment, ChangeError> {
    let unknown = || ChangeError::NotFound(format!("there is no segment {segment}"));
    now.segments().get(segment).ok_or_else(unknown)
}

fn no_rollout(rollout: &RolloutName) -> ChangeError {
    ChangeError::NotFound(format!("there is no rollout {rollout}"))
}

fn problem(rollout: &RolloutName, path: &str, message: String) -> ApplyProblem {
    ApplyProblem {
        rollout: rollout.clone(),
        problem: Problem {
            path: path.to_owned(),
            message,
        },
    }
}
