//! Changes, from what is asked to what requests see: controller, store and follower together, without a network.

mod diffs;
mod freezes;
mod refused;
mod removals;
mod stuck;

use std::collections::BTreeMap;
use std::sync::Arc;

use switchyard::control::{
    Asked, ChangeError, Clerk, Controller, Follower, HistoryQuery, Live, LostUsers, MemoryStore, Outcome, Request,
    Slot, Source, Store, Surroundings,
};
use switchyard::identity::{Identity, SourceKind, UserId};
use switchyard::rollout::{
    Change, Fact, Moment, NoAttributes, PoolIdx, ReleaseName, Revision, RolloutName, RolloutSpec, Scheduled,
    SegmentName, UserGroup, Weight,
};
use switchyard::store::{Commit, Record};

fn rollout(text: &str) -> RolloutName {
    RolloutName::parse(text).expect("name")
}

fn release(text: &str) -> ReleaseName {
    ReleaseName::parse(text).expect("name")
}

fn spec(json: serde_json::Value) -> RolloutSpec {
    serde_json::from_value(json).expect("spec")
}

fn shop() -> RolloutSpec {
    spec(serde_json::json!({ "releases": { "stable": { "pool": "s" }, "canary": { "pool": "c" } } }))
}

fn asked() -> Asked {
    Asked {
        actor: "anna".to_owned(),
        reason: Some("a test".to_owned()),
        source: Source::Api,
        expected: None,
        idempotency: None,
        at: None,
        dry_run: false,
        allow_flips: false,
    }
}

struct Node {
    controller: Arc<Controller>,
    following: tokio::task::JoinHandle<()>,
}

impl Drop for Node {
    fn drop(&mut self) {
        self.following.abort();
    }
}

impl Node {
    async fn over(store: Arc<dyn Store>) -> Self {
        Self::knowing(&["s", "c"], store).await
    }

    /// A process whose configuration has these pools.
    async fn knowing(pools: &'static [&'static str], store: Arc<dyn Store>) -> Self {
        let live = Arc::new(Live::new(Surroundings {
            slots: vec![rollout("shop")],
            routes: [(rollout("shop"), vec!["front".to_owned()])].into(),
            pool: Box::new(|name| {
                let place = pools.iter().position(|pool| *pool == name.as_str())?;
                u16::try_from(place).ok().map(PoolIdx)
            }),
        }));
        let follower = Arc::new(Follower::new(store, live, LostUsers::Refused));
        follower.start(&[(rollout("shop"), shop())]).await.expect("starts");
        let controller = Arc::new(Controller::new(Arc::clone(&follower)));
        let following = tokio::spawn(async move { follower.run().await });
        Self { controller, following }
    }

    async fn start() -> Self {
        Self::over(Arc::new(MemoryStore::new())).await
    }

    async fn make(&self, change: Change) -> Result<Outcome, ChangeError> {
        self.make_as(change, asked()).await
    }

    async fn make_as(&self, change: Change, asked: Asked) -> Result<Outcome, ChangeError> {
        self.controller.change(Request { change, asked }).await
    }

    async fn must(&self, change: Change) -> Outcome {
        let outcome = self.make(change).await.expect("made");
        assert!(outcome.live, "{outcome:?}");
        outcome
    }

    fn decided(&self, user: &str) -> (String, &'static str) {
        let snapshot = self.controller.live().pin();
        let table = snapshot.rollout(Slot(0)).expect("the route's rollout").table();
        let identity = Identity::User {
            id: UserId::new(user.as_bytes()).expect("id"),
            source: SourceKind::Header,
        };
        let decision = table.decide(&identity, &NoAttributes);
        (
            table.release(decision.release).name.to_string(),
            decision.reason.as_str(),
        )
    }

    fn revision(&self) -> Revision {
        self.controller.live().pin().revision()
    }

    fn weight(&self) -> u32 {
        let snapshot = self.controller.live().pin();
        let table = snapshot.rollout(Slot(0)).expect("rollout").table();
        table.split().weight(&release("canary")).parts_per_million()
    }
}

fn split(percent: &str) -> Change {
    Change::Split {
        rollout: rollout("shop"),
        split: BTreeMap::from([(release("canary"), Weight::parse(percent).expect("weight"))]),
    }
}

