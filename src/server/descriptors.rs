//! Fits what is open at a time into what the system allows, so that the process never runs out of descriptors: then
//! nothing could be accepted, the admin side included.

use std::num::NonZeroUsize;

use log::warn;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::telemetry::targets;

/// For listeners, the store, logs, the admin side, probes, handshakes, and those that are turned away.
const RESERVED: usize = 128;
/// Of ten parts of the rest, downstream connections get four. Each request in flight has an upstream connection of two
/// descriptors, and so has each idle one: two parts of requests and one of idle connections make six.
const CONNECTIONS_TENTHS: usize = 4;
const REQUESTS_TENTHS: usize = 2;
const IDLE_TENTHS: usize = 1;

/// Takes all descriptors that may be had, and lowers the bounds that they are too few for, with a warning for each.
pub fn fit(config: &mut Config) {
    let open_files = usize::try_from(raise()).unwrap_or(usize::MAX);
    let tenth = open_files.saturating_sub(RESERVED).max(open_files / 2) / 10;
    let lower = |key: &str, value: usize, tenths: usize| {
        let room = tenth.saturating_mul(tenths).max(1);
        if value > room {
            warn!(
                target: targets::CONFIG,
                "{key} is {room}, not {value}: the limit of {open_files} open files has no room for more: raise it \
                 (LimitNOFILE= of systemd, ulimit -n)"
            );
        }
        value.min(room)
    };
    let limits = &mut config.limits;
    let connections = lower(
        "limits.connections_max",
        limits.connections_max.get(),
        CONNECTIONS_TENTHS,
    );
    let requests = limits.requests_in_flight_max.get();
    let requests = lower("limits.requests_in_flight_max", requests, REQUESTS_TENTHS);
    limits.connections_max = NonZeroUsize::new(connections).unwrap_or(NonZeroUsize::MIN);
    limits.requests_in_flight_max = NonZeroUsize::new(requests).unwrap_or(NonZeroUsize::MIN);
    // The same in every pool.
    let idle = config.pools.first().map_or(0, |pool| pool.connections.max_idle);
    let idle = lower("connections.max_idle", idle, IDLE_TENTHS);
    for pool in &mut config.pools {
        pool.connections.max_idle = idle;
    }
}

/// Raises the limit on open files as far as the process may, and yields it.
fn raise() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    // No number means no limit.
    now.unwrap_or(u64::MAX)
}
