//! Upgrades under load: no connection is refused, no request is lost, whatever becomes of the successor.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::files::{directory, free, until};
use crate::harness::{Origin, Proxy, answer, connect, exchange, one_pool, program};
use crate::holding::holding;

/// How many upgrades in a row; `make upgrades` has more.
fn rounds() -> usize {
    if std::env::var_os("SWITCHYARD_LONG").is_some() {
        20
    } else {
        2
    }
}

/// A configuration that one program after the other runs with.
struct Site {
    file: PathBuf,
    sock: PathBuf,
    admin: SocketAddr,
}

impl Site {
    fn new(name: &str, origin: &Origin) -> Self {
        let directory = directory(name);
        let [http, admin] = free();
        let sock = directory.join("run/upgrade.sock");
        let file = directory.join("switchyard.yaml");
        let text = format!(
            "listeners: [{{ address: \"{http}\" }}]\nadmin: {{ address: \"{admin}\" }}\nstore: {{ memory: {{}} }}\n\
             server: {{ upgrade_sock: {}, drain: 1h }}\n{}",
            sock.display(),
            one_pool(&origin.address, "")
        );
        std::fs::write(&file, text).expect("configuration");
        Self { file, sock, admin }
    }

    fn start(&self) -> Proxy {
        let proxy = Proxy::launch(&self.file, &[], &[]);
        proxy.wait_ready();
        proxy
    }

    /// Starts a successor, and has it take over from `old`.
    fn upgrade(&self, old: &Proxy) -> Proxy {
        let new = std::thread::scope(|scope| {
            let new = scope.spawn(|| Proxy::launch(&self.file, &["-u"], &[]));
            until("a successor waits", || self.sock.exists());
            old.signal("QUIT");
            new.join().expect("it starts")
        });
        old.wait_told("accepts at the handed-over sockets", 1);
        new
    }

    /// The process that answers at the admin side.
    fn pid(&self) -> u64 {
        let asked = "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let answer = exchange(&self.admin.to_string(), asked);
        let status: serde_json::Value = serde_json::from_str(&answer.body).expect("JSON");
        status["pid"].as_u64().expect("a number")
    }
}

/// Clients that never try again: the first request without its answer fails the test.
struct Load {
    stop: AtomicBool,
    served: AtomicUsize,
    closed: AtomicUsize,
}

impl Load {
    fn new() -> Self {
        Self {
            stop: AtomicBool::new(false),
            served: AtomicUsize::new(0),
            closed: AtomicUsize::new(0),
        }
    }

    /// A connection for each request.
    fn connecting(&self, http: &str) {
        while !self.stop.load(Ordering::SeqCst) {
            let answer = exchange(http, "GET / HTTP/1.1\r\nHost: t.example\r\nConnection: close\r\n\r\n");
            assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
            self.served.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// One connection, until the answer says that it closes.
    fn keeping(&self, http: &str) {
        let mut stream = connect(http);
        while !self.stop.load(Ordering::SeqCst) {
            stream
                .write_all(b"GET / HTTP/1.1\r\nHost: t.example\r\n\r\n")
                .expect("open");
            let answer = answer(&mut stream);
            assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
            if answer.all("connection") == ["close"] {
                self.closed.fetch_add(1, Ordering::SeqCst);
                stream = connect(http);
            }
            self.served.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Runs a test beside the clients.
    fn during<T>(&self, http: &str, test: impl FnOnce() -> T) -> T {
        struct Stop<'a>(&'a AtomicBool);
        impl Drop for Stop<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::SeqCst);
            }
        }
        std::thread::scope(|scope| {
            let _stop = Stop(&self.stop);
            for _ in 0..2 {
                scope.spawn(|| self.connecting(http));
                scope.spawn(|| self.keeping(http));
            }
            test()
        })
    }
}

#[test]
fn upgrades_refuse_no_connection_and_cut_no_request() {
    let (origin, release, inside) = holding();
    let site = Site::new("handed-over", &origin);
    let mut running = site.start();
    assert_eq!(site.pid(), u64::from(running.pid()));
    let (load, http) = (Load::new(), running.http.clone());
    let last = load.during(&http, || {
        for _ in 0..rounds() {
            let (held, new) = std::thread::scope(|scope| {
                let held = scope.spawn(|| exchange(&http, "GET /hold HTTP/1.1\r\nHost: a\r\n\r\n"));
                inside.recv().expect("the request is inside");
                let new = site.upgrade(&running);
                // The old process closes the admin side with its other listeners.
                until("the successor has the sockets to itself", || {
                    (0..20).all(|_| site.pid() == u64::from(new.pid()))
                });
                release.send(()).expect("the origin waits");
                (held.join().expect("no panic"), new)
            });
            assert_eq!((held.status, held.body.as_str()), (200, "ok"));
            let (code, lines) = std::mem::replace(&mut running, new).end();
            assert_eq!(code, Some(0));
            let alarms: Vec<_> = lines
                .iter()
                .filter(|l| l.contains(" ERROR ") || l.contains("panicked"))
                .collect();
            assert!(alarms.is_empty(), "{alarms:?}");
        }
        running
    });
    // Each client that kept its connection was told at each upgrade that it closes.
    assert!(load.closed.load(Ordering::SeqCst) >= 2 * rounds());
    println!(
        "{} requests during {} upgrades, none failed",
        load.served.load(Ordering::SeqCst),
        rounds()
    );
    assert_eq!(last.alarms(), Vec::<String>::new());
}