fn set(user: &str, to: &str, until: Option<u64>) -> Change {
    Change::SetUser {
        rollout: rollout("shop"),
        user: user.into(),
        release: release(to),
        until: until.map(Moment),
    }
}

fn unset(user: &str) -> Change {
    Change::UnsetUser {
        rollout: rollout("shop"),
        user: user.into(),
    }
}

#[tokio::test]
async fn a_request_that_ends_never_frees_the_state_that_it_saw() {
    let node = Node::start().await;
    let seen = node.controller.live().pin();
    node.must(set("42", "canary", None)).await;
    let state = Arc::downgrade(&seen);
    drop(seen);
    assert!(state.upgrade().is_some(), "the request was the last to hold it");
    // Whoever looks at it at that moment leaves it to the next one.
    for user in 43..143 {
        node.must(set(&user.to_string(), "canary", None)).await;
        if state.upgrade().is_none() {
            return;
        }
    }
    panic!("it is held for ever");
}

#[tokio::test]
async fn an_empty_store_is_seeded_once_and_a_change_is_seen_at_once() {
    let node = Node::start().await;
    assert_eq!(node.revision(), Revision(1));
    assert_eq!(node.decided("42"), ("stable".to_owned(), "stable"));
    let outcome = node.must(set("42", "canary", None)).await;
    assert_eq!((outcome.revision, outcome.changed), (Revision(2), true));
    assert_eq!(outcome.diff.len(), 1);
    assert_eq!(outcome.diff[0].path, "shop.users.42");
    assert_eq!(outcome.diff[0].after.as_deref(), Some("canary"));
    assert_eq!(node.decided("42"), ("canary".to_owned(), "user"));
    let again = Node::over(Arc::clone(node.controller.store())).await;
    assert_eq!(again.revision(), Revision(2), "the seed is for an empty store only");
    assert_eq!(again.decided("42"), ("canary".to_owned(), "user"));
}

#[tokio::test]
async fn what_another_process_commits_is_followed() {
    let node = Node::start().await;
    let other = Node::over(Arc::clone(node.controller.store())).await;
    let outcome = other.must(set("42", "canary", None)).await;
    let mut revisions = node.controller.live().revisions();
    revisions
        .wait_for(|live| *live >= outcome.revision)
        .await
        .expect("followed");
    assert_eq!(node.decided("42"), ("canary".to_owned(), "user"));
    // And the next change of this one is formed on top of it.
    node.must(split("10%")).await;
    assert_eq!(
        other.controller.store().revision().await.expect("revision"),
        Revision(3)
    );
}

#[tokio::test]
async fn a_change_is_judged_by_what_another_process_committed_though_it_is_not_live_here_yet() {
    let killed = Change::Apply {
        rollouts: vec![(rollout("shop"), RolloutSpec { killed: true, ..shop() })],
    };
    // Without the other's commit the first would change nothing, and the second would not be as of the present revision.
    for (change, expected) in [(unset("42"), None), (killed, Some(Revision(2))), (split("10%"), None)] {
        let node = Node::start().await;
        let other = Node::over(Arc::clone(node.controller.store())).await;
        node.following.abort();
        assert_eq!(other.must(set("42", "canary", None)).await.revision, Revision(2));
        assert_eq!(node.revision(), Revision(1));
        let (store, live) = (node.controller.store(), node.controller.live());
        let follower = Follower::new(Arc::clone(store), Arc::clone(live), LostUsers::Refused);
        let asked = Asked { expected, ..asked() };
        let outcome = tokio::select! {
            outcome = node.make_as(change.clone(), asked) => outcome.expect("made"),
            () = follower.run() => panic!("it follows for ever"),
        };
        assert!(
            outcome.changed && outcome.revision == Revision(3),
            "{change:?}: {outcome:?}"
        );
    }
}

