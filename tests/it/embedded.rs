//! The program and its store in a file: restarts, damage, the copy, and two programs at once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use switchyard::rollout::{Fact, Moment, Revision, RolloutName};
use switchyard::store::{Commit, EmbeddedSettings, EmbeddedStore, Record, Source, Store};

use crate::admin_client::{PLAIN, ask};
use crate::files::{directory, refused_start, until};
use crate::harness::{Origin, Proxy, exchange};

const ROLLOUT: &str = "{ releases: { stable: { pool: a }, canary: { pool: b } }, split: { canary: 10% } }";

fn configuration(store: &Path, a: &Origin, b: &Origin) -> String {
    format!(
        "store: {{ embedded: {{ path: {} }} }}\npools: {{ a: {{ endpoints: [\"{}\"] }}, b: {{ endpoints: [\"{}\"] }} }}\n\
         routes: [{{ rollout: web }}]\nrollouts: {{ web: {ROLLOUT} }}\n",
        store.display(),
        a.address,
        b.address
    )
}

fn status(proxy: &Proxy) -> serde_json::Value {
    let asked = "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    serde_json::from_str(&exchange(&proxy.admin, asked).body).expect("JSON")
}

fn revision(proxy: &Proxy) -> u64 {
    status(proxy)["revision"].as_u64().expect("a number")
}

/// Sends everyone to canary, through another opener of the same file.
fn all_to_canary(path: &Path, after: u64) {
    let spec = json!({
        "releases": {"stable": {"pool": "a"}, "canary": {"pool": "b"}},
        "split": {"canary": "100%"},
    });
    let commit = Commit {
        facts: Arc::new(vec![Fact::Rollout {
            rollout: RolloutName::parse("web").expect("name"),
            spec: Some(Box::new(serde_json::from_value(spec).expect("spec"))),
        }]),
        record: Record {
            at: Moment(1),
            actor: "test".to_owned(),
            reason: None,
            source: Source::Seed,
            rollouts: Vec::new(),
            summary: "all to canary".to_owned(),
            diff: Vec::new(),
        },
        idempotency: None,
    };
    let store = EmbeddedStore::open(&EmbeddedSettings::new(path)).expect("store");
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime
        .block_on(store.commit(Revision(after), commit))
        .expect("committed");
}

fn user(proxy: &Proxy) -> String {
    proxy.get("/", "X-User-Id: 7\r\n").body
}

#[test]
fn what_was_changed_is_there_after_a_restart_and_the_seed_is_not_used_again() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let path = directory("restart").join("switchyard.db");
    let text = configuration(&path, &a, &b);
    let (first, other) = (Proxy::start(&text), Proxy::start(&text));
    let seeded = revision(&first);
    assert!(seeded > 0);
    all_to_canary(&path, seeded);
    for proxy in [&first, &other] {
        until("both follow", || revision(proxy) == seeded + 1);
        assert_eq!(user(proxy), "b");
    }
    assert!(status(&first)["store"]["read_only"].is_null());
    for proxy in [first, other] {
        proxy.signal("TERM");
        assert_eq!(proxy.end().0, Some(0));
    }
    let again = Proxy::start(&text);
    assert_eq!((revision(&again), user(&again).as_str()), (seeded + 1, "b"));
    let told = format!("are a seed and not used: the store is at revision {}", seeded + 1);
    again.wait_told(&told, 1);
    assert_eq!(again.alarms(), Vec::<String>::new());
}

fn damage(path: &Path) {
    for end in ["-wal", "-shm"] {
        let mut beside = path.as_os_str().to_owned();
        beside.push(end);
        drop(std::fs::remove_file(PathBuf::from(beside)));
    }
    std::fs::write(path, "this is no database, it only has its name\n".repeat(500)).expect("damaged");
}

