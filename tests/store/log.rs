//! The write-ahead log: within bounds however much is committed, and nothing is lost by what is done to it.

use std::fs::File;
use std::os::unix::fs::FileExt;

use switchyard::rollout::{Fact, Revision};
use switchyard::store::{CommitError, EmbeddedSettings, EmbeddedStore, Store};

use crate::embedded::Folder;
use crate::make::{commit, load, pin, put};

/// Of how many users each commit is, so that the log fills up.
const USERS: usize = 1_000;
/// Some fifteen times what it takes.
const COMMITS_MAX: usize = 2_000;
/// What a log in use has from then on.
const LENGTH: u64 = 16 << 20;

/// How often the log has begun anew: its head counts that.
fn begun_anew(folder: &Folder) -> u32 {
    let (log, mut count) = (File::open(folder.log()).expect("a log"), [0; 4]);
    log.read_exact_at(&mut count, 12).expect("a head");
    u32::from_be_bytes(count)
}

fn many(n: usize) -> Fact {
    let users: Vec<String> = (0..USERS).map(|user| format!("user-{}-{user}", n % 7)).collect();
    let users: Vec<&str> = users.iter().map(String::as_str).collect();
    pin("search", ["stable", "canary"][n / 7 % 2], &users)
}

/// Commits whatever the revision is by then.
async fn insist(store: &EmbeddedStore, fact: &Fact) {
    let mut base = store.revision().await.expect("revision");
    loop {
        match store.commit(base, commit(vec![fact.clone()])).await {
            Ok(_) => return,
            Err(CommitError::Moved(present)) => base = present,
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn a_log_begins_anew_though_commits_never_pause() {
    let folder = Folder::new();
    let store = folder.open();
    insist(&store, &put("search", "1")).await;
    let first = begun_anew(&folder);
    // One waits while the other commits, so there is never a moment without.
    let one_of_two = async |which: usize| {
        for n in 0..COMMITS_MAX / 2 {
            if begun_anew(&folder) >= first + 2 {
                return true;
            }
            insist(&store, &many(2 * n + which)).await;
        }
        false
    };
    assert_eq!(tokio::join!(one_of_two(0), one_of_two(1)), (true, true));
}

#[tokio::test]
async fn a_log_in_use_is_given_its_length_and_all_that_two_programs_commit_meanwhile_is_there_after_a_crash() {
    let folder = Folder::new();
    let (old, new) = (folder.open(), folder.open());
    insist(&old, &put("search", "1")).await;
    let length = || folder.log().metadata().expect("a log").len();
    let mut made = 1;
    while length() < LENGTH {
        assert!(made < COMMITS_MAX, "the log has {} bytes", length());
        let (one, other) = (many(made), many(made + 1));
        tokio::join!(insist(&old, &one), insist(&new, &other));
        made += 2;
    }
    // As a crash of both leaves it.
    let left = Folder::new();
    std::fs::copy(folder.path(), left.path()).expect("copied");
    std::fs::copy(folder.log(), left.log()).expect("copied");
    let again = EmbeddedStore::open(&EmbeddedSettings::new(left.path())).expect("opens");
    assert_eq!(again.revision().await.expect("revision"), Revision(made as u64));
    assert_eq!(load(&again).await, load(&old).await);
}
