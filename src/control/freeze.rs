//! What a freeze forbids: a change by which users enter a release, other than stable, that they were not in. Whom a change
//! names is decided before and after it, the way requests are; of whole lists that are replaced it is counted whether
//! anybody comes in. Not seen are attributes of requests, and where users go who leave such a list. Pure.

use std::collections::BTreeSet;

use super::release::LiveRollout;
use super::request::ChangeError;
use super::snapshot::Snapshot;
use crate::rollout::{Fact, Members, ReleaseName, RolloutName, SegmentName};

/// Whether facts pin or unpin single users of a rollout that is frozen.
pub(super) fn concerns(facts: &[Fact], now: &Snapshot) -> bool {
    let is_frozen = |rollout: &RolloutName| now.named(rollout).is_some_and(|live| live.spec().frozen);
    let concerned = |fact: &Fact| matches!(fact, Fact::Users { rollout, .. } if is_frozen(rollout));
    facts.iter().any(concerned)
}

/// Refuses facts by which users would enter a rollout that is frozen, and stays so.
pub(super) fn stays(facts: &[Fact], name: &RolloutName, now: &Snapshot, next: &Snapshot) -> Result<(), ChangeError> {
    let both = now.named(name).zip(next.named(name));
    let Some((before, after)) = both.filter(|(before, after)| before.spec().frozen && after.spec().frozen) else {
        return Ok(());
    };
    let unentered = |releases: BTreeSet<ReleaseName>, segment: Option<&SegmentName>| {
        if releases.is_empty() {
            return Ok(());
        }
        Err(ChangeError::Frozen {
            rollout: name.clone(),
            releases: releases.into_iter().collect(),
            segment: segment.cloned(),
        })
    };
    unentered(by_spec(before, after), None)?;
    let named: BTreeSet<&SegmentName> = after.table().segments().collect();
    for fact in facts {
        match fact {
            Fact::Users { rollout, .. } if rollout == name => unentered(by_pins(fact, before, after), None)?,
            Fact::Segment {
                segment,
                replace: false,
                remove,
                add,
            } if named.contains(segment) => {
                let users = remove.iter().chain(add).map(AsRef::as_ref);
                unentered(before.table().entered_by(after.table(), users), Some(segment))?;
            }
            Fact::Segment { segment, .. } | Fact::Roster { segment, .. } if named.contains(segment) => {
                unentered(by_list(segment, after, now, next), Some(segment))?;
            }
            Fact::Users { .. }
            | Fact::Segment { .. }
            | Fact::Roster { .. }
            | Fact::Rollout { .. }
            | Fact::Merged { .. }
            | Fact::NoSegment { .. }
            | Fact::Scheduled { .. }
            | Fact::NotScheduled { .. } => {}
        }
    }
    Ok(())
}

fn by_spec(before: &LiveRollout, after: &LiveRollout) -> BTreeSet<ReleaseName> {
    let mut entered = BTreeSet::from_iter(before.table().entered(after.table()));
    let (old, new) = (&before.spec().targets, &after.spec().targets);
    if old == new {
        return entered;
    }
    // Whom a target that is gone has kept out of what comes after it. Where there is a new one, or they change their order, that
    // may be any.
    let mut kept = old.iter();
    let only_fewer = new.iter().all(|target| kept.any(|before| before == target));
    let gone = old.iter().filter(|target| !only_fewer || !new.contains(target));
    let left: BTreeSet<&ReleaseName> = gone.map(|target| &target.release).collect();
    let open = |release: &ReleaseName| !only_fewer || left.iter().any(|left| *left != release);
    let others = new.iter().map(|target| &target.release);
    entered.extend(
        others
            .filter(|release| release.as_str() != ReleaseName::STABLE && open(release))
            .cloned(),
    );
    for (release, weight) in after.table().weights() {
        let shared = weight.parts_per_million() > 0 && release.as_str() != ReleaseName::STABLE;
        if shared && left.iter().any(|left| *left != release) {
            entered.insert(release.clone());
        }
    }
    entered
}

fn by_pins(fact: &Fact, before: &LiveRollout, after: &LiveRollout) -> BTreeSet<ReleaseName> {
    let Fact::Users {
        replace, unset, set, ..
    } = fact
    else {
        return BTreeSet::new();
    };
    let (before, after) = (before.table(), after.table());
    let pinned = set.iter().flat_map(|group| &group.users);
    let mut entered = before.entered_by(after, unset.iter().chain(pinned).map(AsRef::as_ref));
    if *replace {
        entered.extend(before.entered_by(after, before.each_single_user()));
    }
    entered
}

/// Where users would enter by a list that is replaced as a whole, if anybody comes into it.
fn by_list(segment: &SegmentName, after: &LiveRollout, now: &Snapshot, next: &Snapshot) -> BTreeSet<ReleaseName> {
    let targets = after.spec().targets.iter();
    let naming = targets.filter(|target| target.segment.as_ref() == Some(segment));
    let mut releases: BTreeSet<ReleaseName> = naming.map(|target| target.release.clone()).collect();
    releases.retain(|release| release.as_str() != ReleaseName::STABLE);
    let nobody = Members::none();
    let members = |state: &'_ Snapshot| state.segments().get(segment).map(|s| s.members.clone());
    let (was, is) = (members(now).unwrap_or(nobody.clone()), members(next).unwrap_or(nobody));
    // Rosters that cannot be compared are taken for others.
    let comes = || is.len() > was.len() || was.turnover(&is).is_none_or(|turnover| turnover.added > 0);
    if !releases.is_empty() && !comes() {
        releases.clear();
    }
    releases
}
