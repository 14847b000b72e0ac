//! What goes away, and what goes with it.

use crate::refused::as_of_now;
use crate::*;

fn stable_alone() -> RolloutSpec {
    spec(serde_json::json!({ "releases": { "stable": { "pool": "s" } } }))
}

#[tokio::test]
async fn a_release_goes_together_with_the_pins_to_it() {
    let node = Node::start().await;
    let (bare, known) = as_of_now(&node, stable_alone());
    node.make_as(bare, known).await.expect("made");
    let (both, known) = as_of_now(&node, shop());
    node.make_as(both, known).await.expect("made");
    node.must(set("42", "canary", None)).await;
    node.must(set("43", "stable", None)).await;
    let (bare, known) = as_of_now(&node, stable_alone());
    let stranded = node.make_as(bare, known).await.expect_err("42 would have none");
    assert!(
        stranded
            .to_string()
            .contains("1 single users are pinned to releases that the new spec has not"),
        "{stranded}"
    );
    assert_eq!(node.decided("42"), ("canary".to_owned(), "user"));
    let mut moved = stable_alone();
    moved.users = BTreeMap::from([("42".to_owned(), release("stable"))]);
    let (change, known) = as_of_now(&node, moved);
    node.make_as(change, known)
        .await
        .expect("42 is pinned elsewhere at once");
    assert_eq!(
        (node.decided("42"), node.decided("43").1),
        (("stable".to_owned(), "user"), "stable")
    );
    node.must(Change::Undo { to: Revision(5) }).await;
    assert_eq!(
        (node.decided("42"), node.decided("43").1),
        (("canary".to_owned(), "user"), "user")
    );
    node.must(Change::Undo { to: Revision(2) }).await;
    assert_eq!(node.decided("42"), ("stable".to_owned(), "stable"));
}

#[tokio::test]
async fn what_waits_for_a_rollout_goes_with_it_and_comes_back_with_it() {
    let node = Node::start().await;
    let side = rollout("side");
    let create = || Change::Apply {
        rollouts: vec![(side.clone(), shop())],
    };
    let kill = |name: &str| Change::Kill { rollout: rollout(name) };
    let delete = || Change::Delete { rollout: side.clone() };
    let at = |millis: u64, expected: Option<Revision>| Asked {
        at: Some(Moment(switchyard::clock::unix_millis() + millis)),
        expected,
        ..asked()
    };
    node.must(create()).await;
    for name in ["side", "shop"] {
        node.make_as(kill(name), at(3_600_000, None)).await.expect("scheduled");
    }
    let waiting = || node.controller.live().pin().schedule().len();
    let known = Asked {
        expected: Some(node.revision()),
        ..asked()
    };
    let deleted = node.make_as(delete(), known).await.expect("made");
    let line = deleted
        .diff
        .iter()
        .find(|line| line.path == "schedule.3")
        .expect("shown");
    assert_eq!(
        (line.before.as_deref(), line.after.as_deref()),
        (Some("side: killed, everyone to stable"), None)
    );
    assert_eq!(waiting(), 1, "that of another rollout waits on");
    node.must(create()).await;
    assert_eq!(waiting(), 1);
    node.must(Change::Undo { to: Revision(4) }).await;
    assert_eq!(waiting(), 2);
    // A deletion that waited takes itself off, and the others.
    let soon = node
        .make_as(delete(), at(100, Some(node.revision())))
        .await
        .expect("scheduled");
    let clerk = Clerk::new(Arc::clone(&node.controller), std::time::Duration::from_secs(3600));
    let work = tokio::spawn(async move { clerk.run().await });
    let mut revisions = node.controller.live().revisions();
    revisions.wait_for(|live| *live > soon.revision).await.expect("made");
    work.abort();
    assert_eq!(waiting(), 1);
    assert!(node.controller.live().pin().named(&side).is_none());
}
