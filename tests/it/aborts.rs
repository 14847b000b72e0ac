//! A client that goes away never alarms anything.

use std::io::Write;

use crate::harness::{Origin, Proxy, connect, one_pool, read_head, respond};

const CLIENTS: usize = 100;

#[test]
fn clients_that_leave_are_quiet_counted_and_harm_nobody() {
    let origin = Origin::spawn(|head, stream| {
        if head.starts_with("GET /hang") || head.starts_with("POST /upload") {
            let mut rest = Vec::new();
            return std::io::Read::read_to_end(stream, &mut rest).is_err();
        }
        if head.starts_with("GET /half") {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4000\r\n\r\n")
                .expect("write");
            stream.write_all(&[b'x'; 2000]).expect("write");
            let mut rest = Vec::new();
            return std::io::Read::read_to_end(stream, &mut rest).is_err();
        }
        respond(stream, "ok")
    });
    let proxy = Proxy::start(&one_pool(&origin.address, ""));
    let send = |text: &str| {
        let mut stream = connect(&proxy.http);
        stream.write_all(text.as_bytes()).expect("write");
        stream
    };
    for _ in 0..CLIENTS {
        drop(send("GET / HTTP/1.1\r\nHos"));
        drop(send(
            "POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nhalf",
        ));
        drop(send("GET /hang HTTP/1.1\r\nHost: a\r\n\r\n"));
        let mut reading = send("GET /half HTTP/1.1\r\nHost: a\r\n\r\n");
        read_head(&mut reading).expect("a head");
        drop(reading);
    }
    // Every aborted request that had a head has its line; that is when the proxy has noticed it.
    let mut aborted = 0;
    while aborted < 3 * CLIENTS {
        let line = proxy.access_line();
        if line["status"] == 499 {
            assert_eq!(line["abort"], "downstream");
            aborted += 1;
        }
    }
    for _ in 0..CLIENTS {
        assert_eq!(proxy.get("/", "").body, "ok");
    }
    proxy.settle(CLIENTS);
    let metrics = proxy.metrics();
    assert!(metrics.contains("state=\"active\"} 0"), "a place leaked:\n{metrics}");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}