#[tokio::test]
async fn what_changes_nothing_is_no_change() {
    let node = Node::start().await;
    let until = Some(4_000_000_000_000);
    node.must(split("10%")).await;
    node.must(set("42", "canary", until)).await;
    for nothing in [
        unset("nobody"),
        set("42", "canary", until),
        split("10%"),
        Change::Resume {
            rollout: rollout("shop"),
        },
    ] {
        let outcome = node.must(nothing.clone()).await;
        assert!(
            !outcome.changed && outcome.revision == Revision(3),
            "{nothing:?}: {outcome:?}"
        );
    }
    assert!(
        node.must(set("42", "canary", None)).await.changed,
        "for ever is not until then"
    );
}

#[tokio::test]
async fn a_kill_is_above_everything_and_resume_ends_it() {
    let node = Node::start().await;
    node.must(set("42", "canary", None)).await;
    node.must(Change::Kill {
        rollout: rollout("shop"),
    })
    .await;
    assert_eq!(node.decided("42"), ("stable".to_owned(), "killed"));
    node.must(Change::Resume {
        rollout: rollout("shop"),
    })
    .await;
    assert_eq!(node.decided("42"), ("canary".to_owned(), "user"));
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_does_nothing() {
    let node = Node::start().await;
    let dry = Asked {
        dry_run: true,
        ..asked()
    };
    let outcome = node.make_as(split("25%"), dry).await.expect("made");
    assert!(!outcome.changed);
    assert_eq!(outcome.diff[0].after.as_deref(), Some("25%"));
    let (_, plan) = &outcome.plans[0];
    assert_eq!(plan.shares.len(), 1);
    assert_eq!(plan.shares[0].share.to_string(), "25%");
    assert_eq!((node.revision(), node.weight()), (Revision(1), 0));
}

#[tokio::test]
async fn the_expected_revision_is_compared_and_needed_to_replace() {
    let node = Node::start().await;
    let apply = |spec: RolloutSpec| Change::Apply {
        rollouts: vec![(rollout("shop"), spec)],
    };
    let killed = RolloutSpec { killed: true, ..shop() };
    let bare = node.make(apply(killed.clone())).await.expect_err("needs a revision");
    assert!(
        matches!(bare, ChangeError::Unconditional { current: Revision(1) }),
        "{bare}"
    );
    node.must(set("42", "canary", None)).await;
    let with = |revision| Asked {
        expected: Some(Revision(revision)),
        ..asked()
    };
    let stale = node
        .make_as(apply(killed.clone()), with(1))
        .await
        .expect_err("moved on");
    assert!(
        matches!(stale, ChangeError::Conflict { current: Revision(2) }),
        "{stale}"
    );
    let made = node.make_as(apply(killed), with(2)).await.expect("made");
    assert_eq!(made.revision, Revision(3));
    node.must(Change::Resume {
        rollout: rollout("shop"),
    })
    .await;
    assert_eq!(node.decided("42"), ("canary".to_owned(), "user"), "single users stay");
}

#[tokio::test]
async fn everything_wrong_is_told_and_nothing_is_kept() {
    let node = Node::start().await;
    let broken = spec(serde_json::json!({
        "releases": { "stable": { "pool": "s" }, "canary": { "pool": "gone" } },
        "targets": [{ "segment": "none", "release": "canary" }, { "when": { "header": "X", "regex": "(" }, "release": "no" }],
    }));
    let with = Asked {
        expected: Some(Revision(1)),
        ..asked()
    };
    let change = Change::Apply {
        rollouts: vec![(rollout("shop"), broken)],
    };
    let ChangeError::Invalid(problems) = node.make_as(change, with).await.expect_err("broken") else {
        panic!("another error");
    };
    let paths: Vec<&str> = problems.iter().map(|p| p.problem.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "releases.canary.pool",
            "targets[0].segment",
            "targets[1].release",
            "targets[1].when.regex"
        ]
    );
    let unknown = node.make(set("42", "beta", None)).await.expect_err("no such release");
    assert!(unknown.to_string().contains("write one of canary, stable"), "{unknown}");
    let nowhere = Change::Kill {
        rollout: rollout("gone"),
    };
    assert!(matches!(node.make(nowhere).await, Err(ChangeError::NotFound(_))));
    assert_eq!(node.revision(), Revision(1));
}

