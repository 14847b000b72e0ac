//! The whole proxy in one process: nanoseconds, bytes and allocations a request, the three figures of the Go gateway's
//! report (84.6 µs, 45.7 KB, 132 allocations). Origin and client are in the process, too, as they are in Go's benchmark,
//! but allocate nothing while they run: what is counted is the proxy's, Pingora's part included. A bare Pingora proxy is
//! measured before it in the same way: what is more is ours.

#[path = "bare/proxy.rs"]
mod proxy;

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use switchyard::config;
use switchyard::server::{self, RunOptions};

#[global_allocator]
static COUNTING: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const WARM_UP: u32 = 5_000;
const REQUESTS: u32 = 50_000;
const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 200\r\n\r\n\
xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\
xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx";
const REQUEST: &[u8] = b"GET /path?query=1 HTTP/1.1\r\nHost: shop.example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\
X-User-Id: user-0042\r\nOrigin: https://shop.example.com\r\n\r\n";

/// What one request takes.
struct Figures {
    mean: f64,
    median: u128,
    bytes: f64,
    allocations: f64,
}

fn main() {
    // `cargo test --benches` and `cargo bench -- --list` must end; they give arguments other than `--bench`.
    if std::env::args().skip(1).any(|a| a == "--list") {
        return;
    }
    let origin = spawn_origin();
    let bare = measure(&spawn_bare(&origin));
    let all = measure(&spawn_proxy(&origin));
    println!("requests     {REQUESTS} on one connection, one at a time");
    println!("             bare Pingora  with Switchyard  ours");
    let row = |name: &str, bare: f64, all: f64, digits: usize| {
        println!("{name:12} {bare:12.digits$}  {all:15.digits$}  {:.digits$}", all - bare);
    };
    row("ns/op mean", bare.mean, all.mean, 0);
    row("ns/op median", bare.median as f64, all.median as f64, 0);
    row("B/op", bare.bytes, all.bytes, 0);
    row("allocs/op", bare.allocations, all.allocations, 1);
    std::process::exit(0);
}

fn measure(proxy: &str) -> Figures {
    let mut client = TcpStream::connect(proxy).expect("connect");
    client.set_nodelay(true).expect("nodelay");
    let mut buffer = [0; 4096];
    for _ in 0..WARM_UP {
        exchange(&mut client, &mut buffer);
    }
    let region = Region::new(COUNTING);
    let mut times = vec![Duration::ZERO; REQUESTS as usize];
    let before = region.change();
    let since = Instant::now();
    for time in &mut times {
        let sent = Instant::now();
        exchange(&mut client, &mut buffer);
        *time = sent.elapsed();
    }
    let total = since.elapsed();
    let change = region.change();
    times.sort_unstable();
    let each = |n: usize| n as f64 / f64::from(REQUESTS);
    let allocations = change.allocations + change.reallocations - before.allocations - before.reallocations;
    Figures {
        mean: total.as_nanos() as f64 / f64::from(REQUESTS),
        median: times[times.len() / 2].as_nanos(),
        bytes: each(change.bytes_allocated - before.bytes_allocated),
        allocations: each(allocations),
    }
}

/// A bare Pingora proxy with the origin as its one peer, on a port that was free a moment ago.
fn spawn_bare(origin: &str) -> String {
    let free = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr();
    let address = free.expect("address").to_string();
    let (listen, upstream) = (address.clone(), origin.parse().expect("address"));
    thread::spawn(move || proxy::serve(&listen, upstream, false));
    while TcpStream::connect(&address).is_err() {
        thread::yield_now();
    }
    address
}

fn spawn_origin() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || serve(stream));
        }
    });
    address
}

fn serve(mut stream: TcpStream) {
    stream.set_nodelay(true).expect("nodelay");
    let mut buffer = [0; 4096];
    let mut filled = 0;
    while let Ok(n) = stream.read(&mut buffer[filled..]) {
        if n == 0 {
            return;
        }
        filled += n;
        if buffer[..filled].ends_with(b"\r\n\r\n") {
            filled = 0;
            if stream.write_all(RESPONSE).is_err() {
                return;
            }
        }
    }
}

fn spawn_proxy(origin: &str) -> String {
    let text = format!(
        "server: {{ threads: 1 }}\nlisteners: [{{ address: \"127.0.0.1:0\" }}]\nadmin: \"off\"\nstore: {{ memory: {{}} }}\n\
         access_log: {{ path: /dev/null }}\n\
         pools: {{ stable: {{ endpoints: [\"{origin}\"] }}, canary: {{ endpoints: [\"{origin}\"] }} }}\n\
         routes: [{{ rollout: bench }}]\n\
         rollouts: {{ bench: {{ releases: {{ stable: {{ pool: stable }}, canary: {{ pool: canary }} }}, split: {{ canary: 10% }} }} }}\n"
    );
    let config = config::parse("bench", &text, &|_| None).expect("valid");
    let (told, address) = mpsc::channel();
    thread::spawn(move || {
        let announce = |_: &str, address: &str| told.send(address.to_owned()).expect("the bench waits");
        server::run(config, RunOptions::default(), &announce).expect("it starts");
    });
    address.recv().expect("it listens")
}

/// Sends one request and reads one response, whose length is known.
fn exchange(client: &mut TcpStream, buffer: &mut [u8]) {
    client.write_all(REQUEST).expect("write");
    let mut filled = 0;
    loop {
        let n = client.read(&mut buffer[filled..]).expect("read");
        assert!(n > 0, "the proxy closed the connection");
        filled += n;
        let head = buffer[..filled].windows(4).position(|w| w == b"\r\n\r\n");
        if head.is_some_and(|head| filled == head + 4 + 200) {
            return;
        }
    }
}
