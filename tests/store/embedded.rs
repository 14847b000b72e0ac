//! What a store in a file does beyond the contract.

use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use switchyard::rollout::{Fact, Moment, Revision};
use switchyard::store::{
    Answered, CommitError, EmbeddedSettings, EmbeddedStore, Event, HistoryQuery, Store, StoreError, Watch,
};

use crate::folder::until_in;
use crate::make::{asked, commit, commit_at, delete, load, must, next, now, pin, put, release, rollout, scheduled};

/// A folder of one test's own, removed at its end.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        loop {
            let n = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("switchyard-store-{}-{n}", std::process::id()));
            match std::fs::create_dir(&path) {
                Ok(()) => return Self(path),
                // Left behind by a program that had the same number and was killed.
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => panic!("{}: {error}", path.display()),
            }
        }
    }

    pub fn path(&self) -> PathBuf {
        self.0.join("rollouts.db")
    }

    pub fn rosters(&self) -> PathBuf {
        self.0.join("rollouts.db.segments")
    }

    pub fn log(&self) -> PathBuf {
        self.0.join("rollouts.db-wal")
    }

    pub fn copy(&self) -> PathBuf {
        self.0.join("rollouts.db.snapshot")
    }

    pub fn open(&self) -> EmbeddedStore {
        EmbeddedStore::open(&EmbeddedSettings::new(self.path())).expect("opens")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

#[tokio::test]
async fn all_of_it_is_there_again_when_opened_again() {
    let folder = Folder::new();
    let mut made = commit_at(
        now(),
        vec![put("search", "1"), pin("search", "canary", &["u1"]), scheduled(1, 5)],
    );
    made.idempotency = Some(asked("k", 1));
    let store = folder.open();
    store.commit(Revision(0), made).await.expect("committed");
    let (before, all) = (
        load(&store).await,
        HistoryQuery {
            limit: 9,
            ..HistoryQuery::default()
        },
    );
    let history = store.history(&all).await.expect("history");
    drop(store);
    let store = folder.open();
    assert_eq!(load(&store).await, before);
    assert_eq!(store.history(&all).await.expect("history"), history);
    assert_eq!(
        store.answered(&asked("k", 1)).await.expect("answered"),
        Some(Answered::Same(Revision(1)))
    );
    assert_eq!(next(&mut store.watch(Revision(0))).await.revision, Revision(1));
    assert_eq!(store.undoing(Revision(0)).await.expect("undoing").len(), 2);
    must(&store, 1, vec![delete("search")]).await;
}

#[tokio::test]
async fn two_programs_with_one_file_see_each_others_commits_in_one_order() {
    let folder = Folder::new();
    let (old, new) = (Arc::new(folder.open()), Arc::new(folder.open()));
    let watches = [old.watch(Revision(0)), new.watch(Revision(0))];
    let write = |store: Arc<EmbeddedStore>, who: &'static str| async move {
        let mut base = Revision(0);
        for n in 0..40 {
            loop {
                match store
                    .commit(base, commit(vec![put("search", &format!("{who}{n}"))]))
                    .await
                {
                    Ok(committed) => {
                        base = committed.revision;
                        break;
                    }
                    Err(CommitError::Moved(present)) => base = present,
                    Err(other) => panic!("{other}"),
                }
            }
        }
    };
    let see = |mut watch: Box<dyn Watch>| async move {
        let mut seen = Vec::new();
        for n in 1..=80 {
            let committed = next(&mut watch).await;
            assert_eq!(committed.revision, Revision(n));
            seen.extend(committed.facts.iter().cloned());
        }
        seen
    };
    let [first, second] = watches;
    let (.., one, other) = tokio::join!(
        write(old.clone(), "old"),
        write(new.clone(), "new"),
        see(first),
        see(second)
    );
    assert_eq!(one, other);
    for who in ["old", "new"] {
        let of_one: Vec<_> = one
            .iter()
            .filter(|fact| serde_json::to_string(fact).expect("text").contains(who))
            .collect();
        let expected: Vec<Fact> = (0..40).map(|n| put("search", &format!("{who}{n}"))).collect();
        assert!(of_one.into_iter().eq(&expected), "each one's own are in their order");
    }
}