#[tokio::test]
async fn undo_restores_any_revision_and_is_itself_a_change() {
    let node = Node::start().await;
    node.must(set("42", "canary", None)).await;
    node.must(split("30%")).await;
    node.must(set("42", "stable", None)).await;
    node.must(Change::Kill {
        rollout: rollout("shop"),
    })
    .await;
    let undone = node.must(Change::Undo { to: Revision(2) }).await;
    assert_eq!(undone.revision, Revision(6));
    assert_eq!((node.decided("42"), node.weight()), (("canary".to_owned(), "user"), 0));
    node.must(Change::Undo { to: Revision(5) }).await;
    assert_eq!((node.decided("42").1, node.weight()), ("killed", 300_000));
    let later = node.make(Change::Undo { to: Revision(99) }).await.expect_err("not yet");
    assert!(matches!(later, ChangeError::NotFound(_)));
    let beginning = node
        .make(Change::Undo { to: Revision(0) })
        .await
        .expect_err("a route needs it");
    assert!(beginning.to_string().contains("a route selects it"), "{beginning}");
    let query = HistoryQuery {
        limit: 100,
        ..HistoryQuery::default()
    };
    let history = node.controller.store().history(&query).await.expect("history");
    let lines: Vec<&str> = history.iter().map(|entry| entry.record.summary.as_str()).collect();
    assert_eq!(lines[1], "undone to revision 2");
    assert_eq!(lines[3], "shop: user 42 to stable");
    assert_eq!(lines[4], "shop.split.canary 30%");
    assert!(
        history
            .iter()
            .all(|entry| entry.record.actor == "anna" || entry.revision == Revision(1))
    );
}

#[tokio::test]
async fn users_do_not_move_backwards_unasked() {
    let node = Node::start().await;
    node.must(split("50%")).await;
    let salted = RolloutSpec {
        salt: Some("another".to_owned()),
        split: BTreeMap::from([(release("canary"), Weight::parse("60%").expect("weight"))]),
        ..shop()
    };
    let apply = Change::Apply {
        rollouts: vec![(rollout("shop"), salted)],
    };
    let expected = Asked {
        expected: Some(Revision(2)),
        ..asked()
    };
    let refused = node.make_as(apply.clone(), expected.clone()).await.expect_err("flips");
    assert!(matches!(refused, ChangeError::Flips(_)), "{refused}");
    let allowed = Asked {
        allow_flips: true,
        ..expected
    };
    node.make_as(apply, allowed).await.expect("made");
    // Shrinking is what it says, and needs no leave.
    node.must(split("10%")).await;
}

#[tokio::test]
async fn while_frozen_nobody_new_enters_and_those_inside_stay() {
    let node = Node::start().await;
    node.must(split("50%")).await;
    node.must(Change::Freeze {
        rollout: rollout("shop"),
    })
    .await;
    for entering in [split("60%"), set("42", "canary", None)] {
        let refused = node.make(entering).await.expect_err("frozen");
        assert!(matches!(refused, ChangeError::Frozen { .. }), "{refused}");
    }
    assert_eq!(node.weight(), 500_000);
    node.must(set("42", "stable", None)).await;
    node.must(split("40%")).await;
    node.must(Change::Unfreeze {
        rollout: rollout("shop"),
    })
    .await;
    node.must(split("60%")).await;
}

#[tokio::test]
async fn segments_pin_their_users_and_cannot_be_taken_from_under_a_target() {
    let node = Node::start().await;
    let testers = SegmentName::parse("testers").expect("name");
    let put = |users: &[&str]| Change::PutSegment {
        segment: testers.clone(),
        users: users.iter().map(|u| (*u).into()).collect(),
    };
    node.must(put(&["1", "2"])).await;
    let targeted = spec(serde_json::json!({
        "releases": { "stable": { "pool": "s" }, "canary": { "pool": "c" } },
        "targets": [{ "segment": "testers", "release": "canary" }],
    }));
    let expected = Asked {
        expected: Some(Revision(1)),
        ..asked()
    };
    let apply = Change::Apply {
        rollouts: vec![(rollout("shop"), targeted)],
    };
    node.make_as(apply, expected).await.expect("made");
    assert_eq!(node.decided("1"), ("canary".to_owned(), "target"));
    let edit = Change::EditSegment {
        segment: testers.clone(),
        add: vec!["3".into()],
        remove: vec!["1".into()],
    };
    node.must(edit).await;
    assert_eq!((node.decided("1").1, node.decided("3").1), ("stable", "target"));
    let last = Asked {
        expected: Some(Revision(4)),
        ..asked()
    };
    let delete = Change::DeleteSegment { segment: testers };
    let refused = node.make_as(delete, last).await.expect_err("in use");
    assert!(refused.to_string().contains("named by targets of shop"), "{refused}");
}

