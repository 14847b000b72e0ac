//! A snapshot after facts. What cannot be compiled leaves its rollout as it was, and is told.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::release::LiveRollout;
use super::snapshot::{Segment, Snapshot, Surroundings};
use crate::rollout::{
    EditError, Fact, Known, Members, Problem, Revision, RolloutName, RolloutSpec, Roster, RosterDigest, SegmentName,
    Table, UserGroup,
};
use crate::store::{Store, StoreError};

/// The rosters that facts name.
pub(super) type Opened = HashMap<RosterDigest, Roster>;

/// Opens the rosters that facts name, off the threads that must not wait.
pub(super) async fn opened(store: &Arc<dyn Store>, facts: &Arc<Vec<Fact>>) -> Result<Opened, StoreError> {
    if facts.iter().all(|fact| fact.roster().is_none()) {
        return Ok(Opened::new());
    }
    let (rosters, facts) = (Arc::clone(store.rosters()), Arc::clone(facts));
    let opening = tokio::task::spawn_blocking(move || rosters.named_by(&facts));
    opening.await.unwrap_or_else(|error| match error.try_into_panic() {
        Ok(panic) => std::panic::resume_unwind(panic),
        // The program is ending: nothing is published any more.
        Err(_cancelled) => Ok(Opened::new()),
    })
}

/// What is wrong with one rollout, or with a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplyProblem {
    /// Which rollout.
    pub rollout: RolloutName,
    /// Where in it, and what.
    pub problem: Problem,
}

impl Snapshot {
    /// Applies the facts of one change, in their order. The rollouts that the problems are about stay as they were, and so
    /// do segments whose roster is not among those that were opened.
    pub(super) fn apply(
        &mut self,
        revision: Revision,
        facts: &[Fact],
        opened: &Opened,
        around: &Surroundings,
    ) -> Vec<ApplyProblem> {
        let mut problems = Vec::new();
        let mut stranded = BTreeMap::new();
        // So that each rollout is held once, and edited in place where no other snapshot has it.
        self.by_slot.clear();
        for fact in facts {
            // What is wrong with a rollout is told, and not that its users have none.
            let without_rollout = |rollout: &RolloutName| {
                let failed = problems
                    .iter()
                    .any(|problem: &ApplyProblem| problem.rollout == *rollout);
                failed || (self.stuck.contains_key(rollout) && !self.rollouts.contains_key(rollout))
            };
            if matches!(fact, Fact::Users { rollout, .. } if without_rollout(rollout)) {
                continue;
            }
            let done = self.apply_one(revision, fact, opened, around, &mut stranded);
            problems.extend(done.err().unwrap_or_default());
        }
        problems.extend(self.put_back(stranded));
        self.revision = revision;
        self.by_slot = around
            .slots
            .iter()
            .map(|name| self.rollouts.get(name).cloned())
            .collect();
        for problem in &problems {
            let text = format!("{}: {}", problem.problem.path, problem.problem.message);
            // What followed from it is not why.
            self.stuck.entry(problem.rollout.clone()).or_insert(text);
        }
        problems
    }

