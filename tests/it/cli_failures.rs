//! The command line when something is wrong: exit codes, and words that say what to do.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::cli::{Cli, YAML};
use crate::harness::{Origin, Proxy, fields, nowhere};

const KILL: &[&str] = &["rollout", "kill", "checkout"];

#[test]
fn nobody_there_and_usage_are_told_with_what_to_do() {
    let address = nowhere();
    let cli = Cli::at(&address);
    let none = cli.run(KILL);
    assert_eq!(none.code, 1);
    let text = format!("cannot reach http://{address}: connection refused: is switchyard running?");
    assert!(
        none.err.starts_with(&text) && none.err.contains("--admin URL"),
        "{}",
        none.err
    );
    for (args, words) in [
        (
            &["rollout", "list", "--admin", "there"][..],
            "write one such as http://127.0.0.1:9180",
        ),
        (&["rollout", "split", "checkout", "canary=12"], "such as 12.5%"),
        (&["rollout", "split", "checkout", "canary"], "such as canary=12.5%"),
        (
            &["rollout", "split", "checkout", "canary=1%", "canary=2%"],
            "is given two shares",
        ),
        (&["rollout", "get", "a/b"], "is no name"),
        (
            &["user", "set", "checkout", "7", "canary", "--until", "never"],
            "such as 2h or 7d",
        ),
        (&["user", "explain", "checkout", "7", "-H", "x"], "X-App-Version: 5.3.0"),
        (
            &["rollout", "list", "--token-file", "nowhere"],
            "write the path of a file with a token",
        ),
        (&["rollout", "undo", "--to", "x"], "write a number such as 17"),
        (
            &["rollout", "split", "checkout", "canary=1%", "--if-match", "x"],
            "write a number such as 17",
        ),
        (&["rollout", "schedule", "cancel", "x"], "write a number such as 17"),
        (&["user", "set", "checkout", "", "canary"], "write 1 to 1024 bytes"),
        (
            &["user", "explain", "checkout", "7", "--client", "x"],
            "such as 203.0.113.7",
        ),
        (&["rollout", "frobnicate"], "unrecognized subcommand"),
    ] {
        let run = cli.run(args);
        assert_eq!((run.code, run.err.contains(words)), (2, true), "{args:?}: {}", run.err);
    }
}

#[test]
fn tokens_come_from_a_file_or_the_environment() {
    let tokens = std::env::temp_dir().join(format!("switchyard-cli-tokens-{}", std::process::id()));
    std::fs::write(
        &tokens,
        "operator olga secret-of-olga-0123\nviewer vera secret-of-vera-0123\n",
    )
    .expect("tokens");
    let place = tokens.display();
    let admin = format!("\nadmin: {{ address: \"127.0.0.1:0\", tokens_file: \"{place}\" }}{YAML}");
    let proxy = Proxy::start(&admin);
    let cli = Cli::at(&proxy.admin);
    cli.file("olga", "secret-of-olga-0123\n");
    let none = cli.run(KILL);
    assert_eq!(
        (none.code, none.err.contains("--token-file FILE")),
        (1, true),
        "{}",
        none.err
    );
    cli.ok(&[KILL, &["--token-file", "olga"]].concat());
    let history = cli.ok(&["rollout", "history", "-n", "1", "--token-file", "olga"]);
    assert!(history.contains("olga"), "{history}");
    let vera = Cli::at(&proxy.admin).with("SWITCHYARD_TOKEN", "secret-of-vera-0123");
    vera.ok(&["rollout", "list"]);
    let low = vera.run(&["rollout", "resume", "checkout"]);
    assert_eq!(low.code, 1, "{}", low.err);
    std::fs::remove_file(&tokens).expect("removed");
}

fn answer(stream: &mut TcpStream, status: &str, body: &str) -> bool {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).is_ok()
}

const COMMITTED: &str = r#"{"revision":7,"live":false,"changed":true,"dry_run":false,"summary":"checkout: killed"}"#;

