//! Heads as the other side gets them, whoever writes them: most are written here, field by field; of what is not plain Pingora
//! makes a copy, which is changed. Both say the same.

use crate::harness::origin::{Wire, ok, serve};
use crate::harness::{Proxy, one_pool};

const FIELDS: [&str; 27] = [
    "Content-Length: 0",
    "Connection: keep-alive",
    "connection: close",
    "Keep-Alive: timeout=5",
    "Proxy-Connection: keep-alive",
    "Proxy-Authorization: Basic eDp5",
    "Proxy-Authenticate: Basic",
    "TE: trailers",
    "Trailer: X-Sum",
    "HTTP2-Settings: AAMAAABkAAQAAP__",
    "Origin: https://shop.example.com",
    "Forwarded: for=192.0.2.1",
    "X-Forwarded-For: 192.0.2.1, 192.0.2.2",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: shop.example.com",
    "X-Forwarded-User: root",
    "X-Rollout: checkout=canary",
    "X-User-Id: 42",
    "X-USER-ID: \"43\"",
    "X-Account: 44",
    "Cookie: a=b; c=d",
    "User-Agent: test",
    "Accept: */*",
    "X-Empty:",
    "X-Odd: \u{e9}\t!",
    "Referer: https://shop.example.com/?a=b",
    "If-None-Match: \"a\"",
];
const TARGETS: [&str; 4] = ["/", "/a/b?c=d&e=%20", "/?", "//x"];
const METHODS: [&str; 5] = ["GET", "POST", "DELETE", "OPTIONS", "PROPFIND"];
/// Pingora's own, for it is there twice; the upstream gets it as it came.
const TWICE: &str = "X-Twice: a\r\nX-Twice: b\r\n";

/// The first line of a head, and its other lines, the names in lower case, in order, but for ids that are made for each.
fn said(head: &str) -> (String, Vec<String>) {
    let mut lines = head.trim_end().lines();
    let first = lines.next().expect("a first line").to_owned();
    let mut rest: Vec<String> = lines
        .map(|line| line.split_once(':').expect("a field"))
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .filter(|(name, _)| !["x-twice", "x-request-id", "traceparent"].contains(&name.as_str()))
        .map(|(name, value)| format!("{name}:{value}"))
        .collect();
    rest.sort();
    (first, rest)
}

fn asked(random: &mut fastrand::Rng) -> String {
    let mut head = format!(
        "{} {} HTTP/1.1\r\nHost: a.example:81\r\n",
        METHODS[random.usize(..METHODS.len())],
        TARGETS[random.usize(..TARGETS.len())]
    );
    let mut had = Vec::new();
    for _ in 0..random.usize(..8) {
        let field = FIELDS[random.usize(..FIELDS.len())];
        let name = field.split(':').next().expect("a name").to_ascii_lowercase();
        if !had.contains(&name) {
            head += field;
            head += "\r\n";
            had.push(name);
        }
    }
    head
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_upstream_is_told_the_same_whoever_writes_the_head() {
    let origin = serve(|mut wire: Wire| async move {
        while let Some(head) = wire.head().await {
            wire.write(ok(&head)).await.expect("the proxy reads");
        }
    })
    .await;
    for (nth, identity) in [
        "",
        "identity: { sources: [{ header: X-User-Id }, { header: X-Account }] }",
        "identity: { sources: [{ header: X-User-Id }], trusted_peers: [\"10.0.0.0/8\"] }",
        "identity: { sources: [{ cookie: a }] }",
    ]
    .iter()
    .enumerate()
    {
        for connections in ["", "    connections: { reuse: false }"] {
            let proxy = Proxy::start(&format!("{identity}\n{}", one_pool(&origin, connections)));
            for seed in 0..150 {
                let asked = asked(&mut fastrand::Rng::with_seed(seed + nth as u64 * 1_000));
                let mut told = Vec::new();
                for twice in ["", TWICE] {
                    let mut wire = Wire::connect(&proxy.http).await;
                    wire.write(format!("{asked}{twice}\r\n")).await.expect("write");
                    let head = wire.head().await.expect("a head");
                    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{asked:?}: {head}");
                    let body = wire.body(&head).await.expect("a body");
                    told.push(said(&String::from_utf8_lossy(&body)));
                }
                assert_eq!(told[0], told[1], "{asked:?}");
            }
            assert_eq!(proxy.alarms(), Vec::<String>::new());
        }
    }
}
