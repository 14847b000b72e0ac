//! Starts the program and scripted origins, and speaks HTTP/1.1 by hand, so that every byte is the test's own.

pub mod certificate;
pub mod fault;
mod figures;
pub mod frames;
pub mod h2c;
pub mod load;
pub mod origin;

pub use figures::long;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

/// No wait in a test takes longer; one that does has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The program, running.
pub struct Proxy {
    child: Child,
    pub http: String,
    /// The listener with TLS, if one was asked for.
    pub https: Option<String>,
    pub admin: String,
    /// What it wrote to standard error; all of it once the thread that reads it has ended.
    errors: Arc<Mutex<Vec<String>>>,
    reading: Option<thread::JoinHandle<()>>,
    /// Lines of its access log, as they come.
    pub access: Mutex<mpsc::Receiver<String>>,
}

/// The program under test: the one of this build, or another for long runs, such as a release build.
pub fn program() -> OsString {
    std::env::var_os("SWITCHYARD_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_switchyard").into())
}

static NUMBER: AtomicUsize = AtomicUsize::new(0);

impl Proxy {
    /// Starts the program with a configuration to which listeners, admin and one thread are added.
    pub fn start(yaml: &str) -> Self {
        Self::start_with(yaml, &[])
    }

    /// The same, with variables in its environment; no proxy variable of the test's own environment gets in.
    pub fn start_with(yaml: &str, environment: &[(&str, &str)]) -> Self {
        Self::start_on("{ address: \"127.0.0.1:0\" }", yaml, environment)
    }

