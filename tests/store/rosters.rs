//! Segments that stand on rosters: through edits, merges, undoing and pruning they are the sets that they should be, and
//! what is wrong with a file is told.

use std::collections::BTreeSet;
use std::sync::Arc;

use switchyard::rollout::{Fact, Members, Moment, Revision};
use switchyard::store::{Answered, EmbeddedStore, MemoryStore, Most, Store};

use crate::dice::Dice;
use crate::embedded::Folder;
use crate::folder::until_in;
use crate::make::{asked, commit_at, edit, kept, known, load, must, now, segment, stand_on};
use crate::model::Model;

fn id(dice: &mut Dice) -> String {
    let n = dice.below(400);
    match dice.below(4) {
        0 | 1 => n.to_string(),
        2 => format!("00000000-0000-4000-8000-{n:012x}"),
        _ => format!("user {n}"),
    }
}

fn ids(dice: &mut Dice, most: u64) -> BTreeSet<String> {
    (0..dice.below(most)).map(|_| id(dice)).collect()
}

fn some(dice: &mut Dice) -> Vec<String> {
    ids(dice, 40).into_iter().collect()
}

/// All members, in pages of three, or fewer where ids are long.
async fn listed(store: &dyn Store, name: &str) -> Vec<String> {
    let (mut all, mut after) = (Vec::<String>::new(), None);
    loop {
        let page = store
            .members(&segment(name), after.as_deref(), Most { users: 3, bytes: 40 })
            .await
            .expect("a page");
        all.extend(page.iter().map(ToString::to_string));
        match page.last() {
            Some(last) => after = Some(last.to_string()),
            None => return all,
        }
    }
}

/// A change of one segment that fits the state.
async fn roll(dice: &mut Dice, store: &dyn Store, state: &Model) -> Vec<Fact> {
    let name = ["staff", "testers"][dice.below(2) as usize];
    match dice.below(9) {
        0 | 1 => {
            let users = ids(dice, 300);
            let mut facts = vec![stand_on(name, &kept(store, &users))];
            if dice.chance(3) {
                facts.push(edit(name, false, &some(dice), &some(dice)));
            }
            facts
        }
        2 => vec![edit(name, true, &[], &some(dice))],
        3 => vec![Fact::NoSegment { segment: segment(name) }],
        4 | 5 => merge(dice, store, state, name).await.into_iter().collect(),
        _ => {
            let mut facts = vec![edit(name, false, &some(dice), &some(dice))];
            if dice.chance(3) {
                facts.push(edit(name, false, &some(dice), &some(dice)));
            }
            facts
        }
    }
}

/// The roster of a segment merged with what changed since; some of it only after the roster was written.
async fn merge(dice: &mut Dice, store: &dyn Store, state: &Model, name: &str) -> Option<Fact> {
    let (_, facts) = load(store).await;
    let mut members = None;
    for fact in facts {
        match fact {
            Fact::Roster { segment: of, roster } if of.as_str() == name => {
                members = Some(Members::of(store.rosters().open(&of, &roster).expect("opened")));
            }
            Fact::Segment {
                segment: of,
                replace: false,
                remove,
                add,
            } if of.as_str() == name => members.as_mut()?.edit(false, &remove, &add),
            _ => {}
        }
    }
    let now = members?;
    let users = &state.segments[name];
    assert_eq!(now.len(), users.len());
    // As if these had not come in yet when it was begun.
    let late: Vec<Box<str>> = users
        .iter()
        .take(dice.below(5) as usize)
        .map(|u| u.as_str().into())
        .collect();
    let mut then = now.clone();
    then.edit(false, &late, &[]);
    let roster = store.rosters().merge(then.roster(), then.since()).expect("merged");
    let early: BTreeSet<String> = users
        .iter()
        .filter(|u| !late.iter().any(|l| **l == ***u))
        .cloned()
        .collect();
    known(&roster, &early);
    assert_eq!(roster.name().users, early.len() as u64);
    Some(Fact::Merged {
        segment: segment(name),
        roster: roster.name(),
        remove: Vec::new(),
        add: late,
    })
}

