//! Picks an endpoint of a pool. The order of turns and the hash ring are made when the endpoints change, so that
//! picking allocates nothing but on the ring.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use pingora_load_balancing::Backend;
use pingora_load_balancing::selection::consistent::KetamaHashing;
use pingora_load_balancing::selection::{BackendIter, BackendSelection};

use super::endpoint::Endpoint;
use super::settings::Balance;
use crate::clock::Tick;

/// The longest round of turns; larger weights are scaled down to it.
const TURNS_MAX: usize = 4096;

/// The endpoints of a pool at one moment, and how to pick among them.
pub struct Members {
    endpoints: Vec<Arc<Endpoint>>,
    turns: Vec<u16>,
    ring: Option<Ring>,
    balance: Balance,
    weight_max: u16,
    cursor: AtomicUsize,
}

struct Ring {
    ketama: Arc<KetamaHashing>,
    by_address: HashMap<SocketAddr, usize>,
}

/// Where an endpoint is on the ring. Behind a CONNECT proxy all have the proxy's address, so what they are called
/// stands for it there.
fn ring_address(endpoint: &Endpoint) -> SocketAddr {
    let address = endpoint.address();
    if address.to_string() == endpoint.label() {
        return address;
    }
    let stand_in = xxhash_rust::xxh3::xxh3_128(endpoint.label().as_bytes());
    SocketAddr::new(std::net::Ipv6Addr::from_bits(stand_in).into(), address.port())
}

impl Members {
    pub fn new(endpoints: Vec<Arc<Endpoint>>, balance: Balance) -> Self {
        let weights: Vec<NonZeroU16> = endpoints.iter().map(|e| e.weight()).collect();
        Self {
            turns: turns(&weights),
            weight_max: weights.iter().map(|weight| weight.get()).max().unwrap_or(1),
            ring: (balance == Balance::User).then(|| Ring::new(&endpoints)),
            cursor: AtomicUsize::new(0),
            endpoints,
            balance,
        }
    }

    pub fn endpoints(&self) -> &[Arc<Endpoint>] {
        &self.endpoints
    }

    /// An endpoint that may be picked and is not among `tried`; failing that, one that was tried.
    pub fn pick(&self, user: Option<&[u8]>, tried: &[Arc<Endpoint>], now: Tick) -> Option<&Arc<Endpoint>> {
        let fresh = |e: &Endpoint| e.available(now) && !tried.iter().any(|t| std::ptr::eq(&raw const **t, e));
        self.pick_where(user, &fresh)
            .or_else(|| self.pick_where(user, &|e| e.available(now)))
    }

    fn pick_where(&self, user: Option<&[u8]>, may: &dyn Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        match (self.balance, user, &self.ring) {
            (Balance::User, Some(user), Some(ring)) => ring.pick(user, &self.endpoints, may),
            (Balance::Random, _, _) => self.in_turn(fastrand::usize(..), may),
            (Balance::LeastRequests, _, _) => self.least_loaded(may),
            _ => self.in_turn(self.cursor.fetch_add(1, Ordering::Relaxed), may),
        }
    }

    /// The endpoint whose turn it is. Where it may not be picked, its turns go to all others alike, one after the
    /// other, rather than to the next one, which would get twice its share.
    fn in_turn(&self, start: usize, may: &dyn Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        let count = self.turns.len();
        if count == 0 {
            return None;
        }
        let turn = |n: usize| &self.endpoints[usize::from(self.turns[n % count])];
        let first = turn(start);
        if may(first) {
            return Some(first);
        }
        let skip = 1 + start / count % (count - 1).max(1);
        (0..count).map(|n| turn(start % count + skip + n)).find(|e| may(e))
    }

