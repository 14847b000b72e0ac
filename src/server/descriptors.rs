//! Fits what is open at a time into what the system allows, so that the process never runs out of descriptors: then
//! nothing could be accepted, the admin side included.

use std::num::NonZeroUsize;

use log::warn;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;
use crate::telemetry::targets;

/// For listeners, the store, logs, the admin side, probes, handshakes, and those that are turned away.
const RESERVED: usize = 128;
/// An upstream connection has two: see `upstream::Connection`.
const OF_AN_UPSTREAM_CONNECTION: usize = 2;

/// A bound, and what it takes to reach it.
struct Bound {
    key: &'static str,
    wanted: usize,
    /// Descriptors of each.
    each: usize,
    /// Of ten parts of all descriptors, where they are too few for all bounds.
    tenths: usize,
}

/// Takes all descriptors that may be had, and lowers the bounds that they are too few for, with a warning for each.
pub fn fit(config: &mut Config) {
    let open_files = usize::try_from(raise()).unwrap_or(usize::MAX);
    // The same in every pool.
    let idle = config.pools.first().map_or(0, |pool| pool.connections.max_idle);
    let bounds = [
        Bound {
            key: "limits.connections_max",
            wanted: config.limits.connections_max.get(),
            each: 1,
            tenths: 4,
        },
        Bound {
            key: "limits.requests_in_flight_max",
            wanted: config.limits.requests_in_flight_max.get(),
            each: OF_AN_UPSTREAM_CONNECTION,
            tenths: 4,
        },
        Bound {
            key: "connections.max_idle",
            wanted: idle,
            each: OF_AN_UPSTREAM_CONNECTION,
            tenths: 2,
        },
    ];
    let had = shared_out(open_files.saturating_sub(RESERVED).max(open_files / 2), &bounds);
    for (bound, had) in bounds.iter().zip(had) {
        let Bound { key, wanted, .. } = bound;
        if had < *wanted {
            warn!(
                target: targets::CONFIG,
                "{key} is {had}, not {wanted}: the limit of {open_files} open files has no room for more: raise it \
                 (LimitNOFILE= of systemd, ulimit -n)"
            );
        }
    }
    let [connections, requests, idle] = had;
    config.limits.connections_max = NonZeroUsize::new(connections).unwrap_or(NonZeroUsize::MIN);
    config.limits.requests_in_flight_max = NonZeroUsize::new(requests).unwrap_or(NonZeroUsize::MIN);
    for pool in &mut config.pools {
        pool.connections.max_idle = idle;
    }
}

/// What each bound may be: what it is, or its tenths of what those leave that want less than their tenths.
fn shared_out<const N: usize>(room: usize, bounds: &[Bound; N]) -> [usize; N] {
    let (mut room, mut tenths) = (room, bounds.iter().map(|bound| bound.tenths).sum::<usize>());
    let mut had: [Option<usize>; N] = [None; N];
    // Each that has enough may leave enough for another.
    while let Some((n, bound)) = bounds.iter().enumerate().find(|(n, bound)| {
        let enough = bound.wanted.saturating_mul(bound.each) <= room / tenths.max(1) * bound.tenths;
        had[*n].is_none() && enough
    }) {
        had[n] = Some(bound.wanted);
        room -= bound.wanted * bound.each;
        tenths -= bound.tenths;
    }
    std::array::from_fn(|n| {
        let share = room / tenths.max(1) * bounds[n].tenths / bounds[n].each;
        had[n].unwrap_or(share.max(1))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Of clients, requests in flight and idle connections.
    fn had(room: usize, wanted: [usize; 3]) -> [usize; 3] {
        let bound = |n: usize, each, tenths| Bound {
            key: "a bound",
            wanted: wanted[n],
            each,
            tenths,
        };
        shared_out(room, &[bound(0, 1, 4), bound(1, 2, 4), bound(2, 2, 2)])
    }

    #[test]
    fn where_there_is_room_for_all_each_has_what_it_wants() {
        assert_eq!(had(50_000, [20_000, 10_000, 5_000]), [20_000, 10_000, 5_000]);
        assert_eq!(had(0, [0, 0, 0]), [0, 0, 0]);
    }

    #[test]
    fn where_there_is_none_each_has_its_tenths() {
        assert_eq!(had(10_000, [20_000, 10_000, 5_000]), [4_000, 2_000, 1_000]);
        assert_eq!(had(3, [20_000, 10_000, 5_000]), [1, 1, 1]);
    }

    #[test]
    fn what_one_leaves_goes_to_the_others_by_their_tenths() {
        // 9,000 are left for six tenths.
        assert_eq!(had(10_000, [1_000, 10_000, 5_000]), [1_000, 3_000, 1_500]);
        assert_eq!(had(10_000, [1_000, 500, 5_000]), [1_000, 500, 4_000]);
        // The second has enough of what the first leaves only.
        assert_eq!(had(10_000, [1_000, 2_500, 5_000]), [1_000, 2_500, 2_000]);
    }
}
