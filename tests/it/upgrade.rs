//! `switchyard upgrade`: it returns when the successor serves, and says why when that does not come to serve.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::files::{free, text, until};
use crate::harness::{Origin, one_pool};
use crate::succession::{Succession, Wanted, kill, runs, told};

#[test]
fn a_process_in_the_foreground_is_replaced_and_its_successor_writes_where_it_did() {
    let origin = Origin::named("ok");
    let mut site = Succession::simple("upgrade-foreground", &origin.address, "drain: 5s");
    let first = site.start();
    let output = site.upgrade(&["-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    let result: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON alone");
    assert_eq!(result["replaced"], first);
    assert_eq!(result["revision"], 0);
    assert_eq!(site.first_ends(), Some(0));
    let second = site.answering().expect("a process");
    assert_eq!(result["pid"], second);
    assert_eq!(site.get(), 200);
    let log = site.errors();
    assert!(log.contains("the sockets are taken over"), "{log}");
    assert_eq!(log.matches("switchyard 0.1.0 with").count(), 2, "{log}");
    until("the access log goes on where it was", || {
        text(&site.directory.join("out")).lines().count() == 1
    });

    // For people, the way is told.
    let output = site.upgrade(&[]);
    let (way, result) = (told(&output), String::from_utf8_lossy(&output.stdout).into_owned());
    let started = way.lines().next().and_then(|line| line.split(' ').nth(5));
    let third: u32 = started.and_then(|pid| pid.parse().ok()).expect("a pid");
    site.came(third);
    let expected = format!(
        "process {second} serves; its successor {third} is started\n  it is prepared, and waits for the sockets\n  \
         it has the sockets\n  it accepts, at revision 0\n"
    );
    assert_eq!(way, expected);
    assert_eq!(
        result,
        format!("process {third} serves; {second} finishes what is in flight, for 5s at most\n")
    );
    until("the second has ended", || !runs(second));
    assert_eq!(site.answering(), Some(third));
    assert!(!site.errors().contains(" ERROR "), "{}", site.errors());
}

#[test]
fn a_daemon_is_found_by_its_pid_file_and_replaced_by_a_daemon() {
    let origin = Origin::named("ok");
    let site = Succession::simple("upgrade-daemon", &origin.address, "drain: 5s");
    let pid_file = site.directory.join("run/pid");
    let pid = || text(&pid_file).trim().parse::<u32>().expect("a pid");
    let mut start = site.command(&["serve", "-d", "-c"]);
    // A file, because the daemon keeps what it gets.
    let log = std::fs::File::create(site.directory.join("err")).expect("file");
    let started = start
        .arg(&site.file)
        .stdout(log.try_clone().expect("file"))
        .stderr(log)
        .status();
    assert!(started.expect("it runs").success());
    let first = pid();
    site.came(first);
    let second = site.upgraded();
    assert_eq!(pid(), second);
    until("the first has ended", || !runs(first));
    assert_eq!((pid(), site.answering()), (second, Some(second)));
    kill(second, "TERM");
    until("the pid file is gone", || !pid_file.exists());
    let nobody = site.upgrade(&[]);
    assert_eq!(nobody.status.code(), Some(1), "{}", told(&nobody));
}

/// Tries to upgrade to a file; it must not work, and change nothing. What it said.
fn refused(site: &Succession, serving: u32, write: impl Fn(&std::path::Path), code: i32) -> String {
    let file = site.directory.join("next.yaml");
    write(&file);
    let output = site.upgrade_to(&file, &[]);
    let text = told(&output);
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert_eq!(site.answering(), Some(serving), "{text}");
    assert_eq!(site.get(), 200);
    text
}

#[test]
fn a_successor_that_cannot_start_says_why_and_the_old_process_serves_on() {
    let origin = Origin::named("ok");
    let mut site = Succession::simple("upgrade-refused", &origin.address, "drain: 5s");
    let serving = site.start();
    let pools_and_routes = one_pool(&origin.address, "");
    let wanted = Wanted {
        listeners: "",
        server: "drain: 5s",
        pools_and_routes: &pools_and_routes,
    };
    let invalid = refused(
        &site,
        serving,
        |file| std::fs::write(file, "listeners: 7\n").expect("written"),
        2,
    );
    assert!(invalid.contains("next.yaml:1:1: listeners: "), "{invalid}");
    // An address of somebody else, and one that covers the running process's own.
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let taken = other.local_addr().expect("address").to_string();
    let wide = format!("0.0.0.0:{}", site.http.port());
    let own = format!("the running process listens on {}, ", site.http);
    for (address, why) in [(&taken, "Address already in use"), (&wide, own.as_str())] {
        let text = refused(&site, serving, |file| site.write(file, address, &wanted), 1);
        let expected = format!("cannot listen on {address}: {why}");
        assert!(text.contains(&expected), "{text}");
        assert!(text.contains(&format!("process {serving} serves on")), "{text}");
    }
    // It waits where the running process does not look.
    let elsewhere = format!("drain: 5s, upgrade_sock: {}/elsewhere", site.directory.display());
    let text = refused(
        &site,
        serving,
        |file| {
            let server = &elsewhere;
            site.write(file, &site.http.to_string(), &Wanted { server, ..wanted });
        },
        1,
    );
    assert!(text.contains("does it run with another server.upgrade_sock?"), "{text}");
    // A new address that can be had is taken; the old one goes with the old process.
    let [next] = free();
    let file = site.directory.join("next.yaml");
    site.write(&file, &next.to_string(), &wanted);
    let output = site.upgrade_to(&file, &["-o", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", told(&output));
    assert_eq!(site.first_ends(), Some(0));
    assert!(std::net::TcpStream::connect(site.http).is_err());
    site.http = next;
    assert_eq!(site.get(), 200);
}

#[test]
fn a_process_that_quit_would_kill_is_not_told_it() {
    let origin = Origin::named("ok");
    let mut site = Succession::simple("upgrade-strangers", &origin.address, "drain: 5s");
    let serving = site.start();
    let mut stranger = Command::new("sleep").arg("1000").spawn().expect("it starts");
    let output = site.upgrade(&["--pid", &stranger.id().to_string()]);
    assert_eq!(output.status.code(), Some(1));
    let expected = format!(
        "process {} does not listen to QUIT: it is no switchyard that serves, or one that is still starting\n",
        stranger.id()
    );
    assert_eq!(told(&output), expected);
    assert!(runs(stranger.id()));
    stranger.kill().expect("it runs");
    stranger.wait().expect("it ends");
    let output = site.upgrade(&["--pid", &stranger.id().to_string()]);
    let expected = format!("process {} cannot be told to hand over: ", stranger.id());
    assert!(told(&output).starts_with(&expected), "{}", told(&output));
    assert!(!told(&output).contains("serves"), "{}", told(&output));
    assert_eq!(site.answering(), Some(serving));
}

#[test]
fn nobody_is_given_sockets_in_a_folder_that_all_may_write_to() {
    let origin = Origin::named("ok");
    let mut site = Succession::simple("upgrade-in-public", &origin.address, "drain: 5s");
    let serving = site.start();
    let run = site.directory.join("run");
    std::fs::create_dir_all(&run).expect("folder");
    let allow = |mode| std::fs::set_permissions(&run, std::fs::Permissions::from_mode(mode)).expect("a mode");
    // As /tmp is.
    allow(0o1777);
    let output = site.upgrade(&[]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "run: anybody may write to this folder, and wait in a successor's place: \
                    write a server.upgrade_sock in a folder of its own";
    assert!(told(&output).contains(expected), "{}", told(&output));
    // Somebody waits there, and somebody says QUIT.
    let waiting = std::os::unix::net::UnixListener::bind(run.join("sock")).expect("a socket");
    kill(serving, "QUIT");
    until("it is refused", || {
        site.errors().contains("QUIT refused: no hand-over at")
    });
    waiting.set_nonblocking(true).expect("a socket");
    assert!(waiting.accept().is_err(), "nobody came");
    drop(waiting);
    allow(0o700);
    assert_ne!(site.upgraded(), serving);
    assert_eq!(site.first_ends(), Some(0));
}

#[test]
fn a_panic_while_starting_ends_the_successor_and_is_told() {
    let origin = Origin::named("ok");
    let mut site = Succession::simple("upgrade-panics", &origin.address, "drain: 5s");
    let serving = site.start();
    let (mut panicked, mut failed) = (0, 0);
    // Wherever the descriptors run out. Beyond the last of these it starts.
    for limit in (10..40).step_by(2) {
        let script = format!("ulimit -n {limit}; exec \"$0\" upgrade -o json -c \"$1\"");
        let output = Command::new("sh")
            .args(["-c", &script])
            .arg(crate::harness::program())
            .arg(&site.file)
            .output()
            .expect("it runs");
        if output.status.success() {
            let result: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
            site.came(u32::try_from(result["pid"].as_u64().expect("a pid")).expect("a pid"));
            break;
        }
        failed += 1;
        panicked += usize::from(told(&output).contains("panicked at"));
        assert_eq!(site.answering(), Some(serving), "{}", told(&output));
        assert_eq!(site.get(), 200);
    }
    assert!(failed > 3 && panicked > 0, "{failed} failed, {panicked} panicked");
}

/// With pool `a` and rollout `checkout`, and more of each.
fn with_more(origins: &[&Origin; 2], store: &std::path::Path, more: [&str; 3]) -> String {
    let [pool, route, rollout] = more;
    format!(
        "pools: {{ a: {{ endpoints: [\"{}\"] }}{} }}\nroutes: [{route}{{ rollout: checkout }}]\n\
         store: {{ embedded: {{ path: {} }} }}\n\
         rollouts: {{ checkout: {{ releases: {{ stable: {{ pool: a }} }} }}{rollout} }}\n",
        origins[0].address,
        pool.replace("B", &origins[1].address),
        store.display()
    )
}

#[test]
fn what_a_new_configuration_adds_is_served_and_its_schedule_is_kept_by_who_knows_it() {
    let (go_on, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let slow = Origin::spawn(move |head, stream| {
        if head.starts_with("GET /slow ") {
            wait.lock().expect("lock").recv().expect("told");
        }
        crate::harness::respond(stream, "a")
    });
    let origins = [&slow, &Origin::named("b")];
    let store = crate::files::directory("upgrade-more-store").join("store.db");
    let wanted = |pools_and_routes| Wanted {
        listeners: "",
        server: "drain: 60s",
        pools_and_routes,
    };
    let less = with_more(&origins, &store, ["", "", ""]);
    let mut site = Succession::new("upgrade-more", &wanted(&less));
    site.start();
    let mut in_flight = crate::harness::connect(&site.http.to_string());
    let asked = b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n";
    std::io::Write::write_all(&mut in_flight, asked).expect("sent");
    until("it is under way", || slow.heads().len() == 1);

    let more = [
        ", b: { endpoints: [\"B\"] }",
        "{ match: { path: /shop }, rollout: shop }, ",
        ", shop: { releases: { stable: { pool: b } } }",
    ];
    let more = with_more(&origins, &store, more);
    let admin = |method: &str, path: &str, body: &str| {
        let fields = "Host: localhost\r\nContent-Type: application/json\r\n";
        crate::admin_client::ask(&site.admin.to_string(), method, path, fields, body)
    };
    let pinned = admin("PUT", "/api/v1/rollouts/checkout/users/1", r#"{"release":"stable"}"#);
    assert_eq!(pinned.status, 200, "{}", pinned.body);

    // One that does not come to serve leaves nothing behind.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("bind");
    let next = site.directory.join("next.yaml");
    site.write(&next, &taken.local_addr().expect("address").to_string(), &wanted(&more));
    let failed = site.upgrade_to(&next, &[]);
    assert_eq!(failed.status.code(), Some(1), "{}", told(&failed));
    let history = admin("GET", "/api/v1/history?limit=100", "").body;
    assert!(!history.contains("shop"), "{history}");

    let mut half = crate::harness::connect(&site.admin.to_string());
    let body = r#"{"release":"stable"}"#;
    let head = format!(
        "PUT /api/v1/rollouts/checkout/users/2 HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        body.len()
    );
    std::io::Write::write_all(&mut half, head.as_bytes()).expect("sent");
    site.write(&site.file, &site.http.to_string(), &wanted(&more));
    site.upgraded();
    let asked = "GET /shop HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    let answer = crate::harness::exchange(&site.http.to_string(), asked);
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (200, "b"),
        "its rollout is seeded"
    );

    // The process that drains does not know pool `b`, and has nothing to say of what names it.
    let at = switchyard::clock::rfc3339(switchyard::clock::unix_millis() + 1_500);
    let spec = r#"{"releases":{"stable":{"pool":"b"}}}"#;
    for name in ["one", "two", "three", "four", "five"] {
        let answer = admin("PUT", &format!("/api/v1/rollouts/{name}?at={at}"), spec);
        assert_eq!(answer.status, 202, "{}", answer.body);
    }
    until("the schedule is empty", || {
        let schedule = admin("GET", "/api/v1/schedule", "").body;
        serde_json::from_str::<serde_json::Value>(&schedule).expect("JSON")["scheduled"] == serde_json::json!([])
    });
    let history = admin("GET", "/api/v1/history?limit=100", "").body;
    assert_eq!(history.matches("\"source\":\"schedule\"").count(), 5, "{history}");
    assert!(!history.contains("taken back"), "{history}");
    go_on.send(()).expect("it waits");
    assert_eq!(crate::harness::answer(&mut in_flight).body, "a");
    assert_eq!(site.first_ends(), Some(0));
    let errors = site.errors();
    assert_eq!(
        errors.matches(" ERROR ").count(),
        1,
        "that of the one that came to nothing: {errors}"
    );
}

/// The other end of NOTIFY_SOCKET.
fn supervisor(site: &mut Succession) -> UnixDatagram {
    let path = site.directory.join("notify");
    let socket = UnixDatagram::bind(&path).expect("socket");
    socket
        .set_read_timeout(Some(crate::harness::PATIENCE))
        .expect("timeout");
    site.set("NOTIFY_SOCKET", &path.display().to_string());
    socket
}

/// The next message that is none of the watchdog's.
fn said(socket: &UnixDatagram) -> String {
    let mut bytes = [0; 512];
    loop {
        let length = socket.recv(&mut bytes).expect("a message");
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if text != "WATCHDOG=1\n" {
            return text;
        }
    }
}

#[test]
fn whoever_runs_it_is_told_of_its_main_process_and_its_end() {
    let origin = Origin::named("ok");
    let mut site = Succession::simple("upgrade-notify", &origin.address, "drain: 5s");
    let socket = supervisor(&mut site);
    let first = site.start();
    assert_eq!(said(&socket), format!("MAINPID={first}\nREADY=1\n"));
    // From outside of the service, nothing can be put in its place.
    let mut outside = Command::new(crate::harness::program());
    let outside = outside
        .args(["upgrade", "-c"])
        .arg(&site.file)
        .env_remove("NOTIFY_SOCKET");
    let output = outside.output().expect("it runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("systemctl reload"), "{}", told(&output));
    let second = site.upgraded();
    assert_eq!(said(&socket), format!("MAINPID={second}\nREADY=1\n"));
    assert_eq!(site.first_ends(), Some(0));
    kill(second, "TERM");
    assert_eq!(
        said(&socket),
        "STOPPING=1\n",
        "the first did not say that the service stops"
    );
}

#[test]
fn a_watchdog_hears_of_it_and_of_its_successor() {
    let origin = Origin::named("ok");
    let mut site = Succession::simple("upgrade-watchdog", &origin.address, "drain: 5s");
    let socket = supervisor(&mut site);
    site.set("WATCHDOG_USEC", "20000");
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    std::thread::spawn(move || {
        let mut bytes = [0; 512];
        while let Ok(length) = socket.recv(&mut bytes) {
            let alive = bytes[..length].starts_with(b"WATCHDOG=1");
            count.fetch_add(usize::from(alive), Ordering::SeqCst);
        }
    });
    let more = || {
        let before = heard.load(Ordering::SeqCst);
        until("it is alive", || heard.load(Ordering::SeqCst) > before + 5);
    };
    site.start();
    more();
    site.upgraded();
    assert_eq!(site.first_ends(), Some(0));
    more();
}
