//! The program, single users and segments.

use crate::admin::wire::{PoolState, Segment, Segments, Status, User};
use crate::cli::moment;
use crate::cli::screen::{Look, Screen, counted, grouped};

/// How the program is doing.
pub fn status(screen: &Screen, status: &Status) -> String {
    let ready = if status.ready {
        screen.paint(Look::Green, "ready")
    } else {
        screen.paint(Look::Red, "not ready")
    };
    let up = moment::length(status.uptime_seconds.saturating_mul(1000).max(1000));
    let rollouts = counted(status.rollouts, "rollout");
    let segments = counted(status.segments, "segment");
    let scheduled = status.scheduled;
    let place = format!("store: {} {}", status.store.kind, status.store.place);
    let mut lines = vec![
        format!("switchyard {}: {ready}, pid {}, up {up}", status.version, status.pid),
        format!(
            "revision: {}, {rollouts}, {segments}, {scheduled} scheduled",
            status.revision
        ),
        place.trim_end().to_owned(),
    ];
    if let Some(why) = &status.store.read_only {
        lines.push(screen.paint(Look::Red, &format!("the store is read-only: {why}")));
    }
    if let Some(why) = &status.store.failing {
        lines.push(screen.paint(Look::Red, &format!("the last change was refused: {why}")));
    }
    for (rollout, why) in &status.stuck {
        let text = format!("rollout {rollout} is stuck at an older state: {why}");
        lines.push(screen.paint(Look::Red, &text));
    }
    let header = ["POOL", "ENDPOINT", "HEALTH", "IN FLIGHT", "CONNECTIONS"];
    lines.push(screen.table(&header, status.pools.iter().flat_map(endpoints).collect()));
    lines.join("\n")
}

fn endpoints(pool: &PoolState) -> impl Iterator<Item = Vec<String>> {
    pool.endpoints.iter().map(|endpoint| {
        let health = match (endpoint.healthy, endpoint.ejected) {
            (true, false) => "healthy",
            (true, true) => "ejected",
            (false, true | false) => "unhealthy",
        };
        vec![
            pool.name.clone(),
            endpoint.address.clone(),
            health.to_owned(),
            endpoint.in_flight.to_string(),
            endpoint.connections.to_string(),
        ]
    })
}

/// Where a user is pinned.
pub fn pinned(user: &User) -> String {
    let until = user
        .until
        .as_ref()
        .map(|until| format!(" until {until}, {}", moment::relative(until)));
    format!(
        "{} is pinned to {}{}",
        user.user,
        user.release,
        until.unwrap_or_default()
    )
}

/// Every segment.
pub fn segments(screen: &Screen, all: &Segments) -> String {
    if all.segments.is_empty() {
        return "there is no segment: `switchyard segment create` makes one".to_owned();
    }
    let rows = all.segments.iter().map(|(name, one)| {
        let users = grouped(one.users as u64);
        vec![name.to_string(), users, one.revision.to_string()]
    });
    screen.table(&["SEGMENT", "USERS", "REV"], rows.collect())
}

/// A segment's head line.
pub fn segment(screen: &Screen, name: &str, one: &Segment) -> String {
    let users = counted(one.users, "user");
    let name = screen.paint(Look::Bold, name);
    let mut lines = vec![format!("{name}: {users}, revision {}", one.revision)];
    if let (Some(created), Some(changed)) = (&one.created, &one.changed) {
        lines.push(screen.paint(Look::Dim, &format!("  created {created}, changed {changed}")));
    }
    if let Some(roster) = &one.roster {
        let (users, bytes, since) = (grouped(roster.users), grouped(roster.bytes), grouped(one.since as u64));
        let text = format!(
            "  {users} in {} ({bytes} bytes), {since} came or went since",
            roster.digest
        );
        lines.push(screen.paint(Look::Dim, &text));
    }
    lines.join("\n")
}
