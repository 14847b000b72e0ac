//! Changes while traffic flows: no request that begins after a change's answer sees what was before, none sees a mix, and
//! none fails. `make switching` is the long form.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::RwLock;
use switchyard::rollout::Salt;
use tokio::task::JoinSet;

use crate::admin_client::JSON;
use crate::dice::Dice;
use crate::harness::origin::{Wire, ok, serve};
use crate::harness::{Proxy, answer, connect, fields, h2c, long};

const USERS: u64 = 200;
const CLIENTS: u64 = 4;
const ROLLOUT: &str = "/api/v1/rollouts/checkout";

/// What a user gets, and why, as `X-Rollout` says it.
type Place = (&'static str, &'static str);

/// The rollout as it is by the changes that were asked for.
#[derive(Clone, Default)]
struct Model {
    killed: bool,
    /// Buckets below it are canary's: of two releases, the growing one takes the lowest that are free.
    canary_below: u32,
    pins: Vec<Option<&'static str>>,
}

/// A change: how it is asked for.
struct Asked {
    method: &'static str,
    path: String,
    body: String,
}

impl Model {
    fn place(&self, user: u64) -> Place {
        if self.killed {
            return ("stable", "killed");
        }
        if let Some(release) = self.pins[user as usize] {
            return (release, "user");
        }
        let bucket = Salt::new("checkout").bucket(name(user).as_bytes());
        if bucket.get() < self.canary_below {
            return ("canary", "split");
        }
        ("stable", "stable")
    }

    /// Changes something, never to what it is; says how to ask for it, and whom it is about.
    fn change(&mut self, dice: &mut Dice) -> (Asked, u64) {
        let user = dice.below(USERS);
        let asked = |method, path: String, body: String| Asked { method, path, body };
        let changed = match dice.below(20) {
            0 => {
                self.killed = !self.killed;
                let verb = if self.killed { "kill" } else { "resume" };
                asked("POST", format!("/{verb}"), String::new())
            }
            1 | 2 => {
                let before = self.canary_below / 10_000;
                let percent = (before + 1 + dice.below(100) as u32) % 101;
                self.canary_below = percent * 10_000;
                asked("PUT", "/split".to_owned(), format!("{{\"canary\":\"{percent}%\"}}"))
            }
            _ => {
                let pin = &mut self.pins[user as usize];
                let next = match (*pin, dice.below(3)) {
                    (Some(_), 0) => None,
                    (Some("canary"), _) => Some("stable"),
                    (Some(_), _) => Some("canary"),
                    (None, 0) => Some("stable"),
                    (None, _) => Some("canary"),
                };
                *pin = next;
                let path = format!("/users/{}", name(user));
                match next {
                    Some(release) => asked("PUT", path, format!("{{\"release\":\"{release}\"}}")),
                    None => asked("DELETE", path, String::new()),
                }
            }
        };
        (changed, user)
    }
}

fn name(user: u64) -> String {
    format!("user-{user}")
}

/// What is known to everyone who asks.
struct Known {
    /// The places of all users by revision, from the first on; of the change on its way, too.
    places: RwLock<Vec<Vec<Place>>>,
    first: u64,
    /// The latest change that was answered.
    answered: AtomicU64,
    stopped: AtomicBool,
    requests: AtomicUsize,
}

impl Known {
    fn add(&self, model: &Model) {
        let places = (0..USERS).map(|user| model.place(user)).collect();
        self.places.write().push(places);
    }

    /// Looks at an answer to a request that began after `floor` was answered: the origin's name, and what it was told.
    fn check(&self, user: u64, floor: u64, body: &str) -> u64 {
        let (origin, stamp) = body.split_once(' ').expect("an origin's answer");
        let told = stamp.strip_prefix("checkout=").expect("the rollout");
        let parts: Vec<&str> = told.split("; ").collect();
        let (release, revision, reason) = match parts.as_slice() {
            [release, revision, reason] => (
                *release,
                revision.strip_prefix("rev=").expect("a revision"),
                reason.strip_prefix("reason=").expect("a reason"),
            ),
            _ => panic!("{stamp}"),
        };
        assert_eq!(origin, release, "an origin got a request of another release: {stamp}");
        let revision: u64 = revision.parse().expect("a number");
        assert!(
            revision >= floor,
            "user {user} was answered by {stamp}, after revision {floor} was"
        );
        let places = self.places.read();
        let at = usize::try_from(revision - self.first).expect("fits");
        let there = places.get(at).expect("a revision that was asked for");
        assert_eq!((release, reason), there[user as usize], "user {user}: {stamp}");
        self.requests.fetch_add(1, Ordering::Relaxed);
        revision
    }
}

/// Sends requests of random users on one connection, as fast as they are answered.
async fn client(known: Arc<Known>, address: String, number: u64) {
    let mut dice = Dice(number);
    let mut one = Wire::connect(&address).await;
    let (two, _driver) = h2c::connect(&address).await;
    let mut seen = known.first;
    while !known.stopped.load(Ordering::SeqCst) {
        let user = dice.below(USERS);
        // Nor does a client go back behind what it saw itself.
        let floor = known.answered.load(Ordering::SeqCst).max(seen);
        let body = if number.is_multiple_of(2) {
            let asked = format!("GET / HTTP/1.1\r\nHost: t.example\r\nX-User-Id: {}\r\n\r\n", name(user));
            one.write(asked).await.expect("written");
            let head = one.head().await.expect("answered");
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
            one.body(&head).await.expect("whole")
        } else {
            let mut request = h2c::request("GET", "/");
            let id = name(user).parse().expect("a value");
            request.headers_mut().insert("x-user-id", id);
            let (response, _) = h2c::send(&two, request, true).await;
            let (response, _) = h2c::collect(response.await.expect("answered")).await.expect("whole");
            assert_eq!(response.status(), 200);
            response.into_body()
        };
        seen = known.check(user, floor, &String::from_utf8(body).expect("text"));
    }
}

