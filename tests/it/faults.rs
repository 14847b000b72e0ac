//! Endpoints that fail while others are well, and clients that must not notice. Times are told by the long form
//! (`make faults`) and asserted by none: the machine may be busy.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::harness::fault::{Fault, FaultProxy};
use crate::harness::load::Load;
use crate::harness::origin::{Wire, ok, serve};
use crate::harness::{PATIENCE, Proxy, fields, h2c, long, one_pool};

/// An origin that counts what it answered, and by which id.
#[derive(Debug, Default)]
struct Counts {
    answered: watch::Sender<u64>,
    executed: Mutex<HashMap<String, u32>>,
}

impl Counts {
    fn answered(&self) -> u64 {
        *self.answered.borrow()
    }

    /// Waits until so many more were answered.
    async fn answer(&self, more: u64) {
        let wanted = self.answered() + more;
        let mut answered = self.answered.subscribe();
        let all = tokio::time::timeout(PATIENCE, answered.wait_for(|answered| *answered >= wanted)).await;
        assert!(all.is_ok(), "it gets no requests");
    }
}

/// Answers everything with a body of 2 KiB; `/close` closes the connection a moment later, as a server does whose
/// connections are idle for too long.
async fn origin(counts: &Arc<Counts>) -> String {
    let counts = Arc::clone(counts);
    let body = ok(&"x".repeat(2048));
    serve(move |mut wire: Wire| {
        let (counts, body) = (Arc::clone(&counts), body.clone());
        async move {
            while let Some(head) = wire.head().await {
                if let Some(id) = fields(&head, "x-id").first() {
                    *counts.executed.lock().entry((*id).to_owned()).or_default() += 1;
                }
                // Not of probes.
                if !head.starts_with("GET /healthz ") {
                    counts.answered.send_modify(|answered| *answered += 1);
                }
                if wire.body_of(&head).await.is_err() || wire.write(&body).await.is_err() {
                    return;
                }
                if head.contains(" /close ") {
                    return;
                }
            }
        }
    })
    .await
}

fn requests(short: usize, all: usize) -> usize {
    if long() { all } else { short }
}

const CLIENTS: usize = 32;

/// Two endpoints, of which the second has faults.
struct Stage {
    proxy: Proxy,
    faulty: FaultProxy,
    counts: Arc<Counts>,
}

impl Stage {
    async fn set(host: u8) -> Self {
        let well = origin(&Arc::default()).await;
        let counts = Arc::default();
        let faulty = FaultProxy::start([127, 0, 2, host], &origin(&counts).await).await;
        let yaml = format!(
            "pools:\n  only:\n    endpoints: [\"{well}\", \"{}\"]\n    connections: {{ connect_timeout: 500ms }}\n    \
             health_check: {{ path: /healthz, interval: 500ms, timeout: 500ms }}\n    ejection: {{ duration: 2s }}\n\
             routes: [{{ pool: only }}]\naccess_log: {{ path: \"off\" }}\n",
            faulty.address
        );
        Self {
            proxy: Proxy::start(&yaml),
            faulty,
            counts,
        }
    }

    /// Whether the faulty endpoint gets no requests: it is ejected, or unhealthy.
    fn is_out(&self) -> bool {
        let status = self.proxy.ask_admin("/api/v1/status");
        let status: serde_json::Value = serde_json::from_str(&status.body).expect("JSON");
        let endpoints = status["pools"][0]["endpoints"].as_array().expect("endpoints");
        let address = self.faulty.address.to_string();
        let mine = endpoints
            .iter()
            .find(|e| e["address"] == address.as_str())
            .expect("listed");
        mine["healthy"] == false || mine["ejected"] == true
    }

    fn tries(&self, answered: u64) -> f64 {
        let retries = self.proxy.metric("switchyard_retries_total", &[]);
        (answered as f64 + retries) / answered as f64
    }
}

#[derive(Debug, Clone, Copy)]
enum Falls {
    Refuses,
    Swallows,
    Resets,
    ResetsInHead,
}

