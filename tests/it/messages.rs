//! The shapes of messages: with and without bodies, asked for and unasked for, one after the other and all at once.

use std::process::Command;

use tokio::io::AsyncWriteExt;

use crate::harness::origin::{Wire, ok, serve};
use crate::harness::{Proxy, fields, h2c, one_pool};

const H2C: &str = "{ address: \"127.0.0.1:0\", h2c: true }";

/// A proxy in front of it, and a client's connection.
pub async fn before(origin: &str) -> (Proxy, Wire) {
    let proxy = Proxy::start_on(H2C, &one_pool(origin, ""), &[]);
    let wire = Wire::connect(&proxy.http).await;
    (proxy, wire)
}

/// The next response, which has a body.
async fn response(wire: &mut Wire) -> (String, Vec<u8>) {
    let head = wire.head().await.expect("a head");
    let body = wire.body(&head).await.expect("a body");
    (head, body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn responses_without_a_body_keep_their_fields_and_the_connection() {
    let origin = serve(|mut wire: Wire| async move {
        while let Some(head) = wire.head().await {
            let path = head.split(' ').nth(1).expect("a path");
            let text = match path {
                "/204" => "HTTP/1.1 204 No Content\r\nX-Kept: yes\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nX-Kept: yes\r\nETag: \"a\"\r\nContent-Length: 1234\r\n\r\n",
                "/chunked" => "HTTP/1.1 200 OK\r\nX-Kept: yes\r\nTransfer-Encoding: chunked\r\n\r\n",
                "/empty" => "HTTP/1.1 200 OK\r\nX-Kept: yes\r\nContent-Length: 0\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nX-Kept: yes\r\nContent-Length: 1234\r\n\r\n",
            };
            wire.write(text).await.expect("the proxy reads");
        }
    })
    .await;
    let (proxy, mut wire) = before(&origin).await;
    for round in 0..20 {
        for (method, path, status, length) in [
            ("HEAD", "/", "200", &["1234"][..]),
            ("HEAD", "/chunked", "200", &[]),
            ("GET", "/204", "204", &[]),
            ("GET", "/304", "304", &["1234"]),
            ("GET", "/empty", "200", &["0"]),
        ] {
            let request = format!("{method} {path} HTTP/1.1\r\nHost: a\r\n\r\n");
            wire.write(request).await.expect("write");
            let head = wire.head().await.expect("a head");
            let case = format!("round {round}, {method} {path}: {head}");
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{case}");
            assert_eq!(fields(&head, "content-length"), length, "{case}");
            assert_eq!(fields(&head, "x-kept"), ["yes"], "{case}");
        }
    }
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

/// What other readers could take for another length, and what may stand with no body at all.
const UNFRAMED: [(&str, &[&str]); 6] = [
    ("200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", &["5"]),
    ("200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello", &["5"]),
    ("204 No Content\r\nContent-Length: 5\r\n\r\n", &[]),
    ("204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n", &[]),
    ("204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", &[]),
    (
        "304 Not Modified\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        &["5"],
    ),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_response_says_once_how_long_it_is_and_not_where_it_has_no_body() {
    let origin = serve(|mut wire: Wire| async move {
        while let Some(head) = wire.head().await {
            let path = head.split(' ').nth(1).unwrap_or_default();
            let nth = path.rsplit('/').next().and_then(|nth| nth.parse::<usize>().ok());
            let text = nth.map_or("200 OK\r\nContent-Length: 2\r\n\r\nok", |nth| UNFRAMED[nth].0);
            wire.write(format!("HTTP/1.1 {text}")).await.expect("the proxy reads");
        }
    })
    .await;
    let cors = "{ pool: only }, { match: { path: /own }, pool: only, cors: { mode: own, allow_origins: [\"https://a.example\"] } }";
    let yaml = one_pool(&origin, "").replace("{ pool: only }", cors);
    let proxy = Proxy::start_on("{ address: \"127.0.0.1:0\", h2c: true }", &yaml, &[]);
    let mut wire = Wire::connect(&proxy.http).await;
    let (client, _driver) = h2c::connect(&proxy.http).await;
    for (nth, (text, length)) in UNFRAMED.iter().enumerate() {
        for place in ["", "/own"] {
            for method in ["GET", "HEAD"] {
                let bodiless = method == "HEAD" || length.is_empty() || text.starts_with("304");
                // An origin that sends a body with the answer to HEAD loses its connection; here it would be the test's mistake.
                if method == "HEAD" && text.starts_with("200") {
                    continue;
                }
                let target = format!("{place}/{nth}");
                let request = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
                wire.write(request).await.expect("write");
                let head = wire.head().await.expect("a head");
                assert!(
                    head.starts_with(&format!("HTTP/1.1 {}", &text[..3])),
                    "{text:?}: {head}"
                );
                assert_eq!(fields(&head, "content-length"), *length, "{text:?}: {head}");
                assert_eq!(fields(&head, "transfer-encoding"), [""; 0], "{text:?}: {head}");
                if !bodiless {
                    assert_eq!(&wire.exactly(5).await.expect("a body")[..], b"hello");
                }
                let (told, _) = h2c::get(&client, &target).await.expect("a response");
                assert_eq!(told.status().as_str(), &text[..3]);
                // What is left of one answer is none of the next.
                wire.write("GET /ok HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("write");
                assert_eq!(response(&mut wire).await.1, b"ok", "{text:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_interim_response_says_nothing_of_the_connection() {
    let origin = serve(|mut wire: Wire| async move {
        while wire.head().await.is_some() {
            let interim = "HTTP/1.1 103 Early Hints\r\nConnection: close, X-Hop\r\nX-Hop: a\r\nKeep-Alive: timeout=5\r\nLink: </a>\r\n\r\n";
            wire.write(interim).await.expect("the proxy reads");
            let plain = "HTTP/1.1 103 Early Hints\r\nConnection: close\r\nLink: </b>\r\n\r\n";
            wire.write(plain).await.expect("the proxy reads");
            wire.write(ok("ok")).await.expect("the proxy reads");
        }
    })
    .await;
    let (_proxy, mut wire) = before(&origin).await;
    for _ in 0..3 {
        wire.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("write");
        for link in ["</a>", "</b>"] {
            let head = wire.head().await.expect("an interim head").to_ascii_lowercase();
            let link = format!("http/1.1 103 early hints\r\nlink: {link}\r\n\r\n");
            assert_eq!(head, link);
        }
        assert_eq!(response(&mut wire).await.1, b"ok");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn chunks_pass_both_ways_and_one_connection_serves_many_requests() {
    let origin = serve(|mut wire: Wire| async move {
        while let Some(head) = wire.head().await {
            let body = wire.body(&head).await.expect("a body");
            let text = String::from_utf8(body).expect("text");
            let back = format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{}\r\n",
                &text[..1]
            );
            let rest = &text[1..];
            wire.write(back).await.expect("the proxy reads");
            wire.write(format!("{:x}\r\n{rest}\r\n0\r\n\r\n", rest.len()))
                .await
                .expect("the proxy reads");
        }
    })
    .await;
    let (proxy, mut wire) = before(&origin).await;
    for round in 0..100 {
        let request =
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n";
        wire.write(request).await.expect("write");
        let (head, body) = response(&mut wire).await;
        assert_eq!(
            (body.as_slice(), fields(&head, "connection").contains(&"close")),
            (&b"abcdefg"[..], false),
            "round {round}: {head}"
        );
    }
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_body_waits_for_100_continue_and_a_refusal_spares_it() {
    let origin = serve(|mut wire: Wire| async move {
        while let Some(head) = wire.head().await {
            assert_eq!(fields(&head, "expect"), ["100-continue"]);
            if head.starts_with("POST /no") {
                let text = "HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno";
                wire.write(text).await.expect("the proxy reads");
                return;
            }
            wire.write("HTTP/1.1 100 Continue\r\n\r\n")
                .await
                .expect("the proxy reads");
            assert_eq!(wire.body(&head).await.expect("a body"), b"the body");
            wire.write(ok("yes")).await.expect("the proxy reads");
        }
    })
    .await;
    let (proxy, mut wire) = before(&origin).await;
    let request =
        |path: &str| format!("POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 8\r\n\r\n");
    for _ in 0..3 {
        wire.write(request("/yes")).await.expect("write");
        let head = wire.head().await.expect("a head");
        assert!(head.starts_with("HTTP/1.1 100 "), "{head}");
        wire.write("the body").await.expect("write");
        assert_eq!(response(&mut wire).await.1, b"yes");
    }
    wire.write(request("/no")).await.expect("write");
    let (head, body) = response(&mut wire).await;
    assert!(head.starts_with("HTTP/1.1 417 "), "{head}");
    assert_eq!(body, b"no");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn curl_uploads_with_expect_and_speaks_http2_and_http_1_0() {
    let origin = serve(|mut wire: Wire| async move {
        while let Some(head) = wire.head().await {
            if !fields(&head, "expect").is_empty() {
                wire.write("HTTP/1.1 100 Continue\r\n\r\n")
                    .await
                    .expect("the proxy reads");
            }
            let sent = !fields(&head, "content-length").is_empty() || !fields(&head, "transfer-encoding").is_empty();
            let length = if sent {
                wire.body(&head).await.expect("a body").len()
            } else {
                0
            };
            let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\ngot\r\n0\r\n\r\n";
            assert!(length == 0 || length == 8 << 20, "{length}");
            wire.write(text).await.expect("the proxy reads");
        }
    })
    .await;
    let (proxy, _) = before(&origin).await;
    let file = std::env::temp_dir().join(format!("switchyard-it-{}-upload", std::process::id()));
    std::fs::write(&file, vec![b'x'; 8 << 20]).expect("file");
    let url = format!("http://{}/", proxy.http);
    let data = format!("@{}", file.display());
    let expect = "Expect: 100-continue";
    for options in [
        &["--http1.1"][..],
        &["--http1.0"],
        &["--http2-prior-knowledge"],
        &["--http1.1", "-H", expect, "--data-binary", &data],
        &["--http1.1", "-H", "Transfer-Encoding: chunked", "--data-binary", &data],
        &["--http2-prior-knowledge", "--data-binary", &data],
    ] {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-m", "20", "-w", " %{http_code}"])
            .args(options)
            .arg(&url);
        let out = curl.output().expect("curl runs");
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert_eq!(text, "got 200", "{options:?}: {}", String::from_utf8_lossy(&out.stderr));
    }
    std::fs::remove_file(&file).expect("removed");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_of_http_1_0_gets_no_chunks_and_the_end_of_the_connection() {
    let origin = serve(|mut wire: Wire| async move {
        while wire.head().await.is_some() {
            let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
            wire.write(text).await.expect("the proxy reads");
        }
    })
    .await;
    // The second is the shortest request there is: shorter than what HTTP/2 begins with.
    for request in ["GET / HTTP/1.0\r\nHost: a\r\n\r\n", "GET / HTTP/1.0\r\n\r\n"] {
        let (proxy, mut wire) = before(&origin).await;
        wire.write(request).await.expect("write");
        let head = wire.head().await.expect("a head");
        assert!(fields(&head, "transfer-encoding").is_empty(), "{head}");
        assert_eq!(wire.exactly(5).await.expect("a body"), "hello");
        assert_eq!(wire.rest().await.expect("an end"), 0);
        assert_eq!(proxy.alarms(), Vec::<String>::new());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn pipelined_requests_are_answered_in_order() {
    let origin = serve(|mut wire: Wire| async move {
        while let Some(head) = wire.head().await {
            let path = head.split(' ').nth(1).expect("a path").to_owned();
            if !fields(&head, "content-length").is_empty() {
                assert_eq!(wire.body(&head).await.expect("a body"), b"body");
            }
            wire.write(ok(&path)).await.expect("the proxy reads");
        }
    })
    .await;
    let (proxy, mut wire) = before(&origin).await;
    let mut all = String::new();
    for n in 0..50 {
        all += &format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n");
        all += &format!("POST /{n}-post HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody");
    }
    wire.write(all).await.expect("write");
    for n in 0..50 {
        assert_eq!(response(&mut wire).await.1, format!("/{n}").as_bytes());
        assert_eq!(response(&mut wire).await.1, format!("/{n}-post").as_bytes());
    }
    // And one that is sent while another is in flight, which is no abort.
    wire.write("GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .expect("write");
    wire.write("GET /next HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await
        .expect("write");
    assert_eq!(response(&mut wire).await.1, b"/slow");
    assert_eq!(response(&mut wire).await.1, b"/next");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_pipeline_may_be_cut_anywhere() {
    let origin = serve(|mut wire: Wire| async move {
        while let Some(head) = wire.head().await {
            let body = wire.body(&head).await.expect("a body");
            let path = head.split(' ').nth(1).expect("a path");
            let text = format!("{path} {}", String::from_utf8_lossy(&body));
            wire.write(ok(&text)).await.expect("the proxy reads");
        }
    })
    .await;
    let proxy = Proxy::start(&one_pool(&origin, ""));
    let all = "PUT /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody\
               PUT /2 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n\
               PUT /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    for cut in 0..all.len() {
        let mut wire = Wire::connect(&proxy.http).await;
        wire.socket().set_nodelay(true).expect("nodelay");
        let (before, after) = all.split_at(cut);
        wire.write(before).await.expect("write");
        // Once the first is answered, the rest comes alone; before that, with or behind it.
        let answered = cut > all.find("PUT /2").expect("a second");
        if answered {
            assert_eq!(response(&mut wire).await.1, b"/1 body", "{cut}");
        }
        wire.write(after).await.expect("write");
        if !answered {
            assert_eq!(response(&mut wire).await.1, b"/1 body", "{cut}");
        }
        assert_eq!(response(&mut wire).await.1, b"/2 hello", "{cut}");
        assert_eq!(response(&mut wire).await.1, b"/3 ", "{cut}");
    }
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_closes_its_half_has_left() {
    let (arrived, mut arrivals) = tokio::sync::mpsc::unbounded_channel();
    let origin = serve(move |mut wire: Wire| {
        let arrived = arrived.clone();
        async move {
            wire.head().await.expect("a request");
            arrived.send(()).expect("the test waits");
            drop(wire.rest().await);
        }
    })
    .await;
    let proxy = Proxy::start(&one_pool(&origin, ""));
    let mut socket = tokio::net::TcpStream::connect(&proxy.http).await.expect("connect");
    socket
        .write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .expect("write");
    arrivals.recv().await.expect("the origin lives");
    socket.shutdown().await.expect("half closed");
    assert_eq!(proxy.access_line()["status"], 499);
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_upstream_that_ends_its_body_by_closing_its_half_is_complete() {
    let origin = serve(|mut wire: Wire| async move {
        wire.head().await.expect("a request");
        wire.write("HTTP/1.1 200 OK\r\n\r\nhello")
            .await
            .expect("the proxy reads");
    })
    .await;
    let (proxy, mut wire) = before(&origin).await;
    for _ in 0..3 {
        wire.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("write");
        assert_eq!(response(&mut wire).await.1, b"hello");
    }
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_big_response_head_passes() {
    let origin = serve(|mut wire: Wire| async move {
        while wire.head().await.is_some() {
            let mut text = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n".to_owned();
            for n in 0..200 {
                text += &format!("X-Big-{n}: {}\r\n", "v".repeat(1000));
            }
            wire.write(text + "\r\nok").await.expect("the proxy reads");
        }
    })
    .await;
    let (proxy, mut wire) = before(&origin).await;
    for _ in 0..3 {
        wire.write("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("write");
        let (head, body) = response(&mut wire).await;
        assert_eq!(fields(&head, "x-big-199"), ["v".repeat(1000)]);
        assert_eq!(body, b"ok");
    }
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn trailers_of_http1_are_dropped_and_the_body_is_whole() {
    let origin = serve(|mut wire: Wire| async move {
        while let Some(head) = wire.head().await {
            assert!(
                fields(&head, "te").is_empty() && fields(&head, "trailer").is_empty(),
                "{head}"
            );
            let text = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
                        5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n";
            wire.write(text).await.expect("the proxy reads");
        }
    })
    .await;
    let (proxy, mut wire) = before(&origin).await;
    for _ in 0..3 {
        wire.write("GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n")
            .await
            .expect("write");
        assert_eq!(response(&mut wire).await.1, b"hello");
    }
    let (client, _driver) = crate::harness::h2c::connect(&proxy.http).await;
    let (response, trailers) = crate::harness::h2c::get(&client, "/").await.expect("an answer");
    assert_eq!(response.body().as_slice(), b"hello");
    assert!(trailers.is_empty(), "{trailers:?}");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}
