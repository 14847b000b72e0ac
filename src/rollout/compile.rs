//! From the written form of a rollout to the parts of its table, with every problem at once.

use super::bucket::BUCKETS;
use super::name::ReleaseName;
use super::rule::Rule;
use super::spec::{RolloutSpec, TargetSpec};
use super::split::Split;
use super::table::{Known, Matcher, Problem, Release, ReleaseIdx, Target};
use super::users::UserMap;
use crate::identity::UserId;

/// The most releases of one rollout.
const RELEASES_MAX: usize = 64;

/// Compiles the parts of one spec and collects what is wrong with them.
pub struct Compiling<'a> {
    pub spec: &'a RolloutSpec,
    pub known: &'a Known<'a>,
    pub problems: Vec<Problem>,
}

impl Compiling<'_> {
    pub fn note(&mut self, path: impl Into<String>, message: String) {
        self.problems.push(Problem {
            path: path.into(),
            message,
        });
    }

    pub fn index(&self, name: &ReleaseName) -> Option<ReleaseIdx> {
        let place = self.spec.releases.keys().position(|known| known == name)?;
        u16::try_from(place).ok().map(ReleaseIdx)
    }

    pub fn index_of_stable(&self) -> ReleaseIdx {
        let mut names = self.spec.releases.keys();
        let place = names.position(|name| name.as_str() == ReleaseName::STABLE);
        ReleaseIdx(place.and_then(|place| u16::try_from(place).ok()).unwrap_or(0))
    }

    /// The number of a release that something points at.
    fn release(&mut self, path: &str, name: &ReleaseName) -> ReleaseIdx {
        if let Some(index) = self.index(name) {
            return index;
        }
        let names: Vec<&str> = self.spec.releases.keys().map(ReleaseName::as_str).collect();
        let message = format!(
            "release {:?} does not exist: write one of {}",
            name.as_str(),
            names.join(", ")
        );
        self.note(path, message);
        ReleaseIdx(0)
    }

    pub fn releases(&mut self) -> Vec<Release> {
        if !self
            .spec
            .releases
            .keys()
            .any(|name| name.as_str() == ReleaseName::STABLE)
        {
            self.note(
                "releases",
                "has no release stable, the one everyone falls back to: add it".to_owned(),
            );
        }
        if self.has_too_many_releases() {
            self.note("releases", format!("has more than {RELEASES_MAX} releases"));
        }
        let mut compiled = Vec::with_capacity(self.spec.releases.len());
        for (name, release) in &self.spec.releases {
            match (self.known.pool)(&release.pool) {
                Some(index) => compiled.push(Release {
                    name: name.clone(),
                    pool: index,
                }),
                None => {
                    let message = format!(
                        "pool {:?} does not exist: add it under pools, or name one that does",
                        release.pool.as_str()
                    );
                    self.note(format!("releases.{name}.pool"), message);
                }
            }
        }
        compiled
    }

    pub fn has_too_many_releases(&self) -> bool {
        self.spec.releases.len() > RELEASES_MAX
    }

    pub fn users(&mut self) -> UserMap<ReleaseIdx> {
        let mut users = UserMap::new();
        for (id, release) in &self.spec.users {
            let path = || format!("users.{id}");
            if let Err(e) = UserId::new(id.as_bytes()) {
                self.note(path(), format!("the user id {e}"));
            }
            let index = self.index(release).unwrap_or_else(|| self.release(&path(), release));
            users.set(id.as_bytes(), index, false);
        }
        users
    }

    pub fn targets(&mut self) -> Vec<Target> {
        let spec = self.spec;
        let each = spec.targets.iter().enumerate();
        each.filter_map(|(place, target)| self.target(place, target)).collect()
    }

    fn target(&mut self, place: usize, target: &TargetSpec) -> Option<Target> {
        let path = format!("targets[{place}]");
        let release = self.release(&format!("{path}.release"), &target.release);
        let what = match (&target.users, &target.segment, &target.when) {
            (Some(users), None, None) => Matcher::Users(self.listed(&path, users)),
            (None, None, Some(when)) => match Rule::compile(when) {
                Ok(rule) => Matcher::When(rule),
                Err(found) => {
                    for (key, message) in found {
                        let dot = if key.is_empty() { "" } else { "." };
                        self.note(format!("{path}.when{dot}{key}"), message);
                    }
                    return None;
                }
            },
            (None, Some(segment), None) => match (self.known.segment)(segment) {
                Some(members) => Matcher::Segment(segment.clone(), members),
                None => {
                    let message = format!("segment {:?} does not exist: create it first", segment.as_str());
                    self.note(format!("{path}.segment"), message);
                    return None;
                }
            },
            _ => {
                self.note(
                    path,
                    "says not exactly one of users, segment and when: write one of them".to_owned(),
                );
                return None;
            }
        };
        Some(Target { what, release })
    }

    fn listed(&mut self, path: &str, ids: &[String]) -> UserMap<()> {
        let mut users = UserMap::new();
        for (place, id) in ids.iter().enumerate() {
            match UserId::new(id.as_bytes()) {
                Ok(_) => users.set(id.as_bytes(), (), true),
                Err(e) => self.note(format!("{path}.users[{place}]"), format!("the user id {e}")),
            }
        }
        users
    }

    pub fn split(&mut self) -> Split {
        let spec = self.spec;
        let stable = spec.split.iter().find(|(name, _)| name.as_str() == ReleaseName::STABLE);
        let others: u64 = spec
            .split
            .iter()
            .filter(|(name, _)| name.as_str() != ReleaseName::STABLE)
            .map(|(_, weight)| u64::from(weight.parts_per_million()))
            .sum();
        for name in spec.split.keys() {
            self.release(&format!("split.{name}"), name);
        }
        let rest = u64::from(BUCKETS).saturating_sub(others);
        if let Some((_, weight)) = stable.filter(|(_, w)| u64::from(w.parts_per_million()) != rest) {
            let message =
                format!("is {weight}, but the others leave another share: leave stable out, it gets the rest");
            self.note("split.stable", message);
        }
        let weights: Vec<_> = spec
            .split
            .iter()
            .map(|(name, weight)| (name.clone(), *weight))
            .collect();
        let fresh = Split::new(&weights);
        let split = match (&spec.ranges, fresh) {
            (_, Err(e)) => Err(("split", e.to_string())),
            (None, Ok(split)) => Ok(split),
            (Some(ranges), Ok(_)) => Split::from_ranges(ranges.clone())
                .map_err(|e| ("ranges", e.to_string()))
                .and_then(|split| match split.rebalance(&weights) {
                    Ok(same) if same.by_bucket() == split.by_bucket() => Ok(split),
                    _ => Err((
                        "ranges",
                        "do not agree with split: leave `ranges` out to have them made anew".to_owned(),
                    )),
                }),
        };
        split.unwrap_or_else(|(path, message)| {
            self.note(path, message);
            Split::all_stable()
        })
    }
}
