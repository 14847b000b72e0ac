//! Damaged files: an error or a whole state, never a panic and never half of something that counts as whole.

use std::path::Path;

use switchyard::rollout::Revision;
use switchyard::store::{EmbeddedSettings, EmbeddedStore, Event, HistoryQuery, Store, StoreError};

use crate::dice::Dice;
use crate::embedded::Folder;
use crate::history;
use crate::make::{commit, group, load, must, pins, put};
use crate::model::Model;

/// Makes a store of some hundred pages; yields the state after each revision.
async fn filled(store: &EmbeddedStore) -> Vec<Model> {
    let (mut dice, mut states) = (Dice(3), vec![Model::default()]);
    for n in 0..30 {
        let mut state = states[states.len() - 1].clone();
        let mut facts = history::roll(&mut dice, &state, n + 1);
        let users: Vec<String> = (0..150).map(|_| format!("user-{}", dice.below(5_000))).collect();
        let users: Vec<&str> = users.iter().map(String::as_str).collect();
        facts.extend([
            put("big", "1"),
            pins("big", false, &[], vec![group("canary", Some(n), &users)]),
        ]);
        state.apply_all(&facts);
        must(store, n, facts).await;
        states.push(state);
    }
    states
}

/// Uses all of a store; errors are allowed.
async fn use_all(path: &Path) -> Result<(), StoreError> {
    let store = EmbeddedStore::open(&EmbeddedSettings::new(path))?;
    let (send, mut receive) = tokio::sync::mpsc::channel(64);
    let drained = async { while receive.recv().await.is_some() {} };
    let (loaded, ()) = tokio::join!(store.load(send), drained);
    let revision = loaded?;
    store
        .history(&HistoryQuery {
            limit: 999,
            ..HistoryQuery::default()
        })
        .await?;
    store.undoing(Revision(0)).await?;
    let mut watch = store.watch(Revision(0));
    for _ in 0..revision.0 {
        if matches!(watch.next().await?, Event::Resync) {
            break;
        }
    }
    // Refused or done: both will do.
    if let Err(error) = store.commit(revision, commit(vec![put("after", "1")])).await {
        assert!(error.to_string().contains("store"), "{error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_damaged_file_gives_an_error_and_never_a_panic() {
    let folder = Folder::new();
    let store = folder.open();
    filled(&store).await;
    drop(store);
    let whole = std::fs::read(folder.path()).expect("readable");
    let mut dice = Dice(5);
    let mut refused = 0;
    for round in 0..150 {
        let damaged = Folder::new();
        let mut bytes = whole.clone();
        match round % 3 {
            0 => bytes.truncate(usize::try_from(dice.below(whole.len() as u64)).expect("fits")),
            1 => (0..=dice.below(20)).for_each(|_| flip(&mut bytes, &mut dice)),
            _ => {
                // A lost page.
                let page = usize::try_from(dice.below(whole.len() as u64 / 4096)).expect("fits") * 4096;
                bytes[page..page + 4096].fill(0);
            }
        }
        std::fs::write(damaged.path(), &bytes).expect("written");
        if let Err(error) = use_all(&damaged.path()).await {
            refused += 1;
            let text = error.to_string();
            assert!(text.contains("rollouts.db"), "which file, and what to do: {text}");
        }
    }
    assert!(refused > 75, "only {refused} of 150 damages were noticed");
}

#[tokio::test]
async fn a_damaged_log_gives_the_state_before_the_damage() {
    let folder = Folder::new();
    let store = folder.open();
    let states = filled(&store).await;
    // As a killed program leaves it.
    let (file, log) = (folder.path(), folder.path().with_file_name("rollouts.db-wal"));
    let (file, log) = (std::fs::read(file).expect("file"), std::fs::read(log).expect("log"));
    assert!(
        log.len() < 4 << 20,
        "shorter than what is emptied into the file meanwhile: {}",
        log.len()
    );
    let mut dice = Dice(9);
    let mut lost = 0;
    for round in 0..40 {
        let damaged = Folder::new();
        let mut bytes = log.clone();
        if round % 2 == 0 {
            bytes.truncate(usize::try_from(dice.below(log.len() as u64)).expect("fits"));
        } else {
            flip(&mut bytes, &mut dice);
        }
        std::fs::write(damaged.path(), &file).expect("written");
        std::fs::write(damaged.path().with_file_name("rollouts.db-wal"), bytes).expect("written");
        let store = damaged.open();
        let (Revision(there), facts) = load(&store).await;
        assert!(
            Model::of(&facts) == states[usize::try_from(there).expect("fits")],
            "not whole at {there}"
        );
        lost += u32::from(there < 30);
        must(&store, there, vec![put("after", "1")]).await;
    }
    assert!(lost > 20, "only {lost} of 40 damages were noticed");
}

fn flip(bytes: &mut [u8], dice: &mut Dice) {
    let at = usize::try_from(dice.below(bytes.len() as u64)).expect("fits");
    bytes[at] ^= 1 << dice.below(8);
}

#[tokio::test]
async fn an_empty_file_is_no_new_store_while_its_copy_is_there() {
    let folder = Folder::new();
    let path = folder.path();
    {
        let store = EmbeddedStore::open(&EmbeddedSettings::new(&path)).expect("opens");
        must(&store, 0, vec![put("shop", "1")]).await;
    }
    let copy = folder.copy();
    std::fs::copy(&path, &copy).expect("a copy");
    let beside = ["-wal", "-shm"].map(|end| path.with_extension(format!("db{end}")));
    let refused = || {
        let refused = EmbeddedStore::open(&EmbeddedSettings::new(&path))
            .err()
            .expect("refused")
            .to_string();
        assert!(refused.contains(".snapshot beside it is not"), "{refused}");
    };
    std::fs::write(&path, "").expect("cut off");
    beside.iter().for_each(|file| drop(std::fs::remove_file(file)));
    refused();
    std::fs::remove_file(&path).expect("lost");
    refused();
    assert!(!path.exists(), "nothing is put in its place");
    std::fs::remove_file(&copy).expect("removed");
    let none = EmbeddedStore::open_snapshot(&path)
        .err()
        .expect("there is none")
        .to_string();
    assert!(none.contains("there is no such copy"), "{none}");
    EmbeddedStore::open(&EmbeddedSettings::new(&path)).expect("begins anew");
}
