//! Responses whose head and body come in one write, which most small ones do: they arrive as those that come in pieces.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::harness::fields;
use crate::harness::h2c;
use crate::harness::origin::{Wire, ok, serve};
use crate::messages::before;

const STATUSES: [&str; 6] = [
    "200 OK",
    "200 Well done",
    "203 Non-Authoritative Information",
    "302 Found",
    "404 Not Found",
    "500 Internal Server Error",
];
/// The largest needs more than one read.
const SIZES: [usize; 4] = [1, 200, 11_000, 13_000];
static CONNECTIONS: AtomicUsize = AtomicUsize::new(0);

/// Answers `/<nth status>/<size>/<whole, pieces or chunks>`; the last in one write, too.
async fn answer(mut wire: Wire) {
    CONNECTIONS.fetch_add(1, Ordering::Relaxed);
    while let Some(head) = wire.head().await {
        let path: Vec<&str> = head.split(' ').nth(1).expect("a path").split('/').collect();
        let (status, size) = (
            STATUSES[path[1].parse::<usize>().expect("nth")],
            path[2].parse().expect("size"),
        );
        let framing = if path[3] == "chunks" {
            "transfer-Encoding: chunked".to_owned()
        } else {
            format!("content-Length: {size}")
        };
        let head_of = format!("HTTP/1.1 {status}\r\nX-Kept: a\r\n{framing}\r\nX-Kept: b\r\n\r\n");
        let body: String = if head.starts_with("HEAD ") {
            String::new()
        } else {
            "x".repeat(size)
        };
        if path[3] == "whole" {
            wire.write(head_of + &body).await.expect("the proxy reads");
        } else if path[3] == "chunks" {
            let chunk = |piece: &[u8]| format!("{:X}\r\n{}\r\n", piece.len(), "x".repeat(piece.len()));
            let chunks: String = body.as_bytes().chunks(4_000).map(chunk).collect();
            let end = if body.is_empty() { "" } else { "0\r\n\r\n" };
            wire.write(head_of + &chunks + end).await.expect("the proxy reads");
        } else {
            wire.write(head_of).await.expect("the proxy reads");
            for piece in body.as_bytes().chunks(4_000) {
                wire.write(piece).await.expect("the proxy reads");
            }
        }
    }
}