#[tokio::test]
async fn imports_are_one_change_that_merges_or_replaces() {
    let node = Node::start().await;
    node.must(set("old", "canary", None)).await;
    let import = |replace, to: &str, users: std::ops::Range<u32>| Change::ImportUsers {
        rollout: rollout("shop"),
        replace,
        groups: vec![UserGroup {
            release: release(to),
            until: None,
            users: users.map(|n| n.to_string().into()).collect(),
        }],
    };
    let merged = node.must(import(false, "canary", 0..50_000)).await;
    assert_eq!(merged.revision, Revision(3));
    assert_eq!((node.decided("old").1, node.decided("49999").1), ("user", "user"));
    node.must(import(true, "canary", 10..20)).await;
    assert_eq!(
        (node.decided("old").1, node.decided("9").1, node.decided("10").1),
        ("stable", "stable", "user")
    );
    node.must(Change::Undo { to: Revision(3) }).await;
    assert_eq!((node.decided("old").1, node.decided("49999").1), ("user", "user"));
}

#[tokio::test]
async fn what_is_due_is_made_and_written_down() {
    let node = Node::start().await;
    let soon = switchyard::clock::unix_millis() + 300;
    node.must(set("42", "canary", Some(soon))).await;
    let later = Asked {
        at: Some(Moment(soon)),
        ..asked()
    };
    let scheduled = node.make_as(split("20%"), later).await.expect("scheduled");
    assert_eq!((scheduled.revision, node.weight()), (Revision(3), 0));
    assert_eq!(node.controller.live().pin().schedule().len(), 1);
    let over = Asked {
        at: Some(Moment(1)),
        ..asked()
    };
    assert!(matches!(
        node.make_as(split("30%"), over).await,
        Err(ChangeError::Refused(_))
    ));
    let clerk = Clerk::new(Arc::clone(&node.controller), std::time::Duration::from_secs(3600));
    let work = tokio::spawn(async move { clerk.run().await });
    let mut revisions = node.controller.live().revisions();
    revisions
        .wait_for(|live| *live >= Revision(5))
        .await
        .expect("both are made");
    work.abort();
    assert_eq!((node.decided("42").1, node.weight()), ("stable", 200_000));
    assert!(node.controller.live().pin().schedule().is_empty());
    let query = HistoryQuery {
        limit: 2,
        ..HistoryQuery::default()
    };
    let history = node.controller.store().history(&query).await.expect("history");
    let mut sources: Vec<Source> = history.iter().map(|entry| entry.record.source).collect();
    sources.sort_by_key(|source| format!("{source:?}"));
    assert_eq!(sources, [Source::Expiry, Source::Schedule]);
}

/// Facts that were committed long ago, as by a program that has ended since.
async fn committed(store: &dyn Store, base: u64, facts: Vec<Fact>) {
    let record = Record {
        at: Moment(1),
        actor: "anna".to_owned(),
        reason: None,
        source: Source::Api,
        rollouts: vec![rollout("shop")],
        summary: String::new(),
        diff: Vec::new(),
    };
    let commit = Commit {
        facts: Arc::new(facts),
        record,
        idempotency: None,
    };
    store.commit(Revision(base), commit).await.expect("committed");
}

fn waits(id: u64, at: u64, change: Change) -> Fact {
    Fact::Scheduled {
        id: Revision(id),
        entry: Box::new(Scheduled {
            at: Moment(at),
            change,
            actor: "anna".to_owned(),
            reason: None,
            allow_flips: true,
            replaces: false,
        }),
    }
}

fn pinned_until(until: u64, users: &[&str]) -> Fact {
    Fact::Users {
        rollout: rollout("shop"),
        replace: false,
        unset: Vec::new(),
        set: vec![UserGroup {
            release: release("canary"),
            until: Some(Moment(until)),
            users: users.iter().map(|user| (*user).into()).collect(),
        }],
    }
}