    fn least_loaded(&self, may: &dyn Fn(&Endpoint) -> bool) -> Option<&Arc<Endpoint>> {
        let count = self.endpoints.len();
        let start = self.cursor.fetch_add(1, Ordering::Relaxed);
        // Requests per weight, compared without division; the first of equals wins, and `start` moves on.
        let load = |e: &Endpoint| (e.in_flight() + 1) * usize::from(u16::MAX) / usize::from(e.weight().get());
        let least = usize::from(u16::MAX) / usize::from(self.weight_max);
        let mut found: Option<(usize, &Arc<Endpoint>)> = None;
        for n in 0..count {
            let endpoint = &self.endpoints[start.wrapping_add(n) % count];
            let load = load(endpoint);
            if found.is_none_or(|(known, _)| load < known) && may(endpoint) {
                found = Some((load, endpoint));
                // Nobody has less than one of the largest weight without a request: of many endpoints few are looked at.
                if load <= least {
                    break;
                }
            }
        }
        found.map(|(_, endpoint)| endpoint)
    }
}

impl Ring {
    fn new(endpoints: &[Arc<Endpoint>]) -> Self {
        let backend = |e: &Arc<Endpoint>| Backend {
            addr: ring_address(e).into(),
            weight: usize::from(e.weight().get()),
            ext: http::Extensions::new(),
        };
        let backends: BTreeSet<Backend> = endpoints.iter().map(backend).collect();
        let place = |(n, e): (usize, &Arc<Endpoint>)| (ring_address(e), n);
        Self {
            ketama: Arc::new(KetamaHashing::build(&backends)),
            by_address: endpoints.iter().enumerate().map(place).collect(),
        }
    }

    fn pick<'a>(
        &self,
        user: &[u8],
        endpoints: &'a [Arc<Endpoint>],
        may: &dyn Fn(&Endpoint) -> bool,
    ) -> Option<&'a Arc<Endpoint>> {
        let mut nodes = self.ketama.iter(user);
        while let Some(node) = nodes.next() {
            let place = node.addr.as_inet().and_then(|a| self.by_address.get(a));
            let endpoint = place.map(|n| &endpoints[*n]).filter(|e| may(e));
            if endpoint.is_some() {
                return endpoint;
            }
        }
        None
    }
}

/// Smooth weighted round robin (as nginx does it), written out for one round.
fn turns(weights: &[NonZeroU16]) -> Vec<u16> {
    let scaled = scaled(weights);
    let total: i64 = scaled.iter().sum();
    let mut current = vec![0i64; scaled.len()];
    let mut round = Vec::new();
    for _ in 0..total {
        for (now, weight) in current.iter_mut().zip(&scaled) {
            *now += weight;
        }
        let most = current
            .iter()
            .enumerate()
            .max_by_key(|(n, now)| (**now, std::cmp::Reverse(*n)));
        if let Some((next, _)) = most {
            current[next] -= total;
            round.push(u16::try_from(next).unwrap_or(u16::MAX));
        }
    }
    round
}

fn scaled(weights: &[NonZeroU16]) -> Vec<i64> {
    let divisor = weights.iter().fold(0u16, |a, b| gcd(a, b.get())).max(1);
    let least: Vec<i64> = weights.iter().map(|w| i64::from(w.get() / divisor)).collect();
    let total: i64 = least.iter().sum();
    let most = i64::try_from(TURNS_MAX.max(weights.len())).unwrap_or(i64::MAX);
    if total <= most {
        return least;
    }
    least.iter().map(|w| (w * most / total).max(1)).collect()
}

fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn weights(list: &[u16]) -> Vec<NonZeroU16> {
        list.iter().filter_map(|w| NonZeroU16::new(*w)).collect()
    }

    #[test]
    fn turns_are_smooth_and_in_proportion() {
        assert_eq!(turns(&weights(&[1, 1, 1])), [0, 1, 2]);
        assert_eq!(turns(&weights(&[5, 1, 1])), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(turns(&weights(&[200, 100])), [0, 1, 0]);
        assert!(turns(&[]).is_empty());
    }

    #[test]
    fn huge_weights_make_a_bounded_round_in_which_everyone_has_a_turn() {
        let round = turns(&weights(&[65535, 65534, 1]));
        assert!(round.len() <= TURNS_MAX + 3, "{}", round.len());
        for endpoint in 0..3 {
            assert!(round.contains(&endpoint), "{endpoint}");
        }
    }
}
