//! WebSocket tunnels: every handshake gets its echo, however fast the upstream and however many clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{accept_async, client_async};

use crate::harness::origin::{Wire, serve};
use crate::harness::{Proxy, long, one_pool};

fn handshakes() -> usize {
    if long() { 10_000 } else { 1_000 }
}

/// As many tunnels are open at a time.
const CLIENTS: usize = 64;

const H2C: &str = "{ address: \"127.0.0.1:0\", h2c: true }";
const WORDS: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// A WebSocket server by `tungstenite` that echoes.
async fn echoes() -> String {
    serve(|wire: Wire| async move {
        let Ok(mut socket) = accept_async(wire.into_socket()).await else {
            return;
        };
        use futures_util::{SinkExt, StreamExt};
        while let Some(Ok(message)) = socket.next().await {
            if message.is_close() {
                return;
            }
            socket.send(message).await.expect("the proxy reads");
        }
    })
    .await
}

/// One tunnel, from handshake to close.
async fn tunnel(address: &str, n: usize) {
    use futures_util::{SinkExt, StreamExt};
    let socket = TcpStream::connect(address).await.expect("connect");
    let (mut socket, answer) = client_async("ws://t.example/ws", socket)
        .await
        .unwrap_or_else(|e| panic!("handshake {n}: {e}"));
    assert_eq!(answer.status(), 101);
    for word in [
        Message::text(format!("hello {n}")),
        Message::binary(Bytes::from(vec![7; 3000])),
    ] {
        socket.send(word.clone()).await.expect("sent");
        let echo = socket.next().await.unwrap_or_else(|| panic!("echo {n} never came"));
        assert_eq!(echo.unwrap_or_else(|e| panic!("echo {n}: {e}")), word);
    }
    socket.close(None).await.expect("closed");
    while let Some(Ok(_)) = socket.next().await {}
}

