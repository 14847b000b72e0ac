//! What is published together: every rollout's table, the labels and header values that requests need of it, the
//! segments, and the revision.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::release::LiveRollout;
use crate::rollout::{Members, PoolIdx, PoolName, Revision, RolloutName, Scheduled, SegmentName};

/// The place of a rollout that a route selects; fixed at start, so that a request finds its table without a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(pub u16);

/// Yields the number of a pool, if it exists.
pub type PoolNumbers = Box<dyn Fn(&PoolName) -> Option<PoolIdx> + Send + Sync>;

/// What tables are compiled against: fixed for the life of the process.
pub struct Surroundings {
    /// The rollouts that routes select, in the order of their slots.
    pub slots: Vec<RolloutName>,
    /// The names of the routes that lead to each of them, in their order; a label of `switchyard_requests_total`.
    pub routes: HashMap<RolloutName, Vec<String>>,
    /// The number of a pool, if it exists.
    pub pool: PoolNumbers,
}

/// One published state.
#[derive(Clone)]
pub struct Snapshot {
    pub(super) revision: Revision,
    pub(super) rollouts: BTreeMap<RolloutName, Arc<LiveRollout>>,
    pub(super) by_slot: Vec<Option<Arc<LiveRollout>>>,
    pub(super) segments: BTreeMap<SegmentName, Segment>,
    pub(super) schedule: BTreeMap<Revision, Arc<Scheduled>>,
    /// What this node cannot compile, by rollout: the table from before stays in use.
    pub(super) stuck: BTreeMap<RolloutName, String>,
}

/// A named set of users.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The revision of its last change.
    pub revision: Revision,
    /// Its users.
    pub members: Members,
    /// Whether they are not what the store has: its list could not be read, and they are those who came since alone, where the
    /// state was loaded, or those of before.
    pub lost: bool,
}

impl Segment {
    /// All its users are known.
    pub(super) fn stand_on(&mut self, members: Members) {
        self.members = members;
        self.lost = false;
    }
}

impl Snapshot {
    /// No rollouts at all.
    #[must_use]
    pub fn empty(around: &Surroundings) -> Self {
        Self {
            revision: Revision::default(),
            rollouts: BTreeMap::new(),
            by_slot: around.slots.iter().map(|_| None).collect(),
            segments: BTreeMap::new(),
            schedule: BTreeMap::new(),
            stuck: BTreeMap::new(),
        }
    }

    /// Of a state that was loaded in pieces: all of them are of this revision.
    pub(super) fn set_revision(&mut self, revision: Revision) {
        self.revision = revision;
    }

    /// The list of a segment cannot be read.
    pub(super) fn lose(&mut self, name: &SegmentName) {
        if let Some(segment) = self.segments.get_mut(name) {
            segment.lost = true;
        }
    }

    /// The store's number for the last change in it.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The rollout of a route, if it exists at this revision.
    #[must_use]
    pub fn rollout(&self, slot: Slot) -> Option<&LiveRollout> {
        self.by_slot.get(usize::from(slot.0))?.as_deref()
    }

    /// A rollout by name.
    #[must_use]
    pub fn named(&self, name: &RolloutName) -> Option<&Arc<LiveRollout>> {
        self.rollouts.get(name)
    }

    /// All rollouts, by name.
    pub fn rollouts(&self) -> impl Iterator<Item = (&RolloutName, &Arc<LiveRollout>)> {
        self.rollouts.iter()
    }

    /// All segments, by name.
    #[must_use]
    pub fn segments(&self) -> &BTreeMap<SegmentName, Segment> {
        &self.segments
    }

    /// The changes that wait for their time, by number.
    #[must_use]
    pub fn schedule(&self) -> &BTreeMap<Revision, Arc<Scheduled>> {
        &self.schedule
    }

    /// What this node cannot compile, by rollout.
    #[must_use]
    pub fn stuck(&self) -> &BTreeMap<RolloutName, String> {
        &self.stuck
    }
}
