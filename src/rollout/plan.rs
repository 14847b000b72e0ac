//! Who would move: two tables compared, by buckets exactly, and by users seen lately.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bucket::Bucket;
use super::decision::Reason;
use super::members::KeyPart;
use super::name::ReleaseName;
use super::table::{Matcher, ReleaseIdx, Table};
use super::users::UserHash;
use super::weight::Weight;
use crate::identity::{Identity, SourceKind, UserId};

/// A user seen lately: hashes and what was decided, never the id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Of the id, without salt; none for visitors, whom lists do not speak of.
    pub user: Option<SeenUser>,
    /// By the salt of then.
    pub bucket: Bucket,
    /// As the table of then numbers it.
    pub release: ReleaseIdx,
    /// Why.
    pub reason: Reason,
}

/// What lists are asked about a user seen lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeenUser {
    /// For lists of users.
    pub hash: UserHash,
    /// For segments.
    pub part: KeyPart,
}

impl SeenUser {
    /// Of an id.
    #[must_use]
    pub fn of(id: &[u8]) -> Self {
        let hash = UserHash::of(id);
        let part = KeyPart::of(hash, id);
        Self { hash, part }
    }
}

/// What a change would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// Of the users seen in the last hour, how many were looked at.
    pub seen: usize,
    /// Who of them would move.
    pub moves: Vec<Move>,
    /// Of them, how many cannot be told, because the salt would change.
    pub unknown: usize,
    /// Shares of all buckets that change their owner.
    pub shares: Vec<ShareMove>,
    /// Releases that grow or stay, and yet lose users; such a change needs `allow_flips`.
    pub flips: Vec<ReleaseName>,
}

/// Users seen lately that move from one release to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Move {
    /// Where they are.
    pub from: ReleaseName,
    /// Where they would be.
    pub to: ReleaseName,
    /// How many.
    pub users: usize,
}

/// A part of all buckets that moves from one release to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShareMove {
    /// Whose it is.
    pub from: ReleaseName,
    /// Whose it would be.
    pub to: ReleaseName,
    /// How much.
    pub share: Weight,
}

impl Table {
    /// What becomes of users and buckets if `after` takes the place of this table.
    #[must_use]
    pub fn plan(&self, after: &Self, seen: &[Seen]) -> Plan {
        let mut moves: BTreeMap<(ReleaseName, ReleaseName), usize> = BTreeMap::new();
        let mut unknown = 0;
        for user in seen {
            let from = &self.release(self.decide_seen(user, self)).name;
            if after.salt != self.salt && after.needs_bucket(user) {
                unknown += 1;
                continue;
            }
            let to = &after.release(after.decide_seen(user, self)).name;
            if from != to {
                *moves.entry((from.clone(), to.clone())).or_default() += 1;
            }
        }
        let moves = moves.into_iter().map(|((from, to), users)| Move { from, to, users });
        Plan {
            seen: seen.len(),
            moves: moves.collect(),
            unknown,
            shares: self.shares_moved(after),
            flips: self.flips(after),
        }
    }

    /// Releases other than stable that do not shrink, and yet lose buckets or, by another salt, users.
    #[must_use]
    pub fn flips(&self, after: &Self) -> Vec<ReleaseName> {
        let stable = &self.release(self.stable).name;
        let shares = self.shares_moved(after);
        let kept = |name: &ReleaseName| after.split.weight(name) >= self.split.weight(name);
        let loses = |name: &ReleaseName| {
            let had = self.split.weight(name) > Weight::default();
            had && (self.salt != after.salt || shares.iter().any(|s| s.from == *name))
        };
        let others = self.releases.iter().map(|r| &r.name).filter(|name| *name != stable);
        others.filter(|name| kept(name) && loses(name)).cloned().collect()
    }

    /// Releases other than stable that users would newly enter by the split.
    #[must_use]
    pub fn entered(&self, after: &Self) -> Vec<ReleaseName> {
        let stable = &after.release(after.stable).name;
        let shares = self.shares_moved(after);
        let gains = |name: &ReleaseName| {
            let has = after.split.weight(name) > Weight::default();
            has && (self.salt != after.salt || shares.iter().any(|s| s.to == *name))
        };
        let others = after.releases.iter().map(|r| &r.name).filter(|name| *name != stable);
        others.filter(|name| gains(name)).cloned().collect()
    }

    /// Releases other than stable that some of these users would newly enter, as far as their ids alone decide: requests may
    /// have attributes that targets want. A kill is set aside: it ends.
    pub fn entered_by<'a>(&self, after: &Self, users: impl Iterator<Item = &'a str>) -> BTreeSet<ReleaseName> {
        let mut entered = BTreeSet::new();
        for user in users {
            // Nobody asks under what is no id.
            let Ok(id) = UserId::new(user.as_bytes()) else { continue };
            let source = SourceKind::Header;
            let identity = Identity::User { id, source };
            let of = |table: &Self| table.release(table.by_id_alone(&identity)).name.clone();
            let (was, is) = (of(self), of(after));
            if was != is && is.as_str() != ReleaseName::STABLE {
                entered.insert(is);
            }
        }
        entered
    }

    fn shares_moved(&self, after: &Self) -> Vec<ShareMove> {
        let mut moved: BTreeMap<(ReleaseName, ReleaseName), u32> = BTreeMap::new();
        let (mut old, mut new) = (self.split.by_bucket().iter(), after.split.by_bucket().iter());
        let (mut before, mut next) = (old.next(), new.next());
        let mut at = 0;
        while let (Some(a), Some(b)) = (before, next) {
            let end = a.to.min(b.to);
            if a.release != b.release {
                *moved.entry((a.release.clone(), b.release.clone())).or_default() += end - at;
            }
            at = end;
            before = if a.to == end { old.next() } else { before };
            next = if b.to == end { new.next() } else { next };
        }
        let share = |((from, to), parts): ((ReleaseName, ReleaseName), u32)| ShareMove {
            from,
            to,
            share: Weight::new(parts).unwrap_or(Weight::ALL),
        };
        moved.into_iter().map(share).collect()
    }

    fn needs_bucket(&self, user: &Seen) -> bool {
        !self.killed && self.listed(user).is_none()
    }

    /// Attributes of then are not kept: whom an attribute pinned when seen under `then`, it pins still, as long as
    /// this table has a rule for that release.
    fn decide_seen(&self, user: &Seen, then: &Self) -> ReleaseIdx {
        if self.killed {
            return self.stable;
        }
        if let Some(release) = self.listed(user) {
            return release;
        }
        let by_attribute = user.reason == Reason::Target && then.listed(user).is_none();
        if by_attribute {
            let name = then.releases.get(usize::from(user.release.0)).map(|r| &r.name);
            let has_rule = |index: ReleaseIdx| {
                let mut rules = self.targets.iter().filter(|t| matches!(t.what, Matcher::When(_)));
                rules.any(|target| target.release == index)
            };
            let release = name.and_then(|name| self.index(name)).filter(|index| has_rule(*index));
            if let Some(release) = release {
                return release;
            }
        }
        self.divided(Some(user.bucket)).0
    }

    fn listed(&self, user: &Seen) -> Option<ReleaseIdx> {
        let SeenUser { hash, part } = user.user?;
        let single = self.users.get_by_hash(hash);
        single.or_else(|| {
            let mut targets = self.targets.iter();
            let target = targets.find(|target| match &target.what {
                Matcher::Users(users) => users.get_by_hash(hash).is_some(),
                Matcher::Segment(_, members) => members.holds_part(hash, part),
                Matcher::When(_) => false,
            });
            target.map(|target| target.release)
        })
    }
}
