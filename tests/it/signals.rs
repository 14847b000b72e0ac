//! What signals do: drains that lose nothing, a hand-over without a refused connection, logs that are rotated.

use std::io::Write;
use std::path::PathBuf;
use std::time::Instant;

use crate::files::directory;
use crate::harness::{Origin, PATIENCE, Proxy, answer, connect, exchange, one_pool};
use crate::holding::holding;

const PROBE: &str = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

fn with_server(server: &str, origin: &Origin) -> String {
    format!("server: {{ {server} }}\n{}", one_pool(&origin.address, ""))
}

/// Asks until nobody listens there any more.
fn until_closed(address: &str) {
    let since = Instant::now();
    while std::net::TcpStream::connect(address).is_ok() {
        assert!(since.elapsed() < PATIENCE, "{address} is still open");
        std::thread::yield_now();
    }
}

#[test]
fn a_drain_ends_with_the_last_request_and_cuts_none() {
    let (origin, release, inside) = holding();
    // The test fails by its time limit if the drain sleeps for as long as it may take.
    let proxy = Proxy::start(&with_server("drain: 1h", &origin));
    let idle = connect(&proxy.http);
    let (http, admin) = (proxy.http.clone(), proxy.admin.clone());
    std::thread::scope(|scope| {
        let held = scope.spawn(|| exchange(&http, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n"));
        inside.recv_timeout(PATIENCE).expect("the request is inside");
        proxy.signal("TERM");
        until_closed(&http);
        until_closed(&admin);
        release.send(()).expect("the origin waits");
        let answer = held.join().expect("no panic");
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
        assert_eq!(answer.all("connection"), ["close"]);
    });
    let (code, lines) = proxy.end();
    assert_eq!(code, Some(0));
    assert!(
        lines.iter().any(|l| l.contains("drained: nothing is in flight")),
        "{lines:?}"
    );
    assert!(
        !lines.iter().any(|l| l.contains(" ERROR ") || l.contains("panicked")),
        "{lines:?}"
    );
    drop(idle);
}

#[test]
fn after_term_it_is_not_ready_and_still_serves_for_the_drain_delay() {
    let (origin, _release, _inside) = holding();
    let proxy = Proxy::start(&with_server("drain_delay: 1h", &origin));
    let mut kept = connect(&proxy.http);
    let request = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    kept.write_all(request.as_bytes()).expect("write");
    assert_eq!(answer(&mut kept).all("connection"), ["keep-alive"]);
    assert_eq!(exchange(&proxy.admin, PROBE).status, 200);
    proxy.signal("TERM");
    let since = Instant::now();
    while exchange(&proxy.admin, PROBE).status != 503 {
        assert!(since.elapsed() < PATIENCE, "it stays ready");
    }
    kept.write_all(request.as_bytes()).expect("write");
    assert_eq!(answer(&mut kept).all("connection"), ["close"]);
    assert_eq!(proxy.get("/", "").status, 200, "new connections are served");
    // The second one ends it now, an hour before its time.
    proxy.signal("TERM");
    assert_eq!(proxy.end().0, Some(0));
}

#[test]
fn a_drain_has_a_limit_and_says_what_it_cut() {
    let (origin, _release, inside) = holding();
    let proxy = Proxy::start(&with_server("drain: 300ms", &origin));
    let mut stuck = connect(&proxy.http);
    stuck
        .write_all(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("write");
    inside.recv_timeout(PATIENCE).expect("the request is inside");
    proxy.signal("TERM");
    let (code, lines) = proxy.end();
    assert_eq!(code, Some(0));
    assert!(
        lines
            .iter()
            .any(|l| l.contains(" WARN ") && l.contains("1 connections are cut")),
        "{lines:?}"
    );
}

#[test]
fn int_ends_it_now_whatever_is_in_flight() {
    let (origin, _release, inside) = holding();
    let proxy = Proxy::start(&with_server("drain: 1h, drain_delay: 1h", &origin));
    let mut stuck = connect(&proxy.http);
    stuck
        .write_all(b"GET /hold HTTP/1.1\r\nHost: a\r\n\r\n")
        .expect("write");
    inside.recv_timeout(PATIENCE).expect("the request is inside");
    proxy.signal("INT");
    assert_eq!(proxy.end().0, Some(0));
}

#[test]
fn hup_and_a_quit_without_successor_are_refused_and_serving_goes_on() {
    let origin = Origin::named("ok");
    let sock = directory("refused").join("upgrade.sock");
    let proxy = Proxy::start(&with_server(&format!("upgrade_sock: {}", sock.display()), &origin));
    proxy.signal("HUP");
    for refused in 1..=2 {
        proxy.signal("QUIT");
        proxy.wait_told("QUIT refused: no successor waits", refused);
        for _ in 0..20 {
            assert_eq!(proxy.get("/", "").body, "ok");
        }
    }
    // A socket that nobody listens on is left over from a successor that died.
    drop(std::os::unix::net::UnixListener::bind(&sock).expect("socket"));
    proxy.signal("QUIT");
    proxy.wait_told("QUIT refused: no hand-over", 1);
    assert_eq!(exchange(&proxy.admin, PROBE).status, 200);
    assert_eq!(proxy.get("/", "").body, "ok");
    proxy.signal("INT");
    let (code, lines) = proxy.end();
    assert_eq!(code, Some(0));
    for (word, times) in [("HUP refused", 1), ("QUIT refused: no successor waits", 2)] {
        assert_eq!(
            lines.iter().filter(|l| l.contains(word)).count(),
            times,
            "{word}: {lines:?}"
        );
    }
}

#[test]
fn usr1_reopens_the_access_log() {
    let origin = Origin::named("ok");
    let file = directory("rotated").join("access.log");
    let old = file.with_extension("old");
    let text = format!(
        "access_log: {{ path: {} }}\n{}",
        file.display(),
        one_pool(&origin.address, "")
    );
    let proxy = Proxy::start(&text);
    let ask = |id: &str| assert_eq!(proxy.get("/", &format!("X-Request-Id: {id}\r\n")).status, 200);
    let holds = |path: &PathBuf, word: &str| {
        let since = Instant::now();
        while !std::fs::read_to_string(path).unwrap_or_default().contains(word) {
            assert!(since.elapsed() < PATIENCE, "{word} never came into {}", path.display());
            std::thread::yield_now();
        }
    };
    ask("before");
    holds(&file, "before");
    std::fs::rename(&file, &old).expect("renamed");
    proxy.signal("USR1");
    let since = Instant::now();
    while !file.exists() {
        assert!(since.elapsed() < PATIENCE, "the file never came back");
        std::thread::yield_now();
    }
    ask("after");
    holds(&file, "after");
    let moved = std::fs::read_to_string(&old).expect("readable");
    assert!(!moved.contains("after"), "{moved}");
}

#[test]
fn a_drain_lets_http2_streams_finish_and_then_closes_their_connection() {
    let (origin, release, inside) = holding();
    let text = with_server("drain: 1h", &origin);
    let proxy = Proxy::start_on("{ address: \"127.0.0.1:0\", h2c: true }", &text, &[]);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let connect = async || {
            let socket = tokio::net::TcpStream::connect(&proxy.http).await.expect("connect");
            let (client, connection) = h2::client::handshake(socket).await.expect("handshake");
            (client.ready().await.expect("ready"), tokio::spawn(connection))
        };
        let request = |path: &str| {
            let uri = format!("http://t.example{path}");
            http::Request::builder().uri(uri).body(()).expect("request")
        };
        let (mut idle, idle_connection) = connect().await;
        let (answer, _) = idle.send_request(request("/"), true).expect("sent");
        assert_eq!(answer.await.expect("an answer").status(), 200);
        let (mut busy, busy_connection) = connect().await;
        let (held, _) = busy.send_request(request("/hold"), true).expect("sent");
        inside.recv_timeout(PATIENCE).expect("the request is inside");
        proxy.signal("TERM");
        // A client that is at nothing is told to go, and the one that waits is not.
        idle_connection.await.expect("no panic").expect("a clean end");
        release.send(()).expect("the origin waits");
        let mut held = held.await.expect("an answer").into_body();
        assert_eq!(held.data().await.expect("a body").expect("whole"), "ok");
        drop(held);
        busy_connection.await.expect("no panic").expect("a clean end");
    });
    let (code, lines) = proxy.end();
    assert_eq!(code, Some(0));
    assert!(!lines.iter().any(|l| l.contains(" ERROR switchyard")), "{lines:?}");
}