async fn tunnels(proxy: &Arc<Proxy>, all: usize) {
    let next = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let (next, address) = (Arc::clone(&next), proxy.http.clone());
        clients.spawn(async move {
            loop {
                let n = next.fetch_add(1, Ordering::Relaxed);
                if n >= all {
                    return;
                }
                tunnel(&address, n).await;
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("every tunnel was well");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_tunnel_is_lost_among_many() {
    let proxy = Arc::new(Proxy::start_on(H2C, &one_pool(&echoes().await, ""), &[]));
    tunnels(&proxy, handshakes()).await;
    for _ in 0..handshakes() {
        let line = proxy.access_line();
        assert_eq!(
            (line["status"].as_u64(), line["abort"].as_str()),
            (Some(101), None),
            "{line}"
        );
    }
    proxy.wait_metric("switchyard_upstream_connections", &["state=\"active\""], 0.0);
    proxy.wait_metric("switchyard_upstream_connections", &["state=\"idle\""], 0.0);
    let proxy = Arc::into_inner(proxy).expect("no client is left");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tunnels_open_where_connections_are_not_reused() {
    let more = "    connections: { reuse: false }";
    let proxy = Arc::new(Proxy::start(&one_pool(&echoes().await, more)));
    tunnels(&proxy, 200).await;
    let proxy = Arc::into_inner(proxy).expect("no client is left");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

/// An upstream can be no faster: it speaks in one go with its 101, and answers each word at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_upstream_says_with_its_101_arrives() {
    let origin = serve(|mut wire: Wire| async move {
        while wire.head().await.is_some() {
            wire.write(format!("{SWITCHING}first")).await.expect("the proxy reads");
            while let Ok(word) = wire.exactly(5).await {
                wire.write(word).await.expect("the proxy reads");
            }
        }
    })
    .await;
    let proxy = Arc::new(Proxy::start(&one_pool(&origin, "")));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        let address = proxy.http.clone();
        clients.spawn(async move {
            for n in 0..handshakes() / CLIENTS {
                let mut wire = Wire::connect(&address).await;
                wire.write(WORDS).await.expect("write");
                let head = wire.head().await.expect("a head");
                assert!(head.starts_with("HTTP/1.1 101 "), "{n}: {head}");
                assert_eq!(
                    wire.exactly(5).await.unwrap_or_else(|e| panic!("greeting {n}: {e}")),
                    "first"
                );
                for word in ["hello", "again"] {
                    wire.write(word).await.expect("write");
                    assert_eq!(wire.exactly(5).await.unwrap_or_else(|e| panic!("echo {n}: {e}")), word);
                }
            }
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("every tunnel was well");
    }
    let proxy = Arc::into_inner(proxy).expect("no client is left");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

/// The tunnel is silent for longer than a head may take: until the sweep has ended a request that waits for its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_outlives_the_limit_on_response_heads() {
    let origin = serve(|mut wire: Wire| async move {
        while let Some(head) = wire.head().await {
            if head.starts_with("GET /late") {
                drop(wire.rest().await);
                return;
            }
            wire.write(SWITCHING).await.expect("the proxy reads");
            while let Ok(word) = wire.exactly(5).await {
                wire.write(word).await.expect("the proxy reads");
            }
        }
    })
    .await;
    let more = "    connections: { response_header_timeout: 200ms }";
    let proxy = Proxy::start(&one_pool(&origin, more));
    let mut wire = Wire::connect(&proxy.http).await;
    wire.write(WORDS).await.expect("write");
    wire.head().await.expect("a head");
    // Each takes as long as a head may; they are the clock.
    for _ in 0..3 {
        assert_eq!(proxy.get("/late", "").status, 504);
    }
    wire.write("hello").await.expect("write");
    assert_eq!(wire.exactly(5).await.expect("an echo"), "hello");
}

/// Browsers do not say goodbye: a tunnel ends by an end of file or by a reset. A reset by the upstream is a failure.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tunnel_may_end_without_a_word_but_not_by_a_reset_of_the_upstream() {
    let origin = serve(|mut wire: Wire| async move {
        wire.head().await.expect("a request");
        wire.write(SWITCHING).await.expect("the proxy reads");
        while let Ok(word) = wire.exactly(5).await {
            match word.as_ref() {
                b"close" => return,
                b"reset" => return wire.socket().set_zero_linger().expect("linger"),
                _ => wire.write(word).await.expect("the proxy reads"),
            }
        }
    })
    .await;
    let proxy = Proxy::start(&one_pool(&origin, ""));
    for n in 0..200 {
        let mut wire = Wire::connect(&proxy.http).await;
        wire.write(WORDS).await.expect("write");
        wire.head().await.expect("a head");
        wire.write("hello").await.expect("write");
        assert_eq!(wire.exactly(5).await.expect("an echo"), "hello");
        match n % 4 {
            0 => drop(wire),
            1 => {
                wire.socket().set_zero_linger().expect("linger");
                drop(wire);
            }
            ending => {
                wire.write(["close", "reset"][ending - 2]).await.expect("write");
                // However it ends for the client.
                drop(wire.rest().await);
            }
        }
        let line = proxy.access_line();
        let reset = n % 4 == 1;
        assert_eq!(line["status"], if reset { 499 } else { 101 }, "{n}: {line}");
        assert_eq!(line["abort"].as_str(), reset.then_some("downstream"), "{n}: {line}");
    }
    proxy.wait_metric("switchyard_upstream_connections", &["state=\"active\""], 0.0);
    let alarms = proxy.alarms();
    assert_eq!(alarms.len(), 50, "{alarms:#?}");
    assert!(
        alarms
            .iter()
            .all(|line| line.contains("request failed: connection broken; ")),
        "{alarms:#?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_upgrade_is_a_response_like_any_other() {
    let origin = serve(|mut wire: Wire| async move {
        while wire.head().await.is_some() {
            let text = "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno";
            wire.write(text).await.expect("the proxy reads");
        }
    })
    .await;
    let proxy = Proxy::start(&one_pool(&origin, ""));
    let mut wire = Wire::connect(&proxy.http).await;
    for n in 0..20 {
        wire.write(WORDS).await.expect("write");
        let head = wire.head().await.unwrap_or_else(|| panic!("head {n}"));
        assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
        assert_eq!(wire.body(&head).await.expect("a body"), b"no");
    }
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}
