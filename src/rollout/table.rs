//! A rollout compiled for deciding: names resolved to numbers, users hashed, rules compiled. Deciding does no I/O,
//! reads no clock, takes no lock, allocates nothing and cannot fail.

use super::bucket::{Bucket, Salt};
use super::compile::Compiling;
use super::decision::{Attributes, Decision, NoAttributes, Reason};
use super::members::{Asking, Members};
use super::name::{PoolName, ReleaseName, RolloutName, SegmentName};
use super::rule::Rule;
use super::spec::{RolloutSpec, Unhealthy};
use super::split::Split;
use super::users::{UserHash, UserMap};
use super::weight::Weight;
use crate::identity::{Identity, UserId};

/// A release's number in its table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReleaseIdx(pub u16);

/// A pool's number in the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolIdx(pub u16);

/// What a spec may point at.
pub struct Known<'a> {
    /// The number of a pool, if it exists.
    pub pool: &'a dyn Fn(&PoolName) -> Option<PoolIdx>,
    /// The members of a segment, if it exists.
    pub segment: &'a dyn Fn(&SegmentName) -> Option<Members>,
}

/// What is wrong with a spec: where (`targets[2].when.regex`), and what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key, as written from the rollout down.
    pub path: String,
    /// What is wrong, and what to write.
    pub message: String,
}

/// A compiled release.
#[derive(Debug, Clone)]
pub struct Release {
    /// Its name.
    pub name: ReleaseName,
    /// The pool that serves it.
    pub pool: PoolIdx,
}

/// A compiled rollout.
#[derive(Debug, Clone)]
pub struct Table {
    name: RolloutName,
    pub(super) releases: Vec<Release>,
    pub(super) stable: ReleaseIdx,
    pub(super) killed: bool,
    unhealthy: Unhealthy,
    pub(super) users: UserMap<ReleaseIdx>,
    pub(super) targets: Vec<Target>,
    pub(super) salt: Salt,
    pub(super) split: Split,
    /// The end of each range of the split, and its owner.
    ends: Vec<(u32, ReleaseIdx)>,
}

#[derive(Debug, Clone)]
pub(super) struct Target {
    pub what: Matcher,
    pub release: ReleaseIdx,
}

#[derive(Debug, Clone)]
pub(super) enum Matcher {
    Users(UserMap<()>),
    Segment(SegmentName, Members),
    When(Rule),
}

/// Hears of the steps on the way to a decision.
pub(super) trait Told {
    fn kill(&mut self, killed: bool);
    fn single(&mut self, listed: bool);
    fn target(&mut self, place: usize, met: bool);
}

/// Nobody listens: what a request's decision costs is what deciding costs.
struct Untold;

impl Told for Untold {
    fn kill(&mut self, _killed: bool) {}
    fn single(&mut self, _listed: bool) {}
    fn target(&mut self, _place: usize, _met: bool) {}
}

impl Table {
    /// Compiles a spec against what it may point at.
    ///
    /// # Errors
    /// Everything that is wrong with the spec.
    pub fn compile(name: &RolloutName, spec: &RolloutSpec, known: &Known<'_>) -> Result<Self, Vec<Problem>> {
        let mut work = Compiling {
            spec,
            known,
            problems: Vec::new(),
        };
        let releases = work.releases();
        if work.has_too_many_releases() {
            // All that names one would be looked for among them.
            return Err(work.problems);
        }
        let users = work.users();
        let targets = work.targets();
        let split = work.split();
        let salt = spec.salt.as_deref().unwrap_or(name.as_str());
        if salt.is_empty() {
            work.note("salt", "is empty: leave it out for the rollout's name".to_owned());
        }
        if !work.problems.is_empty() {
            return Err(work.problems);
        }
        let stable = work.index_of_stable();
        let ends = split.by_bucket().iter();
        let ends = ends.map(|r| (r.to, work.index(&r.release).unwrap_or(stable))).collect();
        Ok(Self {
            name: name.clone(),
            releases,
            stable,
            killed: spec.killed,
            unhealthy: spec.unhealthy,
            users,
            targets,
            salt: Salt::new(salt),
            split,
            ends,
        })
    }

    /// Decides: kill, then the single user, then targets in order, then the split, then stable.
    pub fn decide(&self, identity: &Identity, request: &impl Attributes) -> Decision {
        self.walk(identity, request, &mut Untold)
    }

    /// A decision for them will be asked for soon.
    pub fn fetch_for(&self, identity: &Identity) {
        if let Some(user) = identity.user() {
            self.users.fetch_for(UserHash::of(user.as_bytes()));
        }
    }

