//! The rows of `connections:`, retries, and failures of upstreams.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc;

use crate::harness::{Origin, Proxy, exchange, nowhere, one_pool, respond};

#[test]
fn connections_are_reused_and_not_where_that_is_off() {
    for (more, expected) in [("", 1), ("    connections: { reuse: false }", 5)] {
        let origin = Origin::named("ok");
        let proxy = Proxy::start(&one_pool(&origin.address, more));
        for _ in 0..5 {
            assert_eq!(proxy.get("/", "").body, "ok");
        }
        assert_eq!(origin.connections.load(Ordering::SeqCst), expected, "{more}");
    }
}

#[test]
fn a_late_response_head_is_504_and_a_slow_body_is_not_cut() {
    let origin = Origin::spawn(|head, stream| {
        if head.starts_with("GET /late") {
            // Never answers: the proxy ends the connection.
            let mut rest = Vec::new();
            return std::io::Read::read_to_end(stream, &mut rest).is_err();
        }
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na")
            .expect("write");
        // Longer than the head may take; a body may.
        std::thread::sleep(std::time::Duration::from_millis(900));
        stream.write_all(b"b").is_ok()
    });
    let proxy = Proxy::start(&one_pool(
        &origin.address,
        "    connections: { response_header_timeout: 300ms }",
    ));
    let late = proxy.get("/late", "");
    assert_eq!(late.status, 504);
    let slow = proxy.get("/slow", "");
    assert_eq!((slow.status, slow.body.as_str(), slow.complete), (200, "ab", true));
    let alarms = proxy.alarms();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
}

#[test]
fn past_the_places_of_an_endpoint_requests_wait_and_then_get_503() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let (entered, inside) = mpsc::channel();
    let entered = Mutex::new(entered);
    let origin = Origin::spawn(move |_, stream| {
        entered.lock().expect("lock").send(()).expect("the test waits");
        held.lock().expect("lock").recv().expect("released");
        respond(stream, "ok")
    });
    let more = "    connections: { max_per_endpoint: 1, queue_max: 1, queue_timeout: 300ms }";
    let proxy = Proxy::start(&one_pool(&origin.address, more));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| proxy.get("/", "").status);
        inside
            .recv_timeout(crate::harness::PATIENCE)
            .expect("the first is inside");
        assert_eq!(proxy.get("/", "").status, 503);
        release.send(()).expect("the origin waits");
        assert_eq!(first.join().expect("no panic"), 200);
    });
    assert!(
        proxy
            .metrics()
            .contains("switchyard_queue_rejected_total{pool=\"only\"} 1")
    );
}

#[test]
fn a_refused_connection_is_tried_elsewhere_and_logged_only_where_it_ends() {
    let origin = Origin::named("ok");
    let dead = nowhere();
    let endpoints = format!("{dead}\", \"{}", origin.address);
    let proxy = Proxy::start(&one_pool(&endpoints, ""));
    for _ in 0..6 {
        assert_eq!(proxy.get("/", "").body, "ok");
    }
    assert_eq!(proxy.alarms(), Vec::<String>::new());
    let alone = Proxy::start(&one_pool(&dead, ""));
    let answer = alone.get("/", "X-Request-Id: find-me\r\n");
    assert_eq!(answer.status, 502);
    assert!(answer.body.contains("request id: find-me"));
    let alarms = alone.alarms();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    for part in [
        "connection refused",
        "pool=only",
        "request_id=find-me",
        &format!("endpoint={dead}"),
    ] {
        assert!(alarms[0].contains(part), "{part} in {}", alarms[0]);
    }
}

#[test]
fn a_stale_connection_is_replaced_without_the_client_noticing() {
    let origin = Origin::spawn(|_, stream| {
        respond(stream, "ok");
        // Says nothing of it, and closes.
        false
    });
    let proxy = Proxy::start(&one_pool(&origin.address, ""));
    for _ in 0..20 {
        assert_eq!(proxy.get("/", "").body, "ok");
    }
}

#[test]
fn a_truncated_or_broken_response_is_never_delivered_as_complete() {
    let origin = Origin::spawn(|head, stream| {
        let text: &[u8] = if head.starts_with("GET /short") {
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
        } else if head.starts_with("GET /chunk") {
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"
        } else {
            b"nonsense\r\n\r\n"
        };
        stream.write_all(text).expect("write");
        false
    });
    let proxy = Proxy::start(&one_pool(&origin.address, ""));
    for path in ["/short", "/chunk"] {
        assert!(!proxy.get(path, "").complete, "{path}");
    }
    assert_eq!(proxy.get("/garbage", "").status, 502);
    let alarms = proxy.alarms();
    assert_eq!(alarms.len(), 3, "{alarms:?}");
}

#[test]
fn a_request_body_arrives_whole_whatever_its_framing() {
    let origin = Origin::spawn(|head, stream| {
        let mut body = Vec::new();
        if head.to_lowercase().contains("transfer-encoding: chunked") {
            let mut byte = [0];
            while !body.ends_with(b"0\r\n\r\n") {
                std::io::Read::read_exact(stream, &mut byte).expect("body");
                body.push(byte[0]);
            }
        } else {
            body.resize(5, 0);
            std::io::Read::read_exact(stream, &mut body).expect("body");
        }
        respond(stream, &String::from_utf8_lossy(&body))
    });
    let proxy = Proxy::start(&one_pool(&origin.address, ""));
    let post = |fields: &str| {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{fields}");
        exchange(&proxy.http, &text).body
    };
    assert_eq!(post("Content-Length: 5\r\n\r\nhello"), "hello");
    assert_eq!(
        post("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
        "5\r\nhello\r\n0\r\n\r\n"
    );
}
