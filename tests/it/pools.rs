//! Endpoints: health checks, ejection, names, tunnels, balances.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Instant;

use crate::harness::{Origin, PATIENCE, Proxy, full_listener, nowhere, one_pool, respond};

/// Asks the admin side until its text holds `wanted`: health is told there when it is known.
fn until(proxy: &Proxy, wanted: &str) {
    let since = Instant::now();
    while !proxy.metrics().contains(wanted) {
        assert!(since.elapsed() < PATIENCE, "{wanted} never came:\n{}", proxy.metrics());
    }
}

fn healthy(address: &str, is: u8) -> String {
    format!("switchyard_endpoint_healthy{{endpoint=\"{address}\",pool=\"only\"}} {is}")
}

#[test]
fn an_endpoint_that_fails_its_checks_gets_no_requests_until_it_passes_again() {
    let sick = Arc::new(AtomicBool::new(false));
    let state = Arc::clone(&sick);
    let origin = Origin::spawn(move |head, stream| {
        let probed = head.starts_with("GET /healthz ");
        if probed && state.load(Ordering::SeqCst) {
            return stream
                .write_all(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
                .is_ok();
        }
        respond(stream, "ok")
    });
    let check =
        "    health_check: { path: /healthz, interval: 20ms, timeout: 1s, healthy_after: 2, unhealthy_after: 2 }";
    let proxy = Proxy::start(&one_pool(&origin.address, check));
    until(&proxy, &healthy(&origin.address, 1));
    assert_eq!(proxy.get("/", "").status, 200);
    sick.store(true, Ordering::SeqCst);
    until(&proxy, &healthy(&origin.address, 0));
    assert_eq!(proxy.get("/", "").status, 503);
    sick.store(false, Ordering::SeqCst);
    until(&proxy, &healthy(&origin.address, 1));
    assert_eq!(proxy.get("/", "").status, 200);
}

#[test]
fn a_tcp_check_notices_that_nobody_listens() {
    let dead = nowhere();
    let proxy = Proxy::start(&one_pool(
        &dead,
        "    health_check: { interval: 20ms, unhealthy_after: 1 }",
    ));
    until(&proxy, &healthy(&dead, 0));
    assert_eq!(proxy.get("/", "").status, 503);
}

#[test]
fn the_rule_for_an_unhealthy_release_is_kept() {
    let stable = Origin::named("stable");
    for (rule, status) in [("stable", 200), ("fail", 503)] {
        let dead = nowhere();
        let proxy = Proxy::start(&format!(
            "pools:\n  s: {{ endpoints: [\"{}\"] }}\n  only: {{ endpoints: [\"{dead}\"], health_check: {{ interval: 20ms, unhealthy_after: 1 }} }}\n\
             routes: [{{ rollout: r }}]\n\
             rollouts: {{ r: {{ releases: {{ stable: {{ pool: s }}, canary: {{ pool: only }} }}, targets: [{{ users: [\"42\"], release: canary }}], unhealthy: {rule} }} }}\n",
            stable.address
        ));
        until(&proxy, &healthy(&dead, 0));
        assert_eq!(proxy.get("/", "X-User-Id: 42\r\n").status, status, "{rule}");
        let reason = proxy.access_line()["reason"].as_str().expect("a reason").to_owned();
        assert_eq!(reason, if rule == "stable" { "fallback" } else { "target" });
    }
}

#[test]
fn an_endpoint_that_refuses_connections_is_ejected_and_only_a_share_of_a_pool_is() {
    let origin = Origin::named("ok");
    let dead = nowhere();
    let more = "    ejection: { consecutive_failures: 2, duration: 1h, max_ejected_percent: 50 }";
    let proxy = Proxy::start(&one_pool(&format!("{dead}\", \"{}", origin.address), more));
    for _ in 0..20 {
        assert_eq!(proxy.get("/", "").body, "ok");
    }
    let metrics = proxy.metrics();
    assert!(
        metrics.contains(&format!(
            "switchyard_ejections_total{{endpoint=\"{dead}\",pool=\"only\"}} 1"
        )),
        "{metrics}"
    );
    assert!(
        metrics.contains("switchyard_retries_total{cause=\"connect\",pool=\"only\"} 2"),
        "{metrics}"
    );
    let alone = Proxy::start(&one_pool(&dead, more));
    for _ in 0..5 {
        assert_eq!(alone.get("/", "").status, 502, "the only endpoint stays in");
    }
}

#[test]
fn names_are_resolved_and_one_that_does_not_resolve_harms_nobody() {
    let origin = Origin::named("ok");
    let port = origin.address.rsplit(':').next().expect("port");
    let proxy = Proxy::start(&one_pool(&format!("localhost:{port}"), ""));
    assert_eq!(proxy.get("/", "").body, "ok");
    let unknown = Proxy::start(&one_pool("does-not-exist.invalid:80", ""));
    assert_eq!(unknown.get("/", "").status, 503);
    // It is asked for again and again, and that it does not resolve is told once.
    let since = Instant::now();
    while unknown.metric("switchyard_resolve_failures_total", &["pool=\"only\""]) < 3.0 {
        assert!(since.elapsed() < PATIENCE, "the name is not asked for again");
    }
    unknown.signal("INT");
    let (_, lines) = unknown.end();
    let told = lines
        .iter()
        .filter(|line| line.contains("does-not-exist.invalid does not resolve"));
    assert_eq!(told.count(), 1, "{lines:?}");
}

#[test]
fn an_ejected_endpoint_is_tried_again_after_its_time() {
    let origin = Origin::named("good");
    let dead = nowhere();
    let more = "    ejection: { consecutive_failures: 1, duration: 200ms }";
    let proxy = Proxy::start(&one_pool(&format!("{dead}\", \"{}", origin.address), more));
    let ejections = || proxy.metric("switchyard_ejections_total", &[&format!("endpoint=\"{dead}\"")]);
    let since = Instant::now();
    // Tried, found dead and left out more than once: so it comes back each time.
    while ejections() < 2.0 {
        assert_eq!(proxy.get("/", "").body, "good");
        assert!(since.elapsed() < PATIENCE, "it never comes back");
    }
    let _back = Origin::spawn_at(&dead, |_, stream| respond(stream, "back"));
    while proxy.get("/", "").body != "back" {
        assert!(since.elapsed() < PATIENCE, "it never gets a request");
    }
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

#[test]
fn health_turns_after_as_many_equal_verdicts_as_the_thresholds_say() {
    let (say, script) = mpsc::channel::<&'static str>();
    let (told, probed) = mpsc::channel();
    let (script, told) = (std::sync::Mutex::new(script), std::sync::Mutex::new(told));
    let origin = Origin::spawn(move |_, stream| {
        if told.lock().expect("lock").send(()).is_err() {
            return false;
        }
        // An error means that the test is over.
        let Ok(status) = script.lock().expect("lock").recv() else {
            return false;
        };
        stream
            .write_all(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes())
            .is_ok()
    });
    let check = "    health_check: { path: /h, interval: 1ms, timeout: 1h, healthy_after: 3, unhealthy_after: 2 }";
    let proxy = Proxy::start(&one_pool(&origin.address, check));
    let healthy = || proxy.metric("switchyard_endpoint_healthy", &["pool=\"only\""]);
    let next = || probed.recv_timeout(PATIENCE).expect("a probe");
    next();
    for (verdict, expected) in [
        ("500 No", 1.0),
        ("200 OK", 1.0),
        ("500 No", 1.0),
        ("404 No", 0.0),
        ("200 OK", 0.0),
        ("200 OK", 0.0),
        ("500 No", 0.0),
        ("200 OK", 0.0),
        ("200 OK", 0.0),
        ("204 OK", 1.0),
    ] {
        say.send(verdict).expect("the origin waits");
        // The next probe begins when this verdict has been taken in.
        next();
        assert_eq!(healthy(), expected, "after {verdict}");
    }
}

#[test]
fn idle_connections_are_bounded_in_the_whole_process() {
    let (go, gate) = (Arc::new(AtomicBool::new(false)), Arc::new(std::sync::Barrier::new(9)));
    let origin = || {
        let (go, gate) = (Arc::clone(&go), Arc::clone(&gate));
        Origin::spawn(move |_, stream| {
            if !go.load(Ordering::SeqCst) {
                gate.wait();
            }
            respond(stream, "ok")
        })
    };
    let origins = [origin(), origin()];
    let proxy = Proxy::start(&format!(
        "server: {{ threads: 2 }}\npools:\n  a: {{ endpoints: [\"{}\"], connections: {{ max_idle: 3 }} }}\n  \
         b: {{ endpoints: [\"{}\"], connections: {{ max_idle: 3 }} }}\n\
         routes: [{{ pool: a, match: {{ path: /a }} }}, {{ pool: b }}]\n",
        origins[0].address, origins[1].address
    ));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(proxy.get("/a", "").body, "ok"));
            scope.spawn(|| assert_eq!(proxy.get("/b", "").body, "ok"));
        }
        // All eight are at an origin at the same time, each on a connection of its own.
        gate.wait();
        go.store(true, Ordering::SeqCst);
    });
    proxy.wait_metric("switchyard_upstream_connections", &["state=\"active\""], 0.0);
    proxy.wait_metric("switchyard_upstream_connections", &["state=\"idle\""], 3.0);
}

