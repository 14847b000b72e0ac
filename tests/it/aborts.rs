//! A client that goes away never alarms anything, and leaves nothing behind.

use std::sync::Arc;

use bytes::Bytes;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::harness::certificate::Certificate;
use crate::harness::origin::{Wire, ok, serve};
use crate::harness::{Proxy, h2c, one_pool};

/// Clients that leave at each point.
const CLIENTS: usize = 1_000;
/// As many are there at a time.
const AT_ONCE: usize = 50;

/// An origin with a bad day: `/hang` and `/upload` are never answered, `/half` half, all else is well. `arrived` tells of
/// the head of each request that will not be.
async fn origin(arrived: UnboundedSender<()>) -> String {
    serve(move |mut wire: Wire| {
        let arrived = arrived.clone();
        async move {
            while let Some(head) = wire.head().await {
                let path = head.split(' ').nth(1).unwrap_or_default();
                if path == "/" {
                    wire.write(ok("ok")).await.expect("the proxy reads");
                    continue;
                }
                if path == "/half" {
                    let half = format!("HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n{}", "x".repeat(2000));
                    wire.write(half).await.expect("the proxy reads");
                }
                arrived.send(()).expect("the test waits");
                // Until the proxy ends the connection.
                drop(wire.rest().await);
                return;
            }
        }
    })
    .await
}

struct Stage {
    proxy: Proxy,
    certificate: Certificate,
    arrivals: UnboundedReceiver<()>,
}

impl Stage {
    async fn set() -> Self {
        let (arrived, arrivals) = unbounded_channel();
        let certificate = Certificate::new();
        let listeners = format!("{{ address: \"127.0.0.1:0\", h2c: true }}, {}", certificate.listener());
        let proxy = Proxy::start_on(&listeners, &one_pool(&origin(arrived).await, ""), &[]);
        Self {
            proxy,
            certificate,
            arrivals,
        }
    }

    /// Waits for that many requests to be with the origin.
    async fn arrive(&mut self, requests: usize) {
        for _ in 0..requests {
            self.arrivals.recv().await.expect("the origin lives");
        }
    }

    /// `CLIENTS` clients that send `request`, wait until it is with the origin, and `leave`.
    async fn h1(&mut self, request: &str, leave: impl AsyncFn(Wire)) {
        for _ in 0..CLIENTS / AT_ONCE {
            let mut clients = Vec::new();
            for _ in 0..AT_ONCE {
                let mut wire = Wire::connect(&self.proxy.http).await;
                wire.write(request).await.expect("write");
                clients.push(wire);
            }
            self.arrive(AT_ONCE).await;
            for wire in clients {
                leave(wire).await;
            }
        }
    }

    /// Every abort has its line; the next requests are well; nothing is left.
    async fn judge(self, aborts: usize) {
        let proxy = Arc::new(self.proxy);
        for _ in 0..aborts {
            let line = proxy.access_line();
            assert_eq!(
                (line["status"].as_u64(), line["abort"].as_str()),
                (Some(499), Some("downstream")),
                "{line}"
            );
        }
        assert_eq!(proxy.metric("switchyard_downstream_aborts_total", &[]), aborts as f64);
        well(&proxy).await;
        for _ in 0..CLIENTS {
            assert_eq!(proxy.access_line()["status"], 200);
        }
        assert_eq!(proxy.metric("switchyard_downstream_aborts_total", &[]), aborts as f64);
        proxy.wait_metric("switchyard_upstream_connections", &["state=\"active\""], 0.0);
        let idle = proxy.metric("switchyard_upstream_connections", &["state=\"idle\""]);
        assert!(idle <= (AT_ONCE + 1) as f64, "{idle} idle connections");
        let proxy = Arc::into_inner(proxy).expect("no client is left");
        // Each upstream connection has two descriptors; the rest is the program's own.
        let descriptors = proxy.descriptors();
        assert!(descriptors < 2 * (AT_ONCE + 1) + 60, "{descriptors} descriptors");
        assert_eq!(proxy.alarms(), Vec::<String>::new());
    }
}

/// The next requests, half over HTTP/1.1 and half over HTTP/2.
async fn well(proxy: &Arc<Proxy>) {
    let (client, driver) = h2c::connect(&proxy.http).await;
    for _ in 0..CLIENTS / 2 {
        let (response, _) = h2c::get(&client, "/").await.expect("an answer");
        assert_eq!(
            (response.status().as_u16(), response.body().as_slice()),
            (200, &b"ok"[..])
        );
    }
    driver.abort();
    let mut wire = Wire::connect(&proxy.http).await;
    for _ in 0..CLIENTS / 2 {
        wire.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("write");
        let head = wire.head().await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert_eq!(wire.exactly(2).await.expect("body"), "ok");
    }
}

