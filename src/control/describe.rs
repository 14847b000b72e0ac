//! A change in words: a diff of what it touches, and one line.

mod pins;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::Value;

pub(super) use pins::{Pins, is_so_already, listed_users};

use super::snapshot::Snapshot;
use crate::rollout::{Change, Fact, Range, ReleaseName, RolloutName, RolloutSpec, RosterName, SegmentName, Split};
use crate::store::Diff;

/// The longest one-line summary, in characters.
const SUMMARY_CHARS: usize = 200;

/// What facts change of a state, readable: those of a candidate that makes `next` of it.
pub(super) fn diff(facts: &[Fact], before: &Pins, now: &Snapshot, next: &Snapshot) -> Vec<Diff> {
    let of_pins = pins::of_users(facts, before, now);
    let last = last_specs(facts);
    let mut segments = BTreeSet::new();
    let others = facts.iter().enumerate().flat_map(|(place, fact)| match fact {
        // A later fact says all about the same rollout.
        Fact::Rollout { rollout, .. } if last.get(rollout) != Some(&place) => Vec::new(),
        // Told together, whatever the number of pieces.
        Fact::Segment { segment, .. } | Fact::Roster { segment, .. } | Fact::NoSegment { segment } => {
            let news = segments.insert(segment);
            news.then(|| of_segment(segment, now, next)).into_iter().collect()
        }
        fact => of_fact(fact, now),
    });
    merged(others.chain(of_pins))
}

/// One line a path, in the order in which they come: a spec may have as many as a body has room for.
fn merged(each: impl Iterator<Item = Diff>) -> Vec<Diff> {
    let mut lines: Vec<Option<Diff>> = Vec::new();
    let mut places: HashMap<String, usize> = HashMap::new();
    for line in each {
        match places.entry(line.path.clone()) {
            Entry::Vacant(place) => {
                place.insert(lines.len());
                lines.push(Some(line));
            }
            // Of two facts about one thing, as undo has them, the later one counts.
            Entry::Occupied(place) => {
                let known = &mut lines[*place.get()];
                *known = known.take().map(|known| Diff {
                    after: line.after,
                    ..known
                });
                if known.as_ref().is_none_or(|known| known.before == known.after) {
                    *known = None;
                    place.remove();
                }
            }
        }
    }
    lines.into_iter().flatten().collect()
}

/// Where facts say the last of each rollout.
fn last_specs(facts: &[Fact]) -> HashMap<&RolloutName, usize> {
    let mut last = HashMap::new();
    for (place, fact) in facts.iter().enumerate() {
        if let Fact::Rollout { rollout, .. } = fact {
            last.insert(rollout, place);
        }
    }
    last
}

/// The rollouts that facts are about.
pub(super) fn rollouts(facts: &[Fact], now: &Snapshot) -> Vec<RolloutName> {
    let (mut names, mut segments) = (BTreeSet::new(), BTreeSet::new());
    for fact in facts {
        match fact {
            Fact::Rollout { rollout, .. } | Fact::Users { rollout, .. } => {
                names.insert(rollout.clone());
            }
            Fact::Segment { segment, .. }
            | Fact::Roster { segment, .. }
            | Fact::Merged { segment, .. }
            | Fact::NoSegment { segment } => {
                segments.insert(segment);
            }
            Fact::Scheduled { entry, .. } => names.extend(subject(&entry.change)),
            Fact::NotScheduled { id } => names.extend(now.schedule().get(id).and_then(|entry| subject(&entry.change))),
        }
    }
    // Once, whatever the number of pieces that speak of a segment.
    let uses = now
        .rollouts()
        .filter(|(_, live)| live.table().segments().any(|used| segments.contains(used)));
    names.extend(uses.map(|(name, _)| name.clone()));
    names.into_iter().collect()
}

/// One line for a list.
pub(super) fn summary(title: Option<String>, diff: &[Diff]) -> String {
    let text = title.unwrap_or_else(|| short(diff));
    text.chars().take(SUMMARY_CHARS).collect()
}