/// How far a successor comes.
#[derive(Debug, Clone, Copy)]
enum Dies {
    BeforeTheSockets,
    WithTheSockets,
    ToldToTake,
    WithOtherWords,
}

/// The successor's end, played by the test.
fn successor(path: &Path, old: &Proxy) -> BufReader<UnixStream> {
    drop(std::fs::remove_file(path));
    let listener = UnixListener::bind(path).expect("socket");
    old.signal("QUIT");
    BufReader::new(listener.accept().expect("the old process comes").0)
}

fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).expect("a line");
    line
}

#[test]
fn a_successor_that_dies_before_it_accepts_changes_nothing() {
    let origin = Origin::named("ok");
    let site = Site::new("dies", &origin);
    std::fs::create_dir_all(site.sock.parent().expect("a folder")).expect("folder");
    let old = site.start();
    let load = Load::new();
    let new = load.during(&old.http, || {
        let points = [
            Dies::BeforeTheSockets,
            Dies::WithTheSockets,
            Dies::ToldToTake,
            Dies::WithOtherWords,
        ];
        for (n, dies) in points.into_iter().enumerate() {
            let mut stream = successor(&site.sock, &old);
            match dies {
                Dies::BeforeTheSockets => {}
                Dies::WithTheSockets => assert!(line(&mut stream).starts_with("sockets 127.")),
                Dies::ToldToTake => {
                    line(&mut stream);
                    stream.get_mut().write_all(b"ready 1\n").expect("it listens");
                    assert_eq!(line(&mut stream), "take\n");
                }
                Dies::WithOtherWords => {
                    line(&mut stream);
                    stream.get_mut().write_all(b"hello\n").expect("it listens");
                }
            }
            drop(stream);
            old.wait_told("QUIT refused: no hand-over", n + 1);
            let seen = load.served.load(Ordering::SeqCst);
            until("requests are served", || load.served.load(Ordering::SeqCst) > seen + 20);
            assert_eq!(site.pid(), u64::from(old.pid()), "{dies:?}");
        }
        assert_eq!(load.closed.load(Ordering::SeqCst), 0, "nobody was told to go");
        drop(std::fs::remove_file(&site.sock));
        site.upgrade(&old)
    });
    assert_eq!(old.end().0, Some(0));
    assert_eq!(new.get("/", "").body, "ok");
}

#[test]
fn there_is_one_upgrade_at_a_time() {
    let origin = Origin::named("ok");
    let site = Site::new("one-at-a-time", &origin);
    let old = site.start();
    let new = std::thread::scope(|scope| {
        let first = scope.spawn(|| Proxy::launch(&site.file, &["-u"], &[]));
        until("a successor waits", || site.sock.exists());
        let folder = site.sock.parent().expect("a folder");
        let mode = |path: &Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
        assert_eq!((mode(folder), mode(&site.sock)), (0o700, 0o600));
        let second = Command::new(program())
            .args(["serve", "-u", "-c"])
            .arg(&site.file)
            .output()
            .expect("it runs");
        let told = String::from_utf8_lossy(&second.stderr).into_owned();
        assert_eq!(second.status.code(), Some(1), "{told}");
        assert!(told.contains("another successor waits at"), "{told}");
        old.signal("QUIT");
        first.join().expect("it starts")
    });
    assert_eq!(old.end().0, Some(0));
    assert_eq!(site.pid(), u64::from(new.pid()));
    // A successor that says nothing is waited for; serving goes on, and a second QUIT is refused.
    let mute = successor(&site.sock, &new);
    new.signal("QUIT");
    new.wait_told("QUIT refused: a hand-over is under way", 1);
    assert_eq!(new.get("/", "").body, "ok");
    drop(mute);
    new.wait_told("QUIT refused: no hand-over", 1);
    assert_eq!(new.get("/", "").all("connection"), ["close"]);
    assert_eq!(site.pid(), u64::from(new.pid()));
}

#[test]
fn term_is_heard_while_a_successor_is_waited_for() {
    let origin = Origin::named("ok");
    let site = Site::new("term-in-hand-over", &origin);
    std::fs::create_dir_all(site.sock.parent().expect("a folder")).expect("folder");
    let old = site.start();
    let mute = successor(&site.sock, &old);
    old.signal("TERM");
    let (code, lines) = old.end();
    assert_eq!(code, Some(0));
    assert!(
        lines.iter().any(|l| l.contains("drained: nothing is in flight")),
        "{lines:?}"
    );
    drop(mute);
}