#[tokio::test]
async fn a_watch_that_is_cancelled_reads_on_from_the_disk() {
    let folder = Folder::new();
    let store = folder.open();
    for n in 0..100 {
        must(&store, n, vec![put("search", &n.to_string())]).await;
    }
    let mut watch = store.watch(Revision(0));
    let mut seen = 0;
    while seen < 100 {
        tokio::select! {
            event = watch.next() => {
                let Event::Committed(committed) = event.expect("event") else { panic!("resync") };
                seen += 1;
                assert_eq!(committed.revision, Revision(seen));
            }
            // Sooner than any reading: the wait is given up each time.
            () = tokio::task::yield_now() => {}
        }
    }
}

#[test]
fn a_new_file_can_be_opened_by_many_at_once() {
    let folder = Folder::new();
    std::thread::scope(|scope| {
        let openings: Vec<_> = (0..6).map(|_| scope.spawn(|| folder.open())).collect();
        for opening in openings {
            opening.join().expect("opened");
        }
    });
}

#[tokio::test]
async fn own_commits_are_handed_over_and_not_read_back() {
    let folder = Folder::new();
    let store = folder.open();
    let mut watch = store.watch(Revision(0));
    let committed = must(&store, 0, vec![put("search", "1")]).await;
    assert!(Arc::ptr_eq(&committed.facts, &next(&mut watch).await.facts));
}

#[test]
fn only_the_owner_can_read_the_files() {
    let folder = Folder::new();
    let path = folder.path().with_file_name("deep").join("down").join("rollouts.db");
    let settings = EmbeddedSettings {
        copy_every: Duration::ZERO,
        ..EmbeddedSettings::new(&path)
    };
    let store = EmbeddedStore::open(&settings).expect("opens");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(must(&store, 0, vec![put("search", "1")]));
    let folder = path.parent().expect("a folder");
    until_in(folder, || path.with_file_name("rollouts.db.snapshot").exists());
    let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().expect("a folder")), 0o700);
    for name in [
        "rollouts.db",
        "rollouts.db-wal",
        "rollouts.db-shm",
        "rollouts.db.snapshot",
    ] {
        assert_eq!(mode(&path.with_file_name(name)), 0o600, "{name}");
    }
}

#[test]
fn what_a_killed_program_left_of_its_copy_is_removed_and_one_that_is_being_made_is_not() {
    let folder = Folder::new();
    let settings = EmbeddedSettings {
        copy_every: Duration::ZERO,
        ..EmbeddedSettings::new(folder.path())
    };
    let beside = |suffix: &str| folder.path().with_file_name(format!("rollouts.db.snapshot{suffix}"));
    let left = std::fs::File::create(beside(".4000001")).expect("file");
    let hours = Duration::from_secs(2 * 3600);
    left.set_modified(std::time::SystemTime::now() - hours).expect("set");
    std::fs::write(beside(".4000002"), "").expect("file");
    let store = EmbeddedStore::open(&settings).expect("opens");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(must(&store, 0, vec![put("search", "1")]));
    until_in(folder.path().parent().expect("a folder"), || beside("").exists());
    assert_eq!(
        (beside(".4000001").exists(), beside(".4000002").exists()),
        (false, true)
    );
}

#[tokio::test]
async fn the_copy_serves_reading_while_the_store_is_damaged() {
    let folder = Folder::new();
    assert!(
        EmbeddedStore::open_snapshot(&folder.path()).is_err(),
        "there is none yet"
    );
    let settings = EmbeddedSettings {
        copy_every: Duration::ZERO,
        ..EmbeddedSettings::new(folder.path())
    };
    let store = EmbeddedStore::open(&settings).expect("opens");
    for n in 0..20 {
        must(
            &store,
            n,
            vec![put("search", &n.to_string()), pin("search", "canary", &["u1"])],
        )
        .await;
    }
    let state = load(&store).await;
    let copy = || EmbeddedStore::open_snapshot(&folder.path());
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    tokio::task::spawn_blocking({
        let path = folder.path();
        move || {
            until_in(path.parent().expect("a folder"), || {
                let copy = EmbeddedStore::open_snapshot(&path);
                copy.is_ok_and(|copy| runtime.block_on(copy.revision()).expect("revision") == Revision(20))
            });
        }
    })
    .await
    .expect("copied");
    drop(store);
    std::fs::write(folder.path(), "not what it was ".repeat(4096)).expect("damaged");
    let damaged = EmbeddedStore::open(&settings).err().expect("refused").to_string();
    assert!(
        damaged.contains("rollouts.db") && damaged.contains(".snapshot"),
        "{damaged}"
    );
    let copy = copy().expect("opens");
    assert_eq!(load(&copy).await, state);
    assert_eq!(
        copy.user(&rollout("search"), "u1")
            .await
            .expect("user")
            .expect("pinned")
            .release,
        release("canary")
    );
    let refused = copy.commit(Revision(20), commit(vec![put("search", "x")])).await;
    assert!(matches!(refused, Err(CommitError::ReadOnly(_))), "{refused:?}");
    assert!(copy.status().read_only.expect("says why").contains(".snapshot"));
    copy.prune(Moment(u64::MAX)).await.expect("nothing to do");
    assert_eq!(load(&copy).await, state);
    let names = std::fs::read_dir(folder.path().parent().expect("folder")).expect("folder");
    assert_eq!(names.count(), 2, "no half copies are left");
}