/// What a change is called, where its diff does not say it better.
pub(super) fn title(change: &Change) -> Option<String> {
    let text = match change {
        Change::Apply { .. } | Change::Patch { .. } | Change::Split { .. } | Change::ImportUsers { .. } => return None,
        Change::Delete { rollout } => format!("{rollout}: deleted"),
        Change::Kill { rollout } => format!("{rollout}: killed, everyone to stable"),
        Change::Resume { rollout } => format!("{rollout}: resumed"),
        Change::Freeze { rollout } => format!("{rollout}: frozen"),
        Change::Unfreeze { rollout } => format!("{rollout}: no longer frozen"),
        Change::SetUser {
            rollout, user, release, ..
        } => format!("{rollout}: user {user} to {release}"),
        Change::Expire { rollout, users } => match users.as_slice() {
            [user] => format!("{rollout}: the time of user {user} is over"),
            several => format!("{rollout}: the time of {} is over", self::users(several.len())),
        },
        Change::UnsetUser { rollout, user } => format!("{rollout}: user {user} no longer pinned"),
        Change::PutSegment { segment, users } => format!("segment {segment}: {}", self::users(users.len())),
        Change::PutRoster { segment, roster } => format!("segment {segment}: {}", listed(roster)),
        Change::EditSegment { segment, add, remove } => {
            format!("segment {segment}: {} added, {} removed", add.len(), remove.len())
        }
        Change::DeleteSegment { segment } => format!("segment {segment}: deleted"),
        Change::Unschedule { id } => format!("scheduled change {} taken back", id.0),
        Change::Undo { to } => format!("undone to revision {}", to.0),
    };
    Some(text)
}

/// The rollout that a change is about, if it is one.
pub(super) fn subject(change: &Change) -> Option<RolloutName> {
    match change {
        Change::Delete { rollout }
        | Change::Patch { rollout, .. }
        | Change::Split { rollout, .. }
        | Change::Kill { rollout }
        | Change::Resume { rollout }
        | Change::Freeze { rollout }
        | Change::Unfreeze { rollout }
        | Change::SetUser { rollout, .. }
        | Change::UnsetUser { rollout, .. }
        | Change::Expire { rollout, .. }
        | Change::ImportUsers { rollout, .. } => Some(rollout.clone()),
        Change::Apply { rollouts } => match rollouts.as_slice() {
            [(rollout, _)] => Some(rollout.clone()),
            _ => None,
        },
        Change::PutSegment { .. }
        | Change::PutRoster { .. }
        | Change::EditSegment { .. }
        | Change::DeleteSegment { .. }
        | Change::Unschedule { .. }
        | Change::Undo { .. } => None,
    }
}

fn short(diff: &[Diff]) -> String {
    let line = |d: &Diff| match (&d.before, &d.after) {
        (Some(before), Some(after)) => format!("{} {before} → {after}", d.path),
        (None, Some(after)) => format!("{} {after}", d.path),
        (Some(before), None) => format!("{} no longer {before}", d.path),
        (None, None) => d.path.clone(),
    };
    diff.iter().map(line).collect::<Vec<_>>().join("; ")
}

fn of_fact(fact: &Fact, now: &Snapshot) -> Vec<Diff> {
    match fact {
        Fact::Rollout { rollout, spec } => {
            let before = now.named(rollout).map(|live| live.spec());
            of_spec(rollout, before, spec.as_deref())
        }
        // Told together, whatever the number of pieces; and a merge changes nothing that anybody asked for.
        Fact::Users { .. }
        | Fact::Segment { .. }
        | Fact::Roster { .. }
        | Fact::NoSegment { .. }
        | Fact::Merged { .. } => Vec::new(),
        Fact::Scheduled { id, entry } => {
            let when = crate::clock::rfc3339(entry.at.0);
            vec![line(
                format!("schedule.{}", id.0),
                None,
                Some(format!("{} at {when}", what(&entry.change))),
            )]
        }
        Fact::NotScheduled { id } => {
            let before = now.schedule().get(id).map(|entry| what(&entry.change));
            vec![line(format!("schedule.{}", id.0), before, None)]
        }
    }
}

/// A change in a few words.
#[must_use]
pub fn what(change: &Change) -> String {
    let split = |rollout: &RolloutName, split: &BTreeMap<ReleaseName, crate::rollout::Weight>| {
        let each: Vec<String> = split.iter().map(|(name, weight)| format!("{name} {weight}")).collect();
        format!("{rollout}: split {}", each.join(", "))
    };
    match change {
        Change::Split { rollout, split: shares } => split(rollout, shares),
        Change::Apply { rollouts } => {
            let names: Vec<&str> = rollouts.iter().map(|(name, _)| name.as_str()).collect();
            format!("{}: new spec", names.join(", "))
        }
        Change::Patch { rollout, .. } => format!("{rollout}: parts of its spec"),
        other => title(other).unwrap_or_default(),
    }
}

