//! Listeners behind a relay that says who the client is: the PROXY protocol, in clear text, with TLS and with HTTP/2.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use crate::authority::{Authority, Signed};
use crate::harness::{Answer, Origin, Proxy, answer, connect, fields, h2c};

const LINE: &str = "PROXY TCP4 203.0.113.9 198.51.100.1 4711 80\r\n";

/// The same by version 2, with an addition that nobody knows.
fn frame() -> Vec<u8> {
    let addresses = [203, 0, 113, 9, 198, 51, 100, 1, 0x12, 0x67, 0, 80];
    [&b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x10"[..], &addresses, &[0xe0, 0, 1, 7]].concat()
}

fn local() -> Vec<u8> {
    b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec()
}

/// Two releases, the second for clients in 203.0.113.0/24 and for user 42.
struct Shop {
    canary: Origin,
    stable: Origin,
    proxy: Proxy,
}

impl Shop {
    fn on(listener: &str, more: &str) -> Self {
        let (stable, canary) = (Origin::named("stable"), Origin::named("canary"));
        let yaml = format!(
            "identity: {{ sources: [{{ header: X-User-Id }}] }}\n\
             pools: {{ stable: {{ endpoints: [\"{}\"] }}, canary: {{ endpoints: [\"{}\"] }} }}\n\
             routes: [{{ rollout: checkout }}]\n{more}\
             rollouts:\n  checkout:\n    releases: {{ stable: {{ pool: stable }}, canary: {{ pool: canary }} }}\n    \
             targets:\n      - {{ users: [\"42\"], release: canary }}\n      \
             - {{ when: {{ cidr: 203.0.113.0/24 }}, release: canary }}\n",
            stable.address, canary.address
        );
        let proxy = Proxy::start_on(listener, &yaml, &[]);
        Self { canary, stable, proxy }
    }

    fn requests(&self) -> usize {
        self.stable.heads().len() + self.canary.heads().len()
    }
}

fn plain() -> String {
    "{ address: \"127.0.0.1:0\", proxy_protocol: [127.0.0.0/8] }".to_owned()
}

fn with_tls(signed: &Signed, peers: &str) -> String {
    format!(
        "{{ address: \"127.0.0.1:0\", proxy_protocol: [{peers}], tls: {{ certificate: {}, key: {} }} }}",
        signed.chain.display(),
        signed.key.display()
    )
}

fn get(stream: &mut (impl Read + Write), sent: &str) -> Answer {
    let text = format!("GET / HTTP/1.1\r\nHost: t.example\r\n{sent}\r\n");
    stream.write_all(text.as_bytes()).expect("write");
    answer(stream)
}

fn relayed(address: &str, header: &[u8]) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(header).expect("write");
    stream
}

