//! Segments of many users, in the program itself: imported, packed or not, in one change or not at all; edited, merged,
//! exported, undone; and killed half-way.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::admin_client::{JSON, PLAIN, Scene, ask, if_match};
use crate::dice::Dice;
use crate::files::{refused_start, until};
use crate::harness::{Answer, Proxy, answer, connect, exchange, long};
use crate::switching_crash::{Folder, Site};

const MANY: u64 = 70_000;
const ONE: &str = "/api/v1/segments/many";

/// Ids of every kind, from `n` on.
fn list(from: u64) -> String {
    let mut text = String::new();
    for n in from..from + MANY {
        let done = match n % 3 {
            0 => writeln!(text, "{n}"),
            1 => writeln!(text, "00000000-0000-4000-8000-{n:012x}"),
            _ => writeln!(text, "user {n}"),
        };
        done.expect("text");
    }
    text
}

fn set(list: &str) -> BTreeSet<String> {
    list.lines().map(ToOwned::to_owned).collect()
}

fn request(method: &str, path: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

fn put(proxy: &Proxy, query: &str, fields: &str, body: &[u8]) -> Answer {
    let mut stream = connect(&proxy.admin);
    let text = request("PUT", &format!("{ONE}{query}"), &format!("{PLAIN}{fields}"), body);
    stream.write_all(&text).expect("written");
    answer(&mut stream)
}

fn json(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|e| panic!("{e}: {}", answer.body))
}

fn get(proxy: &Proxy, path: &str) -> Value {
    let found = ask(&proxy.admin, "GET", path, "Host: localhost\r\n", "");
    assert_eq!(found.status, 200, "{path}: {}", found.body);
    json(&found)
}

fn made(proxy: &Proxy, method: &str, path: &str, fields: &str, body: &str) -> Value {
    let fields = format!("Host: localhost\r\n{fields}");
    let changed = ask(&proxy.admin, method, path, &fields, body);
    assert_eq!(changed.status, 200, "{method} {path}: {}", changed.body);
    json(&changed)
}

