//! The command line against the running program: what it reads, and how it looks.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::harness::{Proxy, exchange, program};

/// Two pools that nobody asks, a rollout with every kind of target, and a segment that is still empty.
pub const YAML: &str = r#"
pools:
  stable: { endpoints: ["127.0.0.1:9"] }
  canary: { endpoints: ["127.0.0.1:9"] }
routes: [{ rollout: checkout }]
rollouts:
  checkout:
    releases: { stable: { pool: stable }, canary: { pool: canary } }
    targets:
      - { users: ["42", "1001"], release: canary }
      - { segment: testers, release: canary }
      - { when: { header: X-App-Version, semver: ">=5.2.0" }, release: canary }
    split: { canary: 12.5% }
"#;

/// What a run of the program left.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// Runs the command line in a folder of its own.
pub struct Cli {
    admin: String,
    folder: PathBuf,
    environment: Vec<(&'static str, String)>,
}

static NUMBER: AtomicUsize = AtomicUsize::new(0);

impl Cli {
    /// For an admin side at an address.
    pub fn at(address: &str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("switchyard-cli-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        Self {
            admin: format!("http://{address}"),
            folder,
            environment: vec![("COLUMNS", "100".to_owned())],
        }
    }

    /// For a running program with [`YAML`].
    pub fn start() -> (Proxy, Self) {
        let proxy = Proxy::start(YAML);
        let cli = Self::at(&proxy.admin);
        (proxy, cli)
    }

    pub fn with(mut self, variable: &'static str, value: &str) -> Self {
        self.environment.push((variable, value.to_owned()));
        self
    }

    /// Writes a file that runs can name.
    pub fn file(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.folder.join(name), text).expect("a file");
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        for variable in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "SWITCHYARD_TOKEN"] {
            command.env_remove(variable).env_remove(variable.to_lowercase());
        }
        command.env("SWITCHYARD_ADMIN", &self.admin).env("NO_COLOR", "1");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.current_dir(&self.folder).args(args);
        command
    }

    pub fn run(&self, args: &[&str]) -> Run {
        self.run_with(args, "")
    }

    pub fn run_with(&self, args: &[&str], input: &str) -> Run {
        let mut command = self.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        // Whoever reads nothing of it closes it early.
        drop(child.stdin.take().expect("piped").write_all(input.as_bytes()));
        let ended = child.wait_with_output().expect("it ends");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        Run {
            code: ended.status.code().expect("a code"),
            out: text(ended.stdout),
            err: text(ended.stderr),
        }
    }

    /// Runs what must succeed; what it printed.
    pub fn ok(&self, args: &[&str]) -> String {
        let run = self.run(args);
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{args:?}: {run:?}");
        run.out
    }

    /// Runs what must succeed with `-o json`; what it printed.
    pub fn json(&self, args: &[&str]) -> Value {
        let args: Vec<&str> = args.iter().copied().chain(["-o", "json"]).collect();
        serde_json::from_str(&self.ok(&args)).expect("JSON")
    }

    pub fn revision(&self) -> u64 {
        self.json(&["rollout", "list"])["revision"].as_u64().expect("a number")
    }
}

impl Drop for Cli {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.folder));
    }
}

/// Compares with the file of that name; `SWITCHYARD_FIXTURES=write` writes it.
pub fn same(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/cli/{name}.txt"));
    if std::env::var_os("SWITCHYARD_FIXTURES").is_some_and(|word| word == "write") {
        fs::write(&path, text).expect("a fixture");
    }
    let expected = fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, expected, "{}", path.display());
}

#[test]
fn rollouts_are_tables_that_keep_to_the_width() {
    let (_proxy, cli) = Cli::start();
    same("list", &cli.ok(&["rollout", "list"]));
    same("get", &cli.ok(&["rollout", "get", "checkout"]));
    same("plan", &cli.ok(&["rollout", "plan", "checkout", "canary=20%"]));
    same("schedule", &cli.ok(&["rollout", "schedule", "list"]));
    same("segments", &cli.ok(&["segment", "list"]));
    let narrow = cli.with("COLUMNS", "44");
    let list = narrow.ok(&["rollout", "list"]);
    same("list_narrow", &list);
    assert!(list.lines().all(|line| line.chars().count() <= 44), "{list}");
}

