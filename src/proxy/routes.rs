//! Host and path to route: the most specific host first (exact, then the longest suffix, then any), then the longest
//! path. A route's path matches whole segments: `/shop` takes `/shop` and `/shop/cart`, not `/shopping`. Finding one
//! looks up the path's beginnings, so that ten thousand routes cost what one does.

use std::collections::HashMap;

use super::settings::{Cors, HostMatch, RouteSettings, RouteTarget};
use crate::control::Slot;
use crate::rollout::{PoolIdx, RouteId};
use crate::telemetry::metrics::ReleaseMetrics;

/// All routes.
pub struct Routes {
    routes: Vec<Route>,
    exact: HashMap<String, Paths>,
    suffixes: HashMap<String, Paths>,
    /// Bytes of the longest suffix.
    suffix_len_max: usize,
    any: Paths,
}

/// One route.
pub struct Route {
    /// Its name in logs and metrics.
    pub id: RouteId,
    /// Where to.
    pub target: Target,
    /// Its number among the routes of its rollout, by which that counts its requests; 0 where it leads to a pool.
    pub nth: usize,
    /// Cross-origin handling.
    pub cors: Option<Cors>,
    /// Counts requests where no rollout does.
    pub metrics: ReleaseMetrics,
}

/// Where a route leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// To what the rollout in this slot decides.
    Rollout(Slot),
    /// To this pool.
    Pool(PoolIdx),
}

/// The routes of one host, by their paths without a slash at the end.
#[derive(Default)]
struct Paths {
    places: HashMap<Box<str>, usize>,
    /// Of the path with the most.
    slashes_max: usize,
}

impl Routes {
    /// Builds the matcher. `target` translates the names of the settings, which the configuration has checked.
    pub fn new(settings: &[RouteSettings], target: &dyn Fn(&RouteTarget) -> Target) -> Self {
        let mut by_slot: HashMap<u16, usize> = HashMap::new();
        let mut nth = |target: Target| {
            let Target::Rollout(Slot(slot)) = target else { return 0 };
            let count = by_slot.entry(slot).or_default();
            *count += 1;
            *count - 1
        };
        let route = |r: &RouteSettings| {
            let target = target(&r.to);
            Route {
                id: r.id.clone(),
                target,
                nth: nth(target),
                cors: r.cors.clone(),
                metrics: ReleaseMetrics::direct(&[r.id.as_str()]),
            }
        };
        let mut routes = Self {
            routes: settings.iter().map(route).collect(),
            exact: HashMap::new(),
            suffixes: HashMap::new(),
            suffix_len_max: 0,
            any: Paths::default(),
        };
        for (place, written) in settings.iter().enumerate() {
            routes.paths_of(&written.host).add(&written.path, place);
        }
        routes
    }

    fn paths_of(&mut self, host: &HostMatch) -> &mut Paths {
        match host {
            HostMatch::Any => &mut self.any,
            HostMatch::Exact(name) => self.exact.entry(name.clone()).or_default(),
            HostMatch::Suffix(suffix) => {
                self.suffix_len_max = self.suffix_len_max.max(suffix.len());
                self.suffixes.entry(suffix.clone()).or_default()
            }
        }
    }

    /// The place of the route for a host (lower case, without port) and a path.
    pub fn find(&self, host: &str, path: &str) -> Option<usize> {
        let exact = || self.exact.get(host)?.find(path);
        let by_host = if self.exact.is_empty() { None } else { exact() };
        by_host
            .or_else(|| self.find_by_suffix(host, path))
            .or_else(|| self.any.find(path))
    }

    fn find_by_suffix(&self, host: &str, path: &str) -> Option<usize> {
        if self.suffixes.is_empty() {
            return None;
        }
        // Not all of a long host is looked at: a suffix that is longer than any is none. Something stands before it.
        let from = host.len().saturating_sub(self.suffix_len_max).max(1);
        let dots = memchr::memchr_iter(b'.', host.as_bytes().get(from..)?);
        let mut fitting = dots.filter_map(|dot| self.suffixes.get(&host[from + dot..]));
        fitting.find_map(|paths| paths.find(path))
    }

    /// The route at that place, as [`Routes::find`] gave it.
    pub fn get(&self, place: usize) -> &Route {
        &self.routes[place]
    }
}

impl Paths {
    fn add(&mut self, path: &str, place: usize) {
        let whole = path.trim_end_matches('/');
        self.slashes_max = self.slashes_max.max(slashes(whole).count());
        // Of two with the same path, which the configuration does not allow, the first counts.
        self.places.entry(whole.into()).or_insert(place);
    }

    /// The place of the longest path that the path begins with, in whole segments.
    fn find(&self, path: &str) -> Option<usize> {
        let mut found = None;
        let mut look = |beginning: &str| {
            if let Some(place) = self.places.get(beginning) {
                found = Some(*place);
            }
        };
        // No more beginnings than a path here can be, however many slashes somebody sends.
        let mut slashes = slashes(path);
        let mut left = self.slashes_max + 1;
        while left > 0 {
            left -= 1;
            match slashes.next() {
                Some(slash) => look(&path[..slash]),
                None => {
                    look(path);
                    break;
                }
            }
        }
        found
    }
}

