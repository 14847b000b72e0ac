//! What every store does. Each behaviour is proved for each kind of store.

use std::sync::Arc;

use switchyard::rollout::{Fact, Moment, Revision, UserEntry};
use switchyard::store::{
    Answered, CommitError, Event, Expired, HistoryQuery, Most, OURSELVES, Store, StoreError, USERS_IN_A_FACT,
};

use crate::dice::Dice;
use crate::history;
use crate::make::{
    asked, commit, commit_at, delete, group, load, must, next, now, pin, pins, put, release, rollout, segment,
};
use crate::model::Model;

macro_rules! each_store {
    ($($name:ident)*) => {$(
        mod $name {
            #[tokio::test]
            async fn in_memory() {
                super::prove::$name(std::sync::Arc::new(switchyard::store::MemoryStore::new())).await;
            }

            #[tokio::test]
            async fn embedded() {
                let folder = crate::embedded::Folder::new();
                super::prove::$name(std::sync::Arc::new(folder.open())).await;
            }
        }
    )*};
}

each_store! {
    a_commit_at_an_old_revision_is_refused_and_leaves_nothing
    two_watchers_see_every_commit_in_order
    a_watch_that_is_cancelled_loses_nothing
    a_watcher_that_stands_still_misses_nothing
    users_of_no_rollout_are_refused_with_all_else
    what_is_loaded_is_the_fold_of_what_was_committed_and_undoing_leads_back
    undoing_what_was_undone_already_says_nothing
    users_named_twice_are_restored_as_before_the_first_time
    many_users_are_loaded_and_restored_in_pieces
    users_and_members_come_in_pages
    expired_users_come_in_the_order_of_their_time
    a_repeated_request_is_known_for_a_day
    a_repeated_request_that_had_nothing_to_change_is_known_too
    history_is_filtered_and_comes_in_pages
    pruning_forgets_what_is_old_but_never_the_latest
    a_watch_of_what_is_forgotten_says_to_load_again
    loading_ends_when_nobody_receives
    what_is_loaded_tells_the_revision_of_its_last_change
}

mod prove {
    use super::*;

    pub async fn a_commit_at_an_old_revision_is_refused_and_leaves_nothing(store: Arc<dyn Store>) {
        let mut watch = store.watch(Revision(0));
        must(&*store, 0, vec![put("search", "1")]).await;
        let late = store.commit(Revision(0), commit(vec![put("search", "2")])).await;
        assert!(matches!(late, Err(CommitError::Moved(Revision(1)))), "{late:?}");
        let early = store.commit(Revision(7), commit(vec![put("search", "2")])).await;
        assert!(matches!(early, Err(CommitError::Moved(Revision(1)))), "{early:?}");
        assert_eq!(load(&*store).await, (Revision(1), vec![put("search", "1")]));
        assert_eq!(*next(&mut watch).await.facts, vec![put("search", "1")]);
        assert_eq!(must(&*store, 1, vec![put("search", "2")]).await.revision, Revision(2));
        assert_eq!(next(&mut watch).await.revision, Revision(2));
    }

    pub async fn two_watchers_see_every_commit_in_order(store: Arc<dyn Store>) {
        must(&*store, 0, vec![put("search", "0")]).await;
        let (mut early, mut late) = (store.watch(Revision(0)), store.watch(Revision(1)));
        let writer = store.clone();
        let writing = tokio::spawn(async move {
            for n in 1..200 {
                must(&*writer, n, vec![put("search", &n.to_string())]).await;
            }
        });
        for n in 0..200 {
            let seen = next(&mut early).await;
            assert_eq!(seen.revision, Revision(n + 1));
            assert_eq!(seen.at, Moment(1_000));
            assert_eq!(*seen.facts, vec![put("search", &n.to_string())]);
        }
        for n in 1..200 {
            assert_eq!(next(&mut late).await.revision, Revision(n + 1));
        }
        writing.await.expect("wrote");
    }

    pub async fn a_watch_that_is_cancelled_loses_nothing(store: Arc<dyn Store>) {
        let mut watch = store.watch(Revision(0));
        let mut seen = 0;
        let writer = store.clone();
        let writing = tokio::spawn(async move {
            for n in 0..50 {
                must(&*writer, n, vec![put("search", &n.to_string())]).await;
            }
        });
        while seen < 50 {
            // `yield_now` is ready at the second poll: the wait is often given up half-way.
            tokio::select! {
                event = watch.next() => {
                    let Event::Committed(committed) = event.expect("event") else { panic!("resync") };
                    seen += 1;
                    assert_eq!(committed.revision, Revision(seen));
                }
                () = tokio::task::yield_now() => {}
            }
        }
        writing.await.expect("wrote");
    }

