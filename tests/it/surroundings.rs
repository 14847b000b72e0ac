//! What surrounds the program misbehaves: nobody reads its logs, and the clock jumps.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::files::directory;
use crate::harness::load::Load;
use crate::harness::origin::{Wire, ok, serve};
use crate::harness::{PATIENCE, Proxy, long, nowhere};

async fn origin() -> String {
    serve(|mut wire: Wire| async move { while wire.head().await.is_some() && wire.write(ok("ok")).await.is_ok() {} })
        .await
}

/// A pool that is well, and one that nobody is in.
fn configuration(folder: &Path, origin: &str) -> PathBuf {
    let file = folder.join("switchyard.yaml");
    let text = format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}]\nadmin: {{ address: \"127.0.0.1:0\" }}\nstore: {{ memory: {{}} }}\n\
         pools:\n  well:\n    endpoints: [\"{origin}\"]\n    health_check: {{ interval: 200ms }}\n  \
         dead: {{ endpoints: [\"{}\"] }}\n\
         routes: [{{ match: {{ path: /dead }}, pool: dead }}, {{ pool: well }}]\n",
        nowhere()
    );
    std::fs::write(&file, text).expect("configuration");
    file
}

/// A pipe with a name, open on both sides so that nobody waits for anybody.
fn pipe(folder: &Path, name: &str) -> (PathBuf, File) {
    let path = folder.join(name);
    let made = Command::new("mkfifo").arg(&path).status().expect("mkfifo runs");
    assert!(made.success());
    let open = File::options()
        .read(true)
        .write(true)
        .custom_flags(O_NONBLOCK)
        .open(&path);
    (path, open.expect("a pipe"))
}

/// Of Linux.
const O_NONBLOCK: i32 = 0o4000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_that_nobody_reads_hold_up_nobody() {
    let folder = directory("blocked-logs");
    let file = configuration(&folder, &origin().await);
    let (out, mut out_end) = pipe(&folder, "out");
    let (errors, mut errors_end) = pipe(&folder, "errors");
    // What it says at its start is read by the harness, up to the last listener; the rest goes to a pipe that nobody reads.
    let script = format!(
        "exec 3>&2; exec \"$0\" \"$@\" >{} 2> >(while IFS= read -r line; do echo \"$line\" >&3; \
         case $line in 'listening: admin'*) exec cat >{};; esac; done)",
        out.display(),
        errors.display()
    );
    let proxy = Proxy::launch_under(&["bash", "-c", &script], &file, &[], &[]);
    proxy.wait_ready();
    let load = Load::start(&proxy.http, 8, Duration::from_millis(1));
    let since = Instant::now();
    // Each of these has a line in the error log.
    while proxy.metric("switchyard_error_log_dropped_total", &[]) < 10.0 {
        assert!(since.elapsed() < PATIENCE * 3, "no line of the error log was lost");
        for _ in 0..50 {
            assert_eq!(proxy.get("/dead", "").status, 502);
        }
    }
    let wanted = if long() {
        Duration::from_secs(60)
    } else {
        Duration::ZERO
    };
    while since.elapsed() < wanted || proxy.metric("switchyard_access_log_dropped_total", &[]) == 0.0 {
        assert!(
            since.elapsed() < wanted + PATIENCE,
            "no line of the access log was lost"
        );
        load.serve(100).await;
    }
    let lost = ["access", "error"].map(|log| proxy.metric(&format!("switchyard_{log}_log_dropped_total"), &[]));
    println!(
        "blocked for {:?}: {lost:?} lines of the access and the error log lost",
        since.elapsed()
    );
    // Somebody reads again: lines come again.
    let mut buffer = vec![0; 1 << 20];
    for end in [&mut out_end, &mut errors_end] {
        while end.read(&mut buffer).is_ok_and(|read| read > 0) {}
    }
    load.serve(100).await;
    let tally = load.stop().await;
    println!(
        "{} answered, {} failed, p99 {} ms",
        tally.answered,
        tally.failed,
        tally.millis(990)
    );
    tally.nothing_failed();
    let told = loop {
        let read = out_end.read(&mut buffer).unwrap_or(0);
        if read > 0 {
            break String::from_utf8_lossy(&buffer[..read]).into_owned();
        }
        assert!(
            since.elapsed() < wanted + PATIENCE * 6,
            "no line after the pipe was emptied"
        );
    };
    assert!(told.contains("\"status\":200"), "{told}");
}

/// Where Debian's package `faketime` has it.
fn faketime() -> String {
    let library = format!(
        "/usr/lib/{}-linux-gnu/faketime/libfaketime.so.1",
        std::env::consts::ARCH
    );
    assert!(
        Path::new(&library).exists(),
        "{library} is missing: apt-get install faketime (make test does it)"
    );
    library
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_is_felt_by_nobody() {
    const HOUR: i64 = 3600;
    let folder = directory("clock");
    let file = configuration(&folder, &origin().await);
    let clock = folder.join("clock");
    let set = |shift: i64| {
        // Renamed into its place: it is read at any time.
        let new = folder.join("clock.new");
        std::fs::write(&new, format!("{shift:+}\n")).expect("a file");
        std::fs::rename(&new, &clock).expect("renamed");
    };
    set(0);
    let library = faketime();
    let environment = [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", clock.to_str().expect("UTF-8")),
        ("FAKETIME_NO_CACHE", "1"),
        // What is set is the wall clock; the other one has no hands.
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ];
    let proxy = Proxy::launch(&file, &[], &environment);
    proxy.wait_ready();
    let load = Load::start(&proxy.http, 8, Duration::from_millis(1));
    load.serve(100).await;
    for shift in [HOUR, -HOUR, 0, HOUR] {
        set(shift);
        // The program sees the new time when its lines say so.
        let since = Instant::now();
        while !is_off_by(&proxy.access_line()["time"], shift) {
            assert!(since.elapsed() < PATIENCE, "the program does not see {shift:+} s");
        }
        load.serve(if long() { 20_000 } else { 500 }).await;
        assert_eq!(proxy.metric("switchyard_endpoint_healthy", &["pool=\"well\""]), 1.0);
    }
    let tally = load.stop().await;
    println!("{} answered over four jumps, {} failed", tally.answered, tally.failed);
    tally.nothing_failed();
    assert_eq!(proxy.alarms(), Vec::<String>::new());
}

/// Within a minute.
fn is_off_by(time: &serde_json::Value, shift: i64) -> bool {
    let millis = switchyard::clock::parse_rfc3339(time.as_str().expect("a time")).expect("a time");
    let here = i64::try_from(switchyard::clock::unix_millis()).expect("a time");
    (i64::try_from(millis).expect("a time") - here - shift * 1000).abs() < 60_000
}
