//! A rollout that was changed by another process to what this one cannot compile.

use switchyard::control::StartError;

use crate::refused::as_of_now;
use crate::*;

/// A node, another one that has one pool more, and `shop` with a release of that pool and a segment for it, live at both.
async fn two_nodes() -> (Node, Node) {
    let node = Node::start().await;
    let other = Node::knowing(&["s", "c", "b"], Arc::clone(node.controller.store())).await;
    let segment = SegmentName::parse("testers").expect("name");
    let users = vec!["1".into()];
    other.must(Change::PutSegment { segment, users }).await;
    let newer = spec(serde_json::json!({
        "releases": { "stable": { "pool": "s" }, "canary": { "pool": "c" }, "beta": { "pool": "b" } },
        "targets": [{ "segment": "testers", "release": "beta" }],
        "users": { "7": "beta" },
    }));
    let (change, asked) = as_of_now(&other, newer);
    let revision = other.make_as(change, asked).await.expect("made").revision;
    let mut revisions = node.controller.live().revisions();
    revisions.wait_for(|live| *live >= revision).await.expect("followed");
    (node, other)
}

#[tokio::test]
async fn what_another_process_made_of_a_rollout_is_not_overwritten_unseen() {
    let (node, other) = two_nodes().await;
    let name = rollout("shop");
    let segment = SegmentName::parse("testers").expect("name");
    let revision = node.revision();
    let (replace, known) = as_of_now(&node, shop());
    for change in [
        split("10%"),
        Change::Kill { rollout: name.clone() },
        set("42", "canary", None),
        unset("7"),
        replace,
        Change::DeleteSegment { segment },
    ] {
        let refused = node.make_as(change.clone(), known.clone()).await.expect_err("stuck");
        assert!(matches!(refused, ChangeError::Stuck { .. }), "{change:?}: {refused}");
        let text = refused.to_string();
        assert!(text.contains("releases.beta.pool: pool \"b\" does not exist"), "{text}");
        assert!(text.contains("make the change there"), "{text}");
    }
    assert_eq!(node.controller.store().revision().await.expect("revision"), revision);
    assert_eq!(other.decided("1"), ("beta".to_owned(), "target"));
    // What the store forms of what it has is right whoever asks for it.
    node.must(Change::Undo { to: Revision(2) }).await;
    assert!(node.controller.live().pin().stuck().is_empty());
    node.must(split("10%")).await;
}

#[tokio::test]
async fn a_start_says_what_a_rollout_lacks_and_not_that_its_users_have_none() {
    let (node, _other) = two_nodes().await;
    let live = Arc::new(Live::new(Surroundings {
        slots: Vec::new(),
        routes: Default::default(),
        pool: Box::new(|name| (name.as_str() != "b").then_some(PoolIdx(0))),
    }));
    let follower = Follower::new(Arc::clone(node.controller.store()), live, LostUsers::Refused);
    let Err(StartError::Unfit(problems)) = follower.start(&[]).await else {
        panic!("it starts");
    };
    let [problem] = problems.as_slice() else {
        panic!("{problems:?}");
    };
    assert!(
        problem.starts_with("rollout shop: releases.beta.pool: pool \"b\" does not exist"),
        "{problem}"
    );
}

#[tokio::test]
async fn what_is_scheduled_for_others_does_not_wait_for_a_rollout_that_is_stuck() {
    let (node, _other) = two_nodes().await;
    let side = rollout("side");
    let stable = spec(serde_json::json!({ "releases": { "stable": { "pool": "s" } } }));
    let rollouts = vec![(side.clone(), stable)];
    let base = node.must(Change::Apply { rollouts }).await.revision.0;
    let kill = Change::Kill { rollout: side.clone() };
    let due = vec![waits(base + 1, 1_000, split("10%")), waits(base + 2, 2_000, kill)];
    committed(&**node.controller.store(), base, due).await;
    let made = clerk_until(&node, base + 2);
    let made = tokio::time::timeout(std::time::Duration::from_secs(30), made).await;
    made.expect("the second is made");
    let snapshot = node.controller.live().pin();
    assert!(snapshot.named(&side).expect("it is there").spec().killed);
    assert_eq!(snapshot.schedule().len(), 1, "the first waits on");
}
