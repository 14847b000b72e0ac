//! Clients that take their time: a byte now and then holds no connection.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::case;
use super::origin::Recorder;
use super::{configuration, on};
use crate::harness::{PATIENCE, Proxy, answer, connect, read_head};

/// Between two bytes: far less than any read may take.
const PACE: Duration = Duration::from_millis(20);

const SHORT: &str = "limits: { header_timeout: 300ms, body_rate_min: 100KB, read_timeout: 300ms }\n";

fn start(listener: &str, origin: &Recorder) -> Proxy {
    let text = format!("{}{SHORT}", configuration(&origin.address, ""));
    Proxy::start_on(&on(listener), &text, &[])
}

/// Sends byte after byte until the program has enough, and yields what it said.
fn drip(stream: &mut TcpStream, bytes: &[u8]) -> String {
    let mut said = Vec::new();
    let mut piece = [0; 4096];
    for byte in bytes.iter().cycle().take(1_000) {
        stream.set_read_timeout(Some(PACE)).expect("timeout");
        match stream.read(&mut piece) {
            Ok(0) => return case::latin1(&said),
            Ok(n) => said.extend_from_slice(&piece[..n]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return case::latin1(&said),
        }
        if stream.write_all(&[*byte]).is_err() {
            break;
        }
    }
    panic!("a thousand bytes were waited for; said: {:?}", case::latin1(&said));
}

#[test]
fn a_head_that_drips_is_cut_on_a_first_and_on_a_second_request() {
    let origin = Recorder::spawn();
    for listener in ["", ", h2c: true"] {
        let proxy = start(listener, &origin);
        let mut first = connect(&proxy.http);
        first.write_all(b"GET / HTTP/1.1\r\nX: ").expect("write");
        assert!(drip(&mut first, b"x").starts_with("HTTP/1.1 408 "));
        let mut second = connect(&proxy.http);
        let request = b"GET /c/canary HTTP/1.1\r\nHost: t.example\r\n\r\n";
        for _ in 0..2 {
            second.write_all(request).expect("write");
            assert_eq!(answer(&mut second).status, 200);
        }
        second.write_all(b"G").expect("write");
        assert!(drip(&mut second, b"x").starts_with("HTTP/1.1 408 "));
        let metrics = proxy.metrics();
        assert!(
            metrics.contains("switchyard_refused_total{cause=\"header_timeout\"} 2"),
            "{metrics}"
        );
        assert_eq!(proxy.alarms(), Vec::<String>::new(), "slow clients are no alarm");
    }
}

#[test]
fn a_body_that_drips_is_408() {
    let origin = Recorder::spawn();
    let proxy = start("", &origin);
    for framing in ["Content-Length: 100000", "Transfer-Encoding: chunked"] {
        let mut stream = connect(&proxy.http);
        write!(stream, "POST /c/slow HTTP/1.1\r\nHost: t.example\r\n{framing}\r\n\r\n").expect("write");
        assert!(
            drip(&mut stream, b"1\r\nx\r\n").starts_with("HTTP/1.1 408 "),
            "{framing}"
        );
    }
    assert_eq!(proxy.alarms(), Vec::<String>::new(), "slow clients are no alarm");
}

#[test]
fn an_http_2_preface_that_drips_is_cut() {
    let origin = Recorder::spawn();
    let proxy = start(", h2c: true", &origin);
    let mut stream = connect(&proxy.http);
    // Whatever comes after, the connection is closed without having waited for all of it.
    let padded = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0; 8]].concat();
    assert_eq!(drip(&mut stream, &padded), "");
}

#[test]
fn an_http_2_body_that_stalls_gives_its_place_back() {
    let origin = Recorder::spawn();
    let proxy = start(", h2c: true", &origin);
    let mut stream = connect(&proxy.http);
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "t.example"),
        (":path", "/c/h2"),
    ];
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("short"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    let length = u8::try_from(block.len()).expect("short");
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").expect("write");
    stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).expect("write");
    stream.write_all(&[0, 0, length, 1, 4, 0, 0, 0, 1]).expect("write");
    stream.write_all(&block).expect("write");
    let line = proxy.access_line();
    assert_eq!(
        (line["status"].as_u64(), line["path"].as_str()),
        (Some(408), Some("/c/h2"))
    );
    assert_eq!(proxy.alarms(), Vec::<String>::new(), "slow clients are no alarm");
}

#[test]
fn a_head_past_its_bound_is_431_before_it_ends() {
    let origin = Recorder::spawn();
    let proxy = Proxy::start(&configuration(&origin.address, ""));
    let mut stream = connect(&proxy.http);
    stream.set_write_timeout(Some(PATIENCE)).expect("timeout");
    stream.write_all(b"GET / HTTP/1.1\r\nX: ").expect("write");
    // More than the bound, and less than what makes the answer get lost with what nobody reads.
    stream.write_all(&[b'x'; 33 * 1024]).expect("write");
    for _ in 0..8 {
        // It may be answered and closed by then.
        if stream.write_all(&[b'x'; 1024]).is_err() {
            break;
        }
    }
    let head = read_head(&mut stream);
    assert!(
        head.as_ref().is_none_or(|head| head.starts_with("HTTP/1.1 431 ")),
        "{head:?}"
    );
    let metrics = proxy.metrics();
    assert!(
        metrics.contains("switchyard_refused_total{cause=\"header_too_large\"} 1"),
        "{metrics}"
    );
}
