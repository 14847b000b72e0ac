//! Changes: what became of one, what was changed before, what waits, who moves.

use crate::admin::wire::{Changed, Diff, HistoryItem, HistoryPage, Plan, Planned, Schedule, Source};
use crate::cli::moment;
use crate::cli::screen::{Look, Screen, grouped};
use crate::rollout::{Moment, Turnover};

/// What became of a change.
pub fn changed(screen: &Screen, changed: &Changed, at: Option<Moment>) -> String {
    let revision = changed.revision;
    let (look, state) = match (changed.dry_run, changed.scheduled) {
        (true, _) => (Look::Yellow, "dry run, nothing was changed".to_owned()),
        (false, Some(id)) => {
            let at = at.map(moment::text).unwrap_or_default();
            (Look::Green, format!("scheduled as {id} for {at}"))
        }
        (false, None) if !changed.changed => (Look::Yellow, format!("nothing to change, revision {revision}")),
        (false, None) if changed.live => (Look::Green, format!("revision {revision}, live")),
        (false, None) => (Look::Yellow, format!("revision {revision}, committed, not yet live")),
    };
    let mut lines = Vec::new();
    // Some summaries are the diff in short.
    let said = changed
        .diff
        .first()
        .is_some_and(|one| changed.summary.starts_with(&one.path));
    if !said {
        lines.push(changed.summary.clone());
    }
    lines.extend(diff(screen, &changed.diff));
    if let Some(Turnover { added, removed, kept }) = changed.members {
        let (added, removed, kept) = (grouped(added), grouped(removed), grouped(kept));
        let text = format!("users: {added} added, {removed} removed, {kept} kept");
        lines.push(screen.paint(Look::Dim, &text));
    }
    for (name, one) in &changed.plans {
        let each = plan(one).into_iter();
        lines.extend(each.map(|line| screen.paint(Look::Dim, &format!("{name}: {line}"))));
        if changed.dry_run {
            lines.extend(flips(screen, one).map(|line| format!("{name}: {line}")));
        }
    }
    lines.push(screen.paint(look, &state));
    lines.retain(|line| !line.is_empty());
    lines.join("\n")
}

/// A diff: `-` what goes, `+` what comes.
pub fn diff(screen: &Screen, diff: &[Diff]) -> Vec<String> {
    let line = |look, mark, path: &str, value: &Option<String>| {
        let value = value.as_ref()?;
        Some(screen.paint(look, &format!("  {mark} {path}: {value}")))
    };
    let both = |one: &Diff| {
        [
            line(Look::Red, '-', &one.path, &one.before),
            line(Look::Green, '+', &one.path, &one.after),
        ]
    };
    diff.iter().flat_map(both).flatten().collect()
}

/// Who would move, a line each.
pub fn planned(screen: &Screen, planned: &Planned) -> String {
    let mut lines = plan(&planned.plan);
    if lines.is_empty() {
        lines.push("nobody would move".to_owned());
    }
    lines.extend(flips(screen, &planned.plan));
    let at = format!("at revision {}; nothing was changed", planned.revision);
    lines.push(screen.paint(Look::Dim, &at));
    lines.join("\n")
}

fn flips(screen: &Screen, plan: &Plan) -> Option<String> {
    let names: Vec<&str> = plan.flips.iter().map(|name| name.as_str()).collect();
    let text = format!(
        "users would move backwards out of {}: that needs --allow-flips",
        names.join(", ")
    );
    (!names.is_empty()).then(|| screen.paint(Look::Yellow, &text))
}

/// Who moves, by users seen lately and by shares.
fn plan(plan: &Plan) -> Vec<String> {
    let seen = plan.seen as u64;
    let mut lines = Vec::new();
    for one in &plan.moves {
        let users = one.users as u64;
        let percent = users as f64 * 100.0 / seen.max(1) as f64;
        let (users, seen) = (grouped(users), grouped(seen));
        let of = format!("{users} of {seen} users seen in the last hour ({percent:.1} %)");
        lines.push(format!("{} → {}: {of}", one.from, one.to));
    }
    let unknown = plan.unknown as u64;
    if seen > unknown && plan.moves.is_empty() && !plan.shares.is_empty() {
        let told = grouped(seen - unknown);
        lines.push(format!("none of the {told} users seen in the last hour moves"));
    }
    let shares = plan.shares.iter();
    lines.extend(shares.map(|one| format!("{} → {}: {} of all users", one.from, one.to, one.share)));
    if unknown > 0 {
        let unknown = grouped(unknown);
        lines.push(format!(
            "of {unknown} users seen in the last hour it cannot be told: the salt changes"
        ));
    }
    lines
}

/// What was changed, the latest first.
pub fn history(screen: &Screen, page: &HistoryPage, with_diff: bool) -> String {
    if page.changes.is_empty() {
        return "nothing was changed".to_owned();
    }
    let mut text = if with_diff {
        let each = page.changes.iter().map(|item| {
            let mut lines = vec![screen.table(&[], vec![row(item)])];
            lines.extend(diff(screen, &item.diff));
            lines.join("\n")
        });
        each.collect::<Vec<_>>().join("\n")
    } else {
        let header = ["REV", "WHEN", "WHO", "VIA", "WHAT", "WHY"];
        screen.table(&header, page.changes.iter().map(row).collect())
    };
    if let Some(next) = page.next {
        text.push('\n');
        text.push_str(&screen.paint(Look::Dim, &format!("older ones: --before {next}")));
    }
    text
}

fn row(item: &HistoryItem) -> Vec<String> {
    vec![
        item.revision.to_string(),
        moment::relative(&item.at),
        item.actor.clone(),
        source(item.source).to_owned(),
        item.summary.clone(),
        item.reason.clone().unwrap_or_default(),
    ]
}

/// What waits, the next one first.
pub fn schedule(screen: &Screen, schedule: &Schedule) -> String {
    if schedule.scheduled.is_empty() {
        return "nothing is scheduled".to_owned();
    }
    let rows = schedule.scheduled.iter().map(|item| {
        vec![
            item.id.to_string(),
            item.at.clone(),
            moment::relative(&item.at),
            item.actor.clone(),
            item.summary.clone(),
            item.reason.clone().unwrap_or_default(),
        ]
    });
    screen.table(&["ID", "AT", "WHEN", "WHO", "WHAT", "WHY"], rows.collect())
}

const fn source(source: Source) -> &'static str {
    match source {
        Source::Seed => "seed",
        Source::Api => "api",
        Source::Cli => "cli",
        Source::Console => "console",
        Source::Schedule => "schedule",
        Source::Expiry => "expiry",
        Source::Merge => "merge",
    }
}
