//! Who goes where, and what the upstream sees.

use std::io::{Read, Write};

use crate::harness::{Origin, Proxy, answer, connect, exchange, fields, h2c, one_pool, read_head, respond};

fn gray(stable: &Origin, canary: &Origin, identity: &str) -> String {
    format!(
        "{identity}\n\
         pools: {{ stable: {{ endpoints: [\"{}\"] }}, canary: {{ endpoints: [\"{}\"] }} }}\n\
         routes: [{{ rollout: checkout, id: front }}]\n\
         rollouts:\n  checkout:\n    releases: {{ stable: {{ pool: stable }}, canary: {{ pool: canary }} }}\n    \
         targets: [{{ users: [\"42\"], release: canary }}]\n    split: {{ canary: 50% }}\n",
        stable.address, canary.address
    )
}

#[test]
fn every_request_of_one_user_goes_to_one_release() {
    let (stable, canary) = (Origin::named("stable"), Origin::named("canary"));
    let proxy = Proxy::start(&gray(&stable, &canary, ""));
    let release = |user: u32| proxy.get("/", &format!("X-User-Id: {user}\r\n")).body;
    assert_eq!(release(42), "canary");
    let first: Vec<String> = (0..60).map(release).collect();
    let again: Vec<String> = (0..60).map(release).collect();
    assert_eq!(first, again);
    for name in ["stable", "canary"] {
        assert!(first.iter().filter(|r| *r == name).count() > 10, "{name}");
    }
    assert_eq!(proxy.get("/", "").body, "stable");
    let line = proxy.access_line();
    assert_eq!(
        (line["rollout"].as_str(), line["release"].as_str()),
        (Some("checkout"), Some("canary"))
    );
    assert_eq!(
        (line["reason"].as_str(), line["status"].as_u64()),
        (Some("target"), Some(200))
    );
    assert_ne!(line["user"].as_str(), Some("42"));
    proxy.settle(121);
    assert!(proxy.metrics().contains(
        "switchyard_decisions_total{reason=\"anonymous\",release=\"stable\",rollout=\"checkout\",source=\"none\"} 1"
    ));
}

