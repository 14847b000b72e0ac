//! The store in a file: what an operator waits for. Prints medians; `make bench` runs it.

use std::time::{Duration, Instant};

use switchyard::rollout::{Fact, Moment, ReleaseName, Revision, RolloutName, UserGroup};
use switchyard::store::{Commit, EmbeddedSettings, EmbeddedStore, Event, Record, Source, Store};
use tokio::sync::mpsc;

const USERS: usize = 1_000_000;
const SINGLES: usize = 300;
const REPEATS: usize = 3;

fn commit(facts: Vec<Fact>) -> Commit {
    Commit {
        facts: facts.into(),
        record: Record {
            at: Moment(1),
            actor: "bench".to_owned(),
            reason: None,
            source: Source::Cli,
            rollouts: vec![rollout()],
            summary: "bench".to_owned(),
            diff: vec![],
        },
        idempotency: None,
    }
}

fn rollout() -> RolloutName {
    RolloutName::parse("search").expect("name")
}

fn pinned(users: Vec<Box<str>>) -> Fact {
    Fact::Users {
        rollout: rollout(),
        replace: false,
        unset: vec![],
        set: vec![UserGroup {
            release: ReleaseName::parse("canary").expect("name"),
            until: None,
            users,
        }],
    }
}

fn created() -> Fact {
    let spec = r#"{"releases": {"stable": {"pool": "a"}, "canary": {"pool": "b"}}}"#;
    Fact::Rollout {
        rollout: rollout(),
        spec: Some(Box::new(serde_json::from_str(spec).expect("spec"))),
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// From asking for the commit to having it from the watch.
async fn singles(store: &EmbeddedStore, name: &str) {
    let mut base = store.revision().await.expect("revision");
    let mut watch = store.watch(base);
    let mut times = Vec::new();
    for n in 0..SINGLES {
        let one = commit(vec![pinned(vec![format!("single-{}", n * 7919).into()])]);
        let begun = Instant::now();
        base = store.commit(base, one).await.expect("committed").revision;
        assert!(matches!(watch.next().await, Ok(Event::Committed(_))));
        times.push(begun.elapsed());
    }
    times.sort_unstable();
    println!(
        "one user committed and delivered, {name}: median {:?}, p99 {:?}",
        times[SINGLES / 2],
        times[SINGLES * 99 / 100]
    );
}

async fn import(store: &EmbeddedStore) -> Duration {
    let base = store.revision().await.expect("revision");
    // Ids in no order, as a file has them.
    let ids = (0..USERS).map(|n| format!("user-{:016x}", (n as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)).into());
    let all = commit(vec![pinned(ids.collect())]);
    let begun = Instant::now();
    store.commit(base, all).await.expect("committed");
    begun.elapsed()
}

async fn load(store: &EmbeddedStore) -> Duration {
    let (send, mut receive) = mpsc::channel(4);
    let begun = Instant::now();
    let (loaded, ()) = tokio::join!(store.load(send), async { while receive.recv().await.is_some() {} });
    loaded.expect("loaded");
    begun.elapsed()
}

/// The most memory that this program had at once, from the system.
fn peak() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM"));
    line.unwrap_or("unknown").to_owned()
}

fn main() {
    let folder = std::env::temp_dir().join(format!("switchyard-bench-store-{}", std::process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
    runtime.block_on(async {
        let (mut imports, mut loads, mut again, mut undoing) = (vec![], vec![], vec![], vec![]);
        for n in 0..REPEATS {
            let store = EmbeddedStore::open(&EmbeddedSettings::new(folder.join(format!("{n}.db")))).expect("opens");
            store
                .commit(Revision(0), commit(vec![created()]))
                .await
                .expect("committed");
            if n == 0 {
                singles(&store, "empty").await;
            }
            imports.push(import(&store).await);
            if n == 0 {
                println!("peak memory after one import: {}", peak());
                singles(&store, "among a million").await;
            }
            loads.push(load(&store).await);
            again.push(import(&store).await);
            let begun = Instant::now();
            let facts = store.undoing(Revision(1)).await.expect("undoing");
            undoing.push(begun.elapsed());
            assert!(!facts.is_empty());
        }
        println!("a million users imported: {:?}", median(imports));
        println!("the same million imported again: {:?}", median(again));
        println!("a million users loaded: {:?}", median(loads));
        println!("undoing of both made: {:?}", median(undoing));
    });
    std::fs::remove_dir_all(&folder).expect("removed");
}
