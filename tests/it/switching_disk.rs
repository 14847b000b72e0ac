//! A disk that is full or fails under the whole program: the change is refused with the reason, `status` says so, traffic
//! goes on, and when the disk is well again so are changes, without a restart. Root and `strace` are needed, so this is
//! a long form only (`make switching`).

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use serde_json::Value;

use crate::admin_client::{JSON, PLAIN, ask};
use crate::harness::{Answer, PATIENCE, Proxy, answer, connect, long};
use crate::switching_crash::{Folder, Site};

const USERS: &str = "/api/v1/rollouts/checkout/users";

/// A file system of that size in memory, away when dropped.
struct Disk<'a>(&'a Path);

impl<'a> Disk<'a> {
    fn mount(at: &'a Path, size: &str) -> Self {
        run(&["mount", "-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", text(at)]);
        Self(at)
    }

    /// Writes a file until there is no room.
    fn fill(&self) {
        let filled = std::fs::write(self.0.join("filler"), vec![0; 64 << 20]);
        assert!(filled.is_err(), "the disk is larger than thought");
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("filler")).expect("removed");
    }
}

impl Drop for Disk<'_> {
    fn drop(&mut self) {
        drop(Command::new("umount").args(["-l", text(self.0)]).status());
    }
}

/// Makes every sync of a running program fail, until it is ended.
struct Failing(Child);

impl Failing {
    fn attach(proxy: &Proxy) -> Self {
        let pid = proxy.pid().to_string();
        let inject = "inject=fsync,fdatasync:error=EIO";
        let strace = [
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fsync,fdatasync",
            "-e",
            inject,
            "-p",
            &pid,
        ];
        let child = Command::new("strace").args(strace).stdin(Stdio::null()).spawn();
        let failing = Self(child.expect("strace is installed"));
        let since = Instant::now();
        while !all_traced(proxy.pid()) {
            assert!(since.elapsed() < PATIENCE, "strace does not attach");
        }
        failing
    }

    fn detach(mut self) {
        run(&["kill", "-INT", &self.0.id().to_string()]);
        self.0.wait().expect("it ends");
    }
}

fn all_traced(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    tasks.flatten().all(|task| {
        // A thread that has ended is not traced either.
        let status = std::fs::read_to_string(task.path().join("status")).unwrap_or_default();
        !status.contains("TracerPid:\t0\n")
    })
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn run(words: &[&str]) {
    let status = Command::new(words[0]).args(&words[1..]).status().expect("starts");
    assert!(status.success(), "{words:?}: {status}");
}

fn put(proxy: &Proxy, release: &str) -> Answer {
    let body = format!("{{\"release\":\"{release}\"}}");
    let fields = format!("Host: localhost\r\n{JSON}");
    ask(&proxy.admin, "PUT", &format!("{USERS}/42"), &fields, &body)
}

fn import(proxy: &Proxy, number: usize) -> Answer {
    let users: String = (0..2_000).map(|n| format!("user-{number}-{n}\n")).collect();
    let fields = format!("Host: localhost\r\n{PLAIN}");
    ask(
        &proxy.admin,
        "POST",
        &format!("{USERS}?release=canary"),
        &fields,
        &users,
    )
}

fn failing(proxy: &Proxy) -> Value {
    let metrics = ask(&proxy.admin, "GET", "/metrics", "Host: localhost\r\n", "").body;
    let connected = metrics.contains("\nswitchyard_store_connected 1\n");
    let status = ask(&proxy.admin, "GET", "/api/v1/status", "Host: localhost\r\n", "");
    let status: Value = serde_json::from_str(&status.body).expect("JSON");
    let failing = status["store"]["failing"].clone();
    assert_eq!(connected, failing.is_null(), "{failing}");
    failing
}

/// The reason for which a change was refused.
fn refused(answered: &Answer) -> String {
    assert_eq!(answered.status, 503, "{}", answered.body);
    assert_eq!(answered.all("content-type"), ["application/problem+json"]);
    let problem: Value = serde_json::from_str(&answered.body).expect("JSON");
    problem["detail"].as_str().expect("a reason").to_owned()
}

/// Sends requests of one user while `work` is done: all are answered, by the origin that is said.
fn with_traffic(proxy: &Proxy, origin: &str, work: impl FnOnce()) {
    let (done, requests) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut kept = connect(&proxy.http);
            // At least one, however quickly the work is done.
            loop {
                std::io::Write::write_all(&mut kept, b"GET / HTTP/1.1\r\nHost: t.example\r\nX-User-Id: 42\r\n\r\n")
                    .expect("written");
                let answered = answer(&mut kept);
                assert_eq!((answered.status, answered.body.as_str()), (200, origin));
                requests.fetch_add(1, Ordering::SeqCst);
                if done.load(Ordering::SeqCst) {
                    return;
                }
            }
        });
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        done.store(true, Ordering::SeqCst);
        worked.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
    println!("{} requests meanwhile", requests.into_inner());
}

/// After all is well again: the next change is made, and seen.
fn recovered(proxy: &Proxy) {
    let answered = put(proxy, "stable");
    assert_eq!(answered.status, 200, "{}", answered.body);
    assert_eq!(failing(proxy), Value::Null);
    assert_eq!(proxy.get("/", "X-User-Id: 42\r\n").body, "stable");
}

#[test]
fn on_a_full_disk_changes_are_refused_and_traffic_goes_on() {
    if !long() {
        return;
    }
    let folder = Folder::new("full");
    let disk = Disk::mount(folder.path(), "8m");
    let site = Site::new(&folder.store());
    let proxy = site.start();
    assert_eq!(put(&proxy, "canary").status, 200);
    with_traffic(&proxy, "canary", || {
        disk.fill();
        let imports = (0..1_000).map(|number| import(&proxy, number));
        let full = imports
            .into_iter()
            .find(|answered| answered.status != 200)
            .expect("one is refused");
        let why = refused(&full);
        assert!(why.contains("make room") && why.contains("rollouts.db"), "{why}");
        assert_eq!(failing(&proxy), why.as_str());
    });
    disk.make_room();
    recovered(&proxy);
    drop(proxy);
    assert_eq!(
        site.start().get("/", "X-User-Id: 42\r\n").body,
        "stable",
        "after a restart"
    );
}

#[test]
fn while_the_disk_fails_changes_are_refused_and_traffic_goes_on() {
    if !long() {
        return;
    }
    let folder = Folder::new("failing");
    let site = Site::new(&folder.store());
    let proxy = site.start();
    assert_eq!(put(&proxy, "canary").status, 200);
    let strace = Failing::attach(&proxy);
    with_traffic(&proxy, "canary", || {
        for _ in 0..3 {
            let why = refused(&put(&proxy, "stable"));
            assert!(why.contains("check the disk"), "{why}");
            assert_eq!(failing(&proxy), why.as_str());
        }
    });
    strace.detach();
    recovered(&proxy);
    drop(proxy);
    assert_eq!(
        site.start().get("/", "X-User-Id: 42\r\n").body,
        "stable",
        "after a restart"
    );
}
