//! Every real failure of an upstream is answered, logged once with what is needed to find it, and never passed off as a
//! whole response.

use std::io::Write;
use std::net::SocketAddr;

use bytes::Bytes;
use http::Response;
use tokio::net::{TcpSocket, TcpStream};

use crate::harness::origin::{Wire, serve};
use crate::harness::{Answer, Origin, Proxy, answer, connect, h2c, nowhere, one_pool, read_head};

/// What one failing request comes to.
struct Expected {
    status: u16,
    cause: &'static str,
}

/// Checks the answer, the one line in the error log, and the access line. The endpoint is the pool's only one.
fn judge(proxy: Proxy, endpoint: &str, answer: &Answer, expected: &Expected) {
    let Expected { status, cause } = *expected;
    let line = proxy.access_line();
    let id = line["request_id"].as_str().expect("a request id");
    assert_eq!(answer.status, status, "{cause}: {answer:?}");
    assert!(
        answer.body.contains(&format!("request id: {id}\n")),
        "{cause}: {answer:?}"
    );
    assert!(answer.body.len() < 100, "{cause}: {answer:?}");
    assert_eq!(answer.all("x-request-id"), [id], "{cause}");
    assert_eq!(
        (
            line["status"].as_u64(),
            line["pool"].as_str(),
            line["endpoint"].as_str(),
            line["abort"].as_str()
        ),
        (Some(status.into()), Some("only"), Some(endpoint), None),
        "{cause}: {line}"
    );
    told_once(proxy, endpoint, id, expected);
}

fn told_once(proxy: Proxy, endpoint: &str, id: &str, expected: &Expected) {
    let alarms = proxy.alarms();
    let [told] = alarms.as_slice() else {
        panic!("{}: not one line: {alarms:#?}", expected.cause);
    };
    for part in [
        format!("request failed: {}", expected.cause),
        format!("status={} ", expected.status),
        "pool=only ".to_owned(),
        format!("endpoint={endpoint} "),
        format!("request_id={id} "),
    ] {
        assert!(told.contains(&part), "no {part:?} in {told}");
    }
}

/// One attempt, and short limits.
const SHORT: &str = "    connections: { connect_timeout: 200ms, response_header_timeout: 300ms }\n    \
                     retries: { attempts: 1 }";

async fn fails(endpoint: &str, status: u16, cause: &'static str) {
    let proxy = Proxy::start(&one_pool(endpoint, SHORT));
    let answer = proxy.get("/", "");
    judge(proxy, endpoint, &answer, &Expected { status, cause });
}