async fn hold(store: Arc<dyn Store>, seed: u64, again: impl Fn() -> Option<Arc<dyn Store>>) {
    let (mut dice, mut store) = (Dice(seed), store);
    let mut states = vec![Model::default()];
    while states.len() < 60 {
        let now = states.last().expect("a state").clone();
        let facts = roll(&mut dice, &*store, &now).await;
        if facts.is_empty() {
            continue;
        }
        let mut next = now;
        next.apply_all(&facts);
        must(&*store, states.len() as u64 - 1, facts).await;
        assert_eq!(Model::of(&load(&*store).await.1), next, "seed {seed}");
        for name in ["staff", "testers"] {
            let all = listed(&*store, name).await;
            let set: BTreeSet<String> = all.iter().cloned().collect();
            assert_eq!(all.len(), set.len(), "nobody is listed twice");
            assert_eq!(
                Some(&set).filter(|s| !s.is_empty()),
                next.segments.get(name).filter(|s| !s.is_empty())
            );
        }
        states.push(next);
        if dice.chance(8) {
            store.prune(Moment(0)).await.expect("tidied");
            if let Some(opened) = again() {
                store = opened;
            }
        }
    }
    let last = states.last().expect("a state").clone();
    for (to, then) in states.iter().enumerate() {
        let undoing = store.undoing(Revision(to as u64)).await.expect("undoing");
        let mut back = last.clone();
        back.apply_all(&undoing);
        assert_eq!(&back, then, "seed {seed}: back to {to} by {undoing:?}");
    }
    // Undoing is a change, too: it is committed, and undone.
    let undoing = store.undoing(Revision(20)).await.expect("undoing");
    if !undoing.is_empty() {
        let base = states.len() as u64 - 1;
        must(&*store, base, undoing).await;
        assert_eq!(Model::of(&load(&*store).await.1), states[20]);
        let undoing = store.undoing(Revision(base)).await.expect("undoing");
        must(&*store, base + 1, undoing).await;
        assert_eq!(Model::of(&load(&*store).await.1), last);
    }
}

#[tokio::test]
async fn segments_are_sets_through_edits_merges_and_undoing_in_memory() {
    for seed in 0..6 {
        hold(Arc::new(MemoryStore::new()), seed, || None).await;
    }
}

#[tokio::test]
async fn segments_are_sets_through_edits_merges_undoing_and_opening_again() {
    for seed in 10..13 {
        let folder = Folder::new();
        hold(Arc::new(folder.open()), seed, || Some(Arc::new(folder.open()))).await;
    }
}

#[tokio::test]
async fn a_segment_tells_when_it_was_created_and_changed_but_not_when_it_was_merged() {
    let folder = Folder::new();
    let stores: [Arc<dyn Store>; 2] = [Arc::new(MemoryStore::new()), Arc::new(folder.open())];
    for store in stores {
        let roster = kept(&*store, &(0..100).map(|n| n.to_string()).collect());
        let put = |at, facts| (at, commit_at(at, facts));
        for (base, (_, made)) in [
            put(1_000, vec![stand_on("staff", &roster)]),
            put(2_000, vec![edit("staff", false, &[], &["x".to_owned()])]),
            put(
                3_000,
                vec![Fact::Merged {
                    segment: segment("staff"),
                    roster: roster.name(),
                    remove: Vec::new(),
                    add: vec!["x".into()],
                }],
            ),
        ]
        .into_iter()
        .enumerate()
        {
            store.commit(Revision(base as u64), made).await.expect("committed");
        }
        let record = store.segment(&segment("staff")).await.expect("read").expect("there");
        assert_eq!((record.created, record.changed), (Moment(1_000), Moment(2_000)));
        assert_eq!(store.segment(&segment("none")).await.expect("read"), None);
        assert_eq!(listed(&*store, "staff").await.len(), 101);
    }
}

#[tokio::test]
async fn a_roster_that_is_missing_cut_short_or_damaged_is_named() {
    let folder = Folder::new();
    let store = folder.open();
    let users: BTreeSet<String> = (0..1_000).map(|n| format!("user {n}")).collect();
    let list = kept(&store, &users);
    must(&store, 0, vec![stand_on("staff", &list)]).await;
    let roster = list.name();
    drop((store, list));
    let file = |kind: &str| folder.rosters().join(format!("{}.{kind}", roster.digest));
    let whole = std::fs::read(file("roster")).expect("a file");
    let open = || {
        folder
            .open()
            .rosters()
            .open(&segment("staff"), &roster)
            .map(|_| ())
            .expect_err("wrong")
            .to_string()
    };
    for (bytes, told) in [
        (whole[..whole.len() / 2].to_vec(), "and should have"),
        (Vec::new(), "does not begin as"),
        (
            [&whole[..200], &[whole[200] ^ 1], &whole[201..]].concat(),
            "have the digest",
        ),
    ] {
        std::fs::write(file("roster"), bytes).expect("written");
        let text = open();
        let place = file("roster").display().to_string();
        assert!(
            text.contains(told) && text.contains(&place) && text.contains("segment staff") && text.contains("backup"),
            "{text}"
        );
    }
    std::fs::remove_file(file("roster")).expect("removed");
    assert!(open().contains("No such file"), "{}", open());
    std::fs::write(file("roster"), &whole).expect("written");
    let mut names = std::fs::read(file("names")).expect("a file");
    names[10] ^= 1;
    std::fs::write(file("names"), names).expect("written");
    let store = folder.open();
    let text = store
        .members(&segment("staff"), None, Most::users(5))
        .await
        .expect_err("damaged")
        .to_string();
    assert!(
        text.contains(".names") && text.contains("not those that were written"),
        "{text}"
    );
}