/// Whether the connection ends without a byte; a reset is an end, too.
fn is_closed(stream: &mut impl Read) -> bool {
    // Goes on when a signal interrupts it, as one read would not.
    match stream.read_exact(&mut [0]) {
        Ok(()) => false,
        Err(e) => matches!(e.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
    }
}

#[test]
fn the_client_is_who_the_relay_says_in_logs_fields_and_targets() {
    let shop = Shop::on(&plain(), "");
    for header in [LINE.as_bytes().to_vec(), frame()] {
        let mut stream = relayed(&shop.proxy.http, &header);
        // Every request of the connection is that client's, whatever it says.
        for _ in 0..2 {
            let sent = "X-User-Id: 41\r\nX-Forwarded-For: 192.0.2.1\r\n";
            assert_eq!(get(&mut stream, sent).body, "canary", "by its address");
            let head = shop.canary.heads().pop().expect("a request");
            assert_eq!(fields(&head, "x-forwarded-for"), ["203.0.113.9"]);
            assert!(
                fields(&head, "x-user-id").is_empty(),
                "the relay is trusted, the client is not"
            );
            let line = shop.proxy.access_line();
            assert_eq!(line["client"], "203.0.113.9:4711", "{line}");
        }
    }
    let mut stream = relayed(&shop.proxy.http, b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n");
    assert_eq!(get(&mut stream, "").body, "stable");
    assert_eq!(shop.proxy.access_line()["client"], "[2001:db8::7]:4711");
}

#[test]
fn a_connection_of_the_relay_s_own_is_the_relay_s() {
    let shop = Shop::on(&plain(), "");
    let mut stream = relayed(&shop.proxy.http, &local());
    let own: SocketAddr = stream.local_addr().expect("address");
    assert_eq!(
        get(&mut stream, "X-User-Id: 42\r\n").body,
        "canary",
        "loopback may say who asks"
    );
    assert_eq!(shop.proxy.access_line()["client"], own.to_string());
}

#[test]
fn a_client_without_an_address_is_served_and_not_believed_what_the_relay_would_be() {
    let shop = Shop::on(&plain(), "");
    let unspecified = b"\r\n\r\n\0\r\nQUIT\n\x21\0\0\0";
    for header in [
        &b"PROXY UNKNOWN\r\n"[..],
        b"PROXY UNKNOWN 127.0.0.1 127.0.0.1 1 1\r\n",
        unspecified,
    ] {
        let mut stream = relayed(&shop.proxy.http, header);
        assert_eq!(
            get(&mut stream, "X-User-Id: 42\r\nX-Forwarded-For: 203.0.113.9\r\n").body,
            "stable"
        );
        let head = shop.stable.heads().pop().expect("a request");
        assert!(fields(&head, "x-forwarded-for").is_empty(), "{head}");
        assert_eq!(shop.proxy.access_line()["client"], serde_json::Value::Null);
    }
}

#[test]
fn a_header_may_come_in_pieces_or_with_what_follows() {
    let shop = Shop::on(&plain(), "");
    let request = b"GET / HTTP/1.1\r\nHost: t.example\r\n\r\n";
    for header in [LINE.as_bytes().to_vec(), frame()] {
        let mut stream = relayed(&shop.proxy.http, &[&header[..], request].concat());
        assert_eq!(answer(&mut stream).body, "canary");
        let mut stream = connect(&shop.proxy.http);
        for byte in header.iter().chain(request) {
            stream.write_all(&[*byte]).expect("write");
        }
        assert_eq!(answer(&mut stream).body, "canary");
    }
}

#[test]
fn with_tls_the_header_comes_first() {
    let authority = Authority::new();
    let signed = authority.sign("edge.test");
    let listeners = format!("{}, {}", plain(), with_tls(&signed, "127.0.0.0/8"));
    let shop = Shop::on(&listeners, "");
    let address = shop.proxy.https.as_deref().expect("a listener with TLS");
    for header in [LINE.as_bytes().to_vec(), frame()] {
        let socket = relayed(address, &header);
        let mut stream = authority.over(socket, "edge.test", &["http/1.1"]).expect("handshake");
        assert_eq!(get(&mut stream, "").body, "canary");
        let head = shop.canary.heads().pop().expect("a request");
        assert_eq!(fields(&head, "x-forwarded-for"), ["203.0.113.9"]);
        assert_eq!(fields(&head, "x-forwarded-proto"), ["https"]);
        assert_eq!(shop.proxy.access_line()["client"], "203.0.113.9:4711");
    }
    let mut stream = relayed(&shop.proxy.http, LINE.as_bytes());
    assert_eq!(
        get(&mut stream, "").body,
        "canary",
        "the other listener has its own header"
    );
    // A handshake at once is no header.
    assert!(authority.connect(address, "edge.test", &[]).is_err());
    shop.proxy.wait_told("began with no header of the PROXY protocol", 1);
    let alarms = shop.proxy.alarms();
    assert!(alarms.is_empty(), "{alarms:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn http_2_by_prior_knowledge_comes_after_the_header() {
    use tokio::io::AsyncWriteExt;
    let shop = Shop::on(
        "{ address: \"127.0.0.1:0\", h2c: true, proxy_protocol: [127.0.0.1] }",
        "",
    );
    let mut socket = tokio::net::TcpStream::connect(&shop.proxy.http).await.expect("connect");
    socket.write_all(&frame()).await.expect("write");
    let (client, _driver) = h2c::over(socket).await;
    for _ in 0..3 {
        let (response, _) = h2c::get(&client, "/").await.expect("a response");
        assert_eq!(response.body(), b"canary");
        assert_eq!(shop.proxy.access_line()["client"], "203.0.113.9:4711");
    }
}

#[test]
fn without_a_header_nothing_is_served() {
    let shop = Shop::on(&plain(), "");
    let long = format!("PROXY UNKNOWN {}", "x".repeat(200));
    for sent in [
        &b"GET / HTTP/1.1\r\nHost: t.example\r\n\r\n"[..],
        b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 80\n",
        b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 80 81\r\nGET / HTTP/1.1\r\n",
        b"PROXY TCP4 ::1 ::1 1 1\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        long.as_bytes(),
    ] {
        let mut stream = relayed(&shop.proxy.http, sent);
        assert!(is_closed(&mut stream), "{}", String::from_utf8_lossy(sent));
    }
    // Once is enough, and a second header is no request.
    let mut stream = relayed(&shop.proxy.http, format!("{LINE}{LINE}\r\n").as_bytes());
    assert_eq!(answer(&mut stream).status, 400);
    assert_eq!(shop.requests(), 0);
    let counted = "switchyard_downstream_protocol_errors_total{cause=\"proxy_header\"} 8";
    assert!(shop.proxy.metrics().contains(counted));
    shop.proxy.wait_told("began with no header of the PROXY protocol", 1);
    shop.proxy.signal("INT");
    let lines = shop.proxy.end().1;
    let told = lines.iter().filter(|line| line.contains("PROXY protocol")).count();
    assert_eq!(told, 1, "{lines:?}");
}

#[test]
fn a_header_has_the_time_of_a_head() {
    let authority = Authority::new();
    let signed = authority.sign("edge.test");
    let listeners = format!("{}, {}", plain(), with_tls(&signed, "127.0.0.0/8"));
    let shop = Shop::on(&listeners, "limits: { header_timeout: 200ms }\n");
    for address in [Some(shop.proxy.http.as_str()), shop.proxy.https.as_deref()] {
        for sent in [&b""[..], b"PROXY TCP4 203", b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c"] {
            let mut stream = relayed(address.expect("an address"), sent);
            assert!(is_closed(&mut stream), "{sent:?}");
        }
    }
    assert_eq!(shop.requests(), 0);
}

#[test]
fn a_peer_that_is_not_listed_may_not_connect_at_all() {
    let authority = Authority::new();
    let signed = authority.sign("edge.test");
    let stranger = "{ address: \"127.0.0.1:0\", proxy_protocol: [10.0.0.0/8, \"::1\"] }";
    let shop = Shop::on(&format!("{stranger}, {}", with_tls(&signed, "10.0.0.0/8")), "");
    for header in [LINE.as_bytes().to_vec(), frame(), Vec::new()] {
        let mut stream = relayed(&shop.proxy.http, &header);
        assert!(is_closed(&mut stream));
        let socket = relayed(shop.proxy.https.as_deref().expect("TLS"), &header);
        assert!(authority.over(socket, "edge.test", &[]).is_err());
    }
    assert_eq!(shop.requests(), 0);
    let counted = "switchyard_downstream_protocol_errors_total{cause=\"proxy_stranger\"} 6";
    assert!(shop.proxy.metrics().contains(counted));
    // One line for each of the two listeners.
    shop.proxy
        .wait_told("which the listener's proxy_protocol does not list", 2);
    let alarms = shop.proxy.alarms();
    assert!(alarms.is_empty(), "{alarms:?}");
}

#[test]
fn a_look_whether_somebody_listens_is_no_fault() {
    let shop = Shop::on(&plain(), "");
    drop(connect(&shop.proxy.http));
    let mut stream = relayed(&shop.proxy.http, LINE.as_bytes());
    assert_eq!(get(&mut stream, "").body, "canary");
    assert!(!shop.proxy.metrics().contains("proxy_header"));
}