/// Lets a clerk work until that revision is live.
async fn clerk_until(node: &Node, revision: u64) {
    let clerk = Clerk::new(Arc::clone(&node.controller), std::time::Duration::from_secs(3600));
    let work = tokio::spawn(async move { clerk.run().await });
    let mut revisions = node.controller.live().revisions();
    revisions.wait_for(|live| live.0 >= revision).await.expect("made");
    work.abort();
}

#[tokio::test]
async fn what_was_due_while_nobody_was_there_is_made_in_the_order_of_its_times() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    drop(Node::over(Arc::clone(&store)).await);
    committed(&*store, 1, vec![waits(2, 2_000, split("10%"))]).await;
    committed(&*store, 2, vec![waits(3, 1_000, split("90%"))]).await;
    let node = Node::over(store).await;
    clerk_until(&node, 5).await;
    assert_eq!(node.weight(), 100_000, "the one that was due last");
}

#[tokio::test]
async fn users_whose_time_is_over_leave_by_one_change() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    drop(Node::over(Arc::clone(&store)).await);
    committed(
        &*store,
        1,
        vec![pinned_until(1_000, &["1", "2"]), pinned_until(2_000, &["3"])],
    )
    .await;
    let node = Node::over(store).await;
    clerk_until(&node, 3).await;
    assert!(["1", "2", "3"].iter().all(|user| node.decided(user).1 == "stable"));
    let query = HistoryQuery {
        limit: 1,
        ..HistoryQuery::default()
    };
    let history = node.controller.store().history(&query).await.expect("history");
    assert_eq!(history[0].record.summary, "shop: the time of 3 users is over");
}

#[tokio::test]
async fn an_undo_brings_back_nothing_that_is_over() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    drop(Node::over(Arc::clone(&store)).await);
    committed(&*store, 1, vec![waits(2, 1_000, split("50%"))]).await;
    let ahead = switchyard::clock::unix_millis() + 3_600_000;
    let pins = vec![pinned_until(1_000, &["1"]), pinned_until(ahead, &["2"])];
    committed(&*store, 2, pins).await;
    let node = Node::over(store).await;
    clerk_until(&node, 5).await;
    assert_eq!((node.weight(), node.decided("1").1), (500_000, "split"));
    node.must(unset("2")).await;
    node.must(Change::Undo { to: Revision(3) }).await;
    assert_eq!(
        (node.weight(), node.decided("1").1, node.decided("2").1),
        (0, "stable", "user")
    );
    assert!(
        node.controller.live().pin().schedule().is_empty(),
        "it would be made again at once"
    );
    let again = node.must(Change::Undo { to: Revision(3) }).await;
    assert!(!again.changed, "{again:?}");
}