#[test]
fn a_damaged_store_ends_the_start_and_its_copy_serves_for_reading() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let path = directory("damaged").join("switchyard.db");
    let copy = PathBuf::from(format!("{}.snapshot", path.display()));
    let text = configuration(&path, &a, &b);
    let proxy = Proxy::start(&text);
    let seeded = revision(&proxy);
    assert_eq!(proxy.metric("switchyard_store_connected", &[]), 1.0);
    until("there is a copy", || copy.exists());
    proxy.signal("TERM");
    assert_eq!(proxy.end().0, Some(0));
    damage(&path);
    let file = path.with_extension("yaml");
    let whole = format!("listeners: [{{ address: \"127.0.0.1:0\" }}]\nadmin: {{ address: \"127.0.0.1:0\" }}\n{text}");
    std::fs::write(&file, whole).expect("configuration");
    let told = refused_start(&file);
    assert!(
        told.contains("switchyard.db") && told.contains("serve --from-snapshot"),
        "{told}"
    );
    assert!(
        !told.contains("listening:"),
        "nothing is opened before the store: {told}"
    );

    let reading = Proxy::launch(&file, &["--from-snapshot"], &[]);
    reading.wait_ready();
    reading.wait_told(
        "until the program is started without --from-snapshot, changes are refused",
        1,
    );
    let status = status(&reading);
    assert_eq!(status["revision"], seeded);
    let why = status["store"]["read_only"].as_str().expect("a reason");
    assert!(why.contains("running from the copy"), "{why}");
    assert_eq!(reading.metric("switchyard_store_connected", &[]), 0.0);
    assert_eq!(reading.get("/", "").status, 200);
    // What is refused leaves no file, as nothing would remove it.
    let many: String = (0..70_000).map(|n| format!("user {n}\n")).collect();
    for query in ["", "?dry_run=true"] {
        let fields = format!("Host: localhost\r\n{PLAIN}");
        let refused = ask(
            &reading.admin,
            "PUT",
            &format!("/api/v1/segments/many{query}"),
            &fields,
            &many,
        );
        assert!(
            refused.status == 503 && refused.body.contains("read-only"),
            "{}",
            refused.body
        );
    }
    assert_eq!(rosters(&path), Vec::<PathBuf>::new());
}

fn rosters(store: &Path) -> Vec<PathBuf> {
    let folder = PathBuf::from(format!("{}.segments", store.display()));
    let files = std::fs::read_dir(folder).into_iter().flatten().map_while(Result::ok);
    files.map(|file| file.path()).filter(|path| path.is_file()).collect()
}

#[test]
fn threads_of_operators_and_of_the_store_give_way_to_those_of_requests_and_so_does_the_access_log() {
    let (a, b) = (Origin::named("a"), Origin::named("b"));
    let path = directory("precedence").join("switchyard.db");
    let proxy = Proxy::start(&configuration(&path, &a, &b));
    assert_eq!(proxy.get("/", "").status, 200);
    revision(&proxy);
    let mut niceness = std::collections::BTreeMap::new();
    for task in std::fs::read_dir(format!("/proc/{}/task", proxy.pid())).expect("threads") {
        let stat = std::fs::read_to_string(task.expect("a thread").path().join("stat")).expect("readable");
        // Of proc(5), `stat`: the second field is the name, in brackets; the nineteenth is the niceness.
        let (name, rest) = stat
            .split_once('(')
            .and_then(|(_, rest)| rest.rsplit_once(") "))
            .expect("a name");
        let nice: i32 = rest
            .split(' ')
            .nth(16)
            .and_then(|field| field.parse().ok())
            .expect("a number");
        let lowest = niceness.entry(name.to_owned()).or_insert(nice);
        *lowest = nice.max(*lowest);
    }
    let own = niceness["edge"];
    for name in ["admin", "store-look", "store-upkeep", "BG state"] {
        assert_eq!(niceness.get(name), Some(&own.max(10)), "{name} of {niceness:?}");
    }
    assert_eq!(niceness.get("access-log"), Some(&own.max(5)), "{niceness:?}");
}
