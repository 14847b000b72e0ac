//! What an answer and the history say of a change.

use crate::*;

/// The only line of a diff: before and after.
fn only_line(outcome: &Outcome) -> (Option<&str>, Option<&str>) {
    let [line] = outcome.diff.as_slice() else {
        panic!("{outcome:?}");
    };
    (line.before.as_deref(), line.after.as_deref())
}

#[tokio::test]
async fn the_users_of_a_segment_are_counted_right_though_an_undo_has_them_in_pieces() {
    let node = Node::start().await;
    let segment = SegmentName::parse("testers").expect("name");
    let put = |users: std::ops::Range<u32>| Change::PutSegment {
        segment: segment.clone(),
        users: users.map(|n| n.to_string().into()).collect(),
    };
    let known = || Asked {
        expected: Some(node.revision()),
        ..asked()
    };
    node.must(put(0..2)).await;
    let many = node.make_as(put(1..40_002), known()).await.expect("made");
    assert_eq!(only_line(&many), (Some("2 users"), Some("40001 users")));
    let undone = node.must(Change::Undo { to: Revision(2) }).await;
    assert_eq!(only_line(&undone), (Some("40001 users"), Some("2 users")));
    let again = node.must(Change::Undo { to: Revision(3) }).await;
    assert_eq!(only_line(&again), (Some("2 users"), Some("40001 users")));
    let delete = Change::DeleteSegment {
        segment: segment.clone(),
    };
    let deleted = node.make_as(delete, known()).await.expect("made");
    assert_eq!(only_line(&deleted), (Some("40001 users"), None));
    let back = node.must(Change::Undo { to: Revision(5) }).await;
    assert_eq!(only_line(&back), (None, Some("40001 users")));
    let others = node.make_as(put(2..40_003), known()).await.expect("made");
    assert_eq!(
        only_line(&others),
        (Some("40001 users"), Some("40001 users")),
        "as many, and not the same"
    );
}
