//! TLS to the endpoints and from the clients: who is trusted, who is shown, and which HTTP version is agreed on.

use std::io::{Read, Write};
use std::time::Instant;

use crate::authority::{Authority, Signed, TlsOrigin};
use crate::harness::{Origin, PATIENCE, Proxy, answer, one_pool};

fn secured(origin: &str, tls: &str) -> String {
    one_pool(origin, &format!("    tls: {{ enabled: true, {tls} }}"))
}

#[test]
fn an_endpoint_is_believed_only_with_the_right_name_by_the_right_authority() {
    let (authority, other) = (Authority::new(), Authority::new());
    let origin = TlsOrigin::spawn(Authority::server(&authority.sign("origin.test"), &["http/1.1"], None));
    let ours = authority.file.display().to_string();
    let theirs = other.file.display().to_string();
    for (server_name, ca, status) in [
        ("origin.test", Some(&ours), 200),
        ("other.test", Some(&ours), 502),
        ("origin.test", Some(&theirs), 502),
        // The system's authorities know nothing of this one.
        ("origin.test", None, 502),
    ] {
        let ca = ca.map(|file| format!(", ca: {file}")).unwrap_or_default();
        let proxy = Proxy::start(&secured(&origin.address, &format!("server_name: {server_name}{ca}")));
        let answer = proxy.get("/", "X-Request-Id: find-me\r\n");
        assert_eq!(answer.status, status, "{server_name}{ca}");
        let alarms = proxy.alarms();
        if status == 200 {
            assert_eq!((answer.body.as_str(), alarms.len()), ("ok", 0), "{alarms:?}");
        } else {
            assert_eq!(alarms.len(), 1, "{alarms:?}");
            for part in ["invalid peer certificate", "pool=only", "request_id=find-me"] {
                assert!(alarms[0].contains(part), "{part} in {}", alarms[0]);
            }
        }
    }
}

#[test]
fn an_endpoint_that_asks_for_a_client_certificate_gets_the_pool_s() {
    let authority = Authority::new();
    let config = Authority::server(&authority.sign("origin.test"), &["http/1.1"], Some(&authority));
    let origin = TlsOrigin::spawn(config);
    let client = authority.sign("client.test");
    let stranger = Authority::new().sign("client.test");
    let shown = |signed: &Signed| {
        format!(
            ", client_certificate: {}, client_key: {}",
            signed.chain.display(),
            signed.key.display()
        )
    };
    for (more, status) in [(shown(&client), 200), (shown(&stranger), 502), (String::new(), 502)] {
        let tls = format!("server_name: origin.test, ca: {}{more}", authority.file.display());
        let proxy = Proxy::start(&secured(&origin.address, &tls));
        assert_eq!(proxy.get("/", "").status, status, "{more}");
        let expected = usize::from(status != 200);
        let alarms = proxy.alarms();
        assert_eq!(alarms.len(), expected, "{alarms:?}");
    }
}

#[test]
fn the_http_version_is_what_the_pool_allows_and_the_endpoint_can() {
    let authority = Authority::new();
    let signed = authority.sign("origin.test");
    let tls = format!("server_name: origin.test, ca: {}", authority.file.display());
    // This origin agrees to both and then speaks HTTP/1.1 only.
    for (http2, offered, agreed) in [
        ("auto", &["http/1.1"][..], "http/1.1"),
        ("never", &["h2", "http/1.1"][..], "http/1.1"),
        ("auto", &[][..], ""),
    ] {
        let origin = TlsOrigin::spawn(Authority::server(&signed, offered, None));
        let more = format!("    tls: {{ enabled: true, {tls} }}\n    connections: {{ http2: {http2} }}");
        let proxy = Proxy::start(&one_pool(&origin.address, &more));
        assert_eq!(proxy.get("/", "").body, "ok", "{http2} {offered:?}");
        assert_eq!(origin.agreed(), [agreed], "{http2} {offered:?}");
    }
}