    /// The same, on listeners of the test's choice: in clear text, then with TLS.
    pub fn start_on(listeners: &str, yaml: &str, environment: &[(&str, &str)]) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let file: PathBuf = std::env::temp_dir().join(format!("switchyard-it-{}-{number}.yaml", std::process::id()));
        // Nothing is kept, unless the test says where.
        let store = if yaml.starts_with("store:") || yaml.contains("\nstore:") {
            ""
        } else {
            "store: { memory: {} }\n"
        };
        let admin = if yaml.contains("\nadmin:") {
            ""
        } else {
            "admin: { address: \"127.0.0.1:0\" }\n"
        };
        let text = format!("listeners: [{listeners}]\n{admin}{store}{yaml}");
        std::fs::write(&file, text).expect("configuration");
        let proxy = Self::launch(&file, &[], environment);
        proxy.wait_ready();
        proxy
    }

    /// The program with a whole configuration, and arguments after it; not waited for.
    pub fn launch(file: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::launch_under(&[], file, arguments, environment)
    }

    /// The same, run by another program, which becomes it.
    pub fn launch_under(by: &[&str], file: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let program = program();
        let mut words = by.iter().map(|word| OsString::from(*word)).chain([program]);
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words);
        for variable in ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"] {
            command.env_remove(variable).env_remove(variable.to_lowercase());
        }
        let mut child = command
            .envs(environment.iter().copied())
            .args(["serve", "-c"])
            .arg(file)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let (told, listening) = mpsc::channel();
        let stderr = child.stderr.take().expect("piped");
        let errors = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&errors);
        let reading = thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if let Some(place) = line.strip_prefix("listening: ") {
                    told.send(place.to_owned()).expect("the test waits");
                }
                kept.lock().expect("lock").push(line);
            }
        });
        let (write, access) = mpsc::channel();
        let stdout = child.stdout.take().expect("piped");
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if write.send(line).is_err() {
                    return;
                }
            }
        });
        let (mut http, mut https) = (String::new(), None);
        let admin = loop {
            let line = listening.recv_timeout(PATIENCE).expect("it listens");
            match line
                .split_once(' ')
                .map(|(what, place)| (what, place.trim().to_owned()))
            {
                Some(("http", place)) => http = place,
                Some(("https", place)) => https = Some(place),
                Some(("admin", place)) => break place,
                Some(_) | None => panic!("an unknown listener: {line}"),
            }
        };
        Self {
            child,
            http,
            https,
            admin,
            errors,
            reading: Some(reading),
            access: Mutex::new(access),
        }
    }

    /// The sockets are open before the services run; the first answer says that they do.
    pub fn wait_ready(&self) {
        assert_eq!(self.ask_admin("/readyz").status, 200);
    }

    /// One request on a connection of its own.
    pub fn get(&self, path: &str, fields: &str) -> Answer {
        exchange(
            &self.http,
            &format!("GET {path} HTTP/1.1\r\nHost: t.example\r\nConnection: close\r\n{fields}\r\n"),
        )
    }

    pub fn metrics(&self) -> String {
        self.ask_admin("/metrics").body
    }

    /// What the admin side says.
    pub fn ask_admin(&self, path: &str) -> Answer {
        exchange(
            &self.admin,
            &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"),
        )
    }

    /// The next access-log line.
    pub fn access_line(&self) -> serde_json::Value {
        let line = self
            .access
            .lock()
            .expect("lock")
            .recv_timeout(PATIENCE)
            .expect("an access-log line");
        serde_json::from_str(&line).expect("JSON")
    }

    /// Waits for that many access-log lines: a request is counted when its line is there.
    pub fn settle(&self, requests: usize) {
        for _ in 0..requests {
            self.access_line();
        }
    }

    /// Sends a signal, by its name without SIG.
    pub fn signal(&self, name: &str) {
        let told = Command::new("kill")
            .args(["-s", name, &self.pid().to_string()])
            .status();
        assert!(told.expect("kill runs").success(), "the program had ended before");
    }

    /// Waits until it has written so many lines with these words to standard error.
    pub fn wait_told(&self, words: &str, times: usize) {
        let since = Instant::now();
        let told = |lines: &[String]| lines.iter().filter(|line| line.contains(words)).count();
        while told(&self.errors.lock().expect("lock")) < times {
            assert!(since.elapsed() < PATIENCE, "{words:?} was not told {times} times");
            thread::yield_now();
        }
    }

    /// Waits for the program to end by itself; its exit code, and all that it wrote to standard error.
    pub fn end(mut self) -> (Option<i32>, Vec<String>) {
        let status = self.child.wait().expect("it ends");
        self.reading.take().expect("taken once").join().expect("no panic");
        (status.code(), std::mem::take(&mut *self.errors.lock().expect("lock")))
    }

    /// Ends the program, and yields the lines of its error log that are errors or panics. All of them: it has ended.
    pub fn alarms(self) -> Vec<String> {
        self.signal("INT");
        let (_, lines) = self.end();
        lines
            .into_iter()
            .filter(|l| l.contains(" WARN pingora") || l.contains(" ERROR ") || l.contains("panicked"))
            .collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("{} wrote:", self.pid());
            for line in self.errors.lock().expect("lock").iter() {
                println!("  {line}");
            }
        }
        // It may have ended already, which is as good.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
    /// Whether the body was as long as its framing said.
    pub complete: bool,
}

impl Answer {
    /// All values of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        fields(&self.head, name)
    }
}

/// All values of a field in a head.
pub fn fields<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(field, _)| field.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
        .collect()
}

pub fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
    stream.set_nodelay(true).expect("nodelay");
    stream
}

/// A listener whose queue is full drops what asks for a connection: connecting to its address hangs while it is held.
pub fn full_listener() -> (impl Sized, std::net::SocketAddr) {
    let listener = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("socket");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    listener.bind(&any.into()).expect("bind");
    listener.listen(0).expect("listen");
    let address = listener.local_addr().expect("address").as_socket().expect("inet");
    let fillers: Vec<_> = (0..8)
        .map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(100)))
        .collect();
    assert!(fillers.iter().any(Result::is_err), "the queue is full");
    ((listener, fillers), address)
}

