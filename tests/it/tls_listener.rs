//! TLS of listeners: certificates by name, versions, sessions that are resumed, certificates of clients, deadlines.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, ProtocolVersion, StreamOwned, SupportedProtocolVersion, version,
};

use crate::authority::{Authority, Signed};
use crate::files::{free, until};
use crate::harness::{Origin, PATIENCE, Proxy, answer, fields, one_pool};
use crate::succession::{Succession, Wanted};

/// It says that somebody else asks than whoever a certificate names.
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: edge.test\r\nX-User-Id: mallory\r\nConnection: close\r\n\r\n";

fn listener(signed: &Signed, more: &str) -> String {
    format!("{{ address: \"127.0.0.1:0\", tls: {{ {}{more} }} }}", pair(signed))
}

fn pair(signed: &Signed) -> String {
    format!("certificate: {}, key: {}", signed.chain.display(), signed.key.display())
}

/// A client that trusts an authority, and shows a certificate if it has one.
fn client(trusts: &Authority, shows: Option<&Signed>, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(trusts.roots());
    match shows {
        Some(signed) => {
            let chain = CertificateDer::pem_file_iter(&signed.chain).expect("a file");
            let chain = chain.collect::<Result<Vec<_>, _>>().expect("certificates");
            let key = PrivateKeyDer::from_pem_file(&signed.key).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
        None => builder.with_no_client_auth(),
    }
}

type Secured = StreamOwned<ClientConnection, TcpStream>;

/// Shakes hands, and asks for something, which is where a refused certificate shows in TLS 1.3.
fn ask(config: &Arc<ClientConfig>, address: &str, name: &str) -> std::io::Result<(String, Secured)> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let connection = ClientConnection::new(Arc::clone(config), name).map_err(std::io::Error::other)?;
    let socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut stream = StreamOwned::new(connection, socket);
    stream.write_all(REQUEST)?;
    let (mut text, mut bytes) = (String::new(), [0; 1024]);
    while !text.ends_with("\r\n\r\nok") {
        match stream.read(&mut bytes)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            length => text.push_str(&String::from_utf8_lossy(&bytes[..length])),
        }
    }
    Ok((text, stream))
}

const BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

#[test]
fn each_name_gets_its_certificate_and_others_the_first() {
    let authority = Authority::new();
    let origin = Origin::named("ok");
    let (first, shop, wild) = (
        authority.sign("edge.test"),
        authority.sign("shop.test"),
        authority.sign("*.wild.test"),
    );
    let more = format!(", certificates: [{{ {} }}, {{ {} }}]", pair(&shop), pair(&wild));
    let proxy = Proxy::start_on(&listener(&first, &more), &one_pool(&origin.address, ""), &[]);
    let address = proxy.https.clone().expect("a listener with TLS");
    for (asked, shown) in [
        ("edge.test", &first),
        ("shop.test", &shop),
        ("SHOP.test", &shop),
        ("a.wild.test", &wild),
    ] {
        let config = Arc::new(client(&authority, None, &BOTH));
        let (text, stream) = ask(&config, &address, asked).expect(asked);
        assert!(text.starts_with("HTTP/1.1 200 "), "{asked}: {text}");
        let expected = CertificateDer::from_pem_file(&shown.chain).expect("a certificate");
        assert_eq!(stream.conn.peer_certificates().expect("shown")[0], expected, "{asked}");
    }
    // One label only, and nobody's name: the first is shown, and a client that looks does not want it.
    for asked in ["a.b.wild.test", "other.test"] {
        let config = Arc::new(client(&authority, None, &BOTH));
        let refused = ask(&config, &address, asked).map(|_| ()).expect_err(asked);
        assert!(refused.to_string().contains("not valid for name"), "{refused}");
    }
    // One of them changes.
    let next = Authority::new();
    let renewed = next.sign("shop.test");
    std::fs::copy(&renewed.key, &shop.key).expect("copied");
    std::fs::copy(&renewed.chain, &shop.chain).expect("copied");
    until("the new one is shown", || {
        ask(&Arc::new(client(&next, None, &BOTH)), &address, "shop.test").is_ok()
    });
    ask(&Arc::new(client(&authority, None, &BOTH)), &address, "edge.test").expect("the others stay");
}

