//! What connections cost in memory: idle ones, and those whose clients take their time.

use std::io::{self, Write};
use std::net::TcpStream;
use std::sync::mpsc;
use std::time::Duration;

use crate::harness::{Origin, PATIENCE, Proxy, answer, connect, one_pool, respond};

const CONNECTIONS: u64 = 1_000;
const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
/// More than the slow ones need: the innocent must not wait for a place.
const ROOM: &str =
    "    connections: { max_per_endpoint: 2000 }\nlimits: { connections_per_client: 4000, connections_max: 4000 }";

fn proxy(origin: &Origin) -> Proxy {
    let proxy = Proxy::start(&one_pool(&origin.address, ROOM));
    // What the first requests bring is not a connection's.
    for _ in 0..100 {
        assert_eq!(proxy.get("/", "").status, 200);
    }
    proxy.wait_metric("switchyard_downstream_connections", &[], 0.0);
    proxy
}

fn open(proxy: &Proxy, begin: impl Fn(&mut TcpStream)) -> Vec<TcpStream> {
    let each = (0..CONNECTIONS).map(|_| {
        let mut stream = connect(&proxy.http);
        begin(&mut stream);
        stream
    });
    let all = each.collect();
    proxy.wait_metric("switchyard_downstream_connections", &[], CONNECTIONS as f64);
    all
}

#[test]
fn an_idle_connection_costs_a_few_kib() {
    const MOST_KIB: u64 = 8;
    let origin = Origin::named("ok");
    let proxy = proxy(&origin);
    let before = proxy.memory_kib("VmRSS");
    let idle = open(&proxy, |stream| {
        stream.write_all(GET).expect("write");
        assert_eq!(answer(stream).status, 200);
    });
    let grown = proxy.memory_kib("VmRSS").saturating_sub(before);
    assert!(grown <= MOST_KIB * CONNECTIONS, "{grown} KiB for {CONNECTIONS}");
    drop(idle);
    proxy.wait_metric("switchyard_downstream_connections", &[], 0.0);
}

#[test]
fn a_thousand_slow_uploads_take_little_and_hold_nobody_up() {
    const MOST_KIB: u64 = 64 * 1024;
    let origin = Origin::spawn(|head, stream| {
        if head.starts_with("POST") {
            let mut rest = [0];
            return std::io::Read::read_exact(stream, &mut rest).is_ok();
        }
        respond(stream, "ok")
    });
    let proxy = proxy(&origin);
    let before = proxy.memory_kib("VmRSS");
    let slow = open(&proxy, |stream| {
        stream
            .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc")
            .expect("write");
    });
    proxy.wait_metric(
        "switchyard_upstream_connections",
        &["state=\"active\""],
        CONNECTIONS as f64,
    );
    let grown = proxy.memory_kib("VmHWM").saturating_sub(before);
    assert!(grown <= MOST_KIB, "{grown} KiB for {CONNECTIONS}");
    for _ in 0..20 {
        assert_eq!(proxy.get("/", "").status, 200);
    }
    drop(slow);
    proxy.wait_metric("switchyard_downstream_connections", &[], 0.0);
    proxy.wait_metric("switchyard_upstream_connections", &["state=\"active\""], 0.0);
    assert_eq!(proxy.alarms(), Vec::<String>::new(), "slow clients are no alarm");
}

/// More than the sockets take in between which a response waits.
const LARGE: usize = 16 * 1024 * 1024;

/// Sends a large response, and tells when nobody takes it.
fn send_large(stream: &mut TcpStream, stalled: &mpsc::Sender<()>) -> io::Result<()> {
    let piece = [b'x'; 64 * 1024];
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {LARGE}\r\n\r\n")?;
    stream.set_write_timeout(Some(Duration::from_millis(300)))?;
    let mut left = LARGE;
    while left > 0 {
        match stream.write(&piece[..left.min(piece.len())]) {
            Ok(sent) => left -= sent,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                stalled.send(()).expect("the test waits");
                stream.set_write_timeout(None)?;
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

#[test]
fn slow_readers_take_little_and_hold_nobody_up() {
    const READERS: u64 = 300;
    // Read as they come, they would take some 600.
    const MOST_KIB: u64 = 220;
    let (stalled, stalls) = mpsc::channel();
    let origin = Origin::spawn(move |head, stream| {
        if head.starts_with("GET /large") {
            send_large(stream, &stalled).is_ok()
        } else {
            respond(stream, "ok")
        }
    });
    let proxy = proxy(&origin);
    let before = proxy.memory_kib("VmRSS");
    let readers = (0..READERS).map(|nth| {
        let mut stream = connect(&proxy.http);
        // The last one will take all of it: with 4 KiB it would take a minute, for the system acknowledges so little only
        // each 40 ms, and does not forget it.
        let room = if nth + 1 == READERS { 64 * 1024 } else { 4096 };
        socket2::SockRef::from(&stream).set_recv_buffer_size(room).expect("set");
        stream
            .write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            .expect("write");
        stream
    });
    let mut readers: Vec<TcpStream> = readers.collect();
    for _ in 0..READERS {
        stalls.recv_timeout(PATIENCE).expect("each response stands");
    }
    let grown = proxy.memory_kib("VmHWM").saturating_sub(before);
    assert!(grown <= MOST_KIB * READERS, "{grown} KiB for {READERS}");
    for _ in 0..20 {
        assert_eq!(proxy.get("/", "").status, 200);
    }
    // Who comes to take it gets all of it.
    let last = readers.last_mut().expect("one of them");
    let last = answer(last);
    assert_eq!((last.status, last.body.len()), (200, LARGE));
    drop(readers);
    proxy.wait_metric("switchyard_downstream_connections", &[], 0.0);
    proxy.wait_metric("switchyard_upstream_connections", &["state=\"active\""], 0.0);
    assert_eq!(proxy.alarms(), Vec::<String>::new(), "slow clients are no alarm");
}