#[test]
fn committed_but_not_live_has_an_exit_code_of_its_own_and_wait_waits() {
    let asked = AtomicUsize::new(0);
    let admin = Origin::spawn(move |head, stream| {
        if head.starts_with("POST") {
            return answer(stream, "202 Accepted", COMMITTED);
        }
        // Live at the second look.
        let revision = if asked.fetch_add(1, Ordering::SeqCst) == 0 {
            6
        } else {
            7
        };
        let status = serde_json::json!({
            "version": "1", "pid": 1, "uptime_seconds": 1, "revision": revision, "ready": true,
            "store": { "kind": "memory", "place": "", "read_only": null }, "stuck": {}, "pools": [],
            "rollouts": 1, "segments": 0, "scheduled": 0,
        });
        answer(stream, "200 OK", &status.to_string())
    });
    let cli = Cli::at(&admin.address);
    let run = cli.run(KILL);
    assert_eq!(run.code, 4);
    assert_eq!(run.out, "checkout: killed\nrevision 7, committed, not yet live\n");
    assert!(
        run.err.starts_with("revision 7 is committed, but not yet live"),
        "{}",
        run.err
    );
    let waited = cli.ok(&[KILL, &["--wait"]].concat());
    assert_eq!(waited, "checkout: killed\nrevision 7, live\n");
}

#[test]
fn a_lost_connection_and_a_passing_503_are_repeated_under_the_same_key() {
    let calls = AtomicUsize::new(0);
    let admin = Origin::spawn(move |_, stream| match calls.fetch_add(1, Ordering::SeqCst) {
        0 => false,
        1 => answer(
            stream,
            "503 Service Unavailable",
            r#"{"type":"behind","title":"","status":503,"detail":"later"}"#,
        ),
        _ => answer(stream, "200 OK", &COMMITTED.replace("\"live\":false", "\"live\":true")),
    });
    Cli::at(&admin.address).ok(KILL);
    let heads = admin.heads();
    let keys: Vec<Vec<&str>> = heads.iter().map(|head| fields(head, "idempotency-key")).collect();
    assert_eq!(keys.len(), 3);
    assert!(keys[0].len() == 1 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    Cli::at(&admin.address).ok(KILL);
    assert_ne!(fields(&admin.heads()[3], "idempotency-key"), keys[0]);
}

#[test]
fn repeating_has_a_bound_and_what_will_not_pass_is_not_repeated() {
    let gone = Origin::spawn(|_, _| false);
    let run = Cli::at(&gone.address).run(KILL);
    assert_eq!((run.code, gone.heads().len()), (1, 4), "{}", run.err);
    assert!(
        run.err
            .contains("whether a change was made, `switchyard rollout history` says"),
        "{}",
        run.err
    );
    let body = r#"{"type":"read-only","title":"","status":503,"detail":"the store is read-only"}"#;
    let shut = Origin::spawn(move |_, stream| answer(stream, "503 Service Unavailable", body));
    let run = Cli::at(&shut.address).run(KILL);
    assert_eq!(
        (run.code, shut.heads().len(), run.err.as_str()),
        (1, 1, "the store is read-only\n")
    );
    let body = r#"{"type":"timeout","title":"","status":503,"detail":"it took longer than 1800 s"}"#;
    let slow = Origin::spawn(move |_, stream| {
        stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").expect("written");
        let mut list = Vec::new();
        while !list.ends_with(b"0\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the list");
            list.extend_from_slice(&byte);
        }
        answer(stream, "503 Service Unavailable", body)
    });
    let cli = Cli::at(&slow.address);
    cli.file("users.txt", "1\n");
    let run = cli.run(&["user", "import", "checkout", "canary", "users.txt"]);
    let text = "it took longer than 1800 s\n";
    assert_eq!((run.code, slow.heads().len(), run.err.as_str()), (1, 1, text));
    let other = Origin::named("hello");
    let run = Cli::at(&other.address).run(KILL);
    assert_eq!(
        (run.code, run.err.contains("does not understand")),
        (1, true),
        "{}",
        run.err
    );
}

#[test]
fn events_are_followed_a_line_each() {
    let (_proxy, cli) = Cli::start();
    let mut child = cli
        .command(&["events", "--figures"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(child.stdout.take().expect("piped"))
        .lines()
        .map_while(Result::ok);
    // The figures of a second say that it listens.
    assert!(lines.any(|line| line.starts_with("figures ")));
    cli.ok(KILL);
    let told = lines.find(|line| line.starts_with("revision 2 "));
    child.kill().expect("killed");
    child.wait().expect("it ends");
    assert!(told.is_some_and(|line| line.contains("checkout: killed")));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (_proxy, cli) = Cli::start();
    let many: String = (0..20_000).map(|n| format!("user-{n}\n")).collect();
    cli.file("many.txt", &many);
    cli.ok(&["user", "import", "checkout", "canary", "many.txt"]);
    let mut child = cli
        .command(&["user", "export", "checkout"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let ended = child.wait_with_output().expect("it ends");
    assert_eq!((ended.status.code(), ended.stderr.as_slice()), (Some(0), &b""[..]));
}