#[tokio::test]
async fn files_that_nothing_names_go_and_those_that_undoing_needs_stay() {
    let folder = Folder::new();
    let store = folder.open();
    let list = |from: u64| (from..from + 100).map(|n| n.to_string()).collect::<BTreeSet<_>>();
    let (first, second, stray) = (kept(&store, &list(0)), kept(&store, &list(7)), kept(&store, &list(9)));
    must(&store, 0, vec![stand_on("staff", &first)]).await;
    must(&store, 1, vec![stand_on("staff", &second)]).await;
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
    let there = || std::fs::read_dir(folder.rosters()).expect("a folder").count();
    store.prune(Moment(0)).await.expect("tidied");
    assert_eq!(there(), 3, "what is new stays: somebody may be about to name it");
    for file in std::fs::read_dir(folder.rosters()).expect("a folder") {
        let file = std::fs::File::options()
            .write(true)
            .open(file.expect("an entry").path());
        file.and_then(|file| file.set_modified(long_ago)).expect("aged");
    }
    store.prune(Moment(0)).await.expect("tidied");
    assert_eq!(there(), 2);
    assert!(stray.contains("9"), "whoever has it, has it still");
    // Once the history forgets the change from the first to the second, nothing names the first.
    let later = commit_at(9_000, vec![edit("other", false, &[], &[])]);
    store.commit(Revision(2), later).await.expect("committed");
    // Nor does the copy, which is not made again for a minute.
    until_in(folder.path().parent().expect("a folder"), || folder.copy().exists());
    std::fs::remove_file(folder.copy()).expect("removed");
    store.prune(Moment(8_000)).await.expect("pruned");
    assert_eq!(there(), 1);
    assert_eq!(listed(&store, "staff").await.len(), 100);
}

#[tokio::test]
async fn a_store_of_the_first_schema_is_brought_forward_and_its_program_changes_no_segment_any_more() {
    let folder = Folder::new();
    let old = rusqlite::Connection::open(folder.path()).expect("opened");
    old.execute_batch(include_str!("../fixtures/store/schema_1.sql"))
        .expect("made");
    let store = folder.open();
    let (revision, facts) = load(&store).await;
    assert_eq!(revision, Revision(1));
    let all = ["7", "anna", "bert"].map(ToOwned::to_owned);
    assert_eq!(
        facts,
        vec![edit("empty", true, &[], &[]), edit("staff", true, &[], &all)]
    );
    let record = store.segment(&segment("staff")).await.expect("read").expect("there");
    assert_eq!((record.created, record.changed), (Moment(5_000), Moment(5_000)));
    must(&store, 1, vec![edit("staff", false, &all[..1], &[])]).await;
    assert_eq!(listed(&store, "staff").await, all[1..]);
    let late = old.execute(
        "INSERT OR IGNORE INTO members (segment, user) VALUES ('staff', 'late')",
        [],
    );
    assert!(late.expect_err("refused").to_string().contains("no such table"));
}

/// As a program of before keeps it.
fn answered_before(old: &rusqlite::Connection) {
    let asked = asked("old", 1);
    let sql = "INSERT INTO answers (actor, key, digest, revision, at) VALUES (?1, ?2, ?3, 1, ?4)";
    let at = i64::try_from(now()).expect("a time");
    old.execute(sql, rusqlite::params![asked.actor, asked.key, asked.digest, at])
        .expect("kept");
}

#[tokio::test]
async fn what_an_older_program_answered_is_known_in_its_store_and_in_its_copy() {
    let folder = Folder::new();
    let known = Some(Answered::Same(Revision(1)));
    let old = rusqlite::Connection::open(folder.copy()).expect("opened");
    old.execute_batch(include_str!("../fixtures/store/schema_1.sql"))
        .expect("made");
    answered_before(&old);
    drop(old);
    let copy = EmbeddedStore::open_snapshot(&folder.path()).expect("opened");
    assert_eq!(copy.answered(&asked("old", 1)).await.expect("read"), known);
    std::fs::copy(folder.copy(), folder.path()).expect("copied");
    let store = folder.open();
    assert_eq!(store.answered(&asked("old", 1)).await.expect("read"), known);
    // It still runs during an upgrade.
    let old = rusqlite::Connection::open(folder.path()).expect("opened");
    old.execute("DELETE FROM answers", []).expect("forgotten");
    answered_before(&old);
    assert_eq!(store.answered(&asked("old", 1)).await.expect("read"), known);
}