#[test]
fn the_upstream_sees_the_decision_and_where_the_request_came_from() {
    let (stable, canary) = (Origin::named("stable"), Origin::named("canary"));
    let proxy = Proxy::start(&gray(&stable, &canary, ""));
    proxy.get(
        "/a?b=c",
        "X-User-Id:  \"42\" \r\nOrigin: https://x.example\r\nX-Rollout: forged\r\nX-Request-Id: mine\r\n",
    );
    let head = canary.heads().pop().expect("a request");
    assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
    for (name, expected) in [
        ("host", "t.example"),
        ("x-user-id", "42"),
        ("x-forwarded-host", "t.example"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-request-id", "mine"),
        ("x-rollout", "checkout=canary; rev=1; reason=target"),
    ] {
        assert_eq!(fields(&head, name), [expected], "{name} in {head}");
    }
    assert!(fields(&head, "origin").is_empty());
    assert_eq!(fields(&head, "traceparent").len(), 1);
}

#[test]
fn identity_of_untrusted_peers_is_removed_before_anything_reads_it() {
    let (stable, canary) = (Origin::named("stable"), Origin::named("canary"));
    let proxy = Proxy::start(&gray(&stable, &canary, "identity: { trusted_peers: [\"10.0.0.0/8\"] }"));
    let answer = proxy.get(
        "/",
        "X-User-Id: 42\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil\r\n",
    );
    assert_eq!(answer.body, "stable");
    let head = stable.heads().pop().expect("a request");
    assert!(fields(&head, "x-user-id").is_empty(), "{head}");
    assert_eq!(fields(&head, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(fields(&head, "x-forwarded-host"), ["t.example"]);
    assert!(proxy.metrics().contains("switchyard_identity_removed_total 1"));
}

#[test]
fn doubtful_requests_are_refused_and_reach_no_origin() {
    let (stable, canary) = (Origin::named("stable"), Origin::named("canary"));
    let proxy = Proxy::start(&gray(&stable, &canary, "identity: { anonymous: reject }"));
    let long = format!("X-User-Id: {}\r\n", "x".repeat(1025));
    for (fields, first) in [
        (
            "X-User-Id: 1\r\nX-User-Id: 2\r\n",
            "400 Bad Request: header x-user-id holds more than one user id",
        ),
        (
            long.as_str(),
            "400 Bad Request: the user id in header x-user-id is longer than 1024 bytes",
        ),
        (
            "X-User-Id: 1\r\nConnection: X-User-Id\r\n",
            "400 Bad Request: connection",
        ),
        (
            "X-User-Id: 1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            "400 Bad Request: length and encoding",
        ),
        ("", "401 Unauthorized: no user id"),
    ] {
        let answer = proxy.get("/", fields);
        assert!(first.starts_with(&format!("{} ", answer.status)), "{fields:?}");
        let told = answer.body.split_once('\n').expect("two lines");
        assert_eq!(told.0, first, "{fields:?}");
        assert!(told.1.starts_with("request id: "), "{}", answer.body);
    }
    assert!(stable.heads().is_empty() && canary.heads().is_empty());
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[test]
fn an_empty_line_before_a_request_changes_nothing() {
    let origin = Origin::named("ok");
    let proxy = Proxy::start(&one_pool(&origin.address, ""));
    for (target, status) in [("/a_b?c_d", 200), ("/a#b", 400)] {
        for before in ["", "\r\n", "\r\n\r\n"] {
            let mut client = connect(&proxy.http);
            let one = "POST /first HTTP/1.1\r\nHost: t.example\r\nContent-Length: 0\r\n\r\n";
            write!(client, "{one}{before}GET {target} HTTP/1.1\r\nHost: t.example\r\n\r\n").expect("write");
            assert_eq!(answer(&mut client).status, 200);
            assert_eq!(answer(&mut client).status, status, "{before:?} {target}");
        }
    }
    let heads = origin.heads();
    let told = heads.iter().filter(|head| head.starts_with("GET "));
    assert!(
        told.clone().all(|head| head.starts_with("GET /a_b?c_d HTTP/1.1\r\n")),
        "{heads:?}"
    );
    assert_eq!(told.count(), 3);
}

#[test]
fn what_is_no_request_has_its_line_and_is_counted_like_any_other() {
    let origin = Origin::named("ok");
    let proxy = Proxy::start(&one_pool(&origin.address, ""));
    let host = "Host: a.example\r\n";
    let many = |fields: usize| format!("GET /many HTTP/1.1\r\n{host}{}\r\n", "X: y\r\n".repeat(fields));
    for (request, status, cause, said) in [
        (
            format!("CONNECT a.example:443 HTTP/1.1\r\n{host}\r\n"),
            405,
            "connect",
            ["CONNECT", "a.example:443"],
        ),
        (
            format!("GET /a HTTP/1.1\r\n{host}{host}\r\n"),
            400,
            "malformed",
            ["GET", "/a"],
        ),
        (
            format!("GET /b HTTP/1.1\r\n{host}X Y: z\r\n\r\n"),
            400,
            "malformed",
            ["GET", "/b"],
        ),
        (
            format!("GET /c HTTP/1.2\r\n{host}\r\n"),
            400,
            "malformed",
            ["GET", "/c"],
        ),
        (
            format!("POST /d?<e> HTTP/1.1\r\n{host}\r\nbody"),
            400,
            "malformed",
            ["POST", "/d?<e>"],
        ),
        (
            format!("GET http://b.example/f HTTP/1.1\r\n{host}\r\n"),
            400,
            "malformed",
            ["GET", "http://b.example/f"],
        ),
        (many(200), 431, "too_many_headers", ["GET", "/many"]),
        (many(300), 431, "too_many_headers", ["GET", "/many"]),
    ] {
        for before in ["", "GET /first HTTP/1.1\r\nHost: t.example\r\n\r\n"] {
            let refused = || proxy.metric("switchyard_refused_total", &[&format!("cause=\"{cause}\"")]);
            let counted = refused();
            let mut client = connect(&proxy.http);
            write!(client, "{before}{request}").expect("write");
            if !before.is_empty() {
                assert_eq!(answer(&mut client).status, 200);
                assert_eq!(proxy.access_line()["path"], "/first");
            }
            assert_eq!(answer(&mut client).status, status, "{request}");
            let line = proxy.access_line();
            assert_eq!(line["status"], status, "{request}: {line}");
            assert_eq!([&line["method"], &line["path"]], said, "{request}: {line}");
            assert_eq!(line["host"], "a.example", "{request}: {line}");
            let peer = client.local_addr().expect("an address").to_string();
            assert_eq!(line["client"], peer, "{request}: {line}");
            assert_eq!(refused(), counted + 1.0, "{request}");
        }
    }
    assert_eq!(proxy.get("/last", "").status, 200);
    assert_eq!(proxy.access_line()["path"], "/last", "one line each");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[test]
fn an_origin_is_sent_the_path_of_a_target_that_names_a_host() {
    let origin = Origin::named("ok");
    let proxy = Proxy::start(&one_pool(&origin.address, ""));
    for (method, target, sent) in [
        ("GET", "http://t.example/a?b", "/a?b"),
        ("POST", "http://t.example?b", "/?b"),
        ("GET", "http://t.example", "/"),
        ("OPTIONS", "http://t.example", "*"),
        ("OPTIONS", "*", "*"),
    ] {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: t.example\r\nConnection: close\r\n\r\n");
        assert_eq!(exchange(&proxy.http, &head).status, 200, "{method} {target}");
        let heads = origin.heads();
        let told = heads.last().expect("a head");
        assert!(
            told.starts_with(&format!("{method} {sent} HTTP/1.1\r\n")),
            "{method} {target}: {told}"
        );
        assert_eq!(fields(told, "host"), ["t.example"], "{method} {target}");
        assert_eq!(proxy.access_line()["path"], target);
    }
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

/// Over HTTP/2 the host is not a field; the upstream is told all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_upstream_is_told_the_same_of_a_client_of_http2() {
    let (stable, canary) = (Origin::named("stable"), Origin::named("canary"));
    let proxy = Proxy::start_on(
        "{ address: \"127.0.0.1:0\", h2c: true }",
        &gray(&stable, &canary, ""),
        &[],
    );
    let (client, _driver) = h2c::connect(&proxy.http).await;
    let mut request = h2c::request("GET", "/a?b=c");
    for (name, value) in [
        ("x-user-id", " \"42\""),
        ("x-rollout", "forged"),
        ("x-forwarded-for", "192.0.2.7"),
        ("origin", "https://x.example"),
    ] {
        request.headers_mut().insert(name, value.parse().expect("value"));
    }
    let (response, _) = h2c::send(&client, request, true).await;
    let (response, _) = h2c::collect(response.await.expect("a head")).await.expect("whole");
    assert_eq!(response.body(), b"canary");
    let head = canary.heads().pop().expect("a request");
    assert!(head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{head}");
    for (name, expected) in [
        ("host", "t.example"),
        ("x-user-id", "42"),
        ("x-forwarded-host", "t.example"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-for", "192.0.2.7, 127.0.0.1"),
        ("x-rollout", "checkout=canary; rev=1; reason=target"),
    ] {
        assert_eq!(fields(&head, name), [expected], "{name} in {head}");
    }
    assert!(fields(&head, "origin").is_empty());
    assert_eq!(fields(&head, "traceparent").len(), 1);
    assert_eq!(fields(&head, "x-request-id").len(), 1);
}

/// The id that was decided by is the id that arrives, whatever it came in and whatever else came with it.
#[test]
fn the_upstream_sees_the_id_that_was_decided_by() {
    let (stable, canary) = (Origin::named("stable"), Origin::named("canary"));
    let identity = "identity: { sources: [{ header: X-User-Id }, { cookie: uid }, { query: uid }] }";
    let proxy = Proxy::start(&gray(&stable, &canary, identity));
    for (path, fields_sent) in [
        ("/", "X-User-Id: 42\r\nCookie: uid=7\r\n"),
        ("/?uid=7", "Cookie: uid=42\r\n"),
        ("/?uid=42", ""),
        ("/?uid=42", "Connection: keep-alive, close\r\n"),
    ] {
        let answer = proxy.get(path, fields_sent);
        assert_eq!(answer.body, "canary", "{path} {fields_sent:?}");
        let head = canary.heads().pop().expect("a request");
        assert_eq!(fields(&head, "x-user-id"), ["42"], "{path} {fields_sent:?}");
    }
    for named in ["X-User-Id", "close, x-user-id", "X-Forwarded-For", "cookie"] {
        let answer = proxy.get("/", &format!("X-User-Id: 42\r\nConnection: {named}\r\n"));
        assert_eq!(answer.status, 400, "{named}");
    }
    assert_eq!(canary.heads().len(), 4);
}

/// What belongs to the answer is not lost on an interim one.
#[test]
fn a_visitors_cookie_comes_with_the_final_response() {
    let origin = Origin::spawn(|head, stream| {
        if !fields(head, "expect").is_empty() {
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").expect("write");
            stream.read_exact(&mut [0; 4]).expect("the body");
        }
        respond(stream, "ok")
    });
    let key = std::env::temp_dir().join(format!("switchyard-it-{}-anon.key", std::process::id()));
    std::fs::write(&key, "0123456789abcdef0123456789abcdef").expect("key");
    let identity = format!(
        "identity: {{ anonymous: {{ cookie: sy_anon, secret_file: {} }} }}\n",
        key.display()
    );
    let proxy = Proxy::start(&(identity + &one_pool(&origin.address, "")));
    let mut stream = connect(&proxy.http);
    let request = "POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("write");
    let interim = read_head(&mut stream).expect("a head");
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    assert!(fields(&interim, "set-cookie").is_empty(), "{interim}");
    stream.write_all(b"body").expect("write");
    let answer = answer(&mut stream);
    assert_eq!((answer.status, answer.all("set-cookie").len()), (200, 1));
    assert!(answer.all("set-cookie")[0].starts_with("sy_anon="), "{}", answer.head);
}
