//! What must not be committed, whichever way it is asked for.

use crate::*;

/// The rollout of the route, as of the latest revision.
pub fn as_of_now(node: &Node, spec: RolloutSpec) -> (Change, Asked) {
    let change = Change::Apply {
        rollouts: vec![(rollout("shop"), spec)],
    };
    let asked = Asked {
        expected: Some(node.revision()),
        ..asked()
    };
    (change, asked)
}

#[tokio::test]
async fn users_of_a_spec_are_checked_though_all_else_of_it_is_as_it_was() {
    let node = Node::start().await;
    for (user, to, why) in [
        (
            "42",
            "ghost",
            "release \"ghost\" does not exist: write one of canary, stable",
        ),
        ("", "canary", "user id \"\" is empty"),
        ("a\nb", "canary", "holds a control byte"),
    ] {
        let mut wrong = shop();
        wrong.users = BTreeMap::from([(user.to_owned(), release(to))]);
        let (change, asked) = as_of_now(&node, wrong);
        let refused = node.make_as(change, asked).await.expect_err("it cannot be pinned");
        assert!(
            matches!(refused, ChangeError::Invalid(_)) && refused.to_string().contains(why),
            "{refused}"
        );
    }
    assert_eq!(node.revision(), Revision(1));
    let mut right = shop();
    right.users = BTreeMap::from([("42".to_owned(), release("canary"))]);
    let (change, asked) = as_of_now(&node, right);
    node.make_as(change, asked).await.expect("made");
    let again = Node::over(Arc::clone(node.controller.store())).await;
    assert_eq!(again.decided("42"), ("canary".to_owned(), "user"));
}