#[test]
fn a_tls_handshake_that_takes_too_long_is_504_however_long_a_connect_may_take() {
    // Takes every connection, and never says a word.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = mute.local_addr().expect("address").to_string();
    let more = "    tls: { enabled: true, server_name: origin.test }\n    \
                connections: { connect_timeout: 1h, tls_handshake_timeout: 300ms }\n    retries: { attempts: 1 }";
    let proxy = Proxy::start(&one_pool(&address, more));
    assert_eq!(proxy.get("/", "").status, 504);
    let alarms = proxy.alarms();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
    assert!(
        alarms[0].contains("request failed: TLS handshake timeout; ") && alarms[0].contains(&address),
        "{alarms:?}"
    );
}

#[test]
fn a_listener_with_tls_speaks_both_versions_of_http() {
    let authority = Authority::new();
    let origin = Origin::named("ok");
    let proxy = Proxy::start_on(
        &listener(&authority.sign("edge.test")),
        &one_pool(&origin.address, ""),
        &[],
    );
    let address = proxy.https.as_deref().expect("a listener with TLS");
    let mut plain = authority
        .connect(address, "edge.test", &["http/1.1"])
        .expect("handshake");
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        .expect("write");
    assert_eq!(answer(&mut plain).body, "ok");
    assert_eq!(
        crate::harness::fields(&origin.heads()[0], "x-forwarded-proto"),
        ["https"]
    );
    let mut framed = authority
        .connect(address, "edge.test", &["h2", "http/1.1"])
        .expect("handshake");
    assert_eq!(framed.conn.alpn_protocol(), Some(&b"h2"[..]));
    // The preface and empty SETTINGS; the first frame that comes back is SETTINGS, too.
    framed
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
        .expect("write");
    let mut frame = [0; 9];
    framed.read_exact(&mut frame).expect("a frame");
    assert_eq!(frame[3], 4, "{frame:?}");
}

#[test]
fn a_new_certificate_is_shown_to_new_connections_and_a_broken_one_to_nobody() {
    let (before, after) = (Authority::new(), Authority::new());
    let signed = before.sign("edge.test");
    let origin = Origin::named("ok");
    let proxy = Proxy::start_on(&listener(&signed), &one_pool(&origin.address, ""), &[]);
    let address = proxy.https.clone().expect("a listener with TLS");
    let get = "GET / HTTP/1.1\r\nHost: edge.test\r\n\r\n";
    let mut kept = before
        .connect(&address, "edge.test", &[])
        .expect("the first certificate");
    kept.write_all(get.as_bytes()).expect("write");
    assert_eq!(answer(&mut kept).body, "ok");

    let next = after.sign("edge.test");
    std::fs::copy(&next.key, &signed.key).expect("copied");
    std::fs::copy(&next.chain, &signed.chain).expect("copied");
    let since = Instant::now();
    let mut renewed = loop {
        match after.connect(&address, "edge.test", &[]) {
            Ok(stream) => break stream,
            Err(e) => assert!(since.elapsed() < PATIENCE, "the new certificate is never shown: {e}"),
        }
    };
    renewed.write_all(get.as_bytes()).expect("write");
    assert_eq!(answer(&mut renewed).body, "ok");
    kept.write_all(get.as_bytes()).expect("write");
    assert_eq!(answer(&mut kept).body, "ok", "open connections stay");

    std::fs::write(&signed.chain, "nonsense").expect("written");
    proxy.wait_told("the certificate from before stays in use", 1);
    assert!(after.connect(&address, "edge.test", &[]).is_ok());
    // Good again: read after the broken one was looked at another time, and not told of again.
    let last = after.sign("edge.test");
    std::fs::copy(&last.key, &signed.key).expect("copied");
    std::fs::copy(&last.chain, &signed.chain).expect("copied");
    proxy.wait_told(&format!("{} read again", signed.chain.display()), 2);
    let broken = |line: &&String| line.contains(&format!("{}: ", signed.chain.display()));
    let alarms = proxy.alarms();
    assert_eq!(alarms.iter().filter(broken).count(), 1, "{alarms:?}");
}

fn listener(signed: &Signed) -> String {
    format!(
        "{{ address: \"127.0.0.1:0\", tls: {{ certificate: {}, key: {} }} }}",
        signed.chain.display(),
        signed.key.display()
    )
}