/// Sends bytes and reads one response.
pub fn exchange(address: &str, request: &str) -> Answer {
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).expect("write");
    answer(&mut stream)
}

/// Reads up to the end of a head.
pub fn read_head(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// Reads one response.
pub fn answer(stream: &mut impl Read) -> Answer {
    let head = read_head(stream).expect("a response head");
    let status: u16 = head.split(' ').nth(1).and_then(|s| s.parse().ok()).expect("a status");
    let bodiless = matches!(status, 204 | 304);
    let (body, complete) = if bodiless {
        (Vec::new(), true)
    } else {
        read_body(stream, &head)
    };
    Answer {
        status,
        body: String::from_utf8_lossy(&body).into_owned(),
        complete,
        head,
    }
}

fn read_body(stream: &mut impl Read, head: &str) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    if let Some(length) = fields(head, "content-length").first() {
        let length: usize = length.parse().expect("a length");
        body.resize(length, 0);
        let mut got = 0;
        while got < length {
            match stream.read(&mut body[got..]) {
                Ok(0) | Err(_) => break,
                Ok(n) => got += n,
            }
        }
        body.truncate(got);
        return (body, got == length);
    }
    if fields(head, "transfer-encoding").is_empty() {
        let whole = stream.read_to_end(&mut body).is_ok();
        return (body, whole);
    }
    while let Some(chunk) = read_chunk(stream) {
        if chunk.is_empty() {
            return (body, true);
        }
        body.extend_from_slice(chunk.as_bytes());
    }
    (body, false)
}

/// The next chunk of a chunked body, which is text; empty at its end, `None` when it is cut.
pub fn read_chunk(stream: &mut impl Read) -> Option<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte).ok()?;
        line.push(byte[0]);
    }
    let size = usize::from_str_radix(String::from_utf8_lossy(&line).trim(), 16).expect("a chunk size");
    let mut chunk = vec![0; size + 2];
    stream.read_exact(&mut chunk).ok()?;
    chunk.truncate(size);
    String::from_utf8(chunk).ok()
}

/// An origin; its script gets each request's head and the connection, and says whether to keep it.
pub struct Origin {
    pub address: String,
    pub connections: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Origin {
    pub fn spawn(script: impl Fn(&str, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        Self::spawn_at("127.0.0.1:0", script)
    }

    /// The same, at an address of the test's choice.
    pub fn spawn_at(address: &str, script: impl Fn(&str, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        let connections = Arc::new(AtomicUsize::new(0));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let (count, kept, script) = (Arc::clone(&connections), Arc::clone(&heads), Arc::new(script));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                let (kept, script) = (Arc::clone(&kept), Arc::clone(&script));
                thread::spawn(move || {
                    let mut stream = stream;
                    stream.set_nodelay(true).expect("nodelay");
                    while let Some(head) = read_head(&mut stream) {
                        kept.lock().expect("lock").push(head.clone());
                        if !script(&head, &mut stream) {
                            return;
                        }
                    }
                });
            }
        });
        Self {
            address,
            connections,
            heads,
        }
    }

    /// Answers every request with its name.
    pub fn named(name: &'static str) -> Self {
        Self::spawn(move |_, stream| respond(stream, name))
    }

    /// The heads received.
    pub fn heads(&self) -> Vec<String> {
        self.heads.lock().expect("lock").clone()
    }
}

/// Writes a plain response; keeps the connection.
pub fn respond(stream: &mut TcpStream, body: &str) -> bool {
    let text = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(text.as_bytes()).is_ok()
}

/// An address where nobody listens.
pub fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    listener.local_addr().expect("address").to_string()
}

/// A configuration with one pool and all requests to it.
pub fn one_pool(endpoint: &str, more: &str) -> String {
    format!("pools:\n  only:\n    endpoints: [\"{endpoint}\"]\n{more}\nroutes: [{{ pool: only }}]\n")
}