fn line(path: String, before: Option<String>, after: Option<String>) -> Diff {
    Diff { path, before, after }
}

fn of_spec(rollout: &RolloutName, before: Option<&RolloutSpec>, after: Option<&RolloutSpec>) -> Vec<Diff> {
    let (old, new) = (flat(before), flat(after));
    let paths: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let changed = paths.into_iter().filter(|path| old.get(*path) != new.get(*path));
    let lines = changed.map(|path| {
        line(
            format!("{rollout}{path}"),
            old.get(path).cloned(),
            new.get(path).cloned(),
        )
    });
    lines.chain(of_ranges(rollout, before, after)).collect()
}

/// Ranges that do not follow from a change of the shares.
fn of_ranges(rollout: &RolloutName, before: Option<&RolloutSpec>, after: Option<&RolloutSpec>) -> Option<Diff> {
    let (old, new) = before.zip(after).filter(|(old, new)| old.split == new.split)?;
    let (old, new) = (owners(old)?, owners(new)?);
    (old != new).then(|| line(format!("{rollout}.ranges"), Some(old), Some(new)))
}

/// `canary 0-124999, stable 125000-999999`, by bucket.
fn owners(spec: &RolloutSpec) -> Option<String> {
    let split = Split::from_ranges(spec.ranges.clone()?).ok()?;
    let text = |range: &Range| format!("{} {}-{}", range.release, range.from, range.to - 1);
    Some(split.by_bucket().iter().map(text).collect::<Vec<_>>().join(", "))
}

/// The leaves of a spec by path; the ranges follow from the shares and are left out.
fn flat(spec: Option<&RolloutSpec>) -> BTreeMap<String, String> {
    let mut leaves = BTreeMap::new();
    if let Some(Ok(Value::Object(mut fields))) = spec.map(serde_json::to_value) {
        fields.remove("ranges");
        flatten("", &Value::Object(fields), &mut leaves);
    }
    leaves
}

fn flatten(path: &str, value: &Value, leaves: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(key, value)| flatten(&format!("{path}.{key}"), value, leaves)),
        Value::Array(items) if items.iter().any(Value::is_object) => items
            .iter()
            .enumerate()
            .for_each(|(n, value)| flatten(&format!("{path}[{n}]"), value, leaves)),
        Value::String(text) => {
            leaves.insert(path.to_owned(), text.clone());
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => {
            leaves.insert(path.to_owned(), value.to_string());
        }
    }
}

fn users(count: usize) -> String {
    if count == 1 {
        "1 user".to_owned()
    } else {
        format!("{count} users")
    }
}

fn listed(roster: &RosterName) -> String {
    users(usize::try_from(roster.users).unwrap_or(usize::MAX))
}

/// Counted in the states themselves: facts say who comes and goes, and not who is there.
fn of_segment(segment: &SegmentName, now: &Snapshot, next: &Snapshot) -> Diff {
    let count = |state: &Snapshot| state.segments().get(segment).map(|s| users(s.members.len()));
    line(format!("segments.{segment}"), count(now), count(next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diff_has_one_line_a_path_in_the_order_of_their_first_however_many_they_are() {
        let set = |path: &str, before: &str, after: &str| {
            let text = |value: &str| (!value.is_empty()).then(|| value.to_owned());
            line(path.to_owned(), text(before), text(after))
        };
        let each = [
            set("b", "1", "2"),
            set("a", "1", "2"),
            set("b", "2", "3"),
            set("a", "2", "1"),
            set("c", "", "1"),
            set("a", "1", "4"),
        ];
        let wanted = [set("b", "1", "3"), set("c", "", "1"), set("a", "1", "4")];
        assert_eq!(merged(each.into_iter()), wanted);
        // Each compared with all before it, these would be five thousand million.
        let many = |n: usize| line(format!("shop.targets[{n}].release"), None, Some("canary".to_owned()));
        assert_eq!(merged((0..100_000).map(many)).len(), 100_000);
    }
}
