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
