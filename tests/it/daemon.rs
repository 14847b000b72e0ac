//! `serve -d`: it returns when the program serves, and says why when it does not.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::files::{directory, free, text, until};
use crate::harness::{Answer, Origin, exchange, one_pool, program};

struct Site {
    directory: PathBuf,
    http: SocketAddr,
    admin: SocketAddr,
}

impl Site {
    fn new(name: &str, origin: &Origin) -> Self {
        let directory = directory(name);
        let [http, admin] = free();
        let place = directory.display();
        let configuration = format!(
            "listeners: [{{ address: \"{http}\" }}]\nadmin: {{ address: \"{admin}\" }}\nstore: {{ memory: {{}} }}\n\
             access_log: {{ path: {place}/access.log }}\n\
             server: {{ pid_file: {place}/run/pid, upgrade_sock: {place}/run/upgrade.sock, error_log: {place}/error.log }}\n{}",
            one_pool(&origin.address, "")
        );
        std::fs::write(directory.join("switchyard.yaml"), configuration).expect("configuration");
        Self { directory, http, admin }
    }

    fn serve(&self, arguments: &[&str]) -> Output {
        Command::new(program())
            .arg("serve")
            .args(arguments)
            .arg("-c")
            .arg(self.directory.join("switchyard.yaml"))
            .output()
            .expect("it runs")
    }

    fn pid(&self) -> Option<u32> {
        text(&self.directory.join("run/pid")).trim().parse().ok()
    }

    fn get(&self) -> Answer {
        exchange(
            &self.http.to_string(),
            "GET /here HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        )
    }

    /// The process that answers.
    fn answering(&self) -> Option<u32> {
        let asked = "GET /api/v1/status HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        let body = exchange(&self.admin.to_string(), asked).body;
        let status: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        status["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok())
    }

    fn signal(&self, name: &str) {
        let pid = self.pid().expect("a pid").to_string();
        let told = Command::new("kill").args(["-s", name, &pid]).status();
        assert!(told.expect("kill runs").success());
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", text(&self.directory.join("error.log")));
            if let Some(pid) = self.pid() {
                drop(Command::new("kill").args(["-s", "KILL", &pid.to_string()]).status());
            }
        }
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_daemon_serves_when_it_returns_is_replaced_and_ends() {
    let origin = Origin::named("ok");
    let site = Site::new("daemon", &origin);
    // Left over by one that was killed.
    std::fs::create_dir_all(site.directory.join("run")).expect("folder");
    std::fs::write(site.directory.join("run/pid"), "4194304999\n").expect("file");
    let started = site.serve(&["-d"]);
    assert_eq!(started.status.code(), Some(0), "{}", told(&started));
    assert_eq!(site.get().body, "ok");
    let first = site.pid().expect("a pid");
    assert_eq!(site.answering(), Some(first));
    until("the request is in the access log", || {
        text(&site.directory.join("access.log")).contains("/here")
    });
    let again = site.serve(&["-d"]);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        told(&again).contains(&format!("process {first} is running")),
        "{}",
        told(&again)
    );
    assert_eq!(site.pid(), Some(first), "the refused one left the file alone");

    let upgraded = site.serve(&["-du"]);
    assert_eq!(upgraded.status.code(), Some(0), "{}", told(&upgraded));
    let second = site.pid().expect("a pid");
    assert_ne!(second, first);
    until("the first has ended", || {
        text(&site.directory.join("error.log")).contains("drained: nothing is in flight")
    });
    assert_eq!(site.answering(), Some(second));
    assert_eq!(site.get().body, "ok");
    assert_eq!(site.pid(), Some(second), "the first left the second's file alone");

    site.signal("TERM");
    until("the pid file is gone", || !site.directory.join("run/pid").exists());
    assert!(std::net::TcpStream::connect(site.http).is_err());
    let log = text(&site.directory.join("error.log"));
    assert!(!log.contains(" ERROR ") && !log.contains("panicked"), "{log}");
}

#[test]
fn a_daemon_that_cannot_start_says_why() {
    let origin = Origin::named("ok");
    let site = Site::new("daemon-busy", &origin);
    let busy = std::net::TcpListener::bind(site.http).expect("free");
    let refused = site.serve(&["-d"]);
    assert_eq!(refused.status.code(), Some(1));
    let expected = format!("cannot listen on {}", site.http);
    assert!(told(&refused).contains(&expected), "{}", told(&refused));
    assert!(!site.directory.join("run/pid").exists());
    // Without a log of its own it writes where this program does: once.
    let file = site.directory.join("switchyard.yaml");
    let with_log = text(&file);
    let without = with_log.replace(&format!(", error_log: {}/error.log", site.directory.display()), "");
    assert_ne!(without, with_log);
    std::fs::write(&file, without).expect("configuration");
    let refused = site.serve(&["-d"]);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(told(&refused).matches(&expected).count(), 1, "{}", told(&refused));
    std::fs::write(&file, with_log).expect("configuration");
    drop(busy);
    let nobody = site.serve(&["-d", "-u"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(told(&nobody).contains("no process is running"), "{}", told(&nobody));
}
