//! Bodies of any length pass in constant memory and without waiting for their end.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use tokio::sync::Semaphore;

use crate::harness::origin::{Wire, ok, serve};
use crate::harness::{Proxy, h2c, long, one_pool};

const MIB: usize = 1 << 20;
const PIECE: usize = 256 * 1024;
static SEVENS: [u8; PIECE] = [7; PIECE];
/// What the program may grow by while a body passes: buffers of sockets' size, not of the body's.
const GROWTH_MAX_KIB: u64 = 40 * 1024;

fn body_bytes() -> usize {
    if long() { 1024 * MIB } else { 96 * MIB }
}

/// Whoever reads is slower than who writes, so that what is not held up piles up. `got` grew by `more`.
async fn dawdle(got: usize, more: usize) {
    if got / PIECE != (got - more) / PIECE {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

const H2C: &str = "{ address: \"127.0.0.1:0\", h2c: true }";
const UPSTREAM_H2: &str = "    connections: { http2: always }";

/// Takes uploads and tells their length; `/down` is as long as an upload.
async fn h1_origin() -> String {
    serve(|mut wire: Wire| async move {
        while let Some(head) = wire.head().await {
            if head.starts_with("GET ") {
                let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body_bytes());
                wire.write(text).await.expect("the proxy reads");
                for _ in 0..body_bytes() / PIECE {
                    wire.write(&SEVENS).await.expect("the proxy reads");
                }
                continue;
            }
            let mut got = 0;
            if head.to_ascii_lowercase().contains("content-length") {
                while got < body_bytes() {
                    got += wire.exactly(PIECE).await.expect("the body").len();
                    dawdle(got, PIECE).await;
                }
            } else {
                loop {
                    let chunk = wire.chunk().await.expect("a chunk");
                    if chunk.is_empty() {
                        break;
                    }
                    got += chunk.len();
                    dawdle(got, chunk.len()).await;
                }
            }
            wire.write(ok(&got.to_string())).await.expect("the proxy reads");
        }
    })
    .await
}

async fn h2_origin() -> String {
    h2c::origin(|request, mut answer| async move {
        if request.method() == "GET" {
            let mut body = answer.send_response(Response::new(()), false).expect("head");
            return pour(&mut body).await;
        }
        let mut body = request.into_body();
        let mut got = 0;
        while let Some(piece) = body.data().await {
            let piece = piece.expect("a piece");
            got += piece.len();
            dawdle(got, piece.len()).await;
            body.flow_control().release_capacity(piece.len()).expect("released");
        }
        let mut body = answer.send_response(Response::new(()), false).expect("head");
        body.send_data(Bytes::from(got.to_string()), true).expect("body");
    })
    .await
}

async fn pour(body: &mut h2::SendStream<Bytes>) {
    for n in 1..=body_bytes() / PIECE {
        let last = n == body_bytes() / PIECE;
        h2c::write(body, Bytes::from_static(&SEVENS), last)
            .await
            .expect("poured");
    }
}

async fn upload(proxy: &Proxy, h2: bool) -> String {
    if h2 {
        let (client, _driver) = h2c::connect(&proxy.http).await;
        let (response, mut body) = h2c::send(&client, h2c::request("POST", "/up"), false).await;
        pour(&mut body).await;
        let (response, _) = h2c::collect(response.await.expect("a head")).await.expect("whole");
        return String::from_utf8(response.into_body()).expect("text");
    }
    let mut wire = Wire::connect(&proxy.http).await;
    let text = format!(
        "POST /up HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
        body_bytes()
    );
    wire.write(text).await.expect("write");
    for _ in 0..body_bytes() / PIECE {
        wire.write(&SEVENS).await.expect("write");
    }
    let head = wire.head().await.expect("a head");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    String::from_utf8(wire.body(&head).await.expect("a body")).expect("text")
}

async fn download(proxy: &Proxy, h2: bool) -> usize {
    let mut got = 0;
    if h2 {
        let (client, _driver) = h2c::connect(&proxy.http).await;
        let (response, _) = h2c::send(&client, h2c::request("GET", "/down"), true).await;
        let mut body = response.await.expect("a head").into_body();
        while let Some(piece) = body.data().await {
            let piece = piece.expect("a piece");
            got += piece.len();
            dawdle(got, piece.len()).await;
            body.flow_control().release_capacity(piece.len()).expect("released");
        }
        return got;
    }
    let mut wire = Wire::connect(&proxy.http).await;
    wire.write("GET /down HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .expect("write");
    let head = wire.head().await.expect("a head").to_ascii_lowercase();
    if head.contains("content-length") {
        while got < body_bytes() {
            got += wire.exactly(PIECE).await.expect("the body").len();
            dawdle(got, PIECE).await;
        }
        return got;
    }
    loop {
        let chunk = wire.chunk().await.expect("a chunk");
        if chunk.is_empty() {
            return got;
        }
        got += chunk.len();
        dawdle(got, chunk.len()).await;
    }
}

/// Passes a body each way, and measures what the program grew by.
async fn pass(origin: &str, more: &str, down_h2: bool) {
    let proxy = Proxy::start_on(H2C, &one_pool(origin, more), &[]);
    let before = proxy.memory_kib("VmHWM");
    assert_eq!(upload(&proxy, down_h2).await, body_bytes().to_string());
    let between = proxy.memory_kib("VmHWM");
    assert_eq!(download(&proxy, down_h2).await, body_bytes());
    let after = proxy.memory_kib("VmHWM");
    println!(
        "{} MiB: from {before} KiB to {between} by the upload, {after} by the download",
        body_bytes() / MIB
    );
    assert!(
        after - before < GROWTH_MAX_KIB,
        "grew from {before} KiB to {between} and {after}"
    );
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_big_body_passes_in_constant_memory_over_http1() {
    pass(&h1_origin().await, "", false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_big_body_passes_in_constant_memory_from_http2_to_http1() {
    pass(&h1_origin().await, "", true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_big_body_passes_in_constant_memory_from_http1_to_http2() {
    pass(&h2_origin().await, UPSTREAM_H2, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_big_body_passes_in_constant_memory_over_http2() {
    pass(&h2_origin().await, UPSTREAM_H2, true).await;
}

/// Events that each wait for the one before to have been read.
const EVENTS: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn each_event_arrives_before_the_next_is_sent() {
    let read = Arc::new(Semaphore::new(0));
    let waits = Arc::clone(&read);
    let h1 = serve(move |mut wire: Wire| {
        let read = Arc::clone(&waits);
        async move {
            while wire.head().await.is_some() {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
                wire.write(head).await.expect("the proxy reads");
                for n in 0..EVENTS {
                    let event = format!("data: {n:03}\n\n");
                    let chunk = format!("{:x}\r\n{event}\r\n", event.len());
                    wire.write(chunk).await.expect("the proxy reads");
                    read.acquire().await.expect("open").forget();
                }
                wire.write("0\r\n\r\n").await.expect("the proxy reads");
            }
        }
    })
    .await;
    let waits = Arc::clone(&read);
    let h2 = h2c::origin(move |_request, mut answer| {
        let read = Arc::clone(&waits);
        async move {
            let head = Response::builder().header("content-type", "text/event-stream");
            let mut body = answer.send_response(head.body(()).expect("head"), false).expect("sent");
            for n in 0..EVENTS {
                body.send_data(Bytes::from(format!("data: {n:03}\n\n")), n + 1 == EVENTS)
                    .expect("sent");
                read.acquire().await.expect("open").forget();
            }
        }
    })
    .await;
    for (origin, more) in [(h1, ""), (h2, UPSTREAM_H2)] {
        let proxy = Proxy::start_on(H2C, &one_pool(&origin, more), &[]);
        let mut wire = Wire::connect(&proxy.http).await;
        wire.write("GET / HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
            .await
            .expect("write");
        wire.head().await.expect("a head");
        for n in 0..EVENTS {
            assert_eq!(wire.chunk().await.expect("an event"), format!("data: {n:03}\n\n"));
            read.add_permits(1);
        }
        assert!(wire.chunk().await.expect("the end").is_empty());
        let (client, _driver) = h2c::connect(&proxy.http).await;
        let (response, _) = h2c::send(&client, h2c::request("GET", "/"), true).await;
        let mut body = response.await.expect("a head").into_body();
        for n in 0..EVENTS {
            let event = body.data().await.expect("an event").expect("whole");
            assert_eq!(event, format!("data: {n:03}\n\n"));
            body.flow_control().release_capacity(event.len()).expect("released");
            read.add_permits(1);
        }
        assert!(body.data().await.is_none_or(|last| last.expect("whole").is_empty()));
        assert_eq!(proxy.alarms(), Vec::<String>::new());
    }
}