async fn close(wire: Wire) {
    drop(wire);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn leaving_in_the_header_is_counted_and_otherwise_unseen() {
    let stage = Stage::set().await;
    for _ in 0..CLIENTS {
        let mut wire = Wire::connect(&stage.proxy.http).await;
        wire.write("GET /somewhere HTTP/1.1\r\nHos").await.expect("write");
    }
    let family = "switchyard_downstream_protocol_errors_total";
    stage
        .proxy
        .wait_metric(family, &["cause=\"request_header\""], CLIENTS as f64);
    stage.judge(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn leaving_in_a_handshake_is_counted_and_otherwise_unseen() {
    let stage = Stage::set().await;
    let https = stage.proxy.https.clone().expect("a listener with TLS");
    for n in 0..CLIENTS {
        let mut wire = Wire::connect(&https).await;
        // The beginning of a ClientHello, or of something else.
        let begun: &[u8] = if n % 2 == 0 {
            b"\x16\x03\x01\x00\xf0\x01"
        } else {
            b"GET / HTTP/1.1\r\n\r\n"
        };
        wire.write(begun).await.expect("write");
    }
    let family = "switchyard_downstream_protocol_errors_total";
    let cause = "cause=\"tls_handshake\"";
    stage.proxy.wait_metric(family, &[cause], CLIENTS as f64);
    stage.judge(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn leaving_in_an_upload_is_quiet() {
    let mut stage = Stage::set().await;
    let request = "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf";
    stage.h1(request, close).await;
    stage.judge(CLIENTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn leaving_before_the_response_is_quiet() {
    let mut stage = Stage::set().await;
    stage.h1("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n", close).await;
    stage.judge(CLIENTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn leaving_in_the_response_is_quiet() {
    let mut stage = Stage::set().await;
    let read_some = async |mut wire: Wire| {
        wire.head().await.expect("a head");
        wire.exactly(1000).await.expect("some of the body");
    };
    stage.h1("GET /half HTTP/1.1\r\nHost: a\r\n\r\n", read_some).await;
    stage.judge(CLIENTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn leaving_by_a_reset_of_the_connection_is_quiet() {
    let mut stage = Stage::set().await;
    let reset = async |wire: Wire| wire.socket().set_zero_linger().expect("linger");
    stage.h1("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n", reset).await;
    let request = "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf";
    stage.h1(request, reset).await;
    stage.judge(2 * CLIENTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn leaving_by_a_reset_of_the_stream_is_quiet() {
    let mut stage = Stage::set().await;
    for path in ["/hang", "/half", "/upload"] {
        for _ in 0..CLIENTS / AT_ONCE {
            // One that takes back all it asks for is not borne for long.
            let (client, driver) = h2c::connect(&stage.proxy.http).await;
            let mut streams = Vec::new();
            for _ in 0..AT_ONCE {
                let upload = path == "/upload";
                let request = h2c::request(if upload { "POST" } else { "GET" }, path);
                let (response, mut body) = h2c::send(&client, request, !upload).await;
                if upload {
                    body.send_data(Bytes::from_static(b"half"), false).expect("sent");
                }
                streams.push((response, body));
            }
            stage.arrive(AT_ONCE).await;
            for (response, mut body) in streams {
                if path == "/half" {
                    let mut response = response.await.expect("a head").into_body();
                    response.data().await.expect("a piece").expect("of the body");
                }
                body.send_reset(h2::Reason::CANCEL);
            }
            drop(client);
            driver.await.expect("ends by itself");
        }
    }
    stage.judge(3 * CLIENTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn leaving_with_all_streams_of_a_connection_is_quiet() {
    let mut stage = Stage::set().await;
    for _ in 0..CLIENTS / AT_ONCE {
        let (client, driver) = h2c::connect(&stage.proxy.http).await;
        let mut streams = Vec::new();
        for _ in 0..AT_ONCE {
            streams.push(h2c::send(&client, h2c::request("GET", "/hang"), true).await);
        }
        stage.arrive(AT_ONCE).await;
        // The socket goes with the task; no frame says so.
        driver.abort();
        assert!(driver.await.expect_err("ended").is_cancelled());
    }
    stage.judge(CLIENTS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn leaving_a_connection_with_tls_is_quiet() {
    let mut stage = Stage::set().await;
    let https = stage.proxy.https.clone().expect("a listener with TLS");
    for _ in 0..CLIENTS / AT_ONCE {
        let mut clients = Vec::new();
        for _ in 0..AT_ONCE / 2 {
            let mut client = stage.certificate.connect(&https, &["http/1.1"]).await;
            client
                .write_all(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
                .await
                .expect("write");
            clients.push(client);
        }
        let (client, driver) = h2c::over(stage.certificate.connect(&https, &["h2"]).await).await;
        let mut streams = Vec::new();
        for _ in 0..AT_ONCE / 2 {
            streams.push(h2c::send(&client, h2c::request("GET", "/hang"), true).await);
        }
        stage.arrive(AT_ONCE).await;
        driver.abort();
    }
    stage.judge(CLIENTS).await;
}

/// Whole answers to an upload that is under way, in pieces as they are written.
const EARLY: [&[&str]; 6] = [
    &["HTTP/1.1 413 Payload Too Large\r\nContent-Length: 2\r\n\r\nno"],
    &["HTTP/1.1 413 Payload Too Large\r\nContent-Length: 2\r\n\r\n", "no"],
    &["HTTP/1.1 413 Payload Too Large\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n"],
    &[
        "HTTP/1.1 413 Payload Too Large\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nn\r\n",
        "1\r\no\r\n0\r\n\r\n",
    ],
    &["HTTP/1.1 413 Payload Too Large\r\nContent-Length: 0\r\n\r\n"],
    &["HTTP/1.1 204 No Content\r\n\r\n"],
];

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn leaving_with_all_of_an_answer_is_no_abort() {
    let origin = serve(|mut wire: Wire| async move {
        let head = wire.head().await.expect("a request");
        let nth = head.split(['/', ' ']).nth(2).and_then(|nth| nth.parse::<usize>().ok());
        for piece in EARLY[nth.expect("a number")] {
            wire.write(piece).await.expect("the proxy reads");
            tokio::task::yield_now().await;
        }
        drop(wire.rest().await);
    })
    .await;
    let proxy = Proxy::start_on("{ address: \"127.0.0.1:0\", h2c: true }", &one_pool(&origin, ""), &[]);
    for (nth, pieces) in EARLY.iter().enumerate() {
        for reset in [false, true] {
            let mut wire = Wire::connect(&proxy.http).await;
            let request = format!("POST /{nth} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf");
            wire.write(request).await.expect("write");
            let head = wire.head().await.expect("a head");
            if !head.starts_with("HTTP/1.1 204 ") {
                wire.body(&head).await.expect("a body");
            }
            if reset {
                wire.socket().set_zero_linger().expect("linger");
            }
            drop(wire);
            judge_early(&proxy, pieces, reset);
        }
        let (client, _driver) = h2c::connect(&proxy.http).await;
        let (response, mut body) = h2c::send(&client, h2c::request("POST", &format!("/{nth}")), false).await;
        h2c::collect(response.await.expect("a head")).await.expect("a body");
        body.send_reset(h2::Reason::CANCEL);
        judge_early(&proxy, pieces, true);
    }
    assert_eq!(proxy.metric("switchyard_downstream_aborts_total", &[]), 0.0);
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn leaving_with_all_of_an_answer_of_http_2_is_no_abort() {
    let origin = h2c::origin(|request, mut answer| async move {
        let head = http::Response::builder().status(413).body(()).expect("a head");
        let mut body = answer.send_response(head, false).expect("head");
        if request.uri().path() == "/trailers" {
            body.send_data(Bytes::from_static(b"no"), false).expect("data");
            body.send_trailers(http::HeaderMap::new()).expect("trailers");
        } else {
            body.send_data(Bytes::from_static(b"no"), true).expect("data");
        }
        // The rest of the request may come.
        let mut rest = request.into_body();
        while let Some(Ok(_)) = rest.data().await {}
    })
    .await;
    let only = one_pool(&origin, "    connections: { http2: always }");
    let proxy = Proxy::start_on("{ address: \"127.0.0.1:0\", h2c: true }", &only, &[]);
    for path in ["/", "/trailers"] {
        let mut wire = Wire::connect(&proxy.http).await;
        let request = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf");
        wire.write(request).await.expect("write");
        let head = wire.head().await.expect("a head");
        wire.body(&head).await.expect("a body");
        drop(wire);
        judge_early(&proxy, EARLY[0], false);
        let (client, _driver) = h2c::connect(&proxy.http).await;
        let (response, mut body) = h2c::send(&client, h2c::request("POST", path), false).await;
        h2c::collect(response.await.expect("a head")).await.expect("a body");
        body.send_reset(h2::Reason::CANCEL);
        judge_early(&proxy, EARLY[0], true);
    }
    assert_eq!(proxy.metric("switchyard_downstream_aborts_total", &[]), 0.0);
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

fn judge_early(proxy: &Proxy, pieces: &[&str], reset: bool) {
    let line = proxy.access_line();
    let status: u64 = pieces[0]
        .split(' ')
        .nth(1)
        .and_then(|s| s.parse().ok())
        .expect("a status");
    assert_eq!(line["status"], status, "{pieces:?} {reset}: {line}");
    assert!(line["abort"].is_null(), "{pieces:?} {reset}: {line}");
}
