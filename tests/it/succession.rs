//! A configuration that one process after the other runs with, by `switchyard upgrade`.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;

use crate::files::{directory, free, text, until};
use crate::harness::{exchange, one_pool, program};

/// Its files, and who ran with them.
pub struct Succession {
    pub directory: PathBuf,
    pub file: PathBuf,
    pub http: SocketAddr,
    pub admin: SocketAddr,
    first: Option<Child>,
    /// All processes, so that none outlives the test.
    pids: Mutex<Vec<u32>>,
    environment: Vec<(String, String)>,
}

/// What is written for it beside its own addresses.
pub struct Wanted<'a> {
    pub listeners: &'a str,
    pub server: &'a str,
    pub pools_and_routes: &'a str,
}

impl Succession {
    /// With one pool and one listener.
    pub fn simple(name: &str, origin: &str, server: &str) -> Self {
        let wanted = Wanted {
            listeners: "",
            server,
            pools_and_routes: &one_pool(origin, ""),
        };
        Self::new(name, &wanted)
    }

    pub fn new(name: &str, wanted: &Wanted<'_>) -> Self {
        let directory = directory(name);
        let [http, admin] = free();
        let new = Self {
            file: directory.join("switchyard.yaml"),
            directory,
            http,
            admin,
            first: None,
            pids: Mutex::default(),
            environment: Vec::new(),
        };
        new.write(&new.file, &http.to_string(), wanted);
        new
    }

    /// Writes a configuration with this first listener.
    pub fn write(&self, file: &Path, http: &str, wanted: &Wanted<'_>) {
        let place = self.directory.display();
        let (admin, listeners) = (self.admin, wanted.listeners);
        let own = |key: &str, value: &str| match wanted.server.contains(key) {
            true => String::new(),
            false => format!("{key}: {place}/{value}, "),
        };
        let server = format!(
            "{}{}{}",
            own("pid_file", "run/pid"),
            own("upgrade_sock", "run/sock"),
            wanted.server
        );
        let store = match wanted.pools_and_routes.contains("store: ") {
            true => "",
            false => "store: { memory: {} }\n",
        };
        let configuration = format!(
            "listeners: [{{ address: \"{http}\" }}{listeners}]\nadmin: {{ address: \"{admin}\" }}\n\
             {store}server: {{ {server} }}\n{}",
            wanted.pools_and_routes
        );
        std::fs::write(file, configuration).expect("configuration");
    }

    /// A variable for all processes.
    pub fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(arguments)
            .envs(self.environment.iter().map(|(k, v)| (k, v)));
        command
    }

    /// The first process, in the foreground; returns when it is ready.
    pub fn start(&mut self) -> u32 {
        let file = |name: &str| File::create(self.directory.join(name)).expect("file");
        let mut command = self.command(&["serve", "-c"]);
        command.arg(&self.file).stdout(file("out")).stderr(file("err"));
        let child = command.spawn().expect("it starts");
        let pid = child.id();
        self.first = Some(child);
        self.came(pid);
        until("it is ready", || self.answering() == Some(pid));
        pid
    }

    /// Notes a process.
    pub fn came(&self, pid: u32) {
        self.pids.lock().expect("lock").push(pid);
    }

    /// `switchyard upgrade` with its own file, to its end.
    pub fn upgrade(&self, more: &[&str]) -> Output {
        self.upgrade_to(&self.file, more)
    }

    pub fn upgrade_to(&self, file: &Path, more: &[&str]) -> Output {
        let mut command = self.command(&["upgrade", "-c"]);
        let output = command.arg(file).args(more).output().expect("it runs");
        if let Ok(result) = serde_json::from_slice::<serde_json::Value>(&output.stdout) {
            self.came(number(&result["pid"]));
        }
        output
    }

    /// The same; it must succeed. The id of the process that serves now.
    pub fn upgraded(&self) -> u32 {
        let output = self.upgrade(&["-o", "json"]);
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        let result: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        number(&result["pid"])
    }

    /// `switchyard upgrade`, under way; its words are to be read.
    pub fn upgrading(&self, file: &Path) -> Child {
        let mut command = self.command(&["upgrade", "-c"]);
        command.arg(file).stdout(Stdio::null()).stderr(Stdio::piped());
        command.spawn().expect("it runs")
    }

    /// The process that answers at the admin side.
    pub fn answering(&self) -> Option<u32> {
        let asked = "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        std::net::TcpStream::connect(self.admin).ok()?;
        let body = exchange(&self.admin.to_string(), asked).body;
        let status: serde_json::Value = serde_json::from_str(&body).ok()?;
        Some(number(&status["pid"]))
    }

    /// The status of an answer on a connection of its own.
    pub fn get(&self) -> u16 {
        let asked = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        exchange(&self.http.to_string(), asked).status
    }

    /// What all of them wrote to standard error.
    pub fn errors(&self) -> String {
        text(&self.directory.join("err"))
    }

    /// Waits for the first process to end; its exit code.
    pub fn first_ends(&mut self) -> Option<i32> {
        let mut child = self.first.take().expect("it was started");
        child.wait().expect("it ends").code()
    }
}

impl Drop for Succession {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", self.errors());
        }
        for pid in self.pids.lock().expect("lock").iter() {
            kill(*pid, "KILL");
        }
        if let Some(child) = &mut self.first {
            drop(child.wait());
        }
    }
}

pub fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Signals a process, if it is there.
pub fn kill(pid: u32, signal: &str) {
    let mut command = Command::new("kill");
    drop(
        command
            .args(["-s", signal, &pid.to_string()])
            .stderr(Stdio::null())
            .status(),
    );
}

/// Whether it runs: a process that nobody waits for is there, and dead.
pub fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

fn number(value: &serde_json::Value) -> u32 {
    value.as_u64().and_then(|n| u32::try_from(n).ok()).expect("a number")
}
