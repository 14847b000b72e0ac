//! Facts and commits, written shortly.

use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;
use switchyard::rollout::{
    Change, Fact, Gathered, Moment, ReleaseName, Revision, RolloutName, RolloutSpec, Roster, Scheduled, SegmentName,
    UserGroup,
};
use switchyard::store::{Commit, Committed, Diff, Event, Idempotency, Loaded, Record, Source, Store, Watch};
use tokio::sync::mpsc;

use crate::model::LISTS;

pub fn rollout(name: &str) -> RolloutName {
    RolloutName::parse(name).expect("name")
}

pub fn segment(name: &str) -> SegmentName {
    SegmentName::parse(name).expect("name")
}

pub fn release(name: &str) -> ReleaseName {
    ReleaseName::parse(name).expect("name")
}

/// A spec that is known by its salt.
pub fn spec(salt: &str) -> RolloutSpec {
    let spec = json!({
        "releases": {"stable": {"pool": "a"}, "canary": {"pool": "b"}},
        "split": {"canary": "12.5%"},
        "salt": salt,
    });
    serde_json::from_value(spec).expect("spec")
}

pub fn put(name: &str, salt: &str) -> Fact {
    Fact::Rollout {
        rollout: rollout(name),
        spec: Some(Box::new(spec(salt))),
    }
}

pub fn delete(name: &str) -> Fact {
    Fact::Rollout {
        rollout: rollout(name),
        spec: None,
    }
}

pub fn group(to: &str, until: Option<u64>, users: &[&str]) -> UserGroup {
    UserGroup {
        release: release(to),
        until: until.map(Moment),
        users: users.iter().map(|user| (*user).into()).collect(),
    }
}

pub fn pin(name: &str, to: &str, users: &[&str]) -> Fact {
    pins(name, false, &[], vec![group(to, None, users)])
}

pub fn pins(name: &str, replace: bool, unset: &[&str], set: Vec<UserGroup>) -> Fact {
    Fact::Users {
        rollout: rollout(name),
        replace,
        unset: unset.iter().map(|user| (*user).into()).collect(),
        set,
    }
}

pub fn scheduled(id: u64, at: u64) -> Fact {
    Fact::Scheduled {
        id: Revision(id),
        entry: Box::new(Scheduled {
            at: Moment(at),
            change: Change::Kill {
                rollout: rollout("search"),
            },
            actor: "anna".to_owned(),
            reason: Some("it is time".to_owned()),
            allow_flips: false,
            replaces: false,
        }),
    }
}

pub fn commit(facts: Vec<Fact>) -> Commit {
    let about = facts.iter().filter_map(|fact| match fact {
        Fact::Rollout { rollout, .. } | Fact::Users { rollout, .. } => Some(rollout.clone()),
        Fact::Segment { .. }
        | Fact::Roster { .. }
        | Fact::Merged { .. }
        | Fact::NoSegment { .. }
        | Fact::Scheduled { .. }
        | Fact::NotScheduled { .. } => None,
    });
    let mut rollouts: Vec<RolloutName> = about.collect();
    rollouts.sort();
    rollouts.dedup();
    Commit {
        record: Record {
            at: Moment(1_000),
            actor: "anna".to_owned(),
            reason: Some("because – \"quoted\"".to_owned()),
            source: Source::Cli,
            rollouts,
            summary: format!("{} facts", facts.len()),
            diff: vec![Diff {
                path: "search.split.canary".to_owned(),
                before: None,
                after: Some("12.5%".to_owned()),
            }],
        },
        facts: facts.into(),
        idempotency: None,
    }
}

pub fn commit_at(at: u64, facts: Vec<Fact>) -> Commit {
    let mut made = commit(facts);
    made.record.at = Moment(at);
    made
}

pub fn asked(key: &str, digest: u8) -> Idempotency {
    Idempotency {
        key: key.to_owned(),
        actor: "anna".to_owned(),
        digest: [digest; 32],
    }
}

pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    u64::try_from(since.as_millis()).expect("fits")
}

pub async fn must(store: &dyn Store, base: u64, facts: Vec<Fact>) -> Committed {
    let committed = store.commit(Revision(base), commit(facts)).await.expect("committed");
    assert_eq!(committed.revision, Revision(base + 1));
    committed
}

pub async fn load(store: &dyn Store) -> (Revision, Vec<Fact>) {
    let (send, mut receive) = mpsc::channel::<Loaded>(2);
    let gather = async {
        let mut facts = Vec::new();
        while let Some(fact) = receive.recv().await {
            facts.push(fact.fact);
        }
        facts
    };
    let (revision, facts) = tokio::join!(store.load(send), gather);
    (revision.expect("loaded"), facts)
}

pub async fn next(watch: &mut Box<dyn Watch>) -> Committed {
    match watch.next().await.expect("an event") {
        Event::Committed(committed) => committed,
        Event::Resync => panic!("resync"),
    }
}

/// A list of users, kept by the store, and known to the model.
pub fn kept(store: &dyn Store, users: &BTreeSet<String>) -> Roster {
    let rosters = store.rosters();
    let mut gathered = Gathered::new(rosters.fresh_key(), 1);
    users.iter().for_each(|user| gathered.add(user));
    let roster = rosters.keep(gathered.sorted().expect("few")).expect("kept");
    known(&roster, users);
    roster
}

/// Tells the model who is in a roster.
pub fn known(roster: &Roster, users: &BTreeSet<String>) {
    let mut lists = LISTS.lock().expect("no panic");
    lists.insert(roster.name().digest, users.clone());
}

pub fn stand_on(name: &str, roster: &Roster) -> Fact {
    Fact::Roster {
        segment: segment(name),
        roster: roster.name(),
    }
}

pub fn edit(name: &str, replace: bool, remove: &[String], add: &[String]) -> Fact {
    let boxed = |users: &[String]| users.iter().map(|user| user.as_str().into()).collect();
    Fact::Segment {
        segment: segment(name),
        replace,
        remove: boxed(remove),
        add: boxed(add),
    }
}
