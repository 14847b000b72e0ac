//! A frozen rollout: whatever the way, nobody new enters, and those inside stay.

use std::time::Duration;

use crate::refused::as_of_now;
use crate::*;

/// `shop`, half of it canary's, after a segment of `members`, and with a target of it; frozen.
async fn frozen(members: &[&str], to: &str) -> Node {
    let node = Node::start().await;
    node.must(put(members)).await;
    let mut targeted = shop();
    targeted.targets =
        serde_json::from_value(serde_json::json!([{ "segment": "testers", "release": to }])).expect("targets");
    targeted.split = BTreeMap::from([(release("canary"), Weight::parse("50%").expect("weight"))]);
    let (change, asked) = as_of_now(&node, targeted);
    node.make_as(change, asked).await.expect("made");
    node.must(freeze()).await;
    node
}

fn freeze() -> Change {
    let rollout = rollout("shop");
    Change::Freeze { rollout }
}

fn testers() -> SegmentName {
    SegmentName::parse("testers").expect("name")
}

fn ids(users: &[&str]) -> Vec<Box<str>> {
    users.iter().map(|user| (*user).into()).collect()
}

fn put(users: &[&str]) -> Change {
    Change::PutSegment {
        segment: testers(),
        users: ids(users),
    }
}

fn edit(add: &[&str], remove: &[&str]) -> Change {
    Change::EditSegment {
        segment: testers(),
        add: ids(add),
        remove: ids(remove),
    }
}

/// Users of whom the split decides that release.
fn users_of(node: &Node, wanted: &str) -> Vec<String> {
    let ids = (0..1000).map(|n| format!("u{n}"));
    ids.filter(|id| node.decided(id).0 == wanted).take(3).collect()
}

async fn refused(node: &Node, change: Change, words: &str) {
    let asked = Asked {
        expected: Some(node.revision()),
        ..asked()
    };
    let before = node.revision();
    let refused = node.make_as(change, asked).await.expect_err(words);
    assert!(
        matches!(refused, ChangeError::Frozen { .. }) && refused.to_string().contains(words),
        "{refused}"
    );
    assert_eq!(node.revision(), before);
}

const BY_SEGMENT: &str =
    "rollout shop is frozen, and new users would enter canary by segment testers: unfreeze it first";
const ENTER: &str = "rollout shop is frozen, and new users would enter canary: unfreeze it first";

#[tokio::test]
async fn nobody_enters_by_a_segment() {
    let node = frozen(&["t1", "t2"], "canary").await;
    let (outside, inside) = (users_of(&node, "stable"), users_of(&node, "canary"));
    refused(&node, edit(&[&outside[0]], &[]), BY_SEGMENT).await;
    refused(&node, put(&["t1", "t2", &outside[0]]), BY_SEGMENT).await;
    refused(&node, put(&["t1", &outside[0]]), BY_SEGMENT).await;
    // Who is in the release already does not enter it, and whoever leaves may.
    node.must(edit(&[&inside[0]], &["t1"])).await;
    let asked = Asked {
        expected: Some(node.revision()),
        ..asked()
    };
    node.make_as(put(&["t2"]), asked).await.expect("nobody comes in");
}

#[tokio::test]
async fn nobody_enters_by_leaving_a_segment_that_stable_has() {
    let node = frozen(&[], "stable").await;
    let inside = users_of(&node, "canary");
    node.must(edit(&[&inside[0]], &[])).await;
    assert_eq!(node.decided(&inside[0]), ("stable".to_owned(), "target"));
    refused(&node, edit(&[], &[&inside[0]]), BY_SEGMENT).await;
    let mut bare = shop();
    bare.split = BTreeMap::from([(release("canary"), Weight::parse("50%").expect("weight"))]);
    bare.frozen = true;
    let (change, _) = as_of_now(&node, bare);
    refused(&node, change, ENTER).await;
}

#[tokio::test]
async fn nobody_enters_by_a_pin_or_the_end_of_one_but_of_its_time() {
    let node = frozen(&[], "canary").await;
    let (outside, inside) = (users_of(&node, "stable"), users_of(&node, "canary"));
    refused(&node, set(&outside[0], "canary", None), ENTER).await;
    node.must(set(&inside[0], "stable", None)).await;
    refused(&node, unset(&inside[0]), ENTER).await;
    let nobody = Change::ImportUsers {
        rollout: rollout("shop"),
        replace: true,
        groups: Vec::new(),
    };
    refused(&node, nobody, ENTER).await;
    node.must(set(&inside[1], "canary", None)).await;
    // A kill ends, and who was let in during it would be in.
    node.must(Change::Kill {
        rollout: rollout("shop"),
    })
    .await;
    refused(&node, set(&outside[0], "canary", None), ENTER).await;
    node.must(Change::Resume {
        rollout: rollout("shop"),
    })
    .await;
    let soon = switchyard::clock::unix_millis() + 100;
    node.must(set(&inside[2], "stable", Some(soon))).await;
    let clerk = Clerk::new(Arc::clone(&node.controller), Duration::from_secs(3600));
    let work = tokio::spawn(async move { clerk.run().await });
    let mut revisions = node.controller.live().revisions();
    let wanted = Revision(node.revision().0 + 1);
    revisions.wait_for(|live| *live >= wanted).await.expect("it ends");
    work.abort();
    assert_eq!(node.decided(&inside[2]), ("canary".to_owned(), "split"));
}

#[tokio::test]
async fn an_undo_that_ends_a_freeze_is_made_and_one_within_it_lets_nobody_in() {
    let node = Node::start().await;
    node.must(set("3", "canary", None)).await;
    node.must(freeze()).await;
    node.must(unset("3")).await;
    refused(&node, Change::Undo { to: Revision(3) }, ENTER).await;
    node.must(Change::Undo { to: Revision(2) }).await;
    assert_eq!(node.decided("3"), ("canary".to_owned(), "user"));
}

#[tokio::test]
async fn targets_by_which_people_can_only_leave_may_go() {
    let node = frozen(&["1"], "canary").await;
    let targets = |json: serde_json::Value| {
        let mut spec = node
            .controller
            .live()
            .pin()
            .named(&rollout("shop"))
            .expect("shop")
            .spec()
            .clone();
        spec.targets = serde_json::from_value(json).expect("targets");
        spec
    };
    let (change, asked) = as_of_now(
        &node,
        targets(serde_json::json!([{ "segment": "testers", "release": "stable" }])),
    );
    node.make_as(change, asked).await.expect("nobody enters stable");
    let (change, asked) = as_of_now(&node, targets(serde_json::json!([])));
    let refused = node.make_as(change, asked).await;
    assert!(
        matches!(refused, Err(ChangeError::Frozen { .. })),
        "some of them are canary's by the split: {refused:?}"
    );
}
