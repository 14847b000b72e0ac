//! The program killed while changes are on their way: what was answered is there when it runs again, nothing is there by
//! half, and a request that is repeated is made once. The store has a test of its own; this is the whole program.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::admin_client::{JSON, PLAIN, ask};
use crate::dice::Dice;
use crate::harness::{Answer, Origin, PATIENCE, Proxy, answer, connect, long};

const ROLLOUT: &str = "/api/v1/rollouts/checkout";
/// Users of one import: enough to be interrupted half-way.
const LISTED: usize = 300;
/// Round trips after which a request that was sent before them is under way.
const ROUND_TRIPS: usize = 50;

/// A folder of one test, away when dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("switchyard-it-{}-{name}", std::process::id()));
        drop(std::fs::remove_dir_all(&path));
        std::fs::create_dir_all(&path).expect("folder");
        Self(path)
    }

    /// Where the store is.
    pub fn store(&self) -> String {
        self.0.join("rollouts.db").display().to_string()
    }

    pub fn path(&self) -> &std::path::Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Two origins and a store, which stay while the program comes and goes.
pub struct Site {
    yaml: String,
    _origins: [Origin; 2],
}

impl Site {
    pub fn new(store: &str) -> Self {
        let origins = [Origin::named("stable"), Origin::named("canary")];
        let yaml = format!(
            "pools:\n  stable: {{ endpoints: [\"{}\"] }}\n  canary: {{ endpoints: [\"{}\"] }}\n\
             routes: [{{ rollout: checkout }}]\nstore: {{ embedded: {{ path: \"{store}\" }} }}\nrollouts:\n  checkout:\n    \
             releases: {{ stable: {{ pool: stable }}, canary: {{ pool: canary }} }}\n",
            origins[0].address, origins[1].address
        );
        Self {
            yaml,
            _origins: origins,
        }
    }

    pub fn start(&self) -> Proxy {
        Proxy::start(&self.yaml)
    }

    pub fn yaml(&self) -> &str {
        &self.yaml
    }
}

/// What the rollout says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct State {
    canary: u64,
    pins: BTreeMap<String, String>,
}

/// A change, and the request for it.
struct Asked {
    method: &'static str,
    path: String,
    body: String,
    kind: &'static str,
    number: u64,
}

impl State {
    /// Makes a change; its number makes it another one than all before.
    fn change(&mut self, dice: &mut Dice, number: u64) -> Asked {
        let release = if dice.chance(2) { "canary" } else { "stable" };
        let user = format!("user-{}", dice.below(30));
        // Who is there already is no change, and has no place in the history.
        let other = |release| if release == "canary" { "stable" } else { "canary" };
        let moved = self.pins.get(&user).map_or(release, |now| other(now.as_str()));
        let asked = |method, path, kind, body| Asked {
            method,
            path,
            body,
            kind,
            number,
        };
        match dice.below(6) {
            0 => {
                self.canary = (self.canary + 1 + dice.below(100)) % 101;
                asked(
                    "PUT",
                    "/split".to_owned(),
                    JSON,
                    format!("{{\"canary\":\"{}%\"}}", self.canary),
                )
            }
            1 | 2 => {
                let replace = dice.chance(3);
                if replace {
                    self.pins.clear();
                }
                let users: Vec<String> = (0..LISTED).map(|n| format!("listed-{}-{n}", dice.below(3))).collect();
                self.pins
                    .extend(users.iter().map(|user| (user.clone(), release.to_owned())));
                let mode = if replace { "replace" } else { "merge" };
                let path = format!("/users?mode={mode}&release={release}");
                asked("POST", path, PLAIN, users.join("\n"))
            }
            3 if self.pins.contains_key(&user) => {
                self.pins.remove(&user);
                asked("DELETE", format!("/users/{user}"), "", String::new())
            }
            _ => {
                let body = format!("{{\"release\":\"{moved}\"}}");
                let asked = asked("PUT", format!("/users/{user}"), JSON, body);
                self.pins.insert(user, moved.to_owned());
                asked
            }
        }
    }

    /// As the program says it.
    fn of(proxy: &Proxy) -> Self {
        let rollout: Value = serde_json::from_str(&get(proxy, ROLLOUT)).expect("JSON");
        let share = rollout["weights"]["canary"].as_str().expect("a share");
        let pins = get(proxy, &format!("{ROLLOUT}/export"));
        let pin = |line: &str| {
            let line: Value = serde_json::from_str(line).expect("JSON");
            let text = |key: &str| line[key].as_str().expect("text").to_owned();
            (text("user"), text("release"))
        };
        Self {
            canary: share.trim_end_matches('%').parse().expect("a share"),
            pins: pins.lines().map(pin).collect(),
        }
    }
}

