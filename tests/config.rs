//! The configuration files that come with the program, and what is said of broken ones.

use std::path::Path;

use switchyard::config;

fn root(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn problems(text: &str) -> Vec<String> {
    let parsed = config::parse("f", text, &|_| None);
    parsed.expect_err("broken").iter().map(ToString::to_string).collect()
}

#[test]
fn every_file_that_comes_with_the_program_loads() {
    let mut files = vec![root("conf/switchyard.yaml")];
    files.extend(
        std::fs::read_dir(root("conf/examples"))
            .expect("folder")
            .map(|e| e.expect("entry").path()),
    );
    assert!(files.len() >= 5);
    for file in files {
        if let Err(e) = config::load(&file) {
            panic!("{e}");
        }
    }
}

#[test]
fn the_defaults_in_the_commented_file_are_the_real_ones() {
    let text = std::fs::read_to_string(root("conf/switchyard.yaml")).expect("file");
    let written = config::parse("f", &text, &|_| None).expect("valid");
    // The same without every section that only repeats defaults.
    let bare = r#"
listeners: [{ address: "127.0.0.1:8080" }]
pools: { stable: { endpoints: ["127.0.0.1:9001"] }, canary: { endpoints: ["127.0.0.1:9002"] } }
routes: [{ rollout: checkout, id: front }]
rollouts:
  checkout:
    releases: { stable: { pool: stable }, canary: { pool: canary } }
"#;
    let bare = config::parse("f", bare, &|_| None).expect("valid");
    assert_eq!(written.server, bare.server);
    assert_eq!(written.listeners, bare.listeners);
    assert_eq!(written.admin, bare.admin);
    assert_eq!(written.pools, bare.pools);
    assert_eq!(written.limits, bare.limits);
    assert_eq!(written.access_log, bare.access_log);
    assert_eq!(format!("{:?}", written.identity), format!("{:?}", bare.identity));
}

#[test]
fn the_commented_file_holds_every_key_of_the_schema() {
    let text = std::fs::read_to_string(root("conf/switchyard.yaml")).expect("file");
    let schema = config::schema();
    let mut keys = Vec::new();
    collect(&schema, &mut keys);
    // Keys of later issues, which the schema has so that the problem can say so.
    let later = ["segment", "claim", "ranges", "from", "to"];
    keys.retain(|key| !later.contains(&key.as_str()));
    assert!(keys.len() > 60, "{}", keys.len());
    let missing: Vec<_> = keys.iter().filter(|key| !text.contains(key.as_str())).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

fn collect(schema: &serde_json::Value, keys: &mut Vec<String>) {
    if let Some(properties) = schema.get("properties").and_then(|p| p.as_object()) {
        keys.extend(properties.keys().cloned());
    }
    match schema {
        serde_json::Value::Object(map) => map.values().for_each(|v| collect(v, keys)),
        serde_json::Value::Array(list) => list.iter().for_each(|v| collect(v, keys)),
        _ => {}
    }
}

#[test]
fn all_problems_are_told_at_once_with_their_places() {
    let text = "\
listeners:
  - address: nowhere
admin: { address: \"0.0.0.0:9180\" }
pools:
  stable:
    endpoints: [\"127.0.0.1\"]
  secure:
    endpoints: [\"127.0.0.1:1\"]
    tls: { enabled: true }
routes:
  - rollout: gone
  - pool: stable
    cors: { mode: own, allow_origins: [\"*\"], allow_credentials: true }
";
    let told = problems(text);
    for expected in [
        "f:2:5: listeners[0].address: \"nowhere\" is no address and port",
        "f:3:10: admin.address: 0.0.0.0:9180 is not loopback",
        "f:6:5: pools.stable.endpoints[0]: \"127.0.0.1\" is no host and port",
        "f:9:5: pools.secure.tls: has no server_name",
        "f:11:5: routes[0].rollout: gone does not exist",
        "cors.allow_origins: allows everyone, with credentials",
        "routes[1].match: takes the same requests as a route before it",
    ] {
        assert!(
            told.iter().any(|p| p.contains(expected)),
            "{expected} is not in {told:#?}"
        );
    }
    assert_eq!(told.len(), 7, "{told:#?}");
}

#[test]
fn unknown_keys_and_wrong_types_are_told_with_line_and_column() {
    let told = problems("listeners: []\nserver:\n  thread: 2\n");
    assert!(
        told[0].starts_with("f:3:3: server: unknown field `thread`, expected one of `threads`"),
        "{told:?}"
    );
    let told = problems("limits:\n  read_timeout: 5\n");
    assert_eq!(
        told,
        ["f:2:3: limits: \"5\" is no duration: write a number and ms, s, m or h, such as 3s"]
    );
}

#[test]
fn a_file_cut_off_anywhere_never_panics() {
    let text = std::fs::read_to_string(root("conf/switchyard.yaml")).expect("file");
    let mut refused = 0;
    for (end, _) in text.match_indices('\n') {
        refused += usize::from(config::parse("f", &text[..end], &|_| None).is_err());
    }
    assert!(refused > 50, "{refused}");
}