#[test]
fn a_file_of_a_newer_program_is_refused_and_so_is_what_is_no_store() {
    let folder = Folder::new();
    drop(folder.open());
    let db = rusqlite::Connection::open(folder.path()).expect("opens");
    db.pragma_update(None, "user_version", 1_000).expect("newer");
    drop(db);
    let newer = EmbeddedStore::open(&EmbeddedSettings::new(folder.path())).err();
    assert!(
        matches!(newer, Some(StoreError::Newer { found: 1_000, .. })),
        "{newer:?}"
    );

    let other = folder.path().with_file_name("other.db");
    let db = rusqlite::Connection::open(&other).expect("opens");
    db.execute_batch("CREATE TABLE mine (x); PRAGMA user_version = 1")
        .expect("tables");
    drop(db);
    let refused = EmbeddedStore::open(&EmbeddedSettings::new(&other))
        .err()
        .expect("refused")
        .to_string();
    assert!(
        refused.contains("other.db") && refused.contains("not a store"),
        "{refused}"
    );

    let nowhere = EmbeddedStore::open(&EmbeddedSettings::new("/proc/none/rollouts.db")).err();
    assert!(nowhere.expect("refused").to_string().contains("/proc/none/rollouts.db"));
}

#[test]
fn a_task_receives_what_it_loads_where_its_runtime_has_several_threads() {
    let folder = Folder::new();
    let store = folder.open();
    let facts = ["a", "b", "c", "d", "e"].map(|name| put(name, "1")).to_vec();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = runtime.worker_threads(1).enable_all().build().expect("a runtime");
    let expected = (Revision(1), facts.clone());
    let loaded = runtime.block_on(async {
        must(&store, 0, facts).await;
        tokio::time::timeout(Duration::from_secs(60), tokio::spawn(async move { load(&store).await })).await
    });
    // A thread that waits for itself would not end.
    runtime.shutdown_background();
    assert_eq!(loaded.expect("it ends").expect("no panic"), expected);
}

#[tokio::test]
async fn reading_waits_for_no_writer_and_writing_for_no_reader() {
    let folder = Folder::new();
    let store = folder.open();
    must(
        &store,
        0,
        vec![put("a", "1"), put("b", "1"), put("c", "1"), put("d", "1")],
    )
    .await;
    let other = rusqlite::Connection::open(folder.path()).expect("opens");
    other
        .execute_batch("BEGIN IMMEDIATE")
        .expect("the lock that a commit holds");
    assert_eq!(store.revision().await.expect("revision"), Revision(1));
    other.execute_batch("ROLLBACK").expect("given back");
    let (send, mut receive) = tokio::sync::mpsc::channel::<switchyard::store::Loaded>(1);
    let committing = async {
        let first = receive.recv().await.map(|loaded| loaded.fact);
        assert_eq!(first, Some(put("a", "1")), "loading is under way");
        must(&store, 1, vec![delete("d")]).await;
        let mut rest = 0;
        while receive.recv().await.is_some() {
            rest += 1;
        }
        rest
    };
    let (revision, rest) = tokio::join!(store.load(send), committing);
    assert_eq!(
        (revision.expect("loaded"), rest),
        (Revision(1), 3),
        "as it was when loading began"
    );
}