/// Each fault comes and goes under load; how often.
const ROUNDS: usize = 2;

async fn comes_and_goes(host: u8, falls: Falls) {
    let mut stage = Stage::set(host).await;
    let load = Load::start(&stage.proxy.http, CLIENTS, Duration::ZERO);
    stage.counts.answer(100).await;
    for round in 0..requests(1, 2 * ROUNDS) {
        let since = Instant::now();
        match falls {
            Falls::Refuses => stage.faulty.kill().await,
            Falls::Swallows => stage.faulty.swallow().await,
            Falls::Resets => stage.faulty.set(Fault::Reset),
            Falls::ResetsInHead => stage.faulty.set(Fault::ResetInHead),
        }
        while !stage.is_out() {
            assert!(since.elapsed() < PATIENCE, "it still gets requests");
            load.serve(1).await;
        }
        let out = since.elapsed();
        // With the other endpoint alone.
        load.serve(requests(200, 10_000) as u64).await;
        stage.faulty.revive().await;
        let since = Instant::now();
        stage.counts.answer(100).await;
        let back = since.elapsed();
        println!("{falls:?}, round {round}: out after {out:?}, back after {back:?}");
    }
    let tally = load.stop().await;
    let tries = stage.tries(tally.answered);
    println!(
        "{falls:?}: {} answered, {} failed, {tries:.3} tries a request, p99 {} ms",
        tally.answered,
        tally.failed,
        tally.millis(990)
    );
    tally.nothing_failed();
    assert!(tries <= 1.2, "{tries} tries a request");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_refuses_is_felt_by_nobody() {
    comes_and_goes(1, Falls::Refuses).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_swallows_connections_is_felt_by_nobody() {
    comes_and_goes(2, Falls::Swallows).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_resets_is_felt_by_nobody() {
    comes_and_goes(3, Falls::Resets).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endpoint_that_resets_within_a_head_is_felt_by_nobody() {
    comes_and_goes(4, Falls::ResetsInHead).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_all_endpoints_down_the_answer_is_503_until_one_is_back() {
    let counts = Arc::default();
    let mut only = FaultProxy::start([127, 0, 2, 5], &origin(&counts).await).await;
    let more = "    health_check: { path: /healthz, interval: 250ms, timeout: 250ms, healthy_after: 1, unhealthy_after: 1 }\n\
                access_log: { path: \"off\" }";
    let proxy = Proxy::start(&one_pool(&only.address.to_string(), more));
    assert_eq!(proxy.get("/", "").status, 200);
    only.kill().await;
    proxy.wait_metric("switchyard_endpoint_healthy", &[], 0.0);
    let mut micros = Vec::new();
    for _ in 0..requests(50, 2_000) {
        let since = Instant::now();
        let answer = proxy.get("/", "");
        micros.push(since.elapsed().as_micros());
        assert_eq!((answer.status, answer.all("retry-after")), (503, vec!["1"]));
    }
    micros.sort_unstable();
    only.revive().await;
    let since = Instant::now();
    while proxy.get("/", "").status != 200 {
        assert!(since.elapsed() < PATIENCE, "it is not back");
    }
    println!(
        "all down: 503 within {} us p50, {} us p99; back after {:?}",
        micros[micros.len() / 2],
        micros[micros.len() * 99 / 100],
        since.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kept_connections_that_are_closed_fail_no_get_and_repeat_no_post() {
    let counts = Arc::default();
    let endpoint = origin(&counts).await;
    let proxy = Arc::new(Proxy::start(&one_pool(&endpoint, "access_log: { path: \"off\" }")));
    let (all, next) = (requests(4_000, 100_000), Arc::new(AtomicU64::new(0)));
    let mut clients: JoinSet<u64> = JoinSet::new();
    for _ in 0..CLIENTS {
        let (http, next) = (proxy.http.clone(), Arc::clone(&next));
        clients.spawn(async move {
            let mut wire = Wire::connect(&http).await;
            let mut failed = 0;
            loop {
                let n = next.fetch_add(1, Ordering::SeqCst) as usize;
                if n >= all {
                    return failed;
                }
                let (method, body) = if n.is_multiple_of(2) {
                    ("GET", "")
                } else {
                    ("POST", "once")
                };
                // After every third answer, the connection that it came over is closed.
                let path = if n.is_multiple_of(3) { "/close" } else { "/" };
                let request = format!(
                    "{method} {path} HTTP/1.1\r\nHost: a\r\nX-Id: {n}\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                wire.write(request).await.expect("open");
                let head = wire.head().await.expect("an answer");
                wire.body(&head).await.expect("whole");
                if !head.starts_with("HTTP/1.1 200 ") {
                    assert_eq!(method, "POST", "{head}");
                    assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
                    failed += 1;
                    wire = Wire::connect(&http).await;
                }
            }
        });
    }
    let mut failed = 0;
    while let Some(client) = clients.join_next().await {
        failed += client.expect("no GET fails");
    }
    let retries = proxy.metric("switchyard_retries_total", &[]);
    println!("{all} requests: no GET failed, {failed} POST did, {retries} were tried again");
    let executed = counts.executed.lock();
    let repeated: Vec<_> = (1..all)
        .step_by(2)
        .filter(|n| executed.get(&n.to_string()) > Some(&1))
        .collect();
    assert_eq!(repeated, Vec::<usize>::new(), "a POST was executed more than once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_in_the_body_is_never_the_end_of_it() {
    let counts = Arc::default();
    let faulty = FaultProxy::start([127, 0, 2, 6], &origin(&counts).await).await;
    faulty.set(Fault::ResetInBody);
    let proxy = Proxy::start_on(
        "{ address: \"127.0.0.1:0\", h2c: true }",
        &one_pool(&faulty.address.to_string(), "access_log: { path: \"off\" }"),
        &[],
    );
    let each = requests(500, 20_000) / 2;
    let (mut cut, mut refused) = (0, 0);
    for _ in 0..each {
        let answer = proxy.get("/", "");
        assert!(!answer.complete || answer.status == 502, "{answer:?}");
        if answer.status == 502 { refused += 1 } else { cut += 1 }
    }
    let (mut client, mut driver) = h2c::connect(&proxy.http).await;
    for n in 0..each {
        if n % 1_000 == 999 {
            driver.abort();
            (client, driver) = h2c::connect(&proxy.http).await;
        }
        match h2c::get(&client, "/").await {
            Ok((response, _)) => {
                assert_eq!(response.status(), 502);
                refused += 1;
            }
            Err(e) => {
                assert!(e.is_reset(), "{e}");
                cut += 1;
            }
        }
    }
    println!("{cut} visibly cut, {refused} answered 502, none delivered as complete");
    faulty.set(Fault::None);
    let whole = proxy.get("/", "");
    assert!(whole.complete && whole.status == 200 && whole.body.len() == 2048);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_other_fault_has_its_answer() {
    let counts = Arc::default();
    let faulty = FaultProxy::start([127, 0, 2, 7], &origin(&counts).await).await;
    // What was closed behind a whole answer may be seen only by the next request on that connection.
    let more = "    connections: { response_header_timeout: 500ms }\n    retries: { attempts: 2, on: [reused_connection_closed] }";
    let proxy = Proxy::start(&one_pool(&faulty.address.to_string(), more));
    for (fault, status) in [
        (Fault::Delay(Duration::from_millis(50)), 200),
        (Fault::Stall, 504),
        (Fault::Drip(Duration::from_millis(20)), 504),
        (Fault::Garbage, 502),
        (Fault::HalfClose, 200),
        (Fault::Reset, 502),
        (Fault::None, 200),
    ] {
        faulty.set(fault);
        for _ in 0..3 {
            let answer = proxy.get("/", "");
            assert_eq!((answer.status, answer.complete), (status, true), "{fault:?}");
        }
    }
    proxy.wait_metric("switchyard_upstream_connections", &["state=\"active\""], 0.0);
}
