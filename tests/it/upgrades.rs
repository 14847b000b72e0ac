//! WebSocket tunnels: every handshake gets its echo.

use std::io::{Read, Write};

use crate::harness::{Origin, Proxy, connect, one_pool, read_head};

const HANDSHAKES: usize = 300;

#[test]
fn no_tunnel_is_lost_right_after_its_handshake() {
    let origin = Origin::spawn(|_, stream| {
        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("write");
        let mut buffer = [0; 5];
        while stream.read_exact(&mut buffer).is_ok() {
            stream.write_all(&buffer).expect("echo");
        }
        false
    });
    let proxy = Proxy::start(&one_pool(
        &origin.address,
        "    connections: { response_header_timeout: 2s }",
    ));
    for n in 0..HANDSHAKES {
        let mut stream = connect(&proxy.http);
        let head = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
        stream.write_all(head.as_bytes()).expect("write");
        let answer = read_head(&mut stream).expect("a head");
        assert!(answer.starts_with("HTTP/1.1 101 "), "handshake {n}: {answer}");
        for word in [b"hello", b"again"] {
            stream.write_all(word).expect("write");
            let mut echo = [0; 5];
            stream.read_exact(&mut echo).unwrap_or_else(|e| panic!("echo {n}: {e}"));
            assert_eq!(&echo, word);
        }
    }
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}
