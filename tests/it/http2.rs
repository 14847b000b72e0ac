//! HTTP/2 from client to origin: gRPC's calls, trailers, cancellation, and what becomes of HTTP/2's shapes on HTTP/1.1.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::{BufMut, Bytes, BytesMut};
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::sync::mpsc::unbounded_channel;

use crate::harness::{Origin, Proxy, fields, h2c, one_pool, respond};

const H2C: &str = "{ address: \"127.0.0.1:0\", h2c: true }";
const UPSTREAM_H2: &str = "    connections: { http2: always }";

fn start(origin: &str, more: &str) -> Proxy {
    Proxy::start_on(H2C, &one_pool(origin, more), &[])
}

/// A message as gRPC frames it: not compressed, its length, its bytes.
fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).expect("a short message"));
    frame.put_slice(message);
    frame.freeze()
}

/// Reads messages out of a body.
struct Messages {
    body: RecvStream,
    rest: BytesMut,
}

impl Messages {
    fn of(body: RecvStream) -> Self {
        Self {
            body,
            rest: BytesMut::new(),
        }
    }

    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(length) = self.rest.get(1..5) {
                let length = u32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
                if self.rest.len() >= 5 + length {
                    return Some(self.rest.split_to(5 + length).freeze().split_off(5));
                }
            }
            let piece = self.body.data().await?.expect("a piece");
            self.body
                .flow_control()
                .release_capacity(piece.len())
                .expect("released");
            self.rest.extend_from_slice(&piece);
        }
    }

    async fn trailers(mut self) -> HeaderMap {
        self.body.trailers().await.expect("whole").expect("trailers")
    }
}

fn status(code: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static(code));
    trailers.insert("grpc-message", HeaderValue::from_static("so%20said"));
    trailers
}

/// Echoes each message as it comes; the path `/Fail` has no body but a status.
async fn grpc(request: Request<RecvStream>, mut answer: SendResponse<Bytes>) {
    assert_eq!(request.headers()["te"], "trailers");
    assert_eq!(request.headers()["content-type"], "application/grpc");
    assert_eq!(
        request.uri().authority().map(http::uri::Authority::as_str),
        Some("t.example")
    );
    assert_eq!(request.headers()["x-forwarded-host"], "t.example");
    let head = Response::builder().header("content-type", "application/grpc");
    if request.uri().path() == "/Fail" {
        let head = head.header("grpc-status", "5").body(()).expect("head");
        answer.send_response(head, true).expect("sent");
        return;
    }
    let mut body = answer.send_response(head.body(()).expect("head"), false).expect("sent");
    let mut asked = Messages::of(request.into_body());
    while let Some(message) = asked.next().await {
        h2c::write(&mut body, framed(&message), false).await.expect("sent");
    }
    body.send_trailers(status("0")).expect("sent");
}

