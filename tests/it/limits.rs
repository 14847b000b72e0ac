//! Every bound on what clients send has its answer, and those within it do not feel it.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::harness::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM, SETTINGS, WINDOW_UPDATE,
    field, flood, frame, head, next, preface, request,
};
use crate::harness::{Answer, Origin, PATIENCE, Proxy, answer, connect, h2c, one_pool, respond};
use crate::holding::holding;

const H2C: &str = "{ address: \"127.0.0.1:0\", h2c: true }";
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: t.example\r\n\r\n";

fn limited(endpoint: &str, limits: &str) -> Proxy {
    Proxy::start_on(H2C, &one_pool(endpoint, &format!("limits: {{ {limits} }}")), &[])
}

/// The admin side does not share the limits of the data plane.
fn admin_is_well(proxy: &Proxy) {
    for path in ["/healthz", "/readyz"] {
        assert_eq!(proxy.ask_admin(path).status, 200, "{path}");
    }
}

fn refused(proxy: &Proxy, cause: &str) -> f64 {
    proxy.metric("switchyard_refused_total", &[&format!("cause=\"{cause}\"")])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_target_past_its_bound_is_414() {
    let origin = Origin::named("ok");
    let proxy = limited(&origin.address, "target_bytes_max: 1KiB");
    let long = format!("/{}", "x".repeat(1024));
    assert_eq!(proxy.get(&long[..1024], "").status, 200);
    assert_eq!(proxy.get(&long, "").status, 414);
    let (client, _driver) = h2c::connect(&proxy.http).await;
    for (path, status) in [(&long[..1024], 200), (&long, 414)] {
        let (response, _) = h2c::get(&client, path).await.expect("a response");
        assert_eq!(response.status(), status);
    }
    assert_eq!(refused(&proxy, "target_too_long"), 2.0);
    // Past the bound of the whole head, with and without its end; many fields are no long target.
    let longer = "x".repeat(40 * 1024);
    assert_eq!(proxy.get(&format!("/{longer}"), "").status, 414);
    let mut cut = connect(&proxy.http);
    write!(cut, "GET /{longer}").expect("write");
    assert_eq!(answer(&mut cut).status, 414);
    assert_eq!(proxy.get("/", &format!("X-Long: {longer}\r\n")).status, 431);
    assert_eq!(refused(&proxy, "target_too_long"), 4.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_http_2_head_is_bounded_like_any_other() {
    let origin = Origin::named("ok");
    let proxy = limited(&origin.address, "header_bytes_max: 4KiB, headers_max: 10");
    let (client, _driver) = h2c::connect(&proxy.http).await;
    let with = |fields: usize, bytes: usize| {
        let mut request = h2c::request("GET", "/");
        for n in 0..fields {
            let name = http::HeaderName::try_from(format!("x-{n}")).expect("name");
            let value = "v".repeat(bytes).try_into().expect("value");
            request.headers_mut().insert(name, value);
        }
        request
    };
    for (fields, bytes, status) in [(8, 10, 200), (20, 10, 431), (2, 3000, 431), (2, 1000, 200)] {
        let (response, _) = h2c::send(&client, with(fields, bytes), true).await;
        let response = response.await.expect("a response");
        assert_eq!(response.status(), status, "{fields} fields of {bytes}");
        h2c::collect(response).await.expect("whole");
    }
    assert_eq!(origin.heads().len(), 2);
}

#[test]
fn past_the_connections_there_may_be_the_next_is_503_and_the_others_go_on() {
    let origin = Origin::named("ok");
    let proxy = limited(&origin.address, "connections_max: 3");
    let mut open: Vec<_> = (0..3).map(|_| connect(&proxy.http)).collect();
    for stream in &mut open {
        stream.write_all(GET).expect("write");
        assert_eq!(answer(stream).status, 200);
    }
    for _ in 0..100 {
        let said = turned_away(&proxy);
        assert_eq!((said.status, said.all("retry-after")), (503, vec!["1"]), "{said:?}");
    }
    admin_is_well(&proxy);
    assert_eq!(refused(&proxy, "connections"), 100.0);
    for stream in &mut open {
        stream.write_all(GET).expect("write");
        assert_eq!(answer(stream).status, 200);
    }
    open.pop();
    proxy.wait_metric("switchyard_downstream_connections", &[], 2.0);
    assert_eq!(proxy.get("/", "").status, 200);
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

/// What a new connection is told, whether it has sent a request by then or not.
fn turned_away(proxy: &Proxy) -> Answer {
    let mut stream = connect(&proxy.http);
    // It may be closed by then.
    drop(stream.write_all(GET));
    let said = answer(&mut stream);
    assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
    said
}

#[test]
fn one_client_may_have_so_many_connections_and_trusted_peers_more() {
    let origin = Origin::named("ok");
    for (trusted, status) in [("[]", 429), ("[127.0.0.1]", 200)] {
        let more = format!(
            "limits: {{ connections_per_client: 2 }}\nidentity: {{ sources: [{{ header: X-User-Id }}], trusted_peers: {trusted} }}"
        );
        let proxy = Proxy::start(&one_pool(&origin.address, &more));
        let mut open: Vec<_> = (0..2).map(|_| connect(&proxy.http)).collect();
        for stream in &mut open {
            stream.write_all(GET).expect("write");
            assert_eq!(answer(stream).status, 200);
        }
        let next = proxy.get("/", "");
        assert_eq!(next.status, status);
        if status == 429 {
            assert_eq!(next.all("retry-after"), ["1"]);
            assert_eq!(refused(&proxy, "connections_per_client"), 1.0);
            open.clear();
            proxy.wait_metric("switchyard_downstream_connections", &[], 0.0);
            assert_eq!(proxy.get("/", "").status, 200);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn overload_is_503_at_once_and_the_admin_side_answers() {
    let (origin, release, inside) = holding();
    let proxy = limited(&origin.address, "requests_in_flight_max: 2");
    let mut held: Vec<_> = (0..2).map(|_| connect(&proxy.http)).collect();
    for stream in &mut held {
        write!(stream, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n").expect("write");
        inside.recv_timeout(PATIENCE).expect("the request is inside");
    }
    let (client, _driver) = h2c::connect(&proxy.http).await;
    for _ in 0..50 {
        let over = proxy.get("/", "");
        assert_eq!((over.status, over.all("retry-after")), (503, vec!["1"]));
        let (over, _) = h2c::get(&client, "/").await.expect("a response");
        assert_eq!(
            (over.status().as_u16(), &over.headers()["retry-after"]),
            (503, &"1".parse().expect("value"))
        );
        proxy.settle(2);
    }
    admin_is_well(&proxy);
    assert_eq!(origin.heads().len(), 2, "nothing else was sent upstream");
    // Whichever the origin answers first.
    for _ in &held {
        release.send(()).expect("the origin waits");
    }
    for stream in &mut held {
        assert_eq!(answer(stream).status, 200);
    }
    // A request has its place until its line is written.
    proxy.settle(2);
    assert_eq!(proxy.get("/", "").status, 200);
    assert_eq!(refused(&proxy, "overload"), 100.0);
    assert_eq!(proxy.alarms(), Vec::<String>::new(), "overload floods no log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_connection_ends_after_its_requests_without_losing_one() {
    const MOST: usize = 5;
    let origin = Origin::named("ok");
    let proxy = limited(&origin.address, "keepalive_requests_max: 5");
    let mut stream = connect(&proxy.http);
    for n in 1..=MOST {
        stream.write_all(GET).expect("write");
        let said = answer(&mut stream);
        assert_eq!(said.status, 200);
        assert_eq!(said.all("connection") == ["close"], n == MOST, "request {n}: {said:?}");
    }
    assert_eq!(stream.read(&mut [0]).expect("the end"), 0);
    let mut answered = 0;
    for _ in 0..3 {
        let (client, driver) = h2c::connect(&proxy.http).await;
        loop {
            let Ok(mut ready) = client.clone().ready().await else {
                break;
            };
            let Ok((response, _)) = ready.send_request(h2c::request("GET", "/"), true) else {
                break;
            };
            match response.await {
                Ok(response) => {
                    assert_eq!(response.status(), 200);
                    h2c::collect(response).await.expect("whole");
                    answered += 1;
                }
                // Sent while the other side said GOAWAY: not taken, and so safe to send again.
                Err(e) => {
                    assert!(e.is_go_away() || e.is_io(), "{e}");
                    break;
                }
            }
        }
        drop(client);
        driver.await.expect("the connection ends by itself");
    }
    assert!(answered >= 3 * MOST, "{answered}");
    assert!(answered <= 3 * (MOST + 100), "{answered}");
}

#[test]
fn a_burst_of_clients_waits_to_be_accepted() {
    let origin = Origin::named("ok");
    let proxy = limited(&origin.address, "");
    let bound = std::fs::read_to_string("/proc/sys/net/core/somaxconn").expect("a number");
    let many = bound.trim().parse::<usize>().expect("a number").min(500);
    // Nobody accepts; the system takes them as long as there is room.
    proxy.signal("STOP");
    let address = proxy.http.parse().expect("an address");
    let crowd = (0..many).map(|_| TcpStream::connect_timeout(&address, PATIENCE).expect("there is room"));
    let mut crowd: Vec<_> = crowd.collect();
    proxy.signal("CONT");
    for client in &mut crowd {
        client.write_all(GET).expect("write");
        assert_eq!(answer(client).status, 200);
    }
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let origin = Origin::named("ok");
    let proxy = limited(&origin.address, "keepalive_timeout: 1s");
    let mut fresh = connect(&proxy.http);
    let mut used = connect(&proxy.http);
    used.write_all(GET).expect("write");
    assert_eq!(answer(&mut used).status, 200);
    let mut two = connect(&proxy.http);
    two.write_all(&preface()).expect("write");
    for stream in [&mut fresh, &mut used, &mut two] {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("closed, and not waited for");
    }
    proxy.wait_metric("switchyard_downstream_connections", &[], 0.0);
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

/// An HTTP/2 client that floods; how many pieces of what it sends are far too many.
type Flood = (&'static str, usize, fn(usize) -> Vec<u8>);

fn stream_id(n: usize) -> u32 {
    u32::try_from(2 * n + 1).expect("a stream id")
}

const FLOODS: [Flood; 9] = [
    ("rapid reset", 100_000, |n| {
        let id = stream_id(n);
        [
            request(id, "GET", "/", true),
            frame(RST_STREAM, 0, id, &8_u32.to_be_bytes()),
        ]
        .concat()
    }),
    // What makes the proxy reset them is as dear (CVE-2025-8671).
    ("window overflow", 100_000, |n| {
        let id = stream_id(n);
        [
            request(id, "GET", "/", true),
            frame(WINDOW_UPDATE, 0, id, &0x7fff_ffff_u32.to_be_bytes()),
        ]
        .concat()
    }),
    ("window of nothing", 100_000, |n| {
        let id = stream_id(n);
        [
            request(id, "GET", "/", true),
            frame(WINDOW_UPDATE, 0, id, &0_u32.to_be_bytes()),
        ]
        .concat()
    }),
    ("ping", 200_000, |_| frame(PING, 0, 0, &[0; 8])),
    ("settings", 200_000, |_| frame(SETTINGS, 0, 0, &[])),
    ("priority", 200_000, |n| {
        frame(PRIORITY, 0, stream_id(n), &[0, 0, 0, 0, 1])
    }),
    ("empty data", 200_000, |n| match n {
        0 => request(1, "POST", "/", false),
        _ => frame(DATA, 0, 1, &[]),
    }),
    ("continuation", 200_000, |n| match n {
        0 => frame(HEADERS, 0, 1, &head("GET", "/")),
        _ => frame(CONTINUATION, 0, 1, &field("x-more", &"v".repeat(100))),
    }),
    ("empty continuation", 200_000, |n| match n {
        0 => frame(HEADERS, 0, 1, &head("GET", "/")),
        _ => frame(CONTINUATION, 0, 1, &[]),
    }),
];

#[test]
fn http_2_floods_end_with_their_connection_and_nobody_else_notices() {
    const GROWTH_KIB: u64 = 64 * 1024;
    let origin = Origin::named("ok");
    let proxy = limited(&origin.address, "");
    let mut innocent = connect(&proxy.http);
    let mut ask = || {
        innocent.write_all(GET).expect("write");
        assert_eq!(answer(&mut innocent).status, 200);
    };
    ask();
    let before = proxy.memory_kib("VmRSS");
    for (what, most, piece) in FLOODS {
        std::thread::scope(|scope| {
            let flooding = scope.spawn(|| {
                let mut stream = connect(&proxy.http);
                stream.write_all(&preface()).expect("write");
                flood(&mut stream, most, piece)
            });
            while !flooding.is_finished() {
                ask();
            }
            let sent = flooding.join().expect("no panic");
            assert!(sent < most, "{what}: all of it was taken");
        });
        ask();
    }
    let grown = proxy.memory_kib("VmHWM").saturating_sub(before);
    assert!(grown < GROWTH_KIB, "{grown} KiB more");
    proxy.wait_metric("switchyard_downstream_connections", &[], 1.0);
    // The others are ended by the HTTP/2 library.
    assert_eq!(refused(&proxy, "http2_flood"), 3.0, "ping, settings and priority");
    assert_eq!(proxy.alarms(), Vec::<String>::new(), "floods are no alarm");
}

#[test]
fn header_blocks_that_cannot_be_read_end_their_connection() {
    const PROTOCOL_ERROR: u32 = 1;
    const COMPRESSION_ERROR: u32 = 9;
    let origin = Origin::named("ok");
    let proxy = limited(&origin.address, "");
    let blocks: [&[u8]; 5] = [
        // Index 0, one beyond the table, one that has no end, a text longer than the block, a table larger than allowed.
        &[0x80],
        &[0xff, 0x00],
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x00, 0x7f, 0xff, 0xff, 0xff, 0x7f],
        &[0x3f, 0xe1, 0xff, 0xff, 0x07],
    ];
    for block in blocks {
        let mut stream = connect(&proxy.http);
        stream.write_all(&preface()).expect("write");
        stream
            .write_all(&frame(HEADERS, END_HEADERS | END_STREAM, 1, block))
            .expect("write");
        let frames: Vec<_> = std::iter::from_fn(|| next(&mut stream)).collect();
        let away = frames.iter().find(|frame| frame.kind == GOAWAY).expect("a word");
        // The library calls it the first (RFC 9113, 4.3, the second); either ends all that is on the connection.
        let words = [PROTOCOL_ERROR, COMPRESSION_ERROR].map(u32::to_be_bytes);
        assert!(
            words.iter().any(|word| away.payload[4..8] == *word),
            "{block:02x?}: {:?}",
            away.payload
        );
    }
    assert_eq!(origin.heads(), Vec::<String>::new());
    assert_eq!(proxy.get("/", "").status, 200);
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[test]
fn a_stream_past_those_there_may_be_is_refused_and_the_others_go_on() {
    const REFUSED_STREAM: u32 = 7;
    let (origin, release, inside) = holding();
    let proxy = limited(&origin.address, "http2_streams_max: 2");
    let mut stream = connect(&proxy.http);
    let requests = [1, 3, 5].map(|id| request(id, "GET", "/hold", true)).concat();
    stream.write_all(&[preface(), requests].concat()).expect("write");
    let mut until = |kind| {
        let found = std::iter::from_fn(|| next(&mut stream)).find(|frame| frame.kind == kind);
        found.expect("it comes")
    };
    let refused = until(RST_STREAM);
    assert_eq!(
        (refused.stream, refused.payload),
        (5, REFUSED_STREAM.to_be_bytes().into())
    );
    for _ in 0..2 {
        inside.recv_timeout(PATIENCE).expect("the request is inside");
    }
    drop(release);
    // Whichever is answered first.
    let mut answered = [until(HEADERS), until(HEADERS)].map(|frame| (frame.stream, frame.flags & END_HEADERS));
    answered.sort_unstable();
    assert_eq!(answered, [(1, END_HEADERS), (3, END_HEADERS)]);
}

#[test]
fn an_http_2_client_that_takes_nothing_keeps_no_place_past_the_time_of_a_write() {
    let large = "x".repeat(1024 * 1024);
    let origin = Origin::spawn(move |_, stream| respond(stream, &large));
    let proxy = limited(&origin.address, "write_timeout: 1s");
    let mut stream = connect(&proxy.http);
    // One byte at a time on each stream, and never a second.
    const INITIAL_WINDOW_SIZE: [u8; 6] = [0, 4, 0, 0, 0, 1];
    let settings = frame(SETTINGS, 0, 0, &INITIAL_WINDOW_SIZE);
    let requests = [1, 3].map(|id| request(id, "GET", "/", true)).concat();
    stream
        .write_all(&[preface(), settings, requests].concat())
        .expect("write");
    let resets = std::iter::from_fn(|| next(&mut stream)).filter(|frame| frame.kind == RST_STREAM);
    assert_eq!(resets.take(2).count(), 2);
    proxy.wait_metric("switchyard_upstream_connections", &["state=\"active\""], 0.0);
    assert_eq!(origin.heads().len(), 2);
    assert_eq!(proxy.alarms(), Vec::<String>::new(), "slow clients are no alarm");
}

/// Many small answers, of which none is read: each of them is all there at once, and written at once.
#[test]
fn a_client_that_asks_and_takes_nothing_keeps_no_place_past_the_time_of_a_write() {
    let answer = "x".repeat(10 * 1024);
    let origin = Origin::spawn(move |_, stream| respond(stream, &answer));
    let proxy = limited(&origin.address, "write_timeout: 1s");
    let mut stream = connect(&proxy.http);
    stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
    // Until nobody takes more of them, and the connection ends.
    while stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").is_ok() {}
    proxy.wait_metric("switchyard_upstream_connections", &["state=\"active\""], 0.0);
    assert_eq!(proxy.get("/", "").status, 200);
    assert_eq!(proxy.alarms(), Vec::<String>::new(), "slow clients are no alarm");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_takes_most_of_its_requests_back_is_borne_so_often() {
    const MOST: usize = 10;
    let (origin, release, inside) = holding();
    let proxy = limited(&origin.address, "http2_resets_max: 10");
    let (client, driver) = h2c::connect(&proxy.http).await;
    for _ in 0..2 * MOST {
        let (response, _) = h2c::get(&client, "/").await.expect("a response");
        assert_eq!(response.status(), 200);
    }
    // Each is with the origin before it is taken back, so that no bound on what waits for the proxy is met.
    let mut taken_back = 0;
    while let Ok(mut ready) = client.clone().ready().await {
        let Ok((_response, mut body)) = ready.send_request(h2c::request("GET", "/hold"), true) else {
            break;
        };
        if tokio::task::block_in_place(|| inside.recv_timeout(PATIENCE)).is_err() {
            break;
        }
        body.send_reset(h2::Reason::CANCEL);
        taken_back += 1;
        proxy.settle(if taken_back == 1 { 2 * MOST + 1 } else { 1 });
    }
    driver.await.expect("the connection ends by itself");
    // More than the ten that are borne, and half of all: as many as were answered.
    assert_eq!(taken_back, 2 * MOST + 1, "of them the last ended the connection");
    assert_eq!(refused(&proxy, "http2_resets"), 1.0);
    drop(release);
    assert_eq!(proxy.get("/", "").status, 200);
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[test]
fn as_many_open_files_as_the_system_allows_are_enough() {
    let origin = Origin::named("ok");
    let file = crate::files::directory("nofile").join("switchyard.yaml");
    let text = format!(
        "listeners: [{H2C}]\nadmin: {{ address: \"127.0.0.1:0\" }}\nstore: {{ memory: {{}} }}\n{}",
        one_pool(&origin.address, "")
    );
    std::fs::write(&file, text).expect("configuration");
    let proxy = Proxy::launch_under(&["prlimit", "--nofile=512"], &file, &[], &[]);
    proxy.wait_ready();
    proxy.wait_told("limits.connections_max is 152, not 20000", 1);
    let crowd: Vec<_> = (0..600).map(|_| connect(&proxy.http)).collect();
    proxy.wait_metric("switchyard_downstream_connections", &[], 152.0);
    admin_is_well(&proxy);
    assert!(proxy.descriptors() < 512);
    drop(crowd);
    proxy.wait_metric("switchyard_downstream_connections", &[], 0.0);
    assert_eq!(proxy.get("/", "").status, 200);
    let alarms: Vec<_> = proxy
        .alarms()
        .into_iter()
        .filter(|line| line.contains("Accept() failed"))
        .collect();
    assert_eq!(alarms, Vec::<String>::new(), "descriptors never ran out");
}