#[test]
fn explain_tells_every_step_and_offline_tells_the_same() {
    let (_proxy, cli) = Cli::start();
    let version = ["-H", "X-App-Version: 5.3.0"];
    let explain = |more: &[&str]| {
        let all: Vec<&str> = ["user", "explain", "checkout"].iter().chain(more).copied().collect();
        cli.ok(&all)
    };
    same("explain_user", &explain(&["42"]));
    same("explain_header", &explain(&["43", version[0], version[1]]));
    same("explain_split", &explain(&["44"]));
    same("explain_nobody", &explain(&[]));
    let file = format!("listeners: [{{ address: \"127.0.0.1:0\" }}]\n{YAML}");
    cli.file("sy.yaml", &file);
    for more in [&["42"][..], &["43", version[0], version[1]], &["44"], &[" 42 "], &[]] {
        let (online, offline) = (
            cli.json(&[&["user", "explain", "checkout"], more].concat()),
            cli.json(&[&["user", "explain", "checkout", "-c", "sy.yaml"], more].concat()),
        );
        assert_eq!(online["explanation"], offline["explanation"]);
        assert_eq!(online["pool"], offline["pool"]);
    }
    let none = cli.run(&["user", "explain", "search", "42", "-c", "sy.yaml"]);
    assert_eq!(
        (none.code, none.err.as_str()),
        (2, "sy.yaml: has no rollout search: it has checkout\n")
    );
}

#[test]
fn what_comes_several_times_is_a_list_online_and_offline() {
    let when = [
        "{ claim: groups, equals: a }",
        "{ cookie: beta, equals: yes }",
        "{ header: X-Plan, equals: pro }",
    ];
    let targets = when.map(|when| format!("      - {{ when: {when}, release: canary }}\n"));
    let yaml = YAML.replace("    targets:\n", &format!("    targets:\n{}", targets.concat()));
    let proxy = Proxy::start(&yaml);
    let cli = Cli::at(&proxy.admin);
    cli.file(
        "sy.yaml",
        format!("listeners: [{{ address: \"127.0.0.1:0\" }}]\n{yaml}"),
    );
    for more in [
        ["--claim", "groups=a", "--claim", "groups=b"],
        ["-H", "Cookie: a=1", "-H", "cookie: beta=yes; beta=no"],
        ["--cookie", "beta=yes", "--cookie", "beta=no"],
        ["-H", "x-plan: pro", "-H", "X-Plan: free"],
    ] {
        let online = cli.json(&[&["user", "explain", "checkout", "45"], &more[..]].concat());
        let offline = cli.json(&[&["user", "explain", "checkout", "45", "-c", "sy.yaml"], &more[..]].concat());
        assert_eq!(online["explanation"]["reason"], "target", "{more:?}: {online}");
        assert_eq!(online["explanation"], offline["explanation"], "{more:?}");
    }
}

#[test]
fn json_is_the_answer_of_the_api() {
    let (proxy, cli) = Cli::start();
    cli.ok(&["user", "set", "checkout", "7", "canary"]);
    for (args, path) in [
        (&["rollout", "list"][..], "rollouts"),
        (&["rollout", "get", "checkout"], "rollouts/checkout"),
        (&["rollout", "history", "-n", "5"], "history?limit=5"),
        (&["rollout", "schedule", "list"], "schedule"),
        (&["user", "get", "checkout", "7"], "rollouts/checkout/users/7"),
        (&["segment", "list"], "segments"),
        (&["segment", "get", "testers"], "segments/testers"),
    ] {
        let args = [args, &["-o", "json"]].concat();
        let request = format!("GET /api/v1/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        assert_eq!(
            cli.ok(&args).trim_end(),
            exchange(&proxy.admin, &request).body,
            "{args:?}"
        );
    }
    let status = cli.json(&["status"]);
    assert_eq!(
        (&status["ready"], &status["rollouts"]),
        (&Value::Bool(true), &Value::from(1))
    );
}

#[test]
fn status_and_history_are_told_to_people() {
    let (_proxy, cli) = Cli::start();
    let status = cli.ok(&["status"]);
    for part in [
        "ready, pid ",
        "revision: 1, 1 rollout, 1 segment, 0 scheduled",
        "store: memory",
        "POOL",
        "healthy",
    ] {
        assert!(status.contains(part), "{part:?} in {status}");
    }
    cli.ok(&["rollout", "kill", "checkout", "-m", "café: 50% errors"]);
    let history = cli.ok(&["rollout", "history", "--diff"]);
    for part in [
        "cli",
        "checkout: killed, everyone to stable",
        "café: 50% errors",
        "+ checkout.killed: true",
        "seed",
    ] {
        assert!(history.contains(part), "{part:?} in {history}");
    }
    let latest = cli.ok(&["rollout", "history", "-n", "1"]);
    assert!(
        latest.contains("older ones: --before 2") && latest.lines().count() == 3,
        "{latest}"
    );
}

#[test]
fn completions_and_help_know_every_verb() {
    let cli = Cli::at("127.0.0.1:9");
    for shell in ["bash", "zsh", "fish"] {
        let script = cli.ok(&["completion", shell]);
        for verb in ["unfreeze", "explain", "import", "schedule", "segment"] {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
    }
    assert!(cli.ok(&["rollout", "split", "--help"]).contains("--allow-flips"));
}