    pub async fn a_watcher_that_stands_still_misses_nothing(store: Arc<dyn Store>) {
        let mut watch = store.watch(Revision(0));
        for n in 0..150 {
            must(&*store, n, vec![put("search", &n.to_string())]).await;
        }
        for n in 0..150 {
            assert_eq!(*next(&mut watch).await.facts, vec![put("search", &n.to_string())]);
        }
    }

    pub async fn users_of_no_rollout_are_refused_with_all_else(store: Arc<dyn Store>) {
        let facts = vec![put("search", "1"), pin("checkout", "canary", &["u1"])];
        let refused = store.commit(Revision(0), commit(facts)).await;
        let text = refused.expect_err("refused").to_string();
        assert!(text.contains("\"checkout\", which does not exist"), "{text}");
        let facts = vec![put("search", "1"), delete("search"), pin("search", "canary", &["u1"])];
        assert!(store.commit(Revision(0), commit(facts)).await.is_err());
        assert_eq!(load(&*store).await, (Revision(0), vec![]));
        must(&*store, 0, vec![put("search", "1"), pin("search", "canary", &["u1"])]).await;
    }

    pub async fn what_is_loaded_is_the_fold_of_what_was_committed_and_undoing_leads_back(store: Arc<dyn Store>) {
        let mut dice = Dice(7);
        let mut states = vec![Model::default()];
        for n in 0..150 {
            let facts = history::roll(&mut dice, states.last().expect("a state"), n + 1);
            let mut state = states.last().expect("a state").clone();
            state.apply_all(&facts);
            must(&*store, n, facts).await;
            let (revision, loaded) = load(&*store).await;
            assert_eq!(
                (revision, Model::of(&loaded)),
                (Revision(n + 1), state.clone()),
                "after {n}"
            );
            states.push(state);
            let to = if dice.chance(8) { 0 } else { dice.below(n + 2) };
            let undoing = store.undoing(Revision(to)).await.expect("undoing");
            let mut back = states.last().expect("a state").clone();
            back.apply_all(&undoing);
            let then = &states[usize::try_from(to).expect("fits")];
            assert_eq!(&back, then, "from {} back to {to} by {undoing:?}", n + 1);
            assert_eq!(
                undoing.is_empty(),
                states.last() == Some(then),
                "nothing differs, or something: {undoing:?}"
            );
        }
        // Undoing is a change, too: it is committed, and undone.
        let now = states.last().expect("a state").clone();
        let undoing = store.undoing(Revision(40)).await.expect("undoing");
        must(&*store, 150, undoing).await;
        assert_eq!(Model::of(&load(&*store).await.1), states[40]);
        let undoing = store.undoing(Revision(150)).await.expect("undoing");
        must(&*store, 151, undoing).await;
        assert_eq!(Model::of(&load(&*store).await.1), now);
    }

    pub async fn undoing_what_was_undone_already_says_nothing(store: Arc<dyn Store>) {
        must(
            &*store,
            0,
            vec![put("search", "1"), pin("search", "canary", &["u1", "u2"])],
        )
        .await;
        must(
            &*store,
            1,
            vec![pins("search", true, &[], vec![group("stable", None, &["u3"])])],
        )
        .await;
        let undoing = store.undoing(Revision(1)).await.expect("undoing");
        must(&*store, 2, undoing).await;
        assert_eq!(store.undoing(Revision(1)).await.expect("undoing"), vec![]);
        assert_eq!(store.undoing(Revision(3)).await.expect("undoing"), vec![]);
    }

    pub async fn users_named_twice_are_restored_as_before_the_first_time(store: Arc<dyn Store>) {
        let first = pins("search", false, &[], vec![group("stable", Some(9), &["known"])]);
        must(&*store, 0, vec![put("search", "1"), first]).await;
        let twice = vec![
            group("canary", None, &["known", "new", "new"]),
            group("stable", None, &["new", "known"]),
        ];
        must(&*store, 1, vec![pins("search", false, &["known", "new"], twice)]).await;
        let stays = UserEntry {
            release: release("stable"),
            until: None,
        };
        assert_eq!(
            store.user(&rollout("search"), "new").await.expect("user"),
            Some(stays),
            "the last one counts"
        );
        let undoing = store.undoing(Revision(1)).await.expect("undoing");
        let back = pins("search", false, &["new"], vec![group("stable", Some(9), &["known"])]);
        assert_eq!(undoing, vec![back]);
    }