#[test]
fn both_versions_are_spoken_and_their_sessions_resumed() {
    let authority = Authority::new();
    let origin = Origin::named("ok");
    let signed = authority.sign("edge.test");
    let proxy = Proxy::start_on(&listener(&signed, ""), &one_pool(&origin.address, ""), &[]);
    let address = proxy.https.clone().expect("a listener with TLS");
    for (spoken, number, tickets) in [
        (&version::TLS13, ProtocolVersion::TLSv1_3, true),
        (&version::TLS12, ProtocolVersion::TLSv1_2, true),
        // By session id.
        (&version::TLS12, ProtocolVersion::TLSv1_2, false),
    ] {
        let mut config = client(&authority, None, &[spoken]);
        if !tickets {
            config.resumption =
                Resumption::in_memory_sessions(8).tls12_resumption(rustls::client::Tls12Resumption::SessionIdOnly);
        }
        let config = Arc::new(config);
        for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
            let (text, stream) = ask(&config, &address, "edge.test").expect("an answer");
            assert!(text.ends_with("ok"), "{text}");
            assert_eq!(stream.conn.protocol_version(), Some(number));
            assert_eq!(stream.conn.handshake_kind(), Some(kind), "{number:?} {tickets}");
        }
    }
    // A session is good for as long as the files are.
    let config = Arc::new(client(&authority, None, &BOTH));
    ask(&config, &address, "edge.test").expect("an answer");
    let renewed = authority.sign("edge.test");
    std::fs::copy(&renewed.key, &signed.key).expect("copied");
    std::fs::copy(&renewed.chain, &signed.chain).expect("copied");
    proxy.wait_told(&format!("{} read again", signed.chain.display()), 1);
    let (_, stream) = ask(&config, &address, "edge.test").expect("an answer");
    assert_eq!(stream.conn.handshake_kind(), Some(HandshakeKind::Full));
}

#[test]
fn clients_show_certificates_where_they_must_and_are_known_by_them() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let origin = Origin::named("ok");
    let signed = authority.sign("edge.test");
    let (known, stranger) = (clients.sign("zoe.test"), Authority::new().sign("zoe.test"));
    let rollouts = "identity: { sources: [{ client_certificate: dns }] }\nroutes: [{ rollout: r }]\n\
                    pools: { only: { endpoints: [\"ORIGIN\"] } }\n\
                    rollouts: { r: { releases: { stable: { pool: only }, canary: { pool: only } }, users: { zoe.test: canary } } }\n\
                    access_log: { user_id: plain }\n";
    for mode in ["required", "optional"] {
        let more = format!(", client_auth: {{ ca: {}, mode: {mode} }}", clients.file.display());
        let yaml = rollouts.replace("ORIGIN", &origin.address);
        let proxy = Proxy::start_on(&listener(&signed, &more), &yaml, &[]);
        let address = proxy.https.clone().expect("a listener with TLS");
        for (shown, served) in [
            (Some(&known), true),
            (None, mode == "optional"),
            (Some(&stranger), false),
        ] {
            let config = Arc::new(client(&authority, shown, &BOTH));
            // The second time, the session is resumed, and the client is who it was.
            for kind in [HandshakeKind::Full, HandshakeKind::Resumed] {
                let asked = ask(&config, &address, "edge.test");
                if !served {
                    assert!(asked.is_err(), "{mode}");
                    continue;
                }
                let (text, stream) = asked.expect("an answer");
                assert!(text.ends_with("ok"), "{text}");
                assert_eq!(stream.conn.handshake_kind(), Some(kind));
                let line = proxy.access_line();
                let expected = if shown.is_some() { "canary" } else { "stable" };
                assert_eq!(line["release"], expected, "{line}");
                let (source, user) = (line["source"].as_str(), line["user"].as_str());
                let known = shown.map(|_| "zoe.test");
                assert_eq!((source, user), (known.map(|_| "client_certificate"), known), "{line}");
                // The upstream sees no certificate, and believes nobody's word for it.
                let told = origin.heads().pop().expect("a request");
                assert_eq!(
                    fields(&told, "x-user-id"),
                    known.into_iter().collect::<Vec<_>>(),
                    "{told}"
                );
            }
        }
        assert_eq!(proxy.alarms(), Vec::<String>::new());
    }
}

#[test]
fn http2_clients_are_known_by_their_certificates_too() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let origin = Origin::named("ok");
    let more = format!(", client_auth: {{ ca: {} }}", clients.file.display());
    let yaml = format!(
        "identity: {{ sources: [{{ client_certificate: common_name }}, {{ client_certificate: dns }}] }}\n\
         access_log: {{ user_id: plain }}\n{}",
        one_pool(&origin.address, "")
    );
    let proxy = Proxy::start_on(&listener(&authority.sign("edge.test"), &more), &yaml, &[]);
    let address = proxy.https.clone().expect("a listener with TLS");
    let mut config = client(&authority, Some(&clients.sign("zoe.test")), &BOTH);
    config.alpn_protocols = vec![b"h2".to_vec()];
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let socket = tokio::net::TcpStream::connect(&address).await.expect("connect");
        let name = ServerName::try_from("edge.test").expect("a name");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, socket).await.expect("handshake");
        let (mut client, connection) = h2::client::handshake(stream).await.expect("handshake");
        tokio::spawn(connection);
        let request = http::Request::get("https://edge.test/").body(()).expect("a request");
        let (answer, _) = client.send_request(request, true).expect("sent");
        assert_eq!(answer.await.expect("an answer").status(), 200);
    });
    let line = proxy.access_line();
    assert_eq!(line["source"], "client_certificate", "{line}");
}