#[test]
fn without_a_proxy_the_environment_is_not_asked() {
    let environment = [("HTTP_PROXY", "http://127.0.0.1:1")];
    let origin = Origin::named("direct");
    let port = origin.address.rsplit(':').next().expect("port");
    // Leads to this machine, and is no loopback address to the rules of the environment: only `none` keeps it direct.
    let place = format!("0.0.0.0:{port}");
    let through = Proxy::start_with(&one_pool(&place, ""), &environment);
    assert_eq!(through.get("/", "").status, 502);
    let direct = Proxy::start_with(&one_pool(&place, "    connections: { proxy: none }"), &environment);
    assert_eq!(direct.get("/", "").body, "direct");
}

#[test]
fn balances_share_requests_as_they_say() {
    for (balance, user_sticks) in [
        ("round_robin", false),
        ("random", false),
        ("least_requests", false),
        ("user", true),
    ] {
        let origins = [Origin::named("a"), Origin::named("b"), Origin::named("c")];
        let endpoints = origins.each_ref().map(|o| o.address.clone()).join("\", \"");
        let proxy = Proxy::start(&one_pool(&endpoints, &format!("    balance: {balance}")));
        let of_one: Vec<String> = (0..30).map(|_| proxy.get("/", "X-User-Id: 7\r\n").body).collect();
        let different = |list: &[String]| {
            let mut names = list.to_vec();
            names.sort_unstable();
            names.dedup();
            names.len()
        };
        assert_eq!(different(&of_one), if user_sticks { 1 } else { 3 }, "{balance}");
        let of_many: Vec<String> = (0..60)
            .map(|n| proxy.get("/", &format!("X-User-Id: {n}\r\n")).body)
            .collect();
        assert_eq!(different(&of_many), 3, "{balance}");
    }
}

