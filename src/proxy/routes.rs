//! Host and path to route: the most specific host first (exact, then the longest suffix, then any), then the longest
//! path. A route's path matches whole segments: `/shop` takes `/shop` and `/shop/cart`, not `/shopping`.

use std::collections::HashMap;

use super::settings::{Cors, HostMatch, RouteSettings, RouteTarget};
use crate::control::Slot;
use crate::rollout::{PoolIdx, RouteId};
use crate::telemetry::metrics::ReleaseMetrics;

/// All routes.
pub struct Routes {
    routes: Vec<Route>,
    exact: HashMap<String, Vec<usize>>,
    /// Longest first.
    suffixes: Vec<(String, Vec<usize>)>,
    any: Vec<usize>,
}

/// One route.
pub struct Route {
    /// Its name in logs and metrics.
    pub id: RouteId,
    /// Where to.
    pub target: Target,
    /// Cross-origin handling.
    pub cors: Option<Cors>,
    path: String,
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

impl Routes {
    /// Builds the matcher. `target` translates the names of the settings, which the configuration has checked.
    pub fn new(settings: &[RouteSettings], target: &dyn Fn(&RouteTarget) -> Target) -> Self {
        let ids: Vec<&str> = settings.iter().map(|r| r.id.as_str()).collect();
        let route = |r: &RouteSettings| Route {
            id: r.id.clone(),
            target: target(&r.to),
            cors: r.cors.clone(),
            path: r.path.clone(),
            metrics: ReleaseMetrics::direct(&ids),
        };
        let mut routes = Self {
            routes: settings.iter().map(route).collect(),
            exact: HashMap::new(),
            suffixes: Vec::new(),
            any: Vec::new(),
        };
        for (place, written) in settings.iter().enumerate() {
            routes.file(place, &written.host);
        }
        routes.sort();
        routes
    }

    fn file(&mut self, place: usize, host: &HostMatch) {
        match host {
            HostMatch::Any => self.any.push(place),
            HostMatch::Exact(name) => self.exact.entry(name.clone()).or_default().push(place),
            HostMatch::Suffix(suffix) => match self.suffixes.iter_mut().find(|(s, _)| s == suffix) {
                Some((_, places)) => places.push(place),
                None => self.suffixes.push((suffix.clone(), vec![place])),
            },
        }
    }

    fn sort(&mut self) {
        let routes = &self.routes;
        let by_path = |a: &usize, b: &usize| routes[*b].path.len().cmp(&routes[*a].path.len());
        self.any.sort_by(by_path);
        self.exact.values_mut().for_each(|places| places.sort_by(by_path));
        self.suffixes.iter_mut().for_each(|(_, places)| places.sort_by(by_path));
        self.suffixes.sort_by_key(|(suffix, _)| std::cmp::Reverse(suffix.len()));
    }

    /// The place of the route for a host (lower case, without port) and a path.
    pub fn find(&self, host: &str, path: &str) -> Option<usize> {
        let fits = |places: &[usize]| {
            let mut places = places.iter().copied();
            places.find(|place| leads(&self.routes[*place].path, path))
        };
        let exact = || self.exact.get(host).and_then(|places| fits(places));
        let suffix = || {
            let mut matching = self.suffixes.iter().filter(|(s, _)| below(host, s));
            matching.find_map(|(_, places)| fits(places))
        };
        let hosts_matter = !(self.exact.is_empty() && self.suffixes.is_empty());
        let by_host = if hosts_matter { exact().or_else(suffix) } else { None };
        by_host.or_else(|| fits(&self.any))
    }

    /// The route at that place, as [`Routes::find`] gave it.
    pub fn get(&self, place: usize) -> &Route {
        &self.routes[place]
    }
}

fn below(host: &str, suffix: &str) -> bool {
    host.len() > suffix.len() && host.ends_with(suffix)
}

fn leads(prefix: &str, path: &str) -> bool {
    let whole = prefix.trim_end_matches('/');
    path.strip_prefix(whole)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
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

    #[test]
    fn a_path_that_no_route_takes_has_none() {
        let routes = routes(&[("shop", HostMatch::Any, "/shop")]);
        assert_eq!(routes.find("x", "/"), None);
        assert_eq!(routes.find("x", "*"), None);
    }
}