fn get(proxy: &Proxy, path: &str) -> String {
    let found = ask(&proxy.admin, "GET", path, "Host: localhost\r\n", "");
    assert_eq!(found.status, 200, "{path}: {}", found.body);
    found.body
}

impl Asked {
    fn send(&self, to: &mut TcpStream) {
        let Self {
            method,
            path,
            body,
            kind,
            number,
        } = self;
        let text = format!(
            "{method} {ROLLOUT}{path} HTTP/1.1\r\nHost: localhost\r\n{kind}Idempotency-Key: change-{number}\r\n\
             X-Reason: change-{number}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        to.write_all(text.as_bytes()).expect("written");
    }

    fn make(&self, by: &mut TcpStream) -> Answer {
        self.send(by);
        let answered = answer(by);
        assert_eq!(answered.status, 200, "{}", answered.body);
        answered
    }

    /// How often the history has it, among the latest changes.
    fn times(&self, proxy: &Proxy) -> usize {
        let history: Value = serde_json::from_str(&get(proxy, "/api/v1/history?limit=10")).expect("JSON");
        let reason = format!("change-{}", self.number);
        let changes = history["changes"].as_array().expect("changes");
        changes
            .iter()
            .filter(|change| change["reason"] == reason.as_str())
            .count()
    }
}

#[test]
fn a_kill_loses_nothing_answered_leaves_nothing_half_and_a_repeated_request_is_made_once() {
    let kills = if long() { 1_000 } else { 15 };
    let (folder, mut dice) = (Folder::new("killed"), Dice(7));
    let site = Site::new(&folder.store());
    let (mut state, mut number) = (State::default(), 0);
    let mut proxy = site.start();
    let (mut cut, mut kept) = (0, 0);
    for _ in 0..kills {
        let mut admin = connect(&proxy.admin);
        for _ in 0..dice.below(4) {
            number += 1;
            state.change(&mut dice, number).make(&mut admin);
        }
        number += 1;
        let before = state.clone();
        let asked = state.change(&mut dice, number);
        asked.send(&mut admin);
        // Any moment will do; nothing is expected of it.
        std::thread::sleep(Duration::from_micros(dice.below(20_000)));
        drop(proxy);
        // The end of the connection is how it was killed.
        let mut said = Vec::new();
        drop(admin.read_to_end(&mut said));
        let answered = said.starts_with(b"HTTP/1.1 200");
        proxy = site.start();
        let there = State::of(&proxy);
        assert!(there == state || (!answered && there == before), "{number}: {answered}");
        cut += usize::from(!answered);
        kept += usize::from(!answered && there == state);
        asked.make(&mut connect(&proxy.admin));
        assert!(State::of(&proxy) == state, "{number} repeated");
        assert_eq!(asked.times(&proxy), 1, "{number} was made more than once");
        if let Some((user, release)) = state.pins.first_key_value() {
            let seen = proxy.get("/", &format!("X-User-Id: {user}\r\n"));
            assert_eq!(seen.body, *release, "requests see the state that was found");
        }
    }
    println!("{kills} kills, {number} changes; {cut} were not answered, of which {kept} were there");
}

#[test]
fn a_request_that_is_repeated_while_it_is_under_way_is_made_once() {
    let folder = Folder::new("repeated");
    let site = Site::new(&folder.store());
    let proxy = site.start();
    let others = rusqlite::Connection::open(folder.store()).expect("opens");
    others.busy_timeout(PATIENCE).expect("set");
    others.execute_batch("BEGIN IMMEDIATE").expect("the file is held");
    // A change that is one each time that it is made.
    let asked = Asked {
        method: "PUT",
        path: "/users/42".to_owned(),
        body: "{\"release\":\"canary\"}".to_owned(),
        kind: JSON,
        number: 1,
    };
    let under_way = || (0..ROUND_TRIPS).for_each(|_| drop(get(&proxy, "/api/v1/status")));
    let mut gone = connect(&proxy.admin);
    asked.send(&mut gone);
    under_way();
    // Its client gives up, and asks again.
    drop(gone);
    let mut again = connect(&proxy.admin);
    asked.send(&mut again);
    under_way();
    others.execute_batch("ROLLBACK").expect("the file is free");
    let answered = answer(&mut again);
    assert_eq!(answered.status, 200, "{}", answered.body);
    assert_eq!(asked.times(&proxy), 1, "{}", get(&proxy, "/api/v1/history"));
}