/// An origin that answers its name and what it was told of the decision.
async fn origin(release: &'static str) -> String {
    serve(move |mut wire: Wire| async move {
        while let Some(head) = wire.head().await {
            let stamp = fields(&head, "x-rollout").join(" and ");
            if wire.write(ok(&format!("{release} {stamp}"))).await.is_err() {
                return;
            }
        }
    })
    .await
}

/// A connection for one change after the other.
struct Operator(TcpStream);

impl Operator {
    /// Asks, and yields the revision when the change is live.
    fn make(&mut self, asked: &Asked) -> u64 {
        let Asked { method, path, body } = asked;
        let kind = if body.is_empty() { "" } else { JSON };
        let length = body.len();
        let text = format!(
            "{method} {ROLLOUT}{path} HTTP/1.1\r\nHost: localhost\r\n{kind}Content-Length: {length}\r\n\r\n{body}"
        );
        self.0.write_all(text.as_bytes()).expect("written");
        let answered = answer(&mut self.0);
        assert_eq!(answered.status, 200, "{method} {path}: {}", answered.body);
        let changed: serde_json::Value = serde_json::from_str(&answered.body).expect("JSON");
        assert_eq!((&changed["live"], &changed["changed"]), (&true.into(), &true.into()));
        changed["revision"].as_u64().expect("a revision")
    }
}

/// Reads the revisions that events tell, up to the one that is told to it at the end.
fn listen(address: &str, until: Arc<AtomicU64>) -> std::thread::JoinHandle<Vec<u64>> {
    let mut stream = connect(address);
    stream
        .write_all(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .expect("written");
    std::thread::spawn(move || {
        let mut told = Vec::new();
        for line in BufReader::new(stream).lines() {
            let line = line.expect("events");
            if let Some(id) = line.strip_prefix("id: ").or_else(|| line.strip_prefix("id:")) {
                told.push(id.trim().parse().expect("a revision"));
                if told.last() == Some(&until.load(Ordering::SeqCst)) {
                    break;
                }
            }
        }
        told
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_after_an_answer_sees_the_old_release_and_none_sees_a_mix() {
    let switches = if long() { 10_000 } else { 500 };
    let folder = crate::switching_crash::Folder::new("switching");
    let yaml = format!(
        "pools:\n  stable: {{ endpoints: [\"{}\"] }}\n  canary: {{ endpoints: [\"{}\"] }}\n\
         routes: [{{ rollout: checkout }}]\nstore: {{ embedded: {{ path: \"{}\" }} }}\nrollouts:\n  checkout:\n    \
         releases: {{ stable: {{ pool: stable }}, canary: {{ pool: canary }} }}\n",
        origin("stable").await,
        origin("canary").await,
        folder.store()
    );
    let proxy = Proxy::start_on("{ address: \"127.0.0.1:0\", h2c: true }", &yaml, &[]);
    let first = 1;
    let mut model = Model {
        pins: vec![None; USERS as usize],
        ..Model::default()
    };
    let known = Arc::new(Known {
        places: RwLock::default(),
        first,
        answered: AtomicU64::new(first),
        stopped: AtomicBool::new(false),
        requests: AtomicUsize::new(0),
    });
    known.add(&model);
    let last = Arc::new(AtomicU64::new(first + switches));
    let listener = listen(&proxy.admin, Arc::clone(&last));
    let mut clients = JoinSet::new();
    for number in 0..CLIENTS {
        clients.spawn(client(Arc::clone(&known), proxy.http.clone(), number));
    }
    let (admin, http, shared) = (proxy.admin.clone(), proxy.http.clone(), Arc::clone(&known));
    let operating = tokio::task::spawn_blocking(move || {
        let (mut operator, mut next, mut dice) = (Operator(connect(&admin)), connect(&http), Dice(3));
        for number in 1..=switches {
            let (asked, user) = model.change(&mut dice);
            shared.add(&model);
            let revision = operator.make(&asked);
            assert_eq!(revision, first + number);
            shared.answered.store(revision, Ordering::SeqCst);
            // The very next request, of the user that it is about.
            let text = format!("GET / HTTP/1.1\r\nHost: t.example\r\nX-User-Id: {}\r\n\r\n", name(user));
            next.write_all(text.as_bytes()).expect("written");
            let seen = answer(&mut next);
            assert_eq!(seen.status, 200, "{}", seen.body);
            assert_eq!(shared.check(user, revision, &seen.body), revision);
        }
    });
    let operated = operating.await;
    known.stopped.store(true, Ordering::SeqCst);
    while let Some(client) = clients.join_next().await {
        client.expect("no client saw what it may not");
    }
    operated.expect("every switch is seen by the next request");
    let requests = known.requests.load(Ordering::Relaxed);
    println!("{switches} switches during {requests} requests: none saw the old release or a mix, none failed");
    assert!(requests as u64 >= switches + CLIENTS);
    let told = tokio::task::spawn_blocking(move || listener.join())
        .await
        .expect("no panic")
        .expect("events");
    let from = told[0];
    assert!(
        told.iter().copied().eq(from..=first + switches),
        "each revision once: {told:?}"
    );
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}