/// A CONNECT proxy that leads every tunnel to one address and tells what it was asked for.
fn connect_proxy(target: &str) -> (Origin, mpsc::Receiver<String>) {
    let (told, asked) = mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let target = target.to_owned();
    let proxy = Origin::spawn(move |head, stream| {
        told.lock()
            .expect("lock")
            .send(head.to_owned())
            .expect("the test listens");
        let mut there = TcpStream::connect(&target).expect("connect");
        stream
            .write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")
            .expect("write");
        let mut back = (there.try_clone().expect("clone"), stream.try_clone().expect("clone"));
        let answers = std::thread::spawn(move || std::io::copy(&mut back.0, &mut back.1).is_ok());
        let sent = std::io::copy(stream, &mut there).is_ok();
        drop(there.shutdown(std::net::Shutdown::Both));
        assert!(answers.join().expect("no panic") | sent);
        false
    });
    (proxy, asked)
}

#[test]
fn tunnels_lead_through_a_proxy_and_are_reused() {
    let origin = Origin::named("through");
    let (tunnel, asked) = connect_proxy(&origin.address);
    let more = format!("    connections: {{ proxy: \"http://user:pw@{}\" }}", tunnel.address);
    let proxy = Proxy::start(&one_pool("origin.test:8443", &more));
    for _ in 0..3 {
        assert_eq!(proxy.get("/", "").body, "through");
    }
    let head = asked.recv_timeout(PATIENCE).expect("asked");
    assert!(head.starts_with("CONNECT origin.test:8443 HTTP/1.1\r\n"), "{head}");
    assert!(
        head.contains("\r\nProxy-Authorization: Basic dXNlcjpwdw==\r\n"),
        "{head}"
    );
    assert_eq!(tunnel.connections.load(Ordering::SeqCst), 1, "one tunnel is enough");
}