    fn apply_one(
        &mut self,
        revision: Revision,
        fact: &Fact,
        opened: &Opened,
        around: &Surroundings,
        stranded: &mut BTreeMap<RolloutName, Stranded>,
    ) -> Result<(), Vec<ApplyProblem>> {
        match fact {
            Fact::Rollout { rollout, spec } => {
                if spec.is_none() {
                    stranded.remove(rollout);
                }
                if let Some(left) = self.apply_rollout(revision, rollout, spec.as_deref(), around)? {
                    stranded.entry(rollout.clone()).or_insert(left);
                }
            }
            Fact::Users {
                rollout,
                replace,
                unset,
                set,
            } => {
                self.apply_users(revision, rollout, *replace, unset, set)?;
                if let Some(left) = stranded.get_mut(rollout) {
                    left.told(*replace, unset, set);
                }
            }
            Fact::Segment {
                segment,
                replace,
                remove,
                add,
            } => {
                self.apply_segment(revision, segment, |segment| {
                    segment.lost &= !*replace;
                    segment.members.edit(*replace, remove, add);
                });
            }
            Fact::Roster { segment, roster } => {
                if let Some(roster) = opened.get(&roster.digest) {
                    let listed = Members::of(roster.clone());
                    self.apply_segment(revision, segment, |segment| segment.stand_on(listed));
                } else {
                    self.lose(segment);
                }
            }
            Fact::Merged {
                segment,
                roster,
                remove,
                add,
            } => {
                if let Some(roster) = opened.get(&roster.digest) {
                    self.apply_merged(segment, roster, remove, add);
                }
            }
            Fact::NoSegment { segment } => {
                self.segments.remove(segment);
            }
            Fact::Scheduled { id, entry } => {
                self.schedule.insert(*id, Arc::from(entry.clone()));
            }
            Fact::NotScheduled { id } => {
                self.schedule.remove(id);
            }
        }
        Ok(())
    }

    /// Yields the single users whose release is no more, if there are any.
    fn apply_rollout(
        &mut self,
        revision: Revision,
        name: &RolloutName,
        spec: Option<&RolloutSpec>,
        around: &Surroundings,
    ) -> Result<Option<Stranded>, Vec<ApplyProblem>> {
        let Some(spec) = spec else {
            self.rollouts.remove(name);
            self.stuck.remove(name);
            return Ok(None);
        };
        let before = self.rollouts.get(name).cloned();
        let mut table = self.compile(name, spec, around)?;
        let left = before.as_ref().and_then(|before| {
            let users = HashSet::from_iter(table.adopt_users(before.table()));
            let before = Arc::clone(before);
            (!users.is_empty()).then_some(Stranded { before, users })
        });
        let spec = Arc::new(spec.clone());
        let segments = table.segments().filter_map(|name| self.segments.get(name));
        let segments = segments.map(|segment| segment.revision).max().unwrap_or_default();
        let live = LiveRollout::new(spec, table, (revision, segments), before.as_deref(), around);
        self.rollouts.insert(name.clone(), Arc::new(live));
        self.stuck.remove(name);
        Ok(left)
    }

    /// Rollouts with users of whom the change does not say where they go instead stay as they were.
    fn put_back(&mut self, stranded: BTreeMap<RolloutName, Stranded>) -> Vec<ApplyProblem> {
        let mut problems = Vec::new();
        for (name, Stranded { before, users }) in stranded {
            if users.is_empty() {
                continue;
            }
            let users = users.len();
            problems.push(at(&name, "releases", EditError::Stranded { users }.to_string()));
            self.rollouts.insert(name, before);
        }
        problems
    }

    /// Compiles a spec against the segments of this snapshot.
    pub(super) fn compile(
        &self,
        name: &RolloutName,
        spec: &RolloutSpec,
        around: &Surroundings,
    ) -> Result<Table, Vec<ApplyProblem>> {
        let known = Known {
            pool: around.pool.as_ref(),
            segment: &|segment| self.segments.get(segment).map(|s| s.members.clone()),
        };
        Table::compile(name, spec, &known).map_err(|problems| {
            let each = problems.into_iter();
            each.map(|problem| ApplyProblem {
                rollout: name.clone(),
                problem,
            })
            .collect()
        })
    }

    /// Checks the single users that facts pin in rollouts as they are.
    pub(super) fn check_users(&self, facts: &[Fact]) -> Result<(), Vec<ApplyProblem>> {
        for fact in facts {
            if let Fact::Users { rollout, set, .. } = fact {
                let live = self.rollouts.get(rollout);
                if live.is_none() && self.stuck.contains_key(rollout) {
                    continue;
                }
                pinnable(rollout, present(rollout, live)?, set)?;
            }
        }
        Ok(())
    }

