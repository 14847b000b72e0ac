//! Which bucket ranges each release owns. The ranges are stored with the rollout, because they depend on its history:
//! a change of weights moves only the users who must move.
//!
//! A growing release takes freed buckets from the lowest up; a shrinking one gives up what it took last, which is its
//! highest buckets as long as nobody grew between; stable gives its lowest. So the growth of one release moves nobody
//! between two others, and what grows and shrinks by the same amount puts everyone back, whatever happened before.
//! For that the stored ranges of a release stand in the order in which it took them; those of stable by bucket.

use std::cmp::Ordering;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::bucket::{BUCKETS, Bucket};
use super::name::ReleaseName;
use super::weight::Weight;

/// Buckets `from..to` of one release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The first bucket.
    pub from: u32,
    /// The bucket after the last.
    pub to: u32,
    /// Who owns them.
    pub release: ReleaseName,
}

/// A division of all buckets among releases, without gap or overlap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// In the order in which each release took them.
    ranges: Vec<Range>,
    /// Sorted, neighbours of one owner joined.
    by_bucket: Vec<Range>,
}

/// Why weights or ranges are no split.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SplitError {
    /// More than everyone.
    #[error("weights add up to {0}%, more than 100%: lower one of them")]
    Excess(String),
    /// A hole, an overlap, or an end outside 0..1 000 000.
    #[error("stored ranges do not cover the buckets 0 to 1000000 once: leave `ranges` out to have them made anew")]
    Cover,
}

impl Split {
    /// Everyone on stable.
    #[must_use]
    pub fn all_stable() -> Self {
        Self::of(vec![(0, BUCKETS, stable())])
    }

    /// A first split: the rest of the weights is stable's.
    ///
    /// # Errors
    /// When the weights add up to more than 100 %.
    pub fn new(weights: &[(ReleaseName, Weight)]) -> Result<Self, SplitError> {
        Self::all_stable().rebalance(weights)
    }

    /// Takes stored ranges, in their order.
    ///
    /// # Errors
    /// When they do not cover every bucket once.
    pub fn from_ranges(ranges: Vec<Range>) -> Result<Self, SplitError> {
        let mut sorted: Vec<&Range> = ranges.iter().collect();
        sorted.sort_by_key(|r| r.from);
        let mut next = 0;
        for range in sorted {
            if range.from != next || range.to <= range.from {
                return Err(SplitError::Cover);
            }
            next = range.to;
        }
        if next != BUCKETS {
            return Err(SplitError::Cover);
        }
        Ok(Self::of(
            ranges.into_iter().map(|r| (r.from, r.to, r.release)).collect(),
        ))
    }

    fn of(pieces: Vec<(u32, u32, ReleaseName)>) -> Self {
        let mut sorted = pieces.clone();
        sorted.sort_unstable();
        Self {
            ranges: joined(pieces),
            by_bucket: joined(sorted),
        }
    }

    /// The ranges as they are stored: those of one release in the order in which it took them.
    #[must_use]
    pub fn ranges(&self) -> &[Range] {
        &self.ranges
    }

    /// The ranges by bucket.
    #[must_use]
    pub fn by_bucket(&self) -> &[Range] {
        &self.by_bucket
    }

    /// The owner of a bucket.
    #[must_use]
    pub fn owner(&self, bucket: Bucket) -> &ReleaseName {
        let after = self.by_bucket.partition_point(|r| r.from <= bucket.get());
        &self.by_bucket[after.saturating_sub(1)].release
    }

    /// How much a release owns.
    #[must_use]
    pub fn weight(&self, release: &ReleaseName) -> Weight {
        Weight::new(self.owned(release)).unwrap_or(Weight::ALL)
    }

    fn owned(&self, release: &ReleaseName) -> u32 {
        let own = self.ranges.iter().filter(|r| r.release == *release);
        own.map(|r| r.to - r.from).sum()
    }

