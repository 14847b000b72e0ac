//! Requests over HTTP/2 that are answered before they are all there: what becomes of their rest, and what is held for it.

use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};

use crate::files::until;
use crate::harness::certificate::Certificate;
use crate::harness::origin::{Wire, serve};
use crate::harness::{PATIENCE, Proxy, h2c, one_pool};

const H2C: &str = "{ address: \"127.0.0.1:0\", h2c: true }";
const SHORT: &str = "limits: { read_timeout: 300ms }";
/// A time that no test waits for.
const LONG: &str = "limits: { read_timeout: 600s, header_timeout: 600s, requests_in_flight_max: 2 }";
/// Requests of a kind.
const MANY: usize = 30;

/// Answers by the path, and waits for the rest of the request until the proxy ends the connection.
async fn origin() -> String {
    serve(|mut wire: Wire| async move {
        let head = wire.head().await.expect("a request");
        let answer = match head.split(' ').nth(1) {
            Some("/empty") => "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n",
            Some("/none") => "HTTP/1.1 204 No Content\r\n\r\n",
            Some("/chunks") => "HTTP/1.1 401 Unauthorized\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
            _ if head.starts_with("HEAD ") => "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\n",
            _ => "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno",
        };
        wire.write(answer).await.expect("the proxy reads");
        drop(wire.rest().await);
    })
    .await
}

/// The same over HTTP/2. Keeps what it does not read, so that nothing ends from there.
async fn h2_origin() -> String {
    h2c::origin(
        |request: Request<RecvStream>, mut answer: SendResponse<Bytes>| async move {
            let path = request.uri().path();
            let mut head = Response::builder().status(StatusCode::UNAUTHORIZED);
            if path.ends_with("/status") {
                head = head.header("grpc-status", "16");
            }
            let ends = path.ends_with("/empty") || path.ends_with("/status");
            let mut body = answer.send_response(head.body(()).expect("head"), ends).expect("sent");
            if path.ends_with("/trailers") {
                let mut trailers = HeaderMap::new();
                trailers.insert("grpc-status", HeaderValue::from_static("16"));
                body.send_trailers(trailers).expect("sent");
            } else if !ends {
                body.send_data(Bytes::from_static(b"no"), true).expect("sent");
            }
            std::future::pending::<()>().await;
            drop((request, body));
        },
    )
    .await
}

/// A request that is answered and not all there.
async fn upload(client: &SendRequest<Bytes>, request: Request<()>) -> SendStream<Bytes> {
    let (answer, mut upload) = h2c::send(client, request, false).await;
    upload.send_data(Bytes::from_static(b"abc"), false).expect("sent");
    let (answer, _) = h2c::collect(answer.await.expect("a head")).await.expect("whole");
    assert!(matches!(answer.status().as_u16(), 401 | 204), "{answer:?}");
    upload
}

fn call(path: &str) -> Request<()> {
    let mut call = h2c::request("POST", path);
    let kind = HeaderValue::from_static("application/grpc");
    call.headers_mut().insert("content-type", kind);
    call
}

async fn reset(upload: &mut SendStream<Bytes>) -> Reason {
    let reset = std::future::poll_fn(|cx| upload.poll_reset(cx));
    let reset = tokio::time::timeout(PATIENCE, reset).await;
    reset.expect("it ends").expect("a reset")
}

/// Sends requests that fall silent, and expects them to be over, with nothing kept of them.
async fn end_when_silent(proxy: &Proxy, client: &SendRequest<Bytes>, requests: &[fn() -> Request<()>]) {
    // The first opens what stays open.
    reset(&mut upload(client, requests[0]()).await).await;
    proxy.settle(1);
    let before = proxy.descriptors();
    for request in requests {
        let mut silent = Vec::new();
        for _ in 0..MANY {
            silent.push(upload(client, request()).await);
        }
        for upload in &mut silent {
            // RFC 9113, 8.1: a client that is told NO_ERROR keeps the response it has.
            assert_eq!(reset(upload).await, Reason::NO_ERROR, "{:?}", request());
        }
        for _ in 0..MANY {
            let line = proxy.access_line();
            assert!(matches!(line["status"].as_u64(), Some(401 | 204)), "{line}");
            assert_eq!((&line["bytes_in"], &line["abort"]), (&3.into(), &().into()), "{line}");
        }
        until("its descriptors are closed", || proxy.descriptors() <= before);
    }
    proxy.wait_metric("switchyard_upstream_connections", &["state=\"active\""], 0.0);
}

