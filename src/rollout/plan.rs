//! Who would move: two tables compared, by buckets exactly, and by users seen lately.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::bucket::Bucket;
use super::decision::Reason;
use super::members::{KeyPart, Members};
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
        let (then, next) = match seen {
            [] => Default::default(),
            _some => (Lists::of(self), Lists::of(after)),
        };
        for user in seen {
            let listed = self.listed(user, &then);
            let seen_by_attribute = user.reason == Reason::Target && listed.is_none();
            let name = self.releases.get(usize::from(user.release.0)).map(|r| &r.name);
            let by_attribute = name.filter(|_| seen_by_attribute);
            let from = &self.release(self.decide_seen(user, listed, by_attribute, &then)).name;
            let listed = after.listed(user, &next);
            if after.salt != self.salt && !after.killed && listed.is_none() {
                unknown += 1;
                continue;
            }
            let to = &after.release(after.decide_seen(user, listed, by_attribute, &next)).name;
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

    /// Attributes of then are not kept: whom an attribute pinned when seen, it pins still, as long as this table has a rule
    /// for that release.
    fn decide_seen(
        &self,
        user: &Seen,
        listed: Option<ReleaseIdx>,
        by_attribute: Option<&ReleaseName>,
        lists: &Lists<'_>,
    ) -> ReleaseIdx {
        if self.killed {
            return self.stable;
        }
        let ruled = || {
            let release = by_attribute.and_then(|name| self.index(name));
            release.filter(|release| lists.ruled.contains(release))
        };
        listed
            .or_else(ruled)
            .unwrap_or_else(|| self.divided(Some(user.bucket)).0)
    }

    /// What the entry of a single user, or the first target that lists the user, says.
    fn listed(&self, user: &Seen, lists: &Lists<'_>) -> Option<ReleaseIdx> {
        let SeenUser { hash, part } = user.user?;
        if let Some(release) = self.users.get_by_hash(hash) {
            return Some(release);
        }
        let by_users = lists.users.get(&hash).copied();
        let mut segments = lists.segments.iter();
        let earlier = segments.find(|(place, members)| {
            by_users.is_none_or(|by_users| *place < by_users) && members.holds_part(hash, part)
        });
        let place = earlier.map(|(place, _)| *place).or(by_users)?;
        self.targets.get(place).map(|target| target.release)
    }
}

/// The lists of a table's targets, so that a hundred thousand users are not looked for in each of ten thousand targets.
#[derive(Default)]
struct Lists<'a> {
    /// The first target that lists a user by id.
    users: HashMap<UserHash, usize>,
    /// The first target of each segment, in their order.
    segments: Vec<(usize, &'a Members)>,
    /// The releases that rules on attributes lead to.
    ruled: HashSet<ReleaseIdx>,
}

impl<'a> Lists<'a> {
    fn of(table: &'a Table) -> Self {
        let mut lists = Self::default();
        let mut named = HashSet::new();
        for (place, target) in table.targets.iter().enumerate() {
            match &target.what {
                Matcher::Users(users) => {
                    for (id, ()) in users.iter() {
                        lists.users.entry(UserHash::of(id)).or_insert(place);
                    }
                }
                Matcher::Segment(name, members) => {
                    if named.insert(name) {
                        lists.segments.push((place, members));
                    }
                }
                Matcher::When(_) => {
                    lists.ruled.insert(target.release);
                }
            }
        }
        lists
    }
}