fn lines(head: &str) -> Vec<&str> {
    let ours = |line: &&str| !line.starts_with("Date:") && !line.to_ascii_lowercase().starts_with("x-request-id:");
    let mut lines: Vec<&str> = head.lines().filter(ours).collect();
    lines.sort_unstable();
    lines
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_response_arrives_the_same_whether_it_comes_whole_or_in_pieces() {
    let origin = serve(answer).await;
    let (proxy, mut wire) = before(&origin).await;
    let (client, _driver) = h2c::connect(&proxy.http).await;
    for (nth, status) in STATUSES.iter().enumerate() {
        for size in SIZES {
            let mut heads = Vec::new();
            for way in ["whole", "pieces", "chunks"] {
                let path = format!("/{nth}/{size}/{way}");
                wire.write(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
                    .await
                    .expect("write");
                let head = wire.head().await.expect("a head");
                let body = wire.body(&head).await.expect("a body");
                assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{path}: {head}");
                assert_eq!(fields(&head, "x-kept"), ["a", "b"], "{path}: {head}");
                assert_eq!(body, "x".repeat(size).into_bytes(), "{path}");
                if way == "chunks" && nth == 0 && size < 12_000 {
                    assert_eq!(fields(&head, "content-length"), [size.to_string()], "{path}: {head}");
                }
                heads.push(head);
                let line = proxy.access_line();
                let logged = (line["status"].as_u64(), line["bytes_out"].as_u64());
                assert_eq!(logged, (status[..3].parse().ok(), Some(size as u64)), "{path}");

                wire.write(format!("HEAD {path} HTTP/1.1\r\nHost: a\r\n\r\n"))
                    .await
                    .expect("write");
                let head = wire.head().await.expect("a head");
                assert!(
                    head.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                    "HEAD {path}: {head}"
                );
                if way != "chunks" {
                    assert_eq!(
                        fields(&head, "content-length"),
                        [size.to_string()],
                        "HEAD {path}: {head}"
                    );
                }
                let line = proxy.access_line();
                assert_eq!(
                    (line["status"].as_u64(), line["bytes_out"].as_u64()),
                    (status[..3].parse().ok(), Some(0))
                );

                let (response, _) = h2c::get(&client, &path).await.expect("an answer");
                assert_eq!(response.status().as_str(), &status[..3], "HTTP/2 {path}");
                assert_eq!(response.headers().get_all("x-kept").iter().count(), 2, "HTTP/2 {path}");
                assert_eq!(response.body().len(), size, "HTTP/2 {path}");
                proxy.settle(1);
            }
            assert_eq!(lines(&heads[0]), lines(&heads[1]));
        }
    }
    assert!(CONNECTIONS.load(Ordering::Relaxed) <= 2, "connections are kept");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_whole_response_to_an_upload_that_is_not_over_arrives_at_once() {
    let origin = serve(|mut wire: Wire| async move {
        while wire.head().await.is_some() {
            let text = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
            wire.write(text).await.expect("the proxy reads");
            wire.exactly(4).await.expect("the rest");
        }
    })
    .await;
    let (proxy, mut wire) = before(&origin).await;
    wire.write("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n")
        .await
        .expect("write");
    let head = wire.head().await.expect("a head");
    assert!(head.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{head}");
    assert_eq!(wire.body(&head).await.expect("a body"), b"no");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_comes_behind_a_whole_response_is_no_ones() {
    let origin = serve(|mut wire: Wire| async move {
        while wire.head().await.is_some() {
            let first = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine";
            let second = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nothers";
            wire.write(first).await.expect("the proxy reads");
            // The connection may be closed by then.
            let _ = wire.write(second).await;
        }
    })
    .await;
    let (_proxy, mut wire) = before(&origin).await;
    for _ in 0..20 {
        wire.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("write");
        let head = wire.head().await.expect("a head");
        assert_eq!(wire.body(&head).await.expect("a body"), b"mine");
    }
}

/// What the origin says of a body: how long it is, and a sum of all of it.
fn said_of(body: &[u8]) -> String {
    let sum = body
        .iter()
        .fold(0u64, |sum, byte| sum * 31 % 1_000_007 + u64::from(*byte));
    format!("{} {sum}", body.len())
}

/// What a request brings, however it is cut, is what the upstream gets; a body that is here goes with its head.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_upload_arrives_the_same_whether_it_comes_whole_or_in_pieces() {
    let origin = serve(|mut wire: Wire| async move {
        while let Some(head) = wire.head().await {
            let body = wire.body_of(&head).await.expect("a body");
            wire.write(ok(&said_of(&body))).await.expect("the proxy reads");
        }
    })
    .await;
    let (proxy, mut wire) = before(&origin).await;
    for size in [1, 1_000, 3_900, 4_096, 10_240, 16_000, 16_384, 40_000] {
        let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
        let next = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        let whole = [head.as_bytes(), &body, next.as_bytes()].concat();
        for cut in [
            0,
            head.len(),
            head.len() + 1,
            whole.len() - next.len() - 1,
            whole.len() - next.len(),
            whole.len(),
        ] {
            wire.write(&whole[..cut]).await.expect("write");
            if cut < whole.len() {
                tokio::task::yield_now().await;
                wire.write(&whole[cut..]).await.expect("write");
            }
            for expected in [said_of(&body), said_of(&[])] {
                let head = wire.head().await.expect("a head");
                let said = wire.body(&head).await.expect("a body");
                assert_eq!(String::from_utf8_lossy(&said), expected, "{size} cut at {cut}");
            }
        }
    }
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}
