//! Routes.

use std::collections::HashSet;

use super::super::written as w;
use super::{Building, cors};
use crate::proxy::settings::{HostMatch, RouteSettings, RouteTarget};
use crate::rollout::{PoolName, RolloutName, RolloutSpec, RouteId, check_prefix};
use crate::upstream::PoolSettings;

pub fn routes(
    work: &mut Building<'_>,
    written: Vec<w::Route>,
    pools: &[PoolSettings],
    rollouts: &[(RolloutName, RolloutSpec)],
) -> Vec<RouteSettings> {
    if written.is_empty() {
        work.note(
            "routes",
            "there is none: write at least one, such as - rollout: NAME or - pool: NAME",
        );
    }
    let mut routes: Vec<RouteSettings> = Vec::with_capacity(written.len());
    let (mut requests, mut ids) = (HashSet::new(), HashSet::new());
    for (n, route) in written.into_iter().enumerate() {
        let key = format!("routes[{n}]");
        let Some(route) = build(work, &key, route, pools, rollouts) else {
            continue;
        };
        let whole = route.path.trim_end_matches('/').to_owned();
        if !requests.insert((route.host.clone(), whole)) {
            work.note(
                &format!("{key}.match"),
                "takes the same requests as a route before it: remove one",
            );
        } else if ids.contains(route.id.as_str()) {
            work.note(
                &format!("{key}.id"),
                format!("{} names two routes: write another id", route.id),
            );
        }
        ids.insert(route.id.to_string());
        routes.push(route);
    }
    routes
}

fn build(
    work: &mut Building<'_>,
    key: &str,
    written: w::Route,
    pools: &[PoolSettings],
    rollouts: &[(RolloutName, RolloutSpec)],
) -> Option<RouteSettings> {
    let to = target(work, key, &written, pools, rollouts);
    let host = host(work, key, written.matching.host.as_deref());
    let path = written.matching.path.unwrap_or_else(|| "/".to_owned());
    work.take(&format!("{key}.match.path"), check_prefix(&path));
    let id = written.id.unwrap_or_else(|| default_id(&host, &path));
    let id = work.take(&format!("{key}.id"), RouteId::parse(&id));
    let cors = written
        .cors
        .and_then(|cors| cors::build(work, &format!("{key}.cors"), cors));
    Some(RouteSettings {
        id: id?,
        host,
        path,
        to: to?,
        cors,
    })
}

/// `shop.example.com-checkout` of host and path.
fn default_id(host: &HostMatch, path: &str) -> String {
    let host = match host {
        HostMatch::Any => "any",
        HostMatch::Exact(name) => name,
        HostMatch::Suffix(suffix) => suffix.trim_start_matches('.'),
    };
    let path = path.trim_matches('/').replace('/', "-");
    let text = if path.is_empty() {
        host.to_owned()
    } else {
        format!("{host}-{path}")
    };
    let allowed = |c: char| {
        if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') {
            c
        } else {
            '_'
        }
    };
    let id: String = text.chars().map(allowed).collect();
    // A name begins with a letter or digit, and `[::1]` does not.
    let id = id.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
    let id = if id.is_empty() { "route" } else { id };
    id.chars().take(63).collect()
}

fn host(work: &mut Building<'_>, key: &str, written: Option<&str>) -> HostMatch {
    let Some(text) = written.filter(|text| *text != "*") else {
        return HostMatch::Any;
    };
    let text = text.to_ascii_lowercase();
    let (suffix, name) = match text.strip_prefix('*') {
        Some(rest) => (true, rest),
        None => (false, text.as_str()),
    };
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b));
    // The first label of a suffix is the one that `*` stands for; an IPv6 address has no labels.
    let labels = name.strip_prefix('.').filter(|_| suffix).unwrap_or(name);
    let labels = labels.strip_suffix('.').unwrap_or(labels);
    let sound = plain
        && (name.starts_with('[') || labels.split('.').all(|label| !label.is_empty()))
        && (!suffix || name.starts_with('.') && name.len() > 1)
        && !name.contains("]:")
        && (name.starts_with('[') || !name.contains(':'));
    if !sound {
        work.note(
            &format!("{key}.match.host"),
            format!("{text:?} is no host: write a name without port, or *.example.com"),
        );
    }
    if suffix {
        HostMatch::Suffix(name.to_owned())
    } else {
        HostMatch::Exact(name.to_owned())
    }
}

fn target(
    work: &mut Building<'_>,
    key: &str,
    written: &w::Route,
    pools: &[PoolSettings],
    rollouts: &[(RolloutName, RolloutSpec)],
) -> Option<RouteTarget> {
    match (&written.rollout, &written.pool) {
        (Some(name), None) => {
            let key = format!("{key}.rollout");
            let name = work.take(&key, RolloutName::parse(name))?;
            if !rollouts.iter().any(|(known, _)| *known == name) && !work.places.is_cut("rollouts") {
                work.note(
                    &key,
                    format!("{name} does not exist: add it under rollouts, or name one that does"),
                );
            }
            Some(RouteTarget::Rollout(name))
        }
        (None, Some(name)) => {
            let key = format!("{key}.pool");
            let name = work.take(&key, PoolName::parse(name))?;
            if !pools.iter().any(|pool| pool.name == name) && !work.places.is_cut("pools") {
                work.note(
                    &key,
                    format!("{name} does not exist: add it under pools, or name one that does"),
                );
            }
            Some(RouteTarget::Pool(name))
        }
        _ => {
            work.note(key, "leads to not exactly one thing: write one of rollout and pool");
            None
        }
    }
}