    fn apply_users(
        &mut self,
        revision: Revision,
        name: &RolloutName,
        replace: bool,
        unset: &[Box<str>],
        set: &[UserGroup],
    ) -> Result<(), Vec<ApplyProblem>> {
        let live = present(name, self.rollouts.get_mut(name))?;
        pinnable(name, live, set)?;
        let live = Arc::make_mut(live);
        let edited = live.table.edit_users(replace, unset, set);
        edited.map_err(|e| vec![at(name, "users", e.to_string())])?;
        live.restamp(revision);
        Ok(())
    }

    fn apply_merged(&mut self, name: &SegmentName, roster: &Roster, remove: &[Box<str>], add: &[Box<str>]) {
        if let Some(now) = self.segments.get(name) {
            let mut merged = Members::of(roster.clone());
            merged.edit(false, remove, add);
            // Nobody's membership changes, so that the segment's own revision stays.
            self.apply_segment(now.revision, name, |segment| segment.stand_on(merged));
        }
    }

    fn apply_segment(&mut self, revision: Revision, name: &SegmentName, change: impl FnOnce(&mut Segment)) {
        let segment = self.segments.entry(name.clone()).or_insert_with(|| Segment {
            revision,
            members: Members::none(),
            lost: false,
        });
        change(segment);
        segment.revision = revision;
        let members = segment.members.clone();
        for live in self.rollouts.values_mut() {
            if live.table().segments().any(|used| used == name) {
                let live = Arc::make_mut(live);
                live.table.set_segment(name, &members);
                live.touch(revision);
            }
        }
    }
}

/// Single users whose release a new spec has not, until the change says where they go instead; and their rollout as it was.
struct Stranded {
    before: Arc<LiveRollout>,
    users: HashSet<Box<str>>,
}

impl Stranded {
    fn told(&mut self, replace: bool, unset: &[Box<str>], set: &[UserGroup]) {
        if replace {
            self.users.clear();
        }
        for user in unset.iter().chain(set.iter().flat_map(|group| &group.users)) {
            self.users.remove(user);
        }
    }
}

/// Whether users can be pinned so; the one check of all that are.
fn pinnable(name: &RolloutName, live: &LiveRollout, set: &[UserGroup]) -> Result<(), Vec<ApplyProblem>> {
    let checked = live.table().check_users(set);
    checked.map_err(|e| vec![at(name, "users", e.to_string())])
}

/// The rollout whose users are meant.
fn present<T>(name: &RolloutName, live: Option<T>) -> Result<T, Vec<ApplyProblem>> {
    live.ok_or_else(|| vec![at(name, "users", "the rollout does not exist".to_owned())])
}

fn at(rollout: &RolloutName, path: &str, message: String) -> ApplyProblem {
    ApplyProblem {
        rollout: rollout.clone(),
        problem: Problem {
            path: path.to_owned(),
            message,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::RosterName;

    #[test]
    fn a_segment_whose_new_list_cannot_be_read_stays_as_it_was_and_is_known_to_be_out_of_date() {
        let around = Surroundings {
            slots: Vec::new(),
            routes: HashMap::new(),
            pool: Box::new(|_| None),
        };
        let segment = SegmentName::parse("testers").expect("a name");
        let listed = |replace, users: &[&str]| Fact::Segment {
            segment: segment.clone(),
            replace,
            remove: Vec::new(),
            add: users.iter().map(|user| (*user).into()).collect(),
        };
        let roster = RosterName {
            digest: RosterDigest(7),
            users: 1_000_000,
        };
        let unread = Fact::Roster {
            segment: segment.clone(),
            roster,
        };
        let mut state = Snapshot::empty(&around);
        let mut after = |fact: Fact| {
            state.apply(Revision(1), &[fact], &Opened::new(), &around);
            let present = &state.segments()[&segment];
            (present.lost, present.members.len())
        };
        assert_eq!(after(listed(true, &["1", "2"])), (false, 2));
        assert_eq!(after(unread), (true, 2));
        assert_eq!(after(listed(false, &["3"])), (true, 3));
        assert_eq!(after(listed(true, &["4"])), (false, 1));
    }
}