/// An origin that reads the request and then writes this much, and closes.
async fn writes(text: &'static str) -> String {
    serve(move |mut wire: Wire| async move {
        wire.head().await.expect("a request");
        wire.write(text).await.expect("the proxy reads");
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_refused_connection_is_502() {
    fails(&nowhere(), 502, "connection refused").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_that_does_not_come_about_in_time_is_504() {
    // The queue of this listener is full, and so the system drops what asks for a connection.
    let socket = TcpSocket::new_v4().expect("socket");
    socket.bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("bind");
    let listener = socket.listen(0).expect("listen");
    let address = listener.local_addr().expect("address");
    let _first = TcpStream::connect(address).await.expect("the queue has one place");
    fails(&address.to_string(), 504, "connect timeout").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_response_head_that_is_late_is_504() {
    let origin = serve(|mut wire: Wire| async move { drop(wire.rest().await) }).await;
    fails(&origin, 504, "no response head in time").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_response_head_that_does_not_end_is_502() {
    for (text, cause) in [
        ("", "closed before the response was complete"),
        ("HTTP/1.1 200 OK\r\nContent-", "closed before the response was complete"),
        ("\u{1}\u{2}\u{3} nonsense\r\n\r\n", "invalid response head"),
        ("HTTP/1.1 2x0 OK\r\n\r\n", "invalid response head"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
            "invalid response head",
        ),
    ] {
        fails(&writes(text).await, 502, cause).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_reset_before_the_head_ends_is_502() {
    let origin = serve(|mut wire: Wire| async move {
        wire.head().await.expect("a request");
        wire.write("HTTP/1.1 200 OK\r\nContent-")
            .await
            .expect("the proxy reads");
        wire.socket().set_zero_linger().expect("linger");
    })
    .await;
    fails(&origin, 502, "connection broken").await;
}

/// A client that gets this interim response, and sends the body that waits for it, if one does.
fn after_interim(proxy: &Proxy, request: &str, interim: &str) -> Answer {
    let mut client = connect(&proxy.http);
    client.write_all(request.as_bytes()).expect("write");
    let head = read_head(&mut client).expect("the interim response");
    assert!(head.starts_with(interim), "{head}");
    if interim.contains("100") {
        client.write_all(b"abc").expect("write");
    }
    answer(&mut client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_interim_response_is_no_answer() {
    const GET: &str = "GET / HTTP/1.1\r\nHost: t.example\r\n\r\n";
    const POST: &str = "POST / HTTP/1.1\r\nHost: t.example\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n";
    for (request, interim) in [
        (GET, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"),
        (POST, "HTTP/1.1 100 Continue\r\n\r\n"),
    ] {
        for (then, status, cause) in [
            ("", 502, "closed before the response was complete"),
            ("\u{1}\u{2}\u{3} nonsense\r\n\r\n", 502, "invalid response head"),
            ("hang", 504, "no response head in time"),
        ] {
            let origin = serve(move |mut wire: Wire| async move {
                let head = wire.head().await.expect("a request");
                wire.write(interim).await.expect("the proxy reads");
                wire.body_of(&head).await.expect("the body");
                match then {
                    "hang" => drop(wire.rest().await),
                    then => wire.write(then).await.expect("the proxy reads"),
                }
            })
            .await;
            let proxy = Proxy::start(&one_pool(&origin, SHORT));
            let answer = after_interim(&proxy, request, interim);
            judge(proxy, &origin, &answer, &Expected { status, cause });
        }
    }
}

#[test]
fn what_an_interim_response_came_of_is_not_sent_again() {
    let early = |_: &str, stream: &mut std::net::TcpStream| {
        stream.write_all(b"HTTP/1.1 103 Early Hints\r\n\r\n").expect("write");
        false
    };
    let (one, two) = (Origin::spawn(early), Origin::spawn(early));
    let endpoints = format!("{}\", \"{}", one.address, two.address);
    let proxy = Proxy::start(&one_pool(
        &endpoints,
        "    retries: { on: [connect, connection_closed] }",
    ));
    let answer = after_interim(&proxy, "GET / HTTP/1.1\r\nHost: t.example\r\n\r\n", "HTTP/1.1 103 ");
    assert_eq!(answer.status, 502, "{answer:?}");
    assert_eq!(one.heads().len() + two.heads().len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pool_without_a_healthy_endpoint_is_503() {
    let more = "    health_check: { interval: 20ms, unhealthy_after: 1 }";
    let endpoint = nowhere();
    let proxy = Proxy::start(&one_pool(&endpoint, more));
    proxy.wait_metric("switchyard_endpoint_healthy", &[], 0.0);
    let answer = proxy.get("/", "");
    let id = proxy.access_line()["request_id"].as_str().expect("an id").to_owned();
    assert_eq!(answer.status, 503);
    assert!(answer.body.contains(&format!("request id: {id}\n")), "{answer:?}");
    let expected = Expected {
        status: 503,
        cause: "no endpoint",
    };
    told_once(proxy, "-", &id, &expected);
}

/// Bodies that end early, in every framing that has an end.
const TRUNCATED: [&str; 4] = [
    "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly a part",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n50\r\nhello",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nxyz\r\n",
];

async fn truncates(text: &'static str, reset: bool) -> String {
    serve(move |mut wire: Wire| async move {
        wire.head().await.expect("a request");
        wire.write(text).await.expect("the proxy reads");
        if reset {
            wire.socket().set_zero_linger().expect("linger");
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_body_that_ends_early_is_never_delivered_as_complete() {
    for text in TRUNCATED {
        for reset in [false, true] {
            for h2 in [false, true] {
                truncated(text, reset, h2).await;
            }
        }
    }
}

async fn truncated(text: &'static str, reset: bool, h2: bool) {
    let origin = truncates(text, reset).await;
    let proxy = Proxy::start_on(
        "{ address: \"127.0.0.1:0\", h2c: true }",
        &one_pool(&origin, SHORT),
        &[],
    );
    let case = format!("reset: {reset}, h2: {h2}, {text:?}");
    if h2 {
        let (client, _driver) = h2c::connect(&proxy.http).await;
        // A reset may overtake the head of the response: then it is the answer that fails.
        let error = h2c::get(&client, "/").await.expect_err("an end is no end");
        assert!(error.is_reset(), "{case}: {error}");
    } else {
        let mut wire = Wire::connect(&proxy.http).await;
        wire.write("GET / HTTP/1.1\r\nHost: t.example\r\n\r\n")
            .await
            .expect("write");
        match wire.head().await {
            Some(head) if head.starts_with("HTTP/1.1 502 ") => {
                assert!(reset, "{case}: {head}");
                assert_eq!(proxy.access_line()["status"], 502);
                assert_eq!(proxy.alarms().len(), 1);
                return;
            }
            Some(head) => assert!(head.starts_with("HTTP/1.1 200 "), "{case}: {head}"),
            None => panic!("{case}: no head"),
        }
        let mut body = Vec::new();
        while let Ok(byte) = wire.exactly(1).await {
            body.extend_from_slice(&byte);
        }
        assert!(!body.ends_with(b"0\r\n\r\n"), "{case}: a last chunk");
        assert!(body.len() < 1000, "{case}");
    }
    let line = proxy.access_line();
    assert!(line["abort"].is_null(), "{case}: {line}");
    let id = line["request_id"].as_str().expect("an id").to_owned();
    let alarms = proxy.alarms();
    assert_eq!(alarms.len(), 1, "{case}: {alarms:#?}");
    assert!(alarms[0].contains(&format!("request_id={id} ")), "{case}: {alarms:#?}");
    assert!(
        alarms[0].contains(&format!("pool=only endpoint={origin} ")),
        "{case}: {alarms:#?}"
    );
}

const H2: &str = "    connections: { http2: always, response_header_timeout: 300ms }\n    retries: { attempts: 1 }";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_that_the_upstream_resets_before_its_head_is_502() {
    let origin = h2c::origin(|_request, mut answer| async move {
        answer.send_reset(h2::Reason::INTERNAL_ERROR);
    })
    .await;
    let proxy = Proxy::start(&one_pool(&origin, H2));
    let answer = proxy.get("/", "");
    judge(
        proxy,
        &origin,
        &answer,
        &Expected {
            status: 502,
            cause: "HTTP/2 error",
        },
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_http2_upstream_that_does_not_answer_is_504() {
    let origin = h2c::origin(|_request, answer| async move {
        let _held = answer;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = Proxy::start(&one_pool(&origin, H2));
    let answer = proxy.get("/", "");
    judge(
        proxy,
        &origin,
        &answer,
        &Expected {
            status: 504,
            cause: "read timeout",
        },
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_stream_that_the_upstream_resets_in_its_body_is_never_complete() {
    let origin = h2c::origin(|_request, mut answer| async move {
        let mut body = answer.send_response(Response::new(()), false).expect("head");
        body.send_data(Bytes::from_static(b"a part"), false).expect("data");
        body.send_reset(h2::Reason::INTERNAL_ERROR);
    })
    .await;
    for h2 in [false, true] {
        let proxy = Proxy::start_on("{ address: \"127.0.0.1:0\", h2c: true }", &one_pool(&origin, H2), &[]);
        if h2 {
            let (client, _driver) = h2c::connect(&proxy.http).await;
            let error = h2c::get(&client, "/").await;
            assert!(!matches!(&error, Ok((r, _)) if r.status() == 200), "{error:?}");
        } else {
            let answer = proxy.get("/", "");
            assert!(answer.status == 502 || !answer.complete, "{answer:?}");
        }
        proxy.access_line();
        let alarms = proxy.alarms();
        assert_eq!(alarms.len(), 1, "{alarms:#?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_http2_upstream_that_goes_away_takes_no_request_with_it() {
    // Each connection answers one request, and says GOAWAY: the next goes over another.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let origin = listener.local_addr().expect("address").to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(socket).await.expect("handshake");
                while let Some(Ok((_request, answer))) = connection.accept().await {
                    connection.graceful_shutdown();
                    h2c::answer(answer, "ok");
                }
            });
        }
    });
    let proxy = Proxy::start(&one_pool(&origin, "    connections: { http2: always }"));
    for _ in 0..50 {
        assert_eq!(proxy.get("/", "").body, "ok");
    }
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_takes_nothing_of_an_upload_is_given_up() {
    let endpoint = serve(|mut wire: Wire| async move {
        wire.head().await;
        std::future::pending::<()>().await;
    })
    .await;
    let proxy = Proxy::start(&one_pool(
        &endpoint,
        "    connections: { response_header_timeout: 1s }\n",
    ));
    let before = proxy.descriptors();
    let told = tokio::task::spawn_blocking({
        let http = proxy.http.clone();
        move || {
            let mut stream = connect(&http);
            let mut sending = stream.try_clone().expect("a second handle");
            std::thread::spawn(move || {
                let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 67108864\r\n\r\n";
                // It is cut when the answer is there.
                drop(
                    sending
                        .write_all(head.as_bytes())
                        .and_then(|()| sending.write_all(&vec![b'x'; 64 << 20])),
                );
            });
            answer(&mut stream)
        }
    });
    let answer = told.await.expect("an answer");
    crate::files::until("its connections are closed", || proxy.descriptors() <= before);
    let expected = Expected {
        status: 502,
        cause: "connection broken",
    };
    judge(proxy, &endpoint, &answer, &expected);
}