fn exported(proxy: &Proxy) -> BTreeSet<String> {
    let path = format!("GET {ONE}/export?format=plain HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let found = exchange(&proxy.admin, &path);
    assert_eq!((found.status, found.complete), (200, true));
    let users = set(&found.body);
    assert_eq!(users.len(), found.body.lines().count(), "nobody twice");
    users
}

fn origin_of(proxy: &Proxy, user: &str) -> String {
    proxy.get("/", &format!("X-User-Id: {user}\r\n")).body
}

fn target(proxy: &Proxy) {
    let target = r#"{"targets":[{"segment":"many","release":"canary"}]}"#;
    let now = get(proxy, "/api/v1/rollouts/checkout")["revision"]
        .as_u64()
        .expect("a number");
    made(
        proxy,
        "PATCH",
        "/api/v1/rollouts/checkout",
        &format!("{JSON}{}", if_match(now)),
        target,
    );
}

#[test]
fn many_users_are_imported_previewed_edited_exported_kept_and_undone() {
    let folder = Folder::new("segments");
    let site = Site::new(&folder.store());
    let proxy = site.start();
    let first = list(0);
    let gzip = {
        let mut pack = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        pack.write_all(first.as_bytes()).expect("memory");
        pack.finish().expect("memory")
    };
    let created = json(&put(&proxy, "", "Content-Encoding: gzip\r\n", &gzip));
    assert_eq!(created["members"]["added"], MANY, "{created}");
    target(&proxy);
    for user in ["0", "69999", "user 2", "00000000-0000-4000-8000-000000000001"] {
        assert_eq!(origin_of(&proxy, user), "canary", "{user}");
    }
    for user in ["70002", "user 3", "1", "00000000-0000-4000-8000-000000000002"] {
        assert_eq!(origin_of(&proxy, user), "stable", "{user}");
    }
    let one = get(&proxy, ONE);
    assert_eq!(
        (&one["users"], &one["roster"]["users"], &one["since"]),
        (&MANY.into(), &MANY.into(), &0.into())
    );
    assert_eq!(one["created"], one["changed"]);
    assert_eq!(exported(&proxy), set(&first));

    // A preview of half of them replaced says so, and does nothing.
    let second = list(MANY / 2);
    let preview = json(&put(&proxy, "?dry_run=true", "", second.as_bytes()));
    let half = MANY / 2;
    let turnover = serde_json::json!({ "added": half, "removed": half, "kept": half });
    assert_eq!((&preview["members"], &preview["changed"]), (&turnover, &false.into()));
    assert_eq!(exported(&proxy), set(&first));

    // One bad line, and nothing is changed.
    let revision = one["revision"].as_u64().expect("a number");
    let bad = [first.as_bytes(), b"ok\n\xff\n"].concat();
    let refused = put(&proxy, "", &if_match(revision), &bad);
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert_eq!(json(&refused)["problems"][0]["key"], format!("line {}", MANY + 2));

    // One in, one out; then all that again after a restart.
    made(
        &proxy,
        "POST",
        &format!("{ONE}/add"),
        JSON,
        r#"{"users":["user 3","0"]}"#,
    );
    made(&proxy, "POST", &format!("{ONE}/remove"), JSON, r#"{"users":["69999"]}"#);
    proxy.signal("TERM");
    assert_eq!(proxy.end().0, Some(0));
    let proxy = site.start();
    let mut users = set(&first);
    users.insert("user 3".to_owned());
    users.remove("69999");
    assert_eq!(exported(&proxy), users);
    let one = get(&proxy, ONE);
    assert_eq!((&one["users"], &one["since"]), (&MANY.into(), &2.into()));
    assert_eq!(
        (origin_of(&proxy, "user 3"), origin_of(&proxy, "69999")),
        ("canary".to_owned(), "stable".to_owned())
    );

    // Replaced by another list, packed by Zstandard and not said to be; and back.
    let packed = zstd::bulk::compress(second.as_bytes(), 1).expect("memory");
    let before = one["revision"].as_u64().expect("a number");
    let replaced = put(&proxy, "", &if_match(before), &packed);
    assert_eq!(replaced.status, 200, "{}", replaced.body);
    assert_eq!(exported(&proxy), set(&second));
    made(&proxy, "POST", "/api/v1/undo", JSON, &format!("{{\"to\":{before}}}"));
    assert_eq!(exported(&proxy), users);
    assert_eq!(origin_of(&proxy, "user 3"), "canary");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

/// Adds so many users that the segment is written anew.
fn much(from: u64) -> (String, BTreeSet<String>) {
    let users: BTreeSet<String> = (from..from + 66_000).map(|n| format!("more {n}")).collect();
    (serde_json::json!({ "users": users }).to_string(), users)
}

#[test]
fn few_lists_are_sent_at_a_time_and_a_client_that_is_gone_gives_its_turn_back() {
    let scene = Scene::start();
    let long = "x".repeat(900);
    let list: String = (0..10_000).map(|n| format!("{long}{n}\n")).collect();
    let put = put(&scene.proxy, "", "", list.as_bytes());
    assert_eq!(put.status, 200, "{}", put.body);
    let export = |path: &str| {
        let mut stream = connect(&scene.proxy.admin);
        let asked = request("GET", path, "", b"");
        stream.write_all(&asked).expect("written");
        let mut status = [0; 12];
        stream.read_exact(&mut status).expect("a status");
        (status, stream)
    };
    let path = format!("{ONE}/export?format=plain");
    let mut reading: Vec<_> = (0..4).map(|_| export(&path)).collect();
    assert!(reading.iter().all(|(status, _)| status == b"HTTP/1.1 200"));
    for path in [&path, "/api/v1/rollouts/checkout/export"] {
        let refused = ask(&scene.proxy.admin, "GET", path, "Host: localhost\r\n", "");
        assert_eq!(
            (refused.status, refused.all("retry-after")),
            (429, vec!["1"]),
            "{}",
            refused.body
        );
    }
    drop(reading.pop());
    until("a list is sent again", || export(&path).0 == *b"HTTP/1.1 200");
    // Who reads gets all of it, piece by piece.
    let mut text = String::new();
    let (_, mut stream) = reading.remove(0);
    stream.read_to_string(&mut text).expect("all of it");
    assert_eq!(text.matches(&long).count(), 10_000);
}

#[test]
fn what_changed_is_merged_in_the_background_and_changes_nobody() {
    let folder = Folder::new("merged");
    let site = Site::new(&folder.store());
    let proxy = site.start();
    let first = list(0);
    assert_eq!(put(&proxy, "", "", first.as_bytes()).status, 200);
    target(&proxy);
    let digest = get(&proxy, ONE)["roster"]["digest"].clone();
    let (body, more) = much(0);
    let added = made(&proxy, "POST", &format!("{ONE}/add"), JSON, &body);
    // While it is written, changes go on.
    let gone = made(
        &proxy,
        "POST",
        &format!("{ONE}/remove"),
        JSON,
        r#"{"users":["0","more 7"]}"#,
    );
    until("it is written anew", || get(&proxy, ONE)["roster"]["digest"] != digest);
    let one = get(&proxy, ONE);
    assert_eq!(one["revision"], gone["revision"], "its own revision stays");
    assert_eq!(one["users"], MANY + 66_000 - 2);
    assert!(one["since"].as_u64().is_some_and(|since| since <= 2), "{one}");
    let mut users: BTreeSet<String> = set(&first).union(&more).cloned().collect();
    users.retain(|user| user != "0" && user != "more 7");
    assert_eq!(exported(&proxy), users);
    let of = |user| origin_of(&proxy, user);
    assert_eq!(
        ["0", "3", "more 7", "more 8"].map(of),
        ["stable", "canary", "stable", "canary"]
    );
    let history = get(&proxy, "/api/v1/history?limit=1");
    assert_eq!(history["changes"][0]["source"], "merge", "{history}");
    // Back across the merge.
    let before = added["revision"].as_u64().expect("a number") - 1;
    made(&proxy, "POST", "/api/v1/undo", JSON, &format!("{{\"to\":{before}}}"));
    assert_eq!(exported(&proxy), set(&first));
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

/// What a start says that does not come to be.
fn refused(folder: &Folder, site: &Site) -> String {
    refused_start(&written(folder, site))
}

fn written(folder: &Folder, site: &Site) -> PathBuf {
    let file = folder.path().join("switchyard.yaml");
    let any = "listeners: [{ address: \"127.0.0.1:0\" }]\nadmin: { address: \"127.0.0.1:0\" }\n";
    std::fs::write(&file, format!("{any}{}", site.yaml())).expect("configuration");
    file
}

/// A program with a segment that a target names; and the file of its users.
fn with_a_list(folder: &Folder, site: &Site) -> (Proxy, PathBuf) {
    let proxy = site.start();
    assert_eq!(put(&proxy, "", "", list(0).as_bytes()).status, 200);
    target(&proxy);
    let digest = get(&proxy, ONE)["roster"]["digest"].as_str().expect("text").to_owned();
    (
        proxy,
        folder.path().join(format!("rollouts.db.segments/{digest}.roster")),
    )
}

#[test]
fn a_start_without_the_file_of_a_segment_says_which_and_a_running_program_serves_on() {
    let folder = Folder::new("damaged-segment");
    let site = Site::new(&folder.store());
    let (proxy, file) = with_a_list(&folder, &site);
    let digest = get(&proxy, ONE)["roster"]["digest"].as_str().expect("text").to_owned();
    let aside = folder.path().join("aside");
    std::fs::rename(&file, &aside).expect("moved");
    made(&proxy, "POST", &format!("{ONE}/add"), JSON, r#"{"users":["late"]}"#);
    assert_eq!(
        (origin_of(&proxy, "late"), origin_of(&proxy, "3")),
        ("canary".to_owned(), "canary".to_owned())
    );
    proxy.signal("TERM");
    assert_eq!(proxy.end().0, Some(0));
    let told = refused(&folder, &site);
    assert!(told.contains(&digest) && told.contains("backup"), "{told}");
    let mut bytes = std::fs::read(&aside).expect("read");
    bytes[1_000] ^= 1;
    std::fs::write(&file, &bytes).expect("written");
    let told = refused(&folder, &site);
    assert!(told.contains(&digest) && told.contains("have the digest"), "{told}");
    assert!(
        told.contains("segment many") && told.contains("--without-lost-users"),
        "{told}"
    );
    std::fs::rename(&aside, &file).expect("moved back");
    assert_eq!(origin_of(&site.start(), "late"), "canary");
}

#[test]
fn a_start_without_lost_users_serves_those_who_came_since_until_the_list_is_imported_again() {
    let folder = Folder::new("lost-segment");
    let site = Site::new(&folder.store());
    let (proxy, file) = with_a_list(&folder, &site);
    made(&proxy, "POST", &format!("{ONE}/add"), JSON, r#"{"users":["late"]}"#);
    proxy.signal("TERM");
    assert_eq!(proxy.end().0, Some(0));
    std::fs::remove_file(file).expect("lost");
    let proxy = Proxy::launch(&written(&folder, &site), &["--without-lost-users"], &[]);
    proxy.wait_ready();
    assert_eq!(
        ["late", "3"].map(|user| origin_of(&proxy, user)),
        ["canary".to_owned(), "stable".to_owned()]
    );
    assert_eq!(get(&proxy, ONE)["users"], 1);
    // What the store has is not built upon.
    let add = format!("Host: localhost\r\n{JSON}");
    let refused = ask(
        &proxy.admin,
        "POST",
        &format!("{ONE}/add"),
        &add,
        r#"{"users":["more"]}"#,
    );
    assert!(
        refused.status >= 500 && refused.body.contains("segment many"),
        "{}",
        refused.body
    );
    // Nor is it confirmed that somebody is out who may be in.
    let out = ask(
        &proxy.admin,
        "POST",
        &format!("{ONE}/remove"),
        &add,
        r#"{"users":["3"]}"#,
    );
    assert!(
        out.status == 422 && out.body.contains("replace the whole list"),
        "{}",
        out.body
    );
    let revision = get(&proxy, ONE)["revision"].as_u64().expect("a number");
    let again = put(&proxy, "", &if_match(revision), list(0).as_bytes());
    assert_eq!(again.status, 200, "{}", again.body);
    assert_eq!(origin_of(&proxy, "3"), "canary");
    proxy.signal("TERM");
    assert_eq!(proxy.end().0, Some(0));
    assert_eq!(exported(&site.start()), set(&list(0)));
}

#[test]
fn a_segment_that_lost_its_users_is_mended_by_an_empty_list_too() {
    let folder = Folder::new("emptied-segment");
    let site = Site::new(&folder.store());
    let (proxy, file) = with_a_list(&folder, &site);
    proxy.signal("TERM");
    assert_eq!(proxy.end().0, Some(0));
    std::fs::remove_file(file).expect("lost");
    let proxy = Proxy::launch(&written(&folder, &site), &["--without-lost-users"], &[]);
    proxy.wait_ready();
    assert_eq!(get(&proxy, ONE)["users"], 0);
    let revision = get(&proxy, ONE)["revision"].as_u64().expect("a number");
    let emptied = put(&proxy, "", &if_match(revision), b"");
    assert!(
        emptied.status == 200 && emptied.body.contains("\"changed\":true"),
        "{} {}",
        emptied.status,
        emptied.body
    );
    proxy.signal("TERM");
    assert_eq!(proxy.end().0, Some(0));
    assert_eq!(
        get(&site.start(), ONE)["users"],
        0,
        "the store names the file no longer"
    );
}

#[test]
fn a_kill_during_an_import_or_a_merge_leaves_one_state_or_the_other() {
    let kills = if long() { 200 } else { 4 };
    let (folder, mut dice) = (Folder::new("segments-killed"), Dice(11));
    let site = Site::new(&folder.store());
    let mut proxy = site.start();
    let (mut state, mut cut, mut there) = (BTreeSet::new(), 0, 0);
    for round in 0..kills {
        let from = 1_000_000 * round;
        // Half of the rounds write the segment anew by themselves, after they have been answered.
        let (path, fields, body, next) = if state.is_empty() || dice.chance(2) {
            let text = list(from);
            let next = set(&text);
            let fields = match get(&proxy, "/api/v1/segments")["segments"]["many"]["revision"].as_u64() {
                Some(revision) => format!("{PLAIN}{}", if_match(revision)),
                None => PLAIN.to_owned(),
            };
            (("PUT", ONE.to_owned()), fields, text, next)
        } else {
            let (body, users) = much(from);
            let next = users.union(&state).cloned().collect();
            (("POST", format!("{ONE}/add")), JSON.to_owned(), body, next)
        };
        let mut admin = connect(&proxy.admin);
        let text = request(path.0, &path.1, &fields, body.as_bytes());
        admin.write_all(&text).expect("written");
        // Any moment will do; nothing is expected of it.
        std::thread::sleep(Duration::from_millis(dice.below(2_500)));
        drop(proxy);
        let mut said = Vec::new();
        drop(admin.read_to_end(&mut said));
        let answered = said.starts_with(b"HTTP/1.1 200");
        proxy = site.start();
        let found = match get(&proxy, "/api/v1/segments")["segments"]["many"]["users"].as_u64() {
            Some(_) => exported(&proxy),
            None => BTreeSet::new(),
        };
        assert!(
            found == next || (!answered && found == state),
            "round {round}: answered {answered}"
        );
        cut += usize::from(!answered);
        there += usize::from(!answered && found == next);
        state = found;
    }
    println!("{kills} kills; {cut} were not answered, of which {there} were there");
}
