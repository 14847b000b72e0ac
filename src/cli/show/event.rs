//! Events, a line each.

use crate::admin::wire::{EndpointHealth, Figures, LiveRevision};
use crate::cli::screen::{Look, Screen, grouped};

/// A change is live.
pub fn revision(screen: &Screen, one: &LiveRevision) -> String {
    let revision = screen.paint(Look::Bold, &format!("revision {}", one.revision));
    let text = format!("{revision} {} {}", one.summary, screen.paint(Look::Dim, &one.actor));
    text.trim_end().to_owned()
}

/// An endpoint is healthy now, or no longer.
pub fn health(screen: &Screen, one: &EndpointHealth) -> String {
    let state = if one.healthy {
        screen.paint(Look::Green, "healthy")
    } else {
        screen.paint(Look::Red, "unhealthy")
    };
    format!("health {} of pool {}: {state}", one.endpoint, one.pool)
}

/// A second's figures: releases without requests are left out.
pub fn figures(one: &Figures) -> String {
    let mut parts = Vec::new();
    for (rollout, releases) in &one.rollouts {
        for (release, figures) in releases.iter().filter(|(_, figures)| figures.requests > 0) {
            let (requests, errors) = (grouped(figures.requests), grouped(figures.errors));
            let slow = figures.p99_ms.map(|ms| format!(", p99 {ms} ms")).unwrap_or_default();
            parts.push(format!(
                "{rollout}/{release} {requests} requests, {errors} errors{slow}"
            ));
        }
    }
    if parts.is_empty() {
        return "figures no requests".to_owned();
    }
    format!("figures {}", parts.join("; "))
}
