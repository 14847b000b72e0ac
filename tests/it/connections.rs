//! The rows of `connections:`, retries, and failures of upstreams.

use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::Instant;

use crate::harness::{
    Origin, PATIENCE, Proxy, answer, connect, exchange, fields, nowhere, one_pool, read_head, respond,
};

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
fn a_retry_goes_elsewhere_even_where_users_stay() {
    let origin = Origin::named("ok");
    let endpoints = format!("{}\", \"{}", nowhere(), origin.address);
    let more = "    balance: user\n    ejection: { consecutive_failures: 0 }";
    let proxy = Proxy::start(&one_pool(&endpoints, more));
    // As many as the budget has retries for, should all of these users belong to the dead one.
    for user in 0..12 {
        assert_eq!(proxy.get("/", &format!("X-User-Id: {user}\r\n")).body, "ok", "{user}");
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

#[test]
fn a_place_that_is_given_back_goes_to_the_one_who_waits_and_a_full_queue_refuses_at_once() {
    let (release, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let (entered, inside) = mpsc::channel();
    let entered = Mutex::new(entered);
    let origin = Origin::spawn(move |_, stream| {
        entered.lock().expect("lock").send(()).expect("the test waits");
        held.lock().expect("lock").recv().expect("released");
        respond(stream, "ok")
    });
    let more = "    connections: { max_per_endpoint: 1, queue_max: 1, queue_timeout: 1h }";
    let proxy = Proxy::start(&one_pool(&origin.address, more));
    std::thread::scope(|scope| {
        let first = scope.spawn(|| proxy.get("/", "").status);
        inside.recv_timeout(PATIENCE).expect("the first is inside");
        // Of these two one waits, and the other finds the queue full: whichever comes later.
        let (told, answers) = mpsc::channel();
        for _ in 0..2 {
            let (told, proxy) = (told.clone(), &proxy);
            scope.spawn(move || told.send(proxy.get("/", "").status).expect("the test waits"));
        }
        assert_eq!(answers.recv_timeout(PATIENCE), Ok(503));
        release.send(()).expect("the origin waits");
        assert_eq!(first.join().expect("no panic"), 200);
        inside.recv_timeout(PATIENCE).expect("the second is inside");
        release.send(()).expect("the origin waits");
        assert_eq!(answers.recv_timeout(PATIENCE), Ok(200));
    });
    assert_eq!(origin.connections.load(Ordering::SeqCst), 1);
    assert_eq!(proxy.metric("switchyard_queue_rejected_total", &["pool=\"only\""]), 1.0);
    assert_eq!(
        proxy.metric("switchyard_upstream_queue_seconds_count", &["pool=\"only\""]),
        2.0
    );
}

/// In how many hundredths of a second the kernel's keep-alive timer ends on the proxy's connection to that address, as
/// /proc/net/tcp tells it; `Some(None)` where none runs.
fn keepalive(address: &str) -> Option<Option<u64>> {
    let port: u16 = address.rsplit(':').next().expect("port").parse().expect("a number");
    let far = format!("0100007F:{port:04X}");
    let table = std::fs::read_to_string("/proc/net/tcp").expect("readable");
    let rows = table.lines().map(|row| row.split_whitespace().collect::<Vec<_>>());
    // rem_address, st 01 (established); tr:tm->when, where tr 01 is a retransmission that is waited for.
    let mut timers = rows
        .filter(|row| row[2] == far && row[3] == "01")
        .map(|row| row[5].split_once(':').expect("tr:tm->when"));
    match timers.next()? {
        ("02", when) => Some(Some(u64::from_str_radix(when, 16).expect("a number"))),
        ("00", _) => Some(None),
        _ => None,
    }
}

#[test]
fn tcp_keepalive_is_on_as_the_row_says() {
    for (row, within) in [
        ("", Some(2_000..=3_000)),
        ("    connections: { tcp_keepalive: 7s }", Some(1..=700)),
        ("    connections: { tcp_keepalive: 0s }", None),
    ] {
        let origin = Origin::named("ok");
        let proxy = Proxy::start(&one_pool(&origin.address, row));
        assert_eq!(proxy.get("/", "").body, "ok");
        let since = Instant::now();
        let seen = loop {
            if let Some(seen) = keepalive(&origin.address) {
                break seen;
            }
            assert!(since.elapsed() < PATIENCE, "the connection is not there");
        };
        let as_written = match (&within, seen) {
            (Some(within), Some(seen)) => within.contains(&seen),
            (within, seen) => within.is_none() && seen.is_none(),
        };
        assert!(as_written, "{row}: {seen:?}, not {within:?}");
    }
}

#[test]
fn a_continue_is_relayed_and_its_lack_holds_nobody_up() {
    let origin = Origin::spawn(|head, stream| {
        if head.starts_with("POST /asks") {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").expect("write");
        }
        let mut body = [0; 5];
        std::io::Read::read_exact(stream, &mut body).expect("body");
        respond(stream, &String::from_utf8_lossy(&body))
    });
    // Not even an hour of it has an effect, as the README says.
    let proxy = Proxy::start(&one_pool(
        &origin.address,
        "    connections: { expect_continue_timeout: 1h }",
    ));
    for (path, relayed) in [("/asks", true), ("/does-not", false)] {
        let mut stream = connect(&proxy.http);
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("write");
        if relayed {
            let interim = read_head(&mut stream).expect("a head");
            assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
        }
        stream.write_all(b"hello").expect("write");
        let last = answer(&mut stream);
        assert_eq!((last.status, last.body.as_str()), (200, "hello"), "{path}");
    }
    let asked = origin.heads();
    assert!(
        asked.iter().all(|head| fields(head, "expect") == ["100-continue"]),
        "{asked:?}"
    );
}

#[test]
fn on_a_connection_closed_under_it_a_get_is_sent_again_and_a_post_never() {
    let origin = Origin::spawn(|head, stream| {
        // Reads the second request of a connection, and closes instead of an answer.
        head.starts_with("GET /first") && respond(stream, "ok")
    });
    let proxy = Proxy::start(&one_pool(&origin.address, ""));
    let seen = |line: &str| origin.heads().iter().filter(|head| head.starts_with(line)).count();
    assert_eq!(proxy.get("/first", "").body, "ok");
    let answer = exchange(
        &proxy.http,
        "POST /once HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi",
    );
    assert_eq!((answer.status, seen("POST /once")), (502, 1));
    assert_eq!(proxy.get("/first", "").body, "ok");
    // On the kept connection first, then on one of its own, where nothing is stale and the failure stands.
    assert_eq!(proxy.get("/closes", "").status, 502);
    assert_eq!(seen("GET /closes"), 2);
    assert_eq!(
        proxy.metric("switchyard_retries_total", &["cause=\"reused_connection_closed\""]),
        1.0
    );
    assert_eq!(proxy.alarms().len(), 2);
}

#[test]
fn retries_stay_within_their_attempts_and_their_budget() {
    const REQUESTS: u32 = 300;
    let dead = [nowhere(), nowhere(), nowhere()].join("\", \"");
    let more = "    ejection: { consecutive_failures: 0 }\n    retries: { attempts: 3 }";
    let proxy = Proxy::start(&one_pool(&dead, more));
    let since = Instant::now();
    for _ in 0..REQUESTS {
        assert_eq!(proxy.get("/", "").status, 502);
    }
    let retries = proxy.metric("switchyard_retries_total", &["cause=\"connect\""]);
    // A fifth of the requests, and ten in every second of the clock that was touched.
    let seconds = since.elapsed().as_secs_f64().ceil() + 1.0;
    let most = f64::from(REQUESTS) / 5.0 + 10.0 * seconds;
    println!("{retries} retries of {REQUESTS} requests in {:?}", since.elapsed());
    assert!(
        (f64::from(REQUESTS) / 5.0..=most).contains(&retries),
        "{retries} of at most {most}"
    );
    let alarms = proxy.alarms();
    assert_eq!(alarms.len(), REQUESTS as usize, "each failure is one line");
    assert!(alarms[0].contains("attempts=3"), "{}", alarms[0]);
}

#[test]
fn tunnels_and_event_streams_may_be_silent_for_longer_than_a_head_may_take() {
    let origin = Origin::spawn(|head, stream| {
        let upgrade = head.starts_with("GET /ws");
        let first = if upgrade {
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        } else {
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 2\r\n\r\n"
        };
        stream.write_all(first.as_bytes()).expect("write");
        std::thread::sleep(std::time::Duration::from_millis(900));
        stream.write_all(b"ok").is_ok() && !upgrade
    });
    let row = "    connections: { response_header_timeout: 300ms }";
    let proxy = Proxy::start(&one_pool(&origin.address, row));
    let mut tunnel = connect(&proxy.http);
    let head = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    tunnel.write_all(head.as_bytes()).expect("write");
    let events = proxy.get("/events", "Accept: text/event-stream\r\n");
    assert_eq!((events.body.as_str(), events.complete), ("ok", true));
    assert!(read_head(&mut tunnel).expect("a head").starts_with("HTTP/1.1 101 "));
    let mut words = [0; 2];
    std::io::Read::read_exact(&mut tunnel, &mut words).expect("the tunnel is open");
    assert_eq!(&words, b"ok");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}