    /// The one way to a decision; `told` hears of each step.
    pub(super) fn walk(&self, identity: &Identity, request: &impl Attributes, told: &mut impl Told) -> Decision {
        told.kill(self.killed);
        if self.killed {
            return Decision {
                release: self.stable,
                bucket: None,
                reason: Reason::Killed,
            };
        }
        self.beneath_kill(identity, request, told)
    }

    /// What the id alone decides, a kill set aside.
    pub(super) fn by_id_alone(&self, identity: &Identity) -> ReleaseIdx {
        self.beneath_kill(identity, &NoAttributes, &mut Untold).release
    }

    fn beneath_kill(&self, identity: &Identity, request: &impl Attributes, told: &mut impl Told) -> Decision {
        let bucket = identity.id().map(|id| self.salt.bucket(id.as_bytes()));
        let (release, reason) = self
            .pinned(identity, request, told)
            .unwrap_or_else(|| self.divided(bucket));
        Decision {
            release,
            bucket,
            reason,
        }
    }

    /// What a single user's entry or a target says. Lists of users speak of users, never of visitors.
    fn pinned(
        &self,
        identity: &Identity,
        request: &impl Attributes,
        told: &mut impl Told,
    ) -> Option<(ReleaseIdx, Reason)> {
        let mut asking = identity.user().map(|user| Asking::new(UserId::as_bytes(user)));
        let single = asking.as_mut().and_then(|who| who.found_in(&self.users));
        told.single(single.is_some());
        if let Some(release) = single {
            return Some((release, Reason::User));
        }
        for (place, target) in self.targets.iter().enumerate() {
            let met = match &target.what {
                Matcher::Users(users) => asking.as_mut().is_some_and(|who| who.found_in(users).is_some()),
                Matcher::Segment(_, members) => asking.as_mut().is_some_and(|who| members.holds(who)),
                Matcher::When(rule) => rule.matches(request),
            };
            told.target(place, met);
            if met {
                return Some((target.release, Reason::Target));
            }
        }
        None
    }

    pub(super) fn divided(&self, bucket: Option<Bucket>) -> (ReleaseIdx, Reason) {
        let Some(bucket) = bucket else {
            return (self.stable, Reason::Anonymous);
        };
        let place = self.ends.partition_point(|(end, _)| *end <= bucket.get());
        match self.ends.get(place) {
            Some((_, owner)) if *owner != self.stable => (*owner, Reason::Split),
            _ => (self.stable, Reason::Stable),
        }
    }

    /// What to do when the decided release has no healthy endpoint: stable where the spec says so.
    #[must_use]
    pub fn fallback(&self, decision: &Decision) -> Option<Decision> {
        let falls = self.unhealthy == Unhealthy::Stable && decision.release != self.stable;
        falls.then_some(Decision {
            release: self.stable,
            bucket: decision.bucket,
            reason: Reason::Fallback,
        })
    }

    /// The rollout's name.
    #[must_use]
    pub fn name(&self) -> &RolloutName {
        &self.name
    }

    /// Its releases, by number.
    #[must_use]
    pub fn releases(&self) -> &[Release] {
        &self.releases
    }

    /// The release of that number; the number came from this table.
    #[must_use]
    pub fn release(&self, index: ReleaseIdx) -> &Release {
        &self.releases[usize::from(index.0)]
    }

    /// The number of a release.
    #[must_use]
    pub fn index(&self, name: &ReleaseName) -> Option<ReleaseIdx> {
        let place = self.releases.iter().position(|r| r.name == *name)?;
        u16::try_from(place).ok().map(ReleaseIdx)
    }

    /// What everyone falls back to.
    #[must_use]
    pub fn stable(&self) -> ReleaseIdx {
        self.stable
    }

    /// Whether users have the same buckets in another table: its salt is the same.
    #[must_use]
    pub fn same_buckets(&self, other: &Self) -> bool {
        self.salt == other.salt
    }

    /// The split, as it is to be stored.
    #[must_use]
    pub fn split(&self) -> &Split {
        &self.split
    }

    /// How many users are listed alone.
    #[must_use]
    pub fn single_users(&self) -> usize {
        self.users.len()
    }

    /// Each release's share.
    pub fn weights(&self) -> impl Iterator<Item = (&ReleaseName, Weight)> {
        self.releases.iter().map(|r| (&r.name, self.split.weight(&r.name)))
    }
}