#[test]
fn the_environment_names_the_proxy_and_whom_it_is_not_for() {
    let origin = Origin::named("direct");
    let (tunnel, asked) = connect_proxy(&origin.address);
    let url = format!("http://{}", tunnel.address);
    let environment = [("HTTP_PROXY", url.as_str()), ("NO_PROXY", "exempt.test")];
    let through = Proxy::start_with(&one_pool("origin.test:80", ""), &environment);
    assert_eq!(through.get("/", "").body, "direct");
    assert!(
        asked
            .recv_timeout(PATIENCE)
            .expect("asked")
            .starts_with("CONNECT origin.test:80 ")
    );
    let local = Proxy::start_with(&one_pool(&origin.address, ""), &environment);
    assert_eq!(local.get("/", "").body, "direct");
    let exempt = Proxy::start_with(&one_pool("exempt.test:80", ""), &environment);
    assert_eq!(
        exempt.get("/", "").status,
        503,
        "the name is looked up here, and does not exist"
    );
    assert_eq!(asked.try_recv().ok(), None);
}

#[test]
fn connections_past_the_idle_limit_of_an_endpoint_are_not_kept() {
    let (release, held) = mpsc::channel::<()>();
    let held = std::sync::Mutex::new(held);
    let (entered, inside) = mpsc::channel();
    let entered = std::sync::Mutex::new(entered);
    let origin = Origin::spawn(move |_, stream| {
        entered.lock().expect("lock").send(()).expect("the test listens");
        held.lock().expect("lock").recv().expect("released");
        respond(stream, "ok")
    });
    let proxy = Proxy::start(&one_pool(
        &origin.address,
        "    connections: { max_idle_per_endpoint: 2 }",
    ));
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..6).map(|_| scope.spawn(|| proxy.get("/", "").status)).collect();
        for _ in 0..6 {
            inside.recv_timeout(PATIENCE).expect("all are inside");
        }
        for _ in 0..6 {
            release.send(()).expect("the origin waits");
        }
        for client in clients {
            assert_eq!(client.join().expect("no panic"), 200);
        }
    });
    until(&proxy, "state=\"idle\"} 2");
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let origin = Origin::named("ok");
    let proxy = Proxy::start(&one_pool(&origin.address, "    connections: { idle_timeout: 100ms }"));
    assert_eq!(proxy.get("/", "").body, "ok");
    // Open ones are idle or active; the sum passes no moment at which it is neither.
    proxy.wait_metric("switchyard_upstream_connections", &["pool=\"only\""], 0.0);
    assert_eq!(proxy.get("/", "").body, "ok");
    assert_eq!(origin.connections.load(Ordering::SeqCst), 2);
}

#[test]
fn a_connect_that_takes_too_long_is_504() {
    let (_full, address) = full_listener();
    let more = "    connections: { connect_timeout: 200ms }\n    retries: { attempts: 1 }";
    let proxy = Proxy::start(&one_pool(&address.to_string(), more));
    assert_eq!(proxy.get("/", "").status, 504);
    let alarms = proxy.alarms();
    assert!(alarms.len() == 1 && alarms[0].contains("connect timeout"), "{alarms:?}");
}