#[test]
fn a_handshake_has_a_deadline_and_is_counted_as_what_it_is() {
    let authority = Authority::new();
    let origin = Origin::named("ok");
    let text = listener(&authority.sign("edge.test"), ", handshake_timeout: 100ms");
    let proxy = Proxy::start_on(&text, &one_pool(&origin.address, ""), &[]);
    let address = proxy.https.clone().expect("a listener with TLS");
    let errors = "switchyard_downstream_protocol_errors_total";
    let mut mute = TcpStream::connect(&address).expect("connect");
    mute.set_read_timeout(Some(PATIENCE)).expect("timeout");
    assert_eq!(mute.read(&mut [0]).expect("its end"), 0);
    proxy.wait_metric(errors, &["cause=\"tls_handshake_timeout\""], 1.0);
    let mut clear = TcpStream::connect(&address).expect("connect");
    clear.write_all(REQUEST).expect("write");
    proxy.wait_metric(errors, &["cause=\"tls_handshake\""], 1.0);
    // A client that is in time is not held to it later.
    let mut stream = authority.connect(&address, "edge.test", &[]).expect("handshake");
    proxy.wait_metric(errors, &["cause=\"tls_handshake_timeout\""], 1.0);
    stream.write_all(REQUEST).expect("write");
    assert_eq!(answer(&mut stream).body, "ok");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[test]
fn clients_with_a_session_of_the_process_before_an_upgrade_are_served() {
    let authority = Authority::new();
    let origin = Origin::named("ok");
    let [https] = free();
    let listeners = format!(
        ", {{ address: \"{https}\", tls: {{ {} }} }}",
        pair(&authority.sign("edge.test"))
    );
    let wanted = Wanted {
        listeners: &listeners,
        server: "drain: 5s",
        pools_and_routes: &one_pool(&origin.address, ""),
    };
    let mut site = Succession::new("tls-upgrade", &wanted);
    site.start();
    let clients = BOTH.map(|spoken| Arc::new(client(&authority, None, &[spoken])));
    let all_are_served = || {
        for config in &clients {
            ask(config, &https.to_string(), "edge.test").expect("an answer");
        }
    };
    all_are_served();
    site.upgraded();
    all_are_served();
    assert!(!site.errors().contains(" ERROR "), "{}", site.errors());
}

#[test]
fn a_client_may_not_shake_hands_again_on_its_connection() {
    let authority = Authority::new();
    let origin = Origin::named("ok");
    let limits = "limits: { keepalive_timeout: 1s }";
    let text = listener(&authority.sign("edge.test"), "");
    let proxy = Proxy::start_on(&text, &one_pool(&origin.address, limits), &[]);
    let address = proxy.https.clone().expect("a listener with TLS");
    let mut client = Command::new("openssl")
        .args([
            "s_client",
            "-tls1_2",
            "-msg",
            "-servername",
            "edge.test",
            "-connect",
            &address,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl runs");
    // Its word for that; an end of what it reads would be the connection's.
    let mut words = client.stdin.take().expect("an input");
    words.write_all(b"R\n").expect("write");
    let mut told = String::new();
    let mut out = client.stdout.take().expect("an output");
    out.read_to_string(&mut told).expect("text");
    client.wait().expect("its end");
    let (first, again) = told.rsplit_once(", ClientHello").expect("it tries");
    assert!(
        first.contains("<<< TLS 1.2, Handshake [length 0010], Finished"),
        "{told}"
    );
    assert!(
        again.contains("<<< TLS 1.2, Alert [length 0002], warning no_renegotiation"),
        "{told}"
    );
    assert!(!again.contains("ServerHello"), "{told}");
    assert_eq!(origin.heads(), Vec::<String>::new());
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[test]
fn connections_are_bounded_before_they_shake_hands() {
    let authority = Authority::new();
    let origin = Origin::named("ok");
    let more = one_pool(&origin.address, "limits: { connections_max: 2 }");
    let proxy = Proxy::start_on(&listener(&authority.sign("edge.test"), ""), &more, &[]);
    let address = proxy.https.clone().expect("a listener with TLS");
    let config = Arc::new(client(&authority, None, &BOTH));
    // They say nothing; whoever looked whether the program listens may have a place for a moment more.
    let silent = RefCell::new(Vec::new());
    until("there is no place for one more", || {
        let another = TcpStream::connect(&address).expect("connect");
        silent.borrow_mut().push(another);
        ask(&config, &address, "edge.test").is_err()
    });
    assert!(proxy.metric("switchyard_refused_total", &["cause=\"connections\""]) >= 1.0);
    drop(silent);
    until("there is again", || ask(&config, &address, "edge.test").is_ok());
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}
