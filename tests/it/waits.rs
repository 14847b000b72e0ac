//! The waits of `connections:` are as long as their rows say: of two pools with one endpoint, the one with the short wait
//! gives up while the one with the long wait still waits, which had begun before.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::harness::{Proxy, connect, full_listener};

/// Takes connections, and never says a word.
fn mute() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    (listener, address)
}

/// Both pools, which differ in this row.
fn start(endpoint: &str, row: &str, more: &str, tls: &str) -> Proxy {
    let pool = |name: &str, wait: &str| {
        format!(
            "  {name}: {{ endpoints: [\"{endpoint}\"], {tls} retries: {{ attempts: 1 }}, \
             ejection: {{ consecutive_failures: 0 }}, connections: {{ {row}: {wait}, {more} }} }}\n"
        )
    };
    Proxy::start(&format!(
        "pools:\n{}{}routes: [{{ pool: long, match: {{ path: /long }} }}, {{ pool: short }}]\n",
        pool("long", "1h"),
        pool("short", "100ms")
    ))
}

fn ask(proxy: &Proxy, path: &str) -> TcpStream {
    let mut stream = connect(&proxy.http);
    let text = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
    stream.write_all(text.as_bytes()).expect("write");
    stream
}

/// The short wait ends twice with `status` while the long one goes on.
fn judge(proxy: &Proxy, status: u16, row: &str) {
    let mut long = ask(proxy, "/long");
    for _ in 0..2 {
        assert_eq!(proxy.get("/", "").status, status, "{row}");
    }
    long.set_nonblocking(true).expect("nonblocking");
    let more = long.read(&mut [0; 64]).map_err(|e| e.kind());
    assert_eq!(more, Err(ErrorKind::WouldBlock), "{row}");
}

#[test]
fn a_response_head_is_waited_for_as_long_as_the_row_says() {
    let (_listener, address) = mute();
    let row = "response_header_timeout";
    judge(&start(&address, row, "", ""), 504, row);
}

#[test]
fn a_tls_handshake_may_take_as_long_as_the_row_says() {
    let (_listener, address) = mute();
    let row = "tls_handshake_timeout";
    let tls = "tls: { enabled: true, server_name: origin.test },";
    judge(&start(&address, row, "", tls), 504, row);
}

#[test]
fn a_connection_may_take_as_long_as_the_row_says() {
    let (_full, address) = full_listener();
    let row = "connect_timeout";
    judge(&start(&address.to_string(), row, "", ""), 504, row);
}

#[test]
fn a_place_is_waited_for_as_long_as_the_row_says() {
    let (_listener, address) = mute();
    let row = "queue_timeout";
    let proxy = start(&address, row, "max_per_endpoint: 1, response_header_timeout: 1h", "");
    // Each pool's only place is taken.
    let _taken = [ask(&proxy, "/long"), ask(&proxy, "/")];
    for pool in ["pool=\"long\"", "pool=\"short\""] {
        proxy.wait_metric("switchyard_upstream_connections", &[pool, "state=\"active\""], 1.0);
    }
    judge(&proxy, 503, row);
}
