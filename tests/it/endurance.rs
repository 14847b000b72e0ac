//! Hours in minutes: half of what the program can do, an upgrade now and then, and nothing fails or grows.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::files::{directory, free};
use crate::folder::until_in;
use crate::harness::load::Load;
use crate::harness::origin::{Wire, ok, serve};
use crate::harness::{Proxy, long};

const CLIENTS: usize = 32;
/// Between two looks at the memory.
const LOOK_EACH: Duration = Duration::from_secs(10);
/// A process that has just begun still grows into its load.
const WARM: Duration = Duration::from_secs(60);

/// How long; an upgrade after each part, of which there are at least two.
fn plan() -> (Duration, Duration) {
    if !long() {
        return (Duration::from_secs(4), Duration::from_secs(2));
    }
    let minutes = std::env::var("MINUTES").ok().and_then(|m| m.parse().ok()).unwrap_or(30);
    let all = Duration::from_secs(60 * minutes);
    (all, Duration::from_secs(300).min(all / 2))
}

fn configuration(origin: &str) -> (PathBuf, PathBuf) {
    let folder = directory("endurance");
    let [http, admin] = free();
    let (file, sock) = (folder.join("switchyard.yaml"), folder.join("upgrade.sock"));
    let text = format!(
        "listeners: [{{ address: \"{http}\" }}]\nadmin: {{ address: \"{admin}\" }}\n\
         store: {{ embedded: {{ path: {}/store.db }} }}\nserver: {{ upgrade_sock: {} }}\naccess_log: {{ path: {}/access.log }}\n\
         pools: {{ stable: {{ endpoints: [\"{origin}\"] }}, canary: {{ endpoints: [\"{origin}\"] }} }}\n\
         routes: [{{ rollout: checkout }}]\nrollouts:\n  checkout:\n    \
         releases: {{ stable: {{ pool: stable }}, canary: {{ pool: canary }} }}\n    split: {{ canary: 10% }}\n",
        folder.display(),
        sock.display(),
        folder.display()
    );
    std::fs::write(&file, text).expect("configuration");
    (file, sock)
}

async fn upgrade(file: &Path, sock: &Path, old: Proxy) -> Proxy {
    let file = file.to_owned();
    let new = tokio::task::spawn_blocking(move || Proxy::launch(&file, &["-u"], &[]));
    let sock = sock.to_owned();
    let waits = move || until_in(sock.parent().expect("a folder"), || sock.exists());
    tokio::task::spawn_blocking(waits).await.expect("the successor waits");
    old.signal("QUIT");
    let new = new.await.expect("it starts");
    let (code, lines) = tokio::task::spawn_blocking(move || old.end()).await.expect("it ends");
    assert_eq!(code, Some(0), "{lines:#?}");
    new
}

/// What the clients leave to others of what they could ask for: half of what is answered without a pause.
async fn pause(http: &str) -> Duration {
    let load = Load::start(http, CLIENTS, Duration::ZERO);
    let since = Instant::now();
    load.serve(2_000).await;
    let each = since.elapsed().mul_f64(CLIENTS as f64 / load.answered() as f64);
    load.stop().await.nothing_failed();
    each
}

/// KiB an hour, by least squares over moments and KiB.
fn slope(looks: &[(Duration, u64)]) -> f64 {
    let count = looks.len() as f64;
    let points = || looks.iter().map(|(at, kib)| (at.as_secs_f64() / 3600.0, *kib as f64));
    let (x, y) = points().fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
    let (x, y) = (x / count, y / count);
    let above: f64 = points().map(|(at, kib)| (at - x) * (kib - y)).sum();
    let below: f64 = points().map(|(at, _)| (at - x).powi(2)).sum();
    above / below
}

#[test]
fn a_slope_is_that_of_a_line() {
    let looks: Vec<_> = (0..10).map(|n| (Duration::from_secs(360 * n), 1000 + 7 * n)).collect();
    assert!((slope(&looks) - 70.0).abs() < 1e-6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_fails_and_nothing_grows() {
    let origin = serve(|mut wire: Wire| async move {
        let body = ok(&"x".repeat(1024));
        while wire.head().await.is_some() && wire.write(&body).await.is_ok() {}
    })
    .await;
    let (file, sock) = configuration(&origin);
    let mut proxy = Proxy::launch(&file, &[], &[]);
    proxy.wait_ready();
    let (all, part) = plan();
    let load = Load::start(&proxy.http, CLIENTS, pause(&proxy.http).await);
    let begun = Instant::now();
    let mut since = Instant::now();
    let mut looks = Vec::new();
    let mut upgrades = 0;
    while begun.elapsed() < all {
        if since.elapsed() >= part {
            proxy = upgrade(&file, &sock, proxy).await;
            upgrades += 1;
            since = Instant::now();
        }
        tokio::time::sleep(LOOK_EACH.min(part / 4)).await;
        let kib = proxy.memory_kib("VmRSS");
        if since.elapsed() >= WARM {
            looks.push((begun.elapsed(), kib));
        }
        load.serve(1).await;
    }
    let (kib, descriptors) = (proxy.memory_kib("VmRSS"), proxy.descriptors());
    let tally = load.stop().await;
    println!(
        "{} requests in {:?} with {upgrades} upgrades: {} failed, p99 {} ms; {kib} KiB and {descriptors} descriptors at the end",
        tally.answered,
        begun.elapsed(),
        tally.failed,
        tally.millis(990)
    );
    tally.nothing_failed();
    assert!(upgrades > 0);
    let settled: Vec<_> = looks
        .into_iter()
        .filter(|(at, _)| *at >= Duration::from_secs(600))
        .collect();
    if settled.len() > 30 {
        let slope = slope(&settled);
        println!(
            "memory: {:.0} KiB an hour after the first ten minutes, over {} looks",
            slope,
            settled.len()
        );
        assert!(slope < 1024.0, "{slope} KiB an hour");
    }
    assert!(descriptors < 200, "{descriptors} descriptors");
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}