    /// The split after a change of weights; a release that is not named gets nothing, and the rest is stable's.
    ///
    /// # Errors
    /// When the weights add up to more than 100 %.
    pub fn rebalance(&self, weights: &[(ReleaseName, Weight)]) -> Result<Self, SplitError> {
        let wanted = wanted(weights)?;
        let target = |release: &ReleaseName| {
            let found = wanted.iter().find(|(name, _)| name == release);
            found.map_or(0, |(_, parts)| *parts)
        };
        let mut kept: Vec<(u32, u32, ReleaseName)> = Vec::new();
        let mut free: Vec<(u32, u32)> = Vec::new();
        for release in self.releases() {
            let own = self.ranges.iter().filter(|r| r.release == release);
            let mut own: Vec<(u32, u32)> = own.map(|r| (r.from, r.to)).collect();
            let surplus = self.owned(&release).saturating_sub(target(&release));
            if is_stable(&release) {
                own.sort_unstable();
            }
            free.extend(cut(&mut own, surplus, is_stable(&release)));
            kept.extend(own.into_iter().map(|(from, to)| (from, to, release.clone())));
        }
        free.sort_unstable();
        // Stable takes what is left.
        let (stable, others): (Vec<_>, Vec<_>) = wanted.into_iter().partition(|(name, _)| is_stable(name));
        for (release, parts) in others.into_iter().chain(stable) {
            let missing = parts.saturating_sub(self.owned(&release));
            let taken = cut(&mut free, missing, true);
            kept.extend(taken.into_iter().map(|(from, to)| (from, to, release.clone())));
        }
        // A stable sort: the pieces of one release keep their order, but for those of stable, which gives its lowest whatever
        // it took last, so that one division has one form.
        let within =
            |a: u32, b: u32, release: &ReleaseName| if is_stable(release) { a.cmp(&b) } else { Ordering::Equal };
        kept.sort_by(|a, b| a.2.cmp(&b.2).then_with(|| within(a.0, b.0, &a.2)));
        Ok(Self::of(kept))
    }

    fn releases(&self) -> Vec<ReleaseName> {
        let mut names: Vec<_> = self.ranges.iter().map(|r| r.release.clone()).collect();
        names.sort_unstable();
        names.dedup();
        names
    }
}

fn stable() -> ReleaseName {
    // invariant: the constant is a valid name, which `name` tests.
    ReleaseName::parse(ReleaseName::STABLE).expect("stable is a name")
}

fn is_stable(name: &ReleaseName) -> bool {
    name.as_str() == ReleaseName::STABLE
}

/// Parts per million of each release, stable's rest included; sorted by name, so that the order of writing is nothing.
fn wanted(weights: &[(ReleaseName, Weight)]) -> Result<Vec<(ReleaseName, u32)>, SplitError> {
    let others = weights.iter().filter(|(name, _)| !is_stable(name));
    let mut wanted: Vec<_> = others.map(|(name, w)| (name.clone(), w.parts_per_million())).collect();
    let sum: u64 = wanted.iter().map(|(_, parts)| u64::from(*parts)).sum();
    let rest = u64::from(BUCKETS).checked_sub(sum);
    let rest = rest.and_then(|rest| u32::try_from(rest).ok());
    let Some(rest) = rest else {
        let percent = format!("{}.{:04}", sum / 10_000, sum % 10_000);
        return Err(SplitError::Excess(
            percent.trim_end_matches('0').trim_end_matches('.').to_owned(),
        ));
    };
    wanted.push((stable(), rest));
    wanted.sort_unstable();
    Ok(wanted)
}

/// Joins neighbours in the list that are neighbours in buckets, and of one owner.
fn joined(pieces: Vec<(u32, u32, ReleaseName)>) -> Vec<Range> {
    let mut ranges: Vec<Range> = Vec::with_capacity(pieces.len());
    for (from, to, release) in pieces {
        match ranges.last_mut() {
            Some(last) if last.release == release && last.to == from => last.to = to,
            _ => ranges.push(Range { from, to, release }),
        }
    }
    ranges
}

/// Moves `amount` buckets out of `pieces`: from the low end of the first, or from the high end of the last.
fn cut(pieces: &mut Vec<(u32, u32)>, amount: u32, low: bool) -> Vec<(u32, u32)> {
    let mut out = Vec::new();
    let mut left = amount;
    while left > 0 && !pieces.is_empty() {
        let place = if low { 0 } else { pieces.len() - 1 };
        let (from, to) = pieces[place];
        let part = left.min(to - from);
        let (gone, stays) = if low {
            ((from, from + part), (from + part, to))
        } else {
            ((to - part, to), (from, to - part))
        };
        out.push(gone);
        left -= part;
        if stays.0 == stays.1 {
            pieces.remove(place);
        } else {
            pieces[place] = stays;
        }
    }
    out
}
