//! What telemetry costs a request: time and allocations of an access-log line and of the request's counters.
//!
//! Lines are written in bursts that find room, and flushed outside the measured time. Prints the median of the rounds.

use std::alloc::System;
use std::hint::black_box;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use switchyard::telemetry::access_log::{AccessLog, AccessRecord, HttpVersion};
use switchyard::telemetry::metrics::ReleaseMetrics;
use switchyard::telemetry::settings::{AccessLogSettings, LogFormat, LogTarget, UserIdShown};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const ROUNDS: usize = 200;
const BURST: u32 = 500;
const PATIENCE: Duration = Duration::from_secs(10);

fn main() {
    println!("{:<44} {:>9} {:>9}", "", "ns each", "allocs each");
    for (name, format) in [("json line", LogFormat::Json), ("combined line", LogFormat::Combined)] {
        let log = open(LogTarget::File(PathBuf::from("/dev/null")), format);
        print(name, measure(|| log.write(black_box(&record())), || flush(&log)));
        assert_eq!(log.dropped(), 0, "a burst finds room");
    }
    let log = open(LogTarget::Off, LogFormat::Json);
    print("log off", measure(|| log.write(black_box(&record())), || {}));

    let metrics = ReleaseMetrics::new("bench", "stable", &["/"]);
    let mut micros = 0;
    let mut next_duration = || {
        micros = (micros * 13 + 7) % 100_000;
        Duration::from_micros(micros)
    };
    print(
        "duration histogram",
        measure(|| metrics.duration(next_duration()), || {}),
    );
    print("request + decision counters", measure(|| count(&metrics), || {}));
    for threads in [1, 2] {
        let name = format!("request + decision + duration, {threads} thread(s)");
        print(&name, (contended(threads, &metrics), 0.0));
    }
}

fn open(path: LogTarget, format: LogFormat) -> AccessLog {
    let settings = AccessLogSettings {
        path,
        format,
        user_id: UserIdShown::Hashed,
    };
    let log = AccessLog::open(&settings).expect("the log opens");
    log.start().expect("the writer starts");
    log
}

fn flush(log: &AccessLog) {
    assert!(log.flush(PATIENCE), "the log is written");
}

fn count(metrics: &ReleaseMetrics) {
    metrics.request(black_box(0), black_box(200));
    metrics.decision(black_box(3), black_box(0));
}

/// Nanoseconds and allocations of one `work`, the median of bursts; `after` is not measured.
fn measure(mut work: impl FnMut(), mut after: impl FnMut()) -> (f64, f64) {
    let mut nanos = Vec::with_capacity(ROUNDS);
    let mut allocations = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let region = Region::new(ALLOCATOR);
        let start = Instant::now();
        (0..BURST).for_each(|_| work());
        let elapsed = start.elapsed();
        let change = region.change();
        nanos.push(elapsed.as_nanos() as f64 / f64::from(BURST));
        allocations.push((change.allocations + change.reallocations) as f64 / f64::from(BURST));
        after();
    }
    (median(nanos), median(allocations))
}

/// Nanoseconds of one request's counting when `threads` do nothing else.
fn contended(threads: u32, metrics: &ReleaseMetrics) -> f64 {
    const REQUESTS: u32 = 2_000_000;
    let barrier = Barrier::new(threads as usize);
    let work = || {
        barrier.wait();
        let start = Instant::now();
        for number in 0..REQUESTS {
            count(metrics);
            metrics.duration(Duration::from_micros(u64::from(number % 4_000)));
        }
        start.elapsed().as_nanos() as f64 / f64::from(REQUESTS)
    };
    let each = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running
            .into_iter()
            .map(|thread| thread.join().expect("a thread"))
            .collect()
    });
    median(each)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn print(name: &str, (nanos, allocations): (f64, f64)) {
    println!("{name:<44} {nanos:>9.1} {allocations:>9.3}");
}

fn record() -> AccessRecord<'static> {
    AccessRecord {
        unix_micros: 1_795_478_400_123_456,
        request_id: Some(b"0193a1c2-5f6e-7d10-9a4b-0c1d2e3f4a5b"),
        trace_id: Some(b"4bf92f3577b34da6a3ce929d0e0e4736"),
        client: Some(SocketAddr::from(([203, 0, 113, 77], 50_123))),
        method: b"GET",
        host: Some(b"shop.example.com"),
        path: b"/checkout/basket/items?page=2&sort=price",
        http_version: HttpVersion::Http11,
        status: 200,
        bytes_in: 0,
        bytes_out: 5_120,
        duration: Duration::from_micros(12_345),
        route: Some("shop.example.com/checkout"),
        rollout: Some("checkout"),
        release: Some("canary"),
        reason: Some("split"),
        bucket: Some(123_456),
        revision: 1_234,
        source: Some("header"),
        user: Some(b"user-1234567"),
        pool: Some("canary"),
        endpoint: Some("10.0.0.2:9001"),
        upstream_status: Some(200),
        upstream_duration: Some(Duration::from_micros(11_111)),
        reused: Some(true),
        retries: 0,
        abort: None,
        referer: Some(b"https://shop.example.com/"),
        user_agent: Some(b"Mozilla/5.0 (X11; Linux x86_64; rv:130.0) Gecko/20100101 Firefox/130.0"),
    }
}
