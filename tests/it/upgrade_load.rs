//! Upgrades while clients of every kind send all the time: no request is lost, whatever becomes of the successor.

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use std::sync::Arc;
use std::time::Instant;

use crate::between::{Between, Stage};
use crate::files::free;
use crate::harness::certificate::Certificate;
use crate::harness::origin::{Wire, ok, serve};
use crate::harness::{PATIENCE, fields, h2c, long};
use crate::load::{Load, Places};
use crate::succession::{Succession, Wanted, runs};

/// Answers, echoes WebSockets, and answers gRPC calls with trailers.
struct Origins {
    http: String,
    grpc: String,
}

impl Origins {
    async fn start() -> Self {
        let http = serve(|mut wire: Wire| async move {
            while let Some(head) = wire.head().await {
                if !fields(&head, "upgrade").is_empty() {
                    return echo(wire, &head).await;
                }
                if !fields(&head, "content-length").is_empty() || !fields(&head, "transfer-encoding").is_empty() {
                    wire.body(&head).await.expect("a body");
                }
                if wire.write(ok("ok")).await.is_err() {
                    return;
                }
            }
        });
        let grpc = h2c::origin(|request, mut answer| async move {
            let mut body = request.into_body();
            while let Some(Ok(piece)) = body.data().await {
                body.flow_control().release_capacity(piece.len()).expect("capacity");
            }
            let mut stream = answer.send_response(http::Response::new(()), false).expect("head");
            stream.send_data(Bytes::from_static(b"ok"), false).expect("body");
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", http::HeaderValue::from_static("0"));
            stream.send_trailers(trailers).expect("trailers");
        });
        Self {
            http: http.await,
            grpc: grpc.await,
        }
    }

    fn written(&self) -> String {
        format!(
            "access_log: {{ path: off }}\npools:\n  only: {{ endpoints: [\"{}\"] }}\n  grpc:\n    endpoints: [\"{}\"]\n    \
             connections: {{ http2: always }}\nroutes:\n  - pool: only\n  - {{ match: {{ path: /grpc }}, pool: grpc }}\n",
            self.http, self.grpc
        )
    }
}

/// The rest of a connection whose head asked for a WebSocket.
async fn echo(mut wire: Wire, head: &str) {
    let key = fields(head, "sec-websocket-key")[0].to_owned();
    let accept = tokio_tungstenite::tungstenite::handshake::derive_accept_key(key.as_bytes());
    let answer = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    wire.write(answer).await.expect("the proxy reads");
    let role = tokio_tungstenite::tungstenite::protocol::Role::Server;
    let mut socket = tokio_tungstenite::WebSocketStream::from_raw_socket(wire.into_socket(), role, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if message.is_close() || socket.send(message).await.is_err() {
            return;
        }
    }
}

/// A program with listeners for every kind of client, and the clients.
async fn loaded(name: &str) -> (Succession, Arc<Load>, tokio::task::JoinSet<()>) {
    let origins = Origins::start().await;
    let certificate = Certificate::new();
    let [h2c, https] = free();
    let tls = certificate.listener().replace("127.0.0.1:0", &https.to_string());
    let wanted = Wanted {
        listeners: &format!(", {{ address: \"{h2c}\", h2c: true }}, {tls}"),
        server: "drain: 20s",
        pools_and_routes: &origins.written(),
    };
    let mut site = Succession::new(name, &wanted);
    site.start();
    let (load, clients) = Load::start(Places {
        http: site.http.to_string(),
        h2c: h2c.to_string(),
        https: https.to_string(),
        certificate,
    });
    (site, load, clients)
}

/// Waits until so many requests more were answered, or one failed.
async fn more(load: &Load, requests: usize) {
    assert!(load.more(requests, 20 * PATIENCE).await, "{:?}", load.by_kind());
}

async fn none_failed(load: &Load, mut clients: tokio::task::JoinSet<()>) {
    load.stop();
    while let Some(client) = clients.join_next().await {
        client.expect("no panic");
    }
    assert_eq!(load.failures(), Vec::<String>::new(), "of {:?}", load.by_kind());
    assert!(
        load.by_kind().iter().all(|(_, served)| *served > 0),
        "{:?}",
        load.by_kind()
    );
}

/// Runs a command of the test's without keeping the clients waiting.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("no panic")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upgrades_lose_no_request_of_any_kind_of_client() {
    let (upgrades, between) = if long() { (100, 10_000) } else { (5, 300) };
    let (site, load, clients) = loaded("upgrade-load").await;
    let site = Arc::new(site);
    let mut replaced = site.answering().expect("a process");
    let since = Instant::now();
    for n in 0..upgrades {
        more(&load, between).await;
        let same = Arc::clone(&site);
        let now = aside(move || same.upgraded()).await;
        assert_ne!(now, replaced);
        replaced = now;
        assert_eq!(load.failures(), Vec::<String>::new(), "upgrade {n}");
    }
    more(&load, between).await;
    none_failed(&load, clients).await;
    println!(
        "{upgrades} upgrades, 0 failed of {} in {:?}: {:?}",
        load.served(),
        since.elapsed(),
        load.by_kind()
    );
    assert!(runs(replaced));
    let log = site.errors();
    let alarms: Vec<&str> = log
        .lines()
        .filter(|line| line.contains(" ERROR ") || line.contains("panicked"))
        .collect();
    assert!(alarms.is_empty(), "{alarms:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_successor_that_is_killed_while_it_starts_costs_no_request() {
    let rounds = if long() { 25 } else { 1 };
    let (site, load, clients) = loaded("upgrade-killed").await;
    let site = Arc::new(site);
    let serving = site.answering().expect("a process");
    // Its successors wait elsewhere, so that the test stands between the two.
    let there = site.directory.join("run/there");
    let text = std::fs::read_to_string(&site.file).expect("configuration");
    let next = site.directory.join("next.yaml");
    let sock = site.directory.join("run/sock");
    let other = text.replace(&sock.display().to_string(), &there.display().to_string());
    std::fs::write(&next, other).expect("written");
    for stage in Stage::ALL {
        for round in 0..rounds {
            let (same, file, old, new) = (Arc::clone(&site), next.clone(), sock.clone(), there.clone());
            let (code, said) = aside(move || {
                let between = Between::at(&old, &new);
                let upgrade = same.upgrading(&file);
                between.until(stage, upgrade)
            })
            .await;
            assert_eq!(code, Some(1), "{stage:?} {round}: {said}");
            assert!(said.contains(&format!("process {serving} serves on")), "{said}");
            more(&load, 50).await;
            assert_eq!(load.failures(), Vec::<String>::new(), "{stage:?} {round}");
            let same = Arc::clone(&site);
            assert_eq!(aside(move || same.answering()).await, Some(serving), "{stage:?}");
        }
    }
    // Nothing of all that stands in the way of one that works.
    let same = Arc::clone(&site);
    let now = aside(move || same.upgraded()).await;
    more(&load, 50).await;
    none_failed(&load, clients).await;
    assert!(now != serving);
    println!("{} kills, 0 failed of {}", rounds * Stage::ALL.len(), load.served());
}