#[tokio::test]
async fn a_scheduled_replacement_is_made_whatever_became_of_it_since() {
    let node = Node::start().await;
    let other = |json| Change::Apply {
        rollouts: vec![(rollout("side"), spec(json))],
    };
    let one = serde_json::json!({ "releases": { "stable": { "pool": "s" } } });
    node.must(other(one)).await;
    let delete = Change::Delete {
        rollout: rollout("side"),
    };
    let soon = Asked {
        at: Some(Moment(switchyard::clock::unix_millis() + 300)),
        ..asked()
    };
    assert!(
        matches!(
            node.make_as(delete.clone(), soon.clone()).await,
            Err(ChangeError::Unconditional { .. })
        ),
        "which one is deleted is to be said when it is scheduled"
    );
    let known = Asked {
        expected: Some(Revision(2)),
        ..soon.clone()
    };
    node.make_as(delete, known).await.expect("scheduled");
    node.must(Change::Kill {
        rollout: rollout("side"),
    })
    .await;
    let mut half = shop();
    half.split = BTreeMap::from([(release("canary"), Weight::parse("50%").expect("weight"))]);
    let known = Asked {
        expected: Some(Revision(1)),
        ..soon.clone()
    };
    let replace = Change::Apply {
        rollouts: vec![(rollout("shop"), half)],
    };
    node.make_as(replace, known).await.expect("scheduled");
    node.must(Change::Kill {
        rollout: rollout("shop"),
    })
    .await;
    // Of one that nobody knew of when it was scheduled, nothing is overwritten.
    let new = serde_json::json!({ "releases": { "stable": { "pool": "c" } } });
    let create = Change::Apply {
        rollouts: vec![(rollout("new"), spec(new.clone()))],
    };
    node.make_as(create, soon).await.expect("scheduled");
    let mut mine = new;
    mine["releases"]["stable"]["pool"] = "s".into();
    node.must(Change::Apply {
        rollouts: vec![(rollout("new"), spec(mine.clone()))],
    })
    .await;
    let clerk = Clerk::new(Arc::clone(&node.controller), std::time::Duration::from_secs(3600));
    let work = tokio::spawn(async move { clerk.run().await });
    let mut revisions = node.controller.live().revisions();
    revisions
        .wait_for(|live| *live >= Revision(11))
        .await
        .expect("two are made, one is given up");
    work.abort();
    let snapshot = node.controller.live().pin();
    assert!(snapshot.named(&rollout("side")).is_none());
    let shop = snapshot.named(&rollout("shop")).expect("it is there").spec();
    assert!(
        shop.killed && shop.split.contains_key(&release("canary")),
        "what was killed since stays so: {shop:?}"
    );
    let kept = snapshot.named(&rollout("new")).expect("it is there").spec().releases[&release("stable")].clone();
    assert_eq!(
        serde_json::to_value(kept).expect("JSON"),
        serde_json::json!({ "pool": "s" })
    );
    assert!(snapshot.schedule().is_empty());
}

#[tokio::test]
async fn a_pin_that_would_end_before_it_begins_is_refused() {
    let node = Node::start().await;
    let now = switchyard::clock::unix_millis();
    let later = Asked {
        at: Some(Moment(now + 20_000)),
        ..asked()
    };
    let refused = node
        .make_as(set("42", "canary", Some(now + 10_000)), later.clone())
        .await;
    assert!(refused.is_err_and(|e| e.to_string().contains("is not after")));
    node.make_as(set("42", "canary", Some(now + 30_000)), later)
        .await
        .expect("scheduled");
}

#[tokio::test]
async fn a_split_has_one_form_whatever_came_before() {
    let node = Node::start().await;
    for percent in ["30%", "12.5%"] {
        node.must(split(percent)).await;
    }
    let mut same = shop();
    same.split = BTreeMap::from([(release("canary"), Weight::parse("12.5%").expect("weight"))]);
    let known = Asked {
        expected: Some(node.revision()),
        ..asked()
    };
    let again = Change::Apply {
        rollouts: vec![(rollout("shop"), same)],
    };
    let outcome = node.make_as(again, known).await.expect("made");
    assert!(!outcome.changed, "{outcome:?}");
}

#[tokio::test]
async fn ranges_that_are_not_the_shares_are_seen_in_the_diff() {
    let node = Node::start().await;
    node.must(split("25%")).await;
    let moved = serde_json::json!({
        "releases": { "stable": { "pool": "s" }, "canary": { "pool": "c" } },
        "split": { "canary": "25%" },
        "ranges": [
            { "from": 0, "to": 750_000, "release": "stable" },
            { "from": 750_000, "to": 1_000_000, "release": "canary" },
        ],
    });
    let known = Asked {
        expected: Some(node.revision()),
        allow_flips: true,
        ..asked()
    };
    let change = Change::Apply {
        rollouts: vec![(rollout("shop"), spec(moved))],
    };
    let outcome = node.make_as(change, known).await.expect("made");
    let lines: Vec<_> = outcome
        .diff
        .iter()
        .map(|d| (d.path.as_str(), d.before.as_deref(), d.after.as_deref()))
        .collect();
    assert_eq!(
        lines,
        [(
            "shop.ranges",
            Some("canary 0-249999, stable 250000-999999"),
            Some("stable 0-749999, canary 750000-999999")
        )]
    );
}