    pub async fn many_users_are_loaded_and_restored_in_pieces(store: Arc<dyn Store>) {
        let count = 2 * USERS_IN_A_FACT + 5;
        let ids: Vec<String> = (0..count).map(|n| format!("user-{n}")).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let members = Fact::Segment {
            segment: segment("staff"),
            replace: false,
            remove: vec![],
            add: ids.iter().map(|id| (*id).into()).collect(),
        };
        let all = pins("search", false, &[], vec![group("canary", Some(5), &ids)]);
        must(&*store, 0, vec![put("search", "1"), all, members]).await;
        let (_, loaded) = load(&*store).await;
        let state = Model::of(&loaded);
        assert_eq!((state.users.len(), state.segments["staff"].len()), (count, count));
        assert!(loaded.iter().all(|fact| users_in(fact) <= USERS_IN_A_FACT));
        let gone = vec![
            pins("search", true, &[], vec![]),
            Fact::NoSegment {
                segment: segment("staff"),
            },
        ];
        must(&*store, 1, gone).await;
        let undoing = store.undoing(Revision(1)).await.expect("undoing");
        assert!(undoing.iter().all(|fact| users_in(fact) <= USERS_IN_A_FACT));
        must(&*store, 2, undoing).await;
        assert_eq!(Model::of(&load(&*store).await.1), state);
    }

    pub async fn users_and_members_come_in_pages(store: Arc<dyn Store>) {
        let ids = ["", "a", "A", "é", "z", "10", "9"];
        let members = Fact::Segment {
            segment: segment("staff"),
            replace: false,
            remove: vec![],
            add: ids.iter().map(|id| (*id).into()).collect(),
        };
        must(
            &*store,
            0,
            vec![
                put("search", "1"),
                pin("search", "canary", &ids),
                put("other", "1"),
                members,
            ],
        )
        .await;
        let (mut seen, mut after, mut pages) = (Vec::new(), None::<String>, 0);
        loop {
            let page = store
                .users(&rollout("search"), after.as_deref(), 2)
                .await
                .expect("page");
            seen.extend(page.users.into_iter().map(|(user, _)| user.to_string()));
            pages += 1;
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        assert_eq!(seen, ["", "10", "9", "A", "a", "z", "é"]);
        assert_eq!(pages, 4);
        let none = store.users(&rollout("other"), None, 2).await.expect("page");
        assert_eq!((none.users.len(), none.next), (0, None));
        let most = Most { users: 9, bytes: 3 };
        let page = store.members(&segment("staff"), None, most).await.expect("members");
        assert_eq!(
            page,
            ["".into(), "10".into(), "9".into()],
            "the id that fills it is its last"
        );
        let page = store
            .members(&segment("staff"), None, Most::users(3))
            .await
            .expect("members");
        assert_eq!(page, ["".into(), "10".into(), "9".into()]);
        let rest = store
            .members(&segment("staff"), Some("9"), Most::users(9))
            .await
            .expect("members");
        assert_eq!(rest.len(), 4);
        assert_eq!(
            store
                .members(&segment("none"), None, Most::users(9))
                .await
                .expect("members")
                .len(),
            0
        );
        assert_eq!(store.user(&rollout("search"), "nobody").await.expect("user"), None);
    }

    pub async fn expired_users_come_in_the_order_of_their_time(store: Arc<dyn Store>) {
        let groups = vec![
            group("canary", None, &["forever"]),
            group("canary", Some(30), &["c"]),
            group("canary", Some(10), &["b", "a"]),
        ];
        must(&*store, 0, vec![put("search", "1"), pins("search", false, &[], groups)]).await;
        let expired = |now, limit| {
            let store = store.clone();
            async move {
                let Expired { users, next } = store.expired(Moment(now), limit).await.expect("expired");
                let users: Vec<String> = users.into_iter().map(|(of, user)| format!("{of}/{user}")).collect();
                (users.join(" "), next.map(|next| next.0))
            }
        };
        assert_eq!(expired(9, 5).await, (String::new(), Some(10)));
        assert_eq!(expired(10, 5).await, ("search/a search/b".to_owned(), Some(30)));
        assert_eq!(expired(10, 1).await, ("search/a".to_owned(), Some(10)));
        assert_eq!(expired(99, 5).await, ("search/a search/b search/c".to_owned(), None));
    }

    pub async fn a_repeated_request_is_known_for_a_day(store: Arc<dyn Store>) {
        let day = 24 * 60 * 60 * 1000;
        let mut made = commit_at(now(), vec![put("search", "1")]);
        made.idempotency = Some(asked("k", 1));
        store.commit(Revision(0), made).await.expect("committed");
        let mut made = commit_at(now() - day - 1_000, vec![put("search", "2")]);
        made.idempotency = Some(asked("old", 1));
        store.commit(Revision(1), made).await.expect("committed");
        let mut refused = commit_at(now(), vec![put("search", "3")]);
        refused.idempotency = Some(asked("refused", 1));
        store.commit(Revision(1), refused).await.expect_err("moved");
        let answered = |key: &'static str, digest| {
            let store = store.clone();
            async move { store.answered(&asked(key, digest)).await.expect("answered") }
        };
        assert_eq!(answered("k", 1).await, Some(Answered::Same(Revision(1))));
        assert_eq!(answered("k", 2).await, Some(Answered::Other));
        assert_eq!(answered("old", 1).await, None);
        assert_eq!(answered("refused", 1).await, None);
        let mut others = asked("k", 1);
        others.actor = "bert".to_owned();
        assert_eq!(store.answered(&others).await.expect("answered"), None);
        store.prune(Moment(0)).await.expect("pruned");
        assert_eq!(answered("k", 1).await, Some(Answered::Same(Revision(1))));
    }