const PLAIN: &[fn() -> Request<()>] = &[
    || h2c::request("POST", "/full"),
    || h2c::request("POST", "/chunks"),
    || h2c::request("POST", "/empty"),
    || h2c::request("POST", "/none"),
    || h2c::request("HEAD", "/head"),
];

const OVER_HTTP2: &[fn() -> Request<()>] = &[
    || h2c::request("POST", "/full"),
    || h2c::request("POST", "/empty"),
    || call("/full"),
    || call("/empty"),
    || call("/status"),
    || call("/trailers"),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_falls_silent_after_an_early_answer_keeps_nothing() {
    let proxy = Proxy::start_on(H2C, &one_pool(&origin().await, SHORT), &[]);
    let (client, _driver) = h2c::connect(&proxy.http).await;
    end_when_silent(&proxy, &client, PLAIN).await;
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nor_does_one_over_tls() {
    let certificate = Certificate::new();
    let proxy = Proxy::start_on(&certificate.listener(), &one_pool(&origin().await, SHORT), &[]);
    let address = proxy.https.as_ref().expect("a TLS listener");
    let (client, _driver) = h2c::over(certificate.connect(address, &["h2"]).await).await;
    end_when_silent(&proxy, &client, PLAIN).await;
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn nor_does_one_of_an_http2_upstream() {
    let yaml = one_pool(&h2_origin().await, "    connections: { http2: always }");
    let proxy = Proxy::start_on(H2C, &format!("{yaml}\n{SHORT}"), &[]);
    let (client, _driver) = h2c::connect(&proxy.http).await;
    end_when_silent(&proxy, &client, OVER_HTTP2).await;
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_upstream_that_takes_nothing_after_its_answer_is_not_waited_for() {
    let origin = serve(|mut wire: Wire| async move {
        wire.head().await.expect("a request");
        let answer = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno";
        wire.write(answer).await.expect("the proxy reads");
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = Proxy::start_on(H2C, &one_pool(&origin, SHORT), &[]);
    let (client, _driver) = h2c::connect(&proxy.http).await;
    let mut goes_on = upload(&client, h2c::request("POST", "/full")).await;
    let piece = Bytes::from_static(&[b'x'; 64 * 1024]);
    let flood = async { while h2c::write(&mut goes_on, piece.clone(), false).await.is_ok() {} };
    tokio::time::timeout(PATIENCE, flood).await.expect("it ends");
    assert_eq!(reset(&mut goes_on).await, Reason::NO_ERROR);
    assert_eq!(proxy.access_line()["status"], 401);
    proxy.wait_metric("switchyard_upstream_connections", &["state=\"active\""], 0.0);
}

/// It would only be waited for, and might take nothing of it, ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_http2_upstream_that_has_answered_gets_no_more() {
    let yaml = one_pool(&h2_origin().await, "    connections: { http2: always }");
    let proxy = Proxy::start_on(H2C, &format!("{yaml}\n{LONG}"), &[]);
    let (client, _driver) = h2c::connect(&proxy.http).await;
    for request in OVER_HTTP2 {
        let mut goes_on = upload(&client, request()).await;
        // It cannot be sent where what went before came after the answer, which ends it as well.
        drop(goes_on.send_data(Bytes::from_static(b"def"), false));
        assert_eq!(reset(&mut goes_on).await, Reason::NO_ERROR, "{:?}", request());
        assert_eq!(proxy.access_line()["status"], 401);
        // The end alone is no more.
        let mut ends = upload(&client, request()).await;
        drop(ends.send_data(Bytes::new(), true));
        assert_eq!(proxy.access_line()["status"], 401);
    }
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_rest_that_drips_ends_as_one_that_does_not_come() {
    const PACE: Duration = Duration::from_millis(20);
    let limits = "limits: { read_timeout: 600s, header_timeout: 300ms, body_rate_min: 1KB }";
    let proxy = Proxy::start_on(H2C, &one_pool(&origin().await, limits), &[]);
    let (client, _driver) = h2c::connect(&proxy.http).await;
    let mut drips = upload(&client, h2c::request("POST", "/full")).await;
    let dripping = async {
        loop {
            tokio::select! {
                reason = std::future::poll_fn(|cx| drips.poll_reset(cx)) => return reason.expect("a reset"),
                () = tokio::time::sleep(PACE) => {}
            }
            // It may be over by now: the next look says so.
            drop(drips.send_data(Bytes::from_static(b"x"), false));
        }
    };
    let reason = tokio::time::timeout(PATIENCE, dripping).await;
    assert_eq!(reason.expect("it ends"), Reason::NO_ERROR);
    assert_eq!(proxy.access_line()["status"], 401);
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answered_request_counts_as_one_in_flight_until_it_is_over() {
    let proxy = Proxy::start_on(H2C, &one_pool(&origin().await, LONG), &[]);
    let (client, _driver) = h2c::connect(&proxy.http).await;
    let mut silent = Vec::new();
    for _ in 0..2 {
        silent.push(upload(&client, h2c::request("POST", "/full")).await);
    }
    let (refused, _) = h2c::get(&client, "/full").await.expect("an answer");
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    proxy.settle(1);
    silent.pop().expect("two").send_reset(Reason::CANCEL);
    assert_eq!(proxy.access_line()["method"], "POST");
    let (served, _) = h2c::get(&client, "/full").await.expect("an answer");
    assert_eq!(served.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

/// Its rest is passed on, so that the upstream connection can be used again.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_answered_request_whose_rest_comes_ends_as_any_other() {
    let origin = serve(|mut wire: Wire| async move {
        while let Some(head) = wire.head().await {
            let answer = "HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno";
            wire.write(answer).await.expect("the proxy reads");
            assert_eq!(wire.body(&head).await.expect("a body"), b"abcdef");
        }
    })
    .await;
    let proxy = Proxy::start_on(H2C, &one_pool(&origin, LONG), &[]);
    let (client, _driver) = h2c::connect(&proxy.http).await;
    for n in 0..20 {
        let mut comes = upload(&client, h2c::request("POST", "/full")).await;
        comes.send_data(Bytes::from_static(b"def"), true).expect("sent");
        let line = proxy.access_line();
        assert_eq!((&line["bytes_in"], &line["reused"]), (&6.into(), &(n > 0).into()));
    }
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_upload_that_is_answered_early_is_ended_without_an_error() {
    let origin = serve(|mut wire: Wire| async move {
        let head = wire.head().await.expect("a request");
        let field = if head.contains("/kept") {
            ""
        } else {
            "Connection: close\r\n"
        };
        wire.write(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n{field}\r\nok"))
            .await
            .expect("the proxy reads");
    })
    .await;
    let proxy = Proxy::start_on(H2C, &one_pool(&origin, ""), &[]);
    let (client, _driver) = h2c::connect(&proxy.http).await;
    for path in ["/closed", "/kept"] {
        let (answer, mut upload) = h2c::send(&client, h2c::request("POST", path), false).await;
        let (response, _) = h2c::collect(answer.await.expect("a response")).await.expect("a body");
        assert_eq!(response.into_body(), b"ok", "{path}");
        let piece = Bytes::from_static(&[b'x'; 64 * 1024]);
        while h2c::write(&mut upload, piece.clone(), false).await.is_ok() {}
        // RFC 9113, 8.1: a client that is told NO_ERROR keeps the response it has.
        let why = std::future::poll_fn(|cx| upload.poll_reset(cx)).await;
        assert_eq!(why.expect("a reset"), h2::Reason::NO_ERROR, "{path}");
    }
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}
