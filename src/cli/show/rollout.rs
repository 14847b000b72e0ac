//! Rollouts.

use std::collections::BTreeMap;

use crate::admin::wire::{Rollout, Rollouts};
use crate::cli::screen::{Look, Screen, bar, grouped};
use crate::rollout::{ReleaseName, TargetSpec, Unhealthy, Weight, When};

/// So many users of a target are listed; more are counted.
const USERS_LISTED: usize = 8;

/// Every rollout, one a line.
pub fn rollouts(screen: &Screen, all: &Rollouts) -> String {
    if all.rollouts.is_empty() {
        return "there is no rollout: `switchyard rollout create` makes one".to_owned();
    }
    let rows = all.rollouts.iter().map(|(name, one)| {
        let mut row = vec![name.to_string(), state(one).to_owned()];
        if screen.has_room() {
            row.push(bar(introduced(&one.weights)));
        }
        row.extend([
            shares(&one.weights),
            grouped(one.users as u64),
            one.revision.to_string(),
        ]);
        row
    });
    let header: &[&str] = if screen.has_room() {
        &["ROLLOUT", "STATE", "SHARE", "RELEASES", "USERS", "REV"]
    } else {
        &["ROLLOUT", "STATE", "RELEASES", "USERS", "REV"]
    };
    screen.table(header, rows.collect())
}

/// One rollout.
pub fn rollout(screen: &Screen, name: &str, one: &Rollout) -> String {
    let mut lines = vec![
        format!("name: {}", screen.paint(Look::Bold, name)),
        format!("state: {}", screen.paint(look(one), state(one))),
        format!("revision: {}", one.revision),
    ];
    if let Some(why) = &one.stuck {
        let text = format!("stuck: this node serves an older state of it: {why}");
        lines.push(screen.paint(Look::Red, &text));
    }
    let releases = one.spec.releases.iter().map(|(release, spec)| {
        let share = one.weights.get(release).copied().unwrap_or_default();
        let mut row = vec![format!("  {release}:")];
        if screen.has_room() {
            row.push(bar(share));
        }
        row.extend([share.to_string(), format!("pool {}", spec.pool)]);
        row
    });
    lines.push("releases:".to_owned());
    lines.push(screen.table(&[], releases.collect()));
    lines.push(format!("users: {} pinned", grouped(one.users as u64)));
    if !one.spec.targets.is_empty() {
        let each = one.spec.targets.iter().enumerate();
        let rows = each.map(|(n, target)| vec![format!("  {n}: {} → {}", target_text(target), target.release)]);
        lines.push("targets:".to_owned());
        lines.push(screen.table(&[], rows.collect()));
    }
    lines.push(format!("salt: {}", one.spec.salt.as_deref().unwrap_or(name)));
    lines.push(format!(
        "unhealthy: {}",
        match one.spec.unhealthy {
            Unhealthy::Fail => "fail",
            Unhealthy::Stable => "stable",
        }
    ));
    lines.join("\n")
}

const fn state(one: &Rollout) -> &'static str {
    if one.spec.killed {
        "killed"
    } else if one.stuck.is_some() {
        "stuck"
    } else if one.spec.frozen {
        "frozen"
    } else {
        "live"
    }
}

const fn look(one: &Rollout) -> Look {
    if one.spec.killed || one.stuck.is_some() {
        Look::Red
    } else if one.spec.frozen {
        Look::Yellow
    } else {
        Look::Green
    }
}

/// What all releases but stable have together.
fn introduced(weights: &BTreeMap<ReleaseName, Weight>) -> Weight {
    let others = weights.iter().filter(|(name, _)| name.as_str() != ReleaseName::STABLE);
    let parts: u32 = others.map(|(_, weight)| weight.parts_per_million()).sum();
    Weight::new(parts).unwrap_or(Weight::ALL)
}

fn shares(weights: &BTreeMap<ReleaseName, Weight>) -> String {
    let each: Vec<String> = weights
        .iter()
        .map(|(name, weight)| format!("{name} {weight}"))
        .collect();
    each.join(", ")
}

fn target_text(target: &TargetSpec) -> String {
    match (&target.users, &target.segment, &target.when) {
        (Some(users), ..) if users.len() > USERS_LISTED => {
            let (listed, more) = users.split_at(USERS_LISTED);
            format!("users {} and {} more", listed.join(", "), more.len())
        }
        (Some(users), ..) => format!("users {}", users.join(", ")),
        (None, Some(segment), _) => format!("segment {segment}"),
        (None, None, Some(when)) => when_text(when),
        (None, None, None) => String::new(),
    }
}

fn when_text(when: &When) -> String {
    let parts = [
        ("header", &when.header),
        ("cookie", &when.cookie),
        ("query", &when.query),
        ("path", &when.path),
        ("cidr", &when.cidr),
        ("claim", &when.claim),
        ("equals", &when.equals),
        ("prefix", &when.prefix),
        ("regex", &when.regex),
        ("semver", &when.semver),
    ];
    let written = parts
        .iter()
        .filter_map(|(key, value)| Some(format!("{key} {}", value.as_deref()?)));
    written.collect::<Vec<_>>().join(" ")
}