fn slashes(path: &str) -> impl Iterator<Item = usize> {
    memchr::memchr_iter(b'/', path.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routes(list: &[(&str, HostMatch, &str)]) -> Routes {
        let settings: Vec<RouteSettings> = list
            .iter()
            .map(|(id, host, path)| RouteSettings {
                id: RouteId::parse(id).expect("id"),
                host: host.clone(),
                path: (*path).to_owned(),
                to: RouteTarget::Pool(crate::rollout::PoolName::parse("p").expect("name")),
                cors: None,
            })
            .collect();
        Routes::new(&settings, &|_| Target::Pool(PoolIdx(0)))
    }

    #[test]
    fn the_most_specific_host_wins_then_the_longest_path() {
        let exact = |h: &str| HostMatch::Exact(h.to_owned());
        let suffix = |h: &str| HostMatch::Suffix(h.to_owned());
        let routes = routes(&[
            ("any", HostMatch::Any, "/"),
            ("any-shop", HostMatch::Any, "/shop"),
            ("example", suffix(".example.com"), "/"),
            ("eu", suffix(".eu.example.com"), "/"),
            ("www", exact("www.example.com"), "/"),
            ("www-cart", exact("www.example.com"), "/cart/"),
        ]);
        for (host, path, expected) in [
            ("www.example.com", "/", "www"),
            ("www.example.com", "/cart", "www-cart"),
            ("www.example.com", "/cart/1", "www-cart"),
            ("www.example.com", "/carts", "www"),
            ("a.example.com", "/shop", "example"),
            ("b.eu.example.com", "/", "eu"),
            ("example.com", "/", "any"),
            ("other.test", "/shop/x", "any-shop"),
            ("other.test", "/shopping", "any"),
            ("", "/shop", "any-shop"),
        ] {
            let found = routes.find(host, path).map(|place| routes.get(place).id.as_str());
            assert_eq!(found, Some(expected), "{host}{path}");
        }
    }

    /// As it was before paths were looked up: each route compared with the request.
    fn compared(list: &[(String, HostMatch, String)], host: &str, path: &str) -> Option<usize> {
        let host_rank = |of: &HostMatch| match of {
            HostMatch::Any => Some(0),
            HostMatch::Exact(name) => (name == host).then_some(usize::MAX),
            HostMatch::Suffix(suffix) => (host.len() > suffix.len() && host.ends_with(suffix)).then_some(suffix.len()),
        };
        let leads = |prefix: &str| {
            let rest = path.strip_prefix(prefix.trim_end_matches('/'));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let fitting = list.iter().enumerate().filter(|(_, (_, _, prefix))| leads(prefix));
        let ranked =
            fitting.filter_map(|(n, (_, of, prefix))| Some((host_rank(of)?, prefix.trim_end_matches('/').len(), n)));
        ranked.max().map(|(_, _, n)| n)
    }

    #[test]
    fn looking_up_finds_what_comparing_with_each_route_would() {
        let mut random = fastrand::Rng::with_seed(7);
        let words = ["a", "b", "ab", "", "a.b"];
        for _ in 0..300 {
            let mut path = |slashes: usize| -> String {
                (0..random.usize(1..=slashes))
                    .map(|_| format!("/{}", words[random.usize(..words.len())]))
                    .collect()
            };
            let paths: Vec<String> = (0..40).map(|_| path(4)).collect();
            let asked: Vec<String> = (0..40)
                .map(|_| path(7))
                .chain(["*".to_owned(), String::new()])
                .collect();
            let hosts = ["x", "a.x", "b.a.x", "ba.x", ".a.x", "", "c.b.a.x"];
            let mut list: Vec<(String, HostMatch, String)> = Vec::new();
            for (n, path) in paths.into_iter().enumerate() {
                let host = match random.u8(..4) {
                    0 => HostMatch::Any,
                    1 => HostMatch::Exact(hosts[random.usize(..3)].to_owned()),
                    2 => HostMatch::Suffix(".a.x".to_owned()),
                    _ => HostMatch::Suffix(".x".to_owned()),
                };
                let taken = |(_, of, known): &(String, HostMatch, String)| {
                    *of == host && known.trim_end_matches('/') == path.trim_end_matches('/')
                };
                if !list.iter().any(taken) {
                    list.push((format!("r{n}"), host, path));
                }
            }
            let written: Vec<_> = list
                .iter()
                .map(|(id, host, path)| (id.as_str(), host.clone(), path.as_str()))
                .collect();
            let routes = routes(&written);
            for host in hosts {
                for path in &asked {
                    assert_eq!(
                        routes.find(host, path),
                        compared(&list, host, path),
                        "{host}{path} among {list:?}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_route_has_its_number_among_those_of_its_rollout() {
        let to = |id: &str, to: RouteTarget| RouteSettings {
            id: RouteId::parse(id).expect("id"),
            host: HostMatch::Any,
            path: format!("/{id}"),
            to,
            cors: None,
        };
        let rollout = |name: &str| RouteTarget::Rollout(crate::rollout::RolloutName::parse(name).expect("name"));
        let pool = RouteTarget::Pool(crate::rollout::PoolName::parse("p").expect("name"));
        let settings = [
            to("a", rollout("shop")),
            to("b", pool),
            to("c", rollout("docs")),
            to("d", rollout("shop")),
        ];
        let routes = Routes::new(&settings, &|to| match to {
            RouteTarget::Rollout(name) => Target::Rollout(Slot(u16::from(name.as_str() == "docs"))),
            RouteTarget::Pool(_) => Target::Pool(PoolIdx(0)),
        });
        let numbers: Vec<usize> = (0..4).map(|place| routes.get(place).nth).collect();
        assert_eq!(numbers, [0, 0, 0, 1]);
    }

    #[test]
    fn a_path_that_no_route_takes_has_none() {
        let routes = routes(&[("shop", HostMatch::Any, "/shop")]);
        assert_eq!(routes.find("x", "/"), None);
        assert_eq!(routes.find("x", "*"), None);
    }
}
