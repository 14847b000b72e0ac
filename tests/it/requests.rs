//! Who goes where, what the upstream sees, and what a browser sees.

use crate::harness::{Origin, Proxy, fields};

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
    for (fields, status) in [
        ("X-User-Id: 1\r\nX-User-Id: 2\r\n", 400),
        ("X-User-Id: 1\r\nConnection: X-User-Id\r\n", 400),
        (
            "X-User-Id: 1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n",
            400,
        ),
        ("", 401),
    ] {
        let answer = proxy.get("/", fields);
        assert_eq!(answer.status, status, "{fields:?}");
        assert!(answer.body.contains("request id: "), "{}", answer.body);
    }
    assert!(stable.heads().is_empty() && canary.heads().is_empty());
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[test]
fn cross_origin_requests_are_answered_once() {
    let origin = Origin::spawn(|_, stream| {
        use std::io::Write;
        let text = "HTTP/1.1 200 OK\r\nAccess-Control-Allow-Origin: *\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(text.as_bytes()).is_ok()
    });
    let proxy = Proxy::start(&format!(
        "pools: {{ p: {{ endpoints: [\"{}\"] }} }}\nroutes:\n  \
         - {{ pool: p, match: {{ path: /own }}, cors: {{ mode: own, allow_origins: [\"https://shop.example\"] }} }}\n  \
         - {{ pool: p, match: {{ path: /through }}, cors: {{ mode: passthrough }} }}\n  - {{ pool: p }}\n",
        origin.address
    ));
    let from = "Origin: https://shop.example\r\n";
    let own = proxy.get("/own", from);
    assert_eq!(own.all("access-control-allow-origin"), ["https://shop.example"]);
    assert_eq!(own.all("vary"), ["Origin"]);
    assert!(
        proxy
            .get("/own", "Origin: https://evil.example\r\n")
            .all("access-control-allow-origin")
            .is_empty()
    );
    let through = proxy.get("/through", from);
    assert_eq!(through.all("access-control-allow-origin"), ["*"]);
    let seen: Vec<usize> = origin.heads().iter().map(|head| fields(head, "origin").len()).collect();
    assert_eq!(seen, [0, 0, 1]);
    let preflight = crate::harness::exchange(
        &proxy.http,
        "OPTIONS /own HTTP/1.1\r\nHost: a\r\nOrigin: https://shop.example\r\nAccess-Control-Request-Method: PUT\r\n\r\n",
    );
    assert_eq!(
        (preflight.status, preflight.all("access-control-allow-methods")),
        (204, vec!["PUT"])
    );
    assert_eq!(origin.heads().len(), 3, "a preflight reaches no origin");
}