fn call(path: &str) -> Request<()> {
    let mut request = h2c::request("POST", path);
    let headers = request.headers_mut();
    headers.insert("te", HeaderValue::from_static("trailers"));
    headers.insert("content-type", HeaderValue::from_static("application/grpc"));
    headers.insert("grpc-timeout", HeaderValue::from_static("10S"));
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_unary_call_gets_its_message_and_its_status() {
    let proxy = start(&h2c::origin(grpc).await, UPSTREAM_H2);
    let (client, _driver) = h2c::connect(&proxy.http).await;
    for n in 0..100_u32 {
        let (response, mut body) = h2c::send(&client, call("/Echo"), false).await;
        let message = vec![b'm'; (n * 1000) as usize];
        h2c::write(&mut body, framed(&message), true).await.expect("sent");
        let response = response.await.expect("a head");
        assert_eq!(response.headers()["content-type"], "application/grpc");
        let mut messages = Messages::of(response.into_body());
        assert_eq!(messages.next().await.expect("a message"), message);
        assert!(messages.next().await.is_none());
        let trailers = messages.trailers().await;
        assert_eq!(
            (&trailers["grpc-status"], &trailers["grpc-message"]),
            (&"0".parse().expect("value"), &"so%20said".parse().expect("value"))
        );
    }
    let (response, _) = h2c::send(&client, call("/Fail"), true).await;
    assert_eq!(response.await.expect("a head").headers()["grpc-status"], "5");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_call_streams_both_ways_message_by_message() {
    let proxy = start(&h2c::origin(grpc).await, UPSTREAM_H2);
    let (client, _driver) = h2c::connect(&proxy.http).await;
    let mut calls = tokio::task::JoinSet::new();
    for caller in 0..20 {
        let client = client.clone();
        calls.spawn(async move {
            let (response, mut body) = h2c::send(&client, call("/Echo"), false).await;
            // The head comes while the request is open, and each echo before the next message is sent.
            let mut messages = Messages::of(response.await.expect("a head").into_body());
            for n in 0..50 {
                let message = format!("{caller}: {n}");
                h2c::write(&mut body, framed(message.as_bytes()), false)
                    .await
                    .expect("sent");
                assert_eq!(messages.next().await.expect("an echo"), message);
            }
            body.send_data(Bytes::new(), true).expect("sent");
            assert!(messages.next().await.is_none());
            assert_eq!(messages.trailers().await["grpc-status"], "0");
        });
    }
    while let Some(call) = calls.join_next().await {
        call.expect("every call was well");
    }
    // A burst opens more than one; never more than there are calls at a time.
    assert!(proxy.metric("switchyard_upstream_connections_opened_total", &[]) <= 20.0);
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

/// What Pingora can: response trailers from HTTP/2 to HTTP/2. A request's are lost, and so is what has HTTP/1.1 on
/// either side.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn trailers_of_a_response_pass_over_http2_and_its_body_is_whole_over_http1() {
    let origin = h2c::origin(|request, mut answer| async move {
        let mut body = request.into_body();
        let mut asked = Vec::new();
        while let Some(piece) = body.data().await {
            asked.extend_from_slice(&piece.expect("a piece"));
        }
        let seen = body.trailers().await.expect("whole").map_or(0, |t| t.len());
        let head = Response::builder()
            .header("x-request-trailers", seen)
            .body(())
            .expect("head");
        let mut body = answer.send_response(head, false).expect("sent");
        body.send_data(asked.into(), false).expect("sent");
        body.send_trailers(status("0")).expect("sent");
    })
    .await;
    let proxy = start(&origin, UPSTREAM_H2);
    let (client, _driver) = h2c::connect(&proxy.http).await;
    let (response, mut body) = h2c::send(&client, h2c::request("POST", "/"), false).await;
    body.send_data(Bytes::from_static(b"asked"), false).expect("sent");
    body.send_trailers(status("7")).expect("sent");
    let (response, trailers) = h2c::collect(response.await.expect("a head")).await.expect("whole");
    assert_eq!(response.body(), b"asked");
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(response.headers()["x-request-trailers"], "0");
    let answer = crate::harness::exchange(
        &proxy.http,
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nConnection: close\r\n\r\nasked",
    );
    assert_eq!((answer.body.as_str(), answer.complete), ("asked", true));
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_cancels_is_cancelled_at_an_http2_upstream() {
    const CALLS: usize = 200;
    let (arrived, mut arrivals) = unbounded_channel();
    let (ended, mut ends) = unbounded_channel();
    let origin = h2c::origin(move |request: Request<RecvStream>, mut answer| {
        let (arrived, ended) = (arrived.clone(), ended.clone());
        async move {
            if request.uri().path() == "/well" {
                return h2c::answer(answer, "well");
            }
            arrived.send(()).expect("the test waits");
            let why = std::future::poll_fn(|cx| answer.poll_reset(cx)).await;
            ended.send(why.expect("a reset")).expect("the test waits");
        }
    })
    .await;
    let proxy = start(&origin, UPSTREAM_H2);
    let (client, _driver) = h2c::connect(&proxy.http).await;
    for _ in 0..CALLS / 50 {
        let mut calls = Vec::new();
        for _ in 0..50 {
            calls.push(h2c::send(&client, h2c::request("GET", "/hang"), true).await);
        }
        for _ in 0..50 {
            arrivals.recv().await.expect("the origin lives");
        }
        for (_, mut body) in calls {
            body.send_reset(h2::Reason::CANCEL);
        }
        for _ in 0..50 {
            assert_eq!(ends.recv().await, Some(h2::Reason::CANCEL));
        }
    }
    for _ in 0..CALLS {
        let line = proxy.access_line();
        assert_eq!(
            (line["status"].as_u64(), line["abort"].as_str()),
            (Some(499), Some("downstream"))
        );
    }
    for _ in 0..CALLS {
        let (response, _) = h2c::get(&client, "/well").await.expect("an answer");
        assert_eq!(response.body(), b"well");
        assert_eq!(proxy.access_line()["status"], 200);
    }
    proxy.wait_metric("switchyard_upstream_connections", &["state=\"active\""], 0.0);
    // A burst opens more than one; never more than there are calls at a time.
    assert!(proxy.metric("switchyard_upstream_connections_opened_total", &[]) <= 50.0);
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

/// Pingora's open bug #935: the empty frame was written as a last chunk, and the last chunk again; the next request on
/// the kept connection met the rest.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_empty_last_frame_leaves_the_kept_connection_clean() {
    let origin = Arc::new(Origin::spawn(|head, stream| {
        if !fields(head, "transfer-encoding").is_empty() {
            let mut body = String::new();
            loop {
                let chunk = crate::harness::read_chunk(stream).expect("a chunk");
                if chunk.is_empty() {
                    return respond(stream, &body);
                }
                body.push_str(&chunk);
            }
        }
        assert!(
            head.starts_with("GET /next HTTP/1.1\r\n"),
            "the rest of a body: {head:?}"
        );
        respond(stream, "next")
    }));
    let proxy = start(&origin.address, "");
    let (client, _driver) = h2c::connect(&proxy.http).await;
    for n in 0..200 {
        for pieces in 0..3 {
            let (response, mut body) = h2c::send(&client, h2c::request("POST", "/"), false).await;
            for _ in 0..pieces {
                body.send_data(Bytes::from_static(b"piece"), false).expect("sent");
            }
            body.send_data(Bytes::new(), true).expect("sent");
            let (response, _) = h2c::collect(response.await.expect("a head")).await.expect("whole");
            assert_eq!(response.status(), 200, "{n}");
            assert_eq!(response.body().as_slice(), b"piece".repeat(pieces), "{n}");
            let (response, _) = h2c::get(&client, "/next").await.expect("an answer");
            assert_eq!(
                (response.status().as_u16(), response.body().as_slice()),
                (200, &b"next"[..]),
                "{n}"
            );
        }
    }
    // Most of it on connections that were used before.
    let opened = origin.connections.load(Ordering::SeqCst);
    assert!(opened < 300, "{opened} connections for 1,200 requests");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}
