//! Same user, same release: whatever fails, on whichever connection, in whichever protocol.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use crate::harness::origin::{Wire, ok};
use crate::harness::{Proxy, fields, long};

const USERS: usize = 1_000;
const CONNECTIONS: usize = 64;
const ENDPOINTS: usize = 3;
/// After as many requests, an endpoint is stopped or started.
const TURN: usize = 100;

fn requests() -> usize {
    if long() { 100_000 } else { 10_000 }
}

/// One endpoint, which can be stopped with all its connections and started again where it was.
struct Endpoint {
    address: SocketAddr,
    release: &'static str,
    running: Option<JoinSet<()>>,
}

impl Endpoint {
    /// On an address of its own: nothing else takes the port while it is stopped.
    async fn start(number: u8, release: &'static str) -> Self {
        let mut endpoint = Self {
            address: SocketAddr::from(([127, 0, 1, number], 0)),
            release,
            running: None,
        };
        endpoint.toggle().await;
        endpoint
    }

    async fn toggle(&mut self) {
        if let Some(mut running) = self.running.take() {
            return running.shutdown().await;
        }
        let listener = TcpListener::bind(self.address).await.expect("bind");
        self.address = listener.local_addr().expect("address");
        let release = self.release;
        let mut running = JoinSet::new();
        running.spawn(async move {
            // Its connections end with it.
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                connections.spawn(answer(Wire::over(socket), release));
            }
        });
        self.running = Some(running);
    }
}

/// Tells its release, and checks that it is the one that was decided.
async fn answer(mut wire: Wire, release: &'static str) {
    while let Some(head) = wire.head().await {
        let decided = fields(&head, "x-rollout")[0].to_owned();
        assert!(
            decided.starts_with(&format!("checkout={release}; ")),
            "{release} got {decided}"
        );
        if wire.write(ok(release)).await.is_err() {
            return;
        }
    }
}

/// A connection of a client by `hyper`.
enum Client {
    One(http1::SendRequest<Empty<Bytes>>),
    Two(http2::SendRequest<Empty<Bytes>>),
}

impl Client {
    async fn connect(address: &str, two: bool) -> Self {
        let socket = TokioIo::new(TcpStream::connect(address).await.expect("connect"));
        // How a connection ends is seen by its requests.
        if two {
            let shaken = http2::handshake(TokioExecutor::new(), socket).await;
            let (client, connection) = shaken.expect("handshake");
            tokio::spawn(async move { drop(connection.await) });
            return Self::Two(client);
        }
        let (client, connection) = http1::handshake(socket).await.expect("handshake");
        tokio::spawn(async move { drop(connection.await) });
        Self::One(client)
    }

    async fn ask(&mut self, user: usize) -> hyper::Result<(StatusCode, Bytes)> {
        let request = Request::builder()
            .uri("http://shop.example/")
            .header("Host", "shop.example")
            .header("X-User-Id", user.to_string());
        let request = request.body(Empty::new()).expect("request");
        let response = match self {
            Self::One(client) => {
                client.ready().await?;
                client.send_request(request).await?
            }
            Self::Two(client) => {
                client.ready().await?;
                client.send_request(request).await?
            }
        };
        let status = response.status();
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }
}

/// What all clients see.
#[derive(Default)]
struct Seen {
    next: AtomicUsize,
    release_of: Mutex<BTreeMap<usize, Bytes>>,
    answered: AtomicUsize,
    failed: AtomicUsize,
}

impl Seen {
    fn note(&self, user: usize, status: StatusCode, body: Bytes) {
        if status.is_server_error() {
            self.failed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        assert_eq!(status, 200, "{body:?}");
        let mut seen = self.release_of.lock();
        let first = seen.entry(user).or_insert_with(|| body.clone());
        assert_eq!(*first, body, "user {user} saw two releases");
        self.answered.fetch_add(1, Ordering::Relaxed);
    }
}

async fn client(address: String, two: bool, seen: Arc<Seen>, turn: UnboundedSender<()>) {
    let mut client = Client::connect(&address, two).await;
    loop {
        let n = seen.next.fetch_add(1, Ordering::Relaxed);
        if n >= requests() {
            return;
        }
        if n.is_multiple_of(TURN) {
            turn.send(()).expect("the chaos lives");
        }
        let user = n % USERS;
        match client.ask(user).await {
            Ok((status, body)) => {
                let closes = status.is_server_error() && !two;
                seen.note(user, status, body);
                if closes {
                    client = Client::connect(&address, two).await;
                }
            }
            // Cut in a response that had begun: the one failure that cannot have a status.
            Err(_) => {
                seen.failed.fetch_add(1, Ordering::Relaxed);
                client = Client::connect(&address, two).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_user_sees_two_releases_while_endpoints_fail() {
    let mut endpoints = Vec::new();
    for number in 0..ENDPOINTS as u8 {
        endpoints.push(Endpoint::start(2 * number, "stable").await);
        endpoints.push(Endpoint::start(2 * number + 1, "canary").await);
    }
    let of = |release: &str| {
        let these = endpoints.iter().filter(|e| e.release == release);
        let written: Vec<String> = these.map(|e| format!("\"{}\"", e.address)).collect();
        written.join(", ")
    };
    let yaml = format!(
        "pools:\n  stable: {{ endpoints: [{}], retries: {{ attempts: 3 }} }}\n  \
         canary: {{ endpoints: [{}], retries: {{ attempts: 3 }} }}\n\
         routes: [{{ rollout: checkout }}]\nrollouts:\n  checkout:\n    \
         releases: {{ stable: {{ pool: stable }}, canary: {{ pool: canary }} }}\n    split: {{ canary: 50% }}\n",
        of("stable"),
        of("canary")
    );
    let proxy = Proxy::start_on("{ address: \"127.0.0.1:0\", h2c: true }", &yaml, &[]);
    let (turn, mut turns) = unbounded_channel();
    let seen = Arc::new(Seen::default());
    let mut clients = JoinSet::new();
    for n in 0..CONNECTIONS {
        clients.spawn(client(proxy.http.clone(), n % 2 == 1, Arc::clone(&seen), turn.clone()));
    }
    drop(turn);
    // One of each release at a time; the others live.
    let mut stops = 0;
    while turns.recv().await.is_some() {
        let victim = stops / 2 % endpoints.len();
        endpoints[victim].toggle().await;
        stops += 1;
    }
    while let Some(client) = clients.join_next().await {
        client.expect("no client saw what it may not");
    }
    let (answered, failed) = (
        seen.answered.load(Ordering::Relaxed),
        seen.failed.load(Ordering::Relaxed),
    );
    println!("{answered} answered, {failed} failed, {stops} stops and starts");
    assert_eq!(answered + failed, requests());
    let seen = seen.release_of.lock();
    assert_eq!(seen.len(), USERS);
    let canary = seen.values().filter(|release| **release == "canary").count();
    // Half of 1,000, give or take six standard deviations.
    assert!((405..=595).contains(&canary), "{canary} of {USERS} users on canary");
    assert!(failed * 100 < requests(), "{failed} of {} failed", requests());
}