    pub async fn a_repeated_request_that_had_nothing_to_change_is_known_too(store: Arc<dyn Store>) {
        let mut made = commit_at(now(), vec![put("search", "1")]);
        made.idempotency = Some(asked("made", 1));
        store.commit(Revision(0), made).await.expect("committed");
        for key in ["made", "not"] {
            store.nothing_to_change(asked(key, 1), Revision(1)).await.expect("kept");
        }
        must(&*store, 1, vec![put("search", "2")]).await;
        let answered = |key: &'static str, digest| {
            let store = store.clone();
            async move { store.answered(&asked(key, digest)).await.expect("answered") }
        };
        assert_eq!(answered("made", 1).await, Some(Answered::Same(Revision(1))));
        assert_eq!(answered("not", 1).await, Some(Answered::Unchanged(Revision(1))));
        assert_eq!(answered("not", 2).await, Some(Answered::Other));
        assert_eq!(store.revision().await.expect("read"), Revision(2));
    }

    pub async fn history_is_filtered_and_comes_in_pages(store: Arc<dyn Store>) {
        must(&*store, 0, vec![put("search", "1")]).await;
        must(&*store, 1, vec![put("checkout", "1")]).await;
        must(&*store, 2, vec![put("search", "2"), put("checkout", "2")]).await;
        must(
            &*store,
            3,
            vec![Fact::NoSegment {
                segment: segment("staff"),
            }],
        )
        .await;
        let revisions = |name: Option<&'static str>, before: Option<u64>, limit| {
            let store = store.clone();
            async move {
                let query = HistoryQuery {
                    rollout: name.map(rollout),
                    before: before.map(Revision),
                    limit,
                    asked_for: false,
                };
                let entries = store.history(&query).await.expect("history");
                entries.iter().map(|entry| entry.revision.0).collect::<Vec<_>>()
            }
        };
        assert_eq!(revisions(None, None, 9).await, [4, 3, 2, 1]);
        assert_eq!(revisions(None, Some(4), 2).await, [3, 2]);
        assert_eq!(revisions(Some("search"), None, 9).await, [3, 1]);
        assert_eq!(revisions(Some("search"), Some(3), 9).await, [1]);
        assert_eq!(revisions(Some("checkout"), None, 1).await, [3]);
        assert_eq!(revisions(Some("none"), None, 9).await, [0_u64; 0]);
        let query = HistoryQuery {
            before: Some(Revision(4)),
            limit: 1,
            ..HistoryQuery::default()
        };
        let entry = store.history(&query).await.expect("history").remove(0);
        let record = commit(vec![put("search", "2"), put("checkout", "2")]).record;
        assert_eq!(entry.record, record);
        // Nobody asked for the next one.
        let mut made = commit(vec![put("search", "3")]);
        made.record.actor = OURSELVES.to_owned();
        store.commit(Revision(4), made).await.expect("committed");
        for about in [None, Some(rollout("search"))] {
            let asked_for = HistoryQuery {
                rollout: about.clone(),
                limit: 1,
                asked_for: true,
                ..HistoryQuery::default()
            };
            let entry = store.history(&asked_for).await.expect("history").remove(0);
            assert_eq!(entry.revision, Revision(if about.is_none() { 4 } else { 3 }));
        }
    }

    async fn a_hundred_and_fifty(store: &dyn Store) {
        for n in 0..150 {
            let made = commit_at(1_000 + n, vec![put("search", &n.to_string())]);
            store.commit(Revision(n), made).await.expect("committed");
        }
    }

    pub async fn pruning_forgets_what_is_old_but_never_the_latest(store: Arc<dyn Store>) {
        store.prune(Moment(u64::MAX)).await.expect("nothing to prune");
        a_hundred_and_fifty(&*store).await;
        store.prune(Moment(1_100)).await.expect("pruned");
        let all = HistoryQuery {
            limit: 999,
            ..HistoryQuery::default()
        };
        let kept = store.history(&all).await.expect("history");
        assert_eq!((kept.len(), kept[49].revision), (50, Revision(101)));
        let about = HistoryQuery {
            rollout: Some(rollout("search")),
            ..all.clone()
        };
        assert_eq!(store.history(&about).await.expect("history").len(), 50);
        let forgotten = store.undoing(Revision(99)).await;
        assert!(
            matches!(forgotten, Err(StoreError::Forgotten(Revision(100)))),
            "{forgotten:?}"
        );
        assert_eq!(
            store.undoing(Revision(100)).await.expect("undoing"),
            vec![put("search", "99")]
        );
        store.prune(Moment(u64::MAX)).await.expect("pruned");
        assert_eq!(store.history(&all).await.expect("history").len(), 1);
        assert_eq!(store.revision().await.expect("revision"), Revision(150));
        assert_eq!(load(&*store).await, (Revision(150), vec![put("search", "149")]));
        must(&*store, 150, vec![put("search", "more")]).await;
    }

    pub async fn a_watch_of_what_is_forgotten_says_to_load_again(store: Arc<dyn Store>) {
        a_hundred_and_fifty(&*store).await;
        store.prune(Moment(1_100)).await.expect("pruned");
        let mut watch = store.watch(Revision(100));
        assert_eq!(next(&mut watch).await.revision, Revision(101));
        let mut watch = store.watch(Revision(99));
        assert!(matches!(watch.next().await, Ok(Event::Resync)));
        let mut watch = store.watch(Revision(0));
        assert!(matches!(watch.next().await, Ok(Event::Resync)));
        let mut watch = store.watch(Revision(151));
        assert!(
            matches!(watch.next().await, Ok(Event::Resync)),
            "of another store, it seems"
        );
    }

    pub async fn loading_ends_when_nobody_receives(store: Arc<dyn Store>) {
        must(&*store, 0, vec![put("a", "1"), put("b", "1"), put("c", "1")]).await;
        let (send, mut receive) = tokio::sync::mpsc::channel(1);
        let loading = {
            let store = store.clone();
            tokio::spawn(async move { store.load(send).await })
        };
        assert_eq!(receive.recv().await.map(|loaded| loaded.fact), Some(put("a", "1")));
        drop(receive);
        assert_eq!(loading.await.expect("loading").expect("no error"), Revision(1));
    }

    pub async fn what_is_loaded_tells_the_revision_of_its_last_change(store: Arc<dyn Store>) {
        must(&*store, 0, vec![put("a", "1"), put("b", "1")]).await;
        must(&*store, 1, vec![pin("a", "canary", &["42"])]).await;
        must(&*store, 2, vec![put("b", "2")]).await;
        let (send, mut receive) = tokio::sync::mpsc::channel(8);
        assert_eq!(store.load(send).await.expect("loaded"), Revision(3));
        let mut told = Vec::new();
        while let Some(loaded) = receive.recv().await {
            let what = match &loaded.fact {
                Fact::Rollout { rollout, .. } => format!("spec {rollout}"),
                Fact::Users { rollout, .. } => format!("users {rollout}"),
                other => panic!("{other:?}"),
            };
            told.push((what, loaded.revision.0));
        }
        let expected = [("spec a", 2), ("users a", 2), ("spec b", 3)];
        assert_eq!(told, expected.map(|(what, revision)| (what.to_owned(), revision)));
    }

    fn users_in(fact: &Fact) -> usize {
        match fact {
            Fact::Users { unset, set, .. } => unset.len() + set.iter().map(|group| group.users.len()).sum::<usize>(),
            Fact::Segment { remove, add, .. } | Fact::Merged { remove, add, .. } => remove.len() + add.len(),
            Fact::Rollout { .. }
            | Fact::Roster { .. }
            | Fact::NoSegment { .. }
            | Fact::Scheduled { .. }
            | Fact::NotScheduled { .. } => 0,
        }
    }
}
