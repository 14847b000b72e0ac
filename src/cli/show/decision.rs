//! A decision with every step.

use crate::admin::wire::{Explained, Explanation};
use crate::cli::screen::{Look, Screen};

/// What somebody gets, and why.
pub fn explained(screen: &Screen, who: &str, rollout: &str, explained: &Explained) -> String {
    let mut lines = decided(screen, who, rollout, &explained.explanation);
    let pool = &explained.pool;
    lines.push(match (&explained.fallback, explained.pool_available) {
        (Some(release), _) => {
            let text = format!("pool {pool} has no healthy endpoint: {release} is served instead");
            screen.paint(Look::Yellow, &text)
        }
        (None, false) => {
            let text = format!("pool {pool} has no healthy endpoint: the answer is 503");
            screen.paint(Look::Red, &text)
        }
        (None, true) => format!("pool {pool} is healthy"),
    });
    lines.push(screen.paint(Look::Dim, &format!("at revision {}", explained.revision)));
    lines.join("\n")
}

/// The decision and its steps, without what only a running program knows.
pub fn decided(screen: &Screen, who: &str, rollout: &str, explanation: &Explanation) -> Vec<String> {
    let rows = explanation.steps.iter().map(|step| {
        let mark = if step.matched { "✓" } else { "·" };
        vec![format!("  {mark} {}", step.step), step.why.clone()]
    });
    let release = screen.paint(Look::Bold, explanation.release.as_str());
    let mut lines = vec![
        format!("{who} gets {release} of {rollout}: {}", explanation.reason),
        screen.table(&[], rows.collect()),
    ];
    lines.extend(bucket(explanation));
    lines
}

fn bucket(explanation: &Explanation) -> Vec<String> {
    let Some(bucket) = explanation.bucket else {
        return Vec::new();
    };
    let mut lines = vec![format!("bucket {bucket} of 1,000,000")];
    for entry in &explanation.enters {
        let release = &entry.release;
        lines.push(match (&entry.share, entry.inside) {
            (Some(share), true) => format!("in {release} by its share since that is {share}"),
            (Some(share), false) => format!("enters {release} by its share at {share}"),
            (None, true) => format!("in {release} by its share"),
            (None, false) => format!("does not enter {release} by its share: another release has the bucket"),
        });
    }
    lines
}