#[tokio::test]
async fn the_end_of_a_pin_is_part_of_its_diff() {
    let node = Node::start().await;
    node.must(set("42", "canary", Some(4_000_000_000_000))).await;
    let outcome = node.must(set("42", "canary", None)).await;
    let [line] = outcome.diff.as_slice() else {
        panic!("{outcome:?}");
    };
    assert_eq!(
        (line.before.as_deref(), line.after.as_deref()),
        (Some("canary until 2096-10-02T07:06:40Z"), Some("canary"))
    );
    let ids = vec!["42".into()];
    let groups = vec![UserGroup {
        release: release("canary"),
        until: None,
        users: ids,
    }];
    let again = Change::ImportUsers {
        rollout: rollout("shop"),
        replace: false,
        groups,
    };
    assert!(!node.must(again).await.changed, "who is pinned so already is no change");
}

#[tokio::test]
async fn who_is_in_a_segment_already_is_no_change() {
    let node = Node::start().await;
    let ids = |ids: &[&str]| ids.iter().map(|id| Box::from(*id)).collect::<Vec<Box<str>>>();
    let segment = SegmentName::parse("testers").expect("name");
    let put = || Change::PutSegment {
        segment: segment.clone(),
        users: ids(&["1", "2"]),
    };
    let edit = |add: &[&str], remove: &[&str]| Change::EditSegment {
        segment: segment.clone(),
        add: ids(add),
        remove: ids(remove),
    };
    node.must(put()).await;
    let known = Asked {
        expected: Some(node.revision()),
        ..asked()
    };
    assert!(!node.make_as(put(), known).await.expect("made").changed);
    let outcome = node.must(edit(&["2", "3", "3", "4"], &[])).await;
    assert_eq!(outcome.summary, "segment testers: 2 added, 0 removed");
    let lines: Vec<_> = outcome
        .diff
        .iter()
        .map(|d| (d.before.as_deref(), d.after.as_deref()))
        .collect();
    assert_eq!(lines, [(Some("2 users"), Some("4 users"))]);
    let outcome = node.must(edit(&[], &["4", "77", "4"])).await;
    assert_eq!(outcome.summary, "segment testers: 0 added, 1 removed");
    for nothing in [edit(&["1"], &[]), edit(&[], &["77"]), edit(&[], &[])] {
        assert!(!node.must(nothing).await.changed);
    }
}

#[tokio::test]
async fn what_a_decision_is_as_of_includes_the_segments_of_its_targets() {
    let node = Node::start().await;
    let segment = SegmentName::parse("testers").expect("name");
    let users = |ids: &[&str]| ids.iter().map(|id| Box::from(*id)).collect::<Vec<Box<str>>>();
    node.must(Change::PutSegment {
        segment: segment.clone(),
        users: users(&["1"]),
    })
    .await;
    let mut targeted = shop();
    targeted.targets =
        serde_json::from_value(serde_json::json!([{ "segment": "testers", "release": "canary" }])).expect("targets");
    let known = Asked {
        expected: Some(node.revision()),
        ..asked()
    };
    let apply = Change::Apply {
        rollouts: vec![(rollout("shop"), targeted)],
    };
    node.make_as(apply, known).await.expect("made");
    node.must(Change::EditSegment {
        segment,
        add: users(&["2"]),
        remove: Vec::new(),
    })
    .await;
    let snapshot = node.controller.live().pin();
    let live = snapshot.rollout(Slot(0)).expect("rollout");
    assert_eq!((live.revision(), live.as_of()), (Revision(3), Revision(4)));
    let again = Node::over(Arc::clone(node.controller.store())).await;
    let snapshot = again.controller.live().pin();
    let live = snapshot.rollout(Slot(0)).expect("rollout");
    assert_eq!(
        (live.revision(), live.as_of()),
        (Revision(3), Revision(4)),
        "after a restart"
    );
}

#[tokio::test]
async fn a_rollout_that_is_only_tried_leaves_no_metrics() {
    let node = Node::start().await;
    let tried = Change::Apply {
        rollouts: vec![(rollout("only-tried"), shop())],
    };
    let dry = Asked {
        dry_run: true,
        ..asked()
    };
    node.make_as(tried.clone(), dry).await.expect("tried");
    let shown = || {
        switchyard::telemetry::metrics::release_totals()
            .keys()
            .any(|(rollout, _)| rollout == "only-tried")
    };
    assert!(!shown());
    node.must(tried).await;
    assert!(shown());
}
