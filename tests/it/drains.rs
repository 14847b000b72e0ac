//! How a process leaves: what a load balancer sees, and what becomes of connections that are idle, busy or tunnels.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::files::until;
use crate::harness::{Origin, Proxy, answer, connect, exchange, long, one_pool, read_head, respond};
use crate::succession::Succession;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const PROBE: &str = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

/// One process as a load balancer knows it.
struct Member {
    http: String,
    admin: String,
    ready: AtomicBool,
    /// Connections that may be used again.
    kept: Mutex<Vec<TcpStream>>,
    served: AtomicUsize,
}

impl Member {
    fn of(proxy: &Proxy) -> Arc<Self> {
        Arc::new(Self {
            http: proxy.http.clone(),
            admin: proxy.admin.clone(),
            ready: AtomicBool::new(true),
            kept: Mutex::default(),
            served: AtomicUsize::new(0),
        })
    }

    /// One request, on a kept connection if there is one; it is never tried again.
    fn ask(&self) {
        let kept = self.kept.lock().expect("lock").pop();
        let mut stream = kept.unwrap_or_else(|| connect(&self.http));
        stream.write_all(REQUEST).expect("open");
        let answer = answer(&mut stream);
        assert_eq!((answer.status, answer.body.as_str()), (200, "ok"));
        if answer.all("connection") != ["close"] {
            self.kept.lock().expect("lock").push(stream);
        }
        self.served.fetch_add(1, Ordering::SeqCst);
    }

    /// Asks whether it is ready until it is not.
    fn watch(&self) {
        while exchange(&self.admin, PROBE).status == 200 {
            std::thread::yield_now();
        }
        self.ready.store(false, Ordering::SeqCst);
    }
}

#[test]
fn term_costs_no_request_behind_a_load_balancer_that_watches_readyz() {
    let origin = Origin::named("ok");
    let start = || {
        Proxy::start(&format!(
            "server: {{ drain_delay: 2s }}\n{}",
            one_pool(&origin.address, "")
        ))
    };
    let mut running = start();
    let members = Mutex::new(vec![Member::of(&running)]);
    let stop = AtomicBool::new(false);
    let served = AtomicUsize::new(0);
    let clients = || {
        let mut turn = 0;
        while !stop.load(Ordering::SeqCst) {
            let all = members.lock().expect("lock").clone();
            let ready: Vec<_> = all.iter().filter(|m| m.ready.load(Ordering::SeqCst)).collect();
            turn += 1;
            ready[turn % ready.len()].ask();
            served.fetch_add(1, Ordering::SeqCst);
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(clients);
        }
        for _ in 0..if long() { 20 } else { 2 } {
            let next = start();
            members.lock().expect("lock").push(Member::of(&next));
            let old = Arc::clone(&members.lock().expect("lock")[0]);
            until("both serve", || old.served.load(Ordering::SeqCst) > 50);
            running.signal("TERM");
            old.watch();
            members.lock().expect("lock").remove(0);
            let (code, lines) = std::mem::replace(&mut running, next).end();
            assert_eq!(code, Some(0));
            let drained = lines.iter().any(|l| l.contains("drained: nothing is in flight"));
            assert!(drained, "{lines:?}");
        }
        stop.store(true, Ordering::SeqCst);
    });
    println!("0 failed of {}", served.load(Ordering::SeqCst));
    assert_eq!(running.alarms(), Vec::<String>::new());
}

/// Whether the other side has closed it, without a word.
fn is_closed(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).expect("set");
    let read = stream.read(&mut [0]);
    stream.set_nonblocking(false).expect("set");
    match read {
        Ok(length) => {
            assert_eq!(length, 0, "it speaks unasked");
            true
        }
        Err(e) => {
            assert_eq!(e.kind(), ErrorKind::WouldBlock, "{e}");
            false
        }
    }
}

#[test]
fn a_replaced_process_closes_idle_connections_one_by_one_and_tunnels_at_the_end() {
    const IDLE: usize = 60;
    let origin = Origin::spawn(|head, stream| {
        if !head.contains("websocket") {
            return respond(stream, "ok");
        }
        let words = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(words).expect("the proxy reads");
        let mut word = [0; 5];
        while stream.read_exact(&mut word).is_ok() {
            stream.write_all(&word).expect("the proxy reads");
        }
        false
    });
    let mut site = Succession::simple("drains-idle", &origin.address, "drain: 4s");
    site.start();
    let http = site.http.to_string();
    let mut tunnel = connect(&http);
    tunnel
        .write_all(
            b"GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
              Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        .expect("write");
    assert!(read_head(&mut tunnel).expect("a head").starts_with("HTTP/1.1 101 "));
    let mut echo = move || {
        tunnel.write_all(b"hello").expect("write");
        let mut word = [0; 5];
        tunnel.read_exact(&mut word).expect("an echo");
        assert_eq!(&word, b"hello");
        tunnel.try_clone().expect("the same")
    };
    let idle = (0..IDLE).map(|_| {
        let mut stream = connect(&http);
        stream.write_all(REQUEST).expect("write");
        assert_eq!(answer(&mut stream).all("connection"), ["keep-alive"]);
        stream
    });
    let mut idle: Vec<TcpStream> = idle.collect();
    let mut asks = idle.pop().expect("one");
    site.upgraded();
    // A client that asks is told to go by the answer, and not before; the old process begins to drain when it has heard
    // from the new one, as whoever asked for the upgrade does.
    loop {
        asks.write_all(REQUEST).expect("write");
        if answer(&mut asks).all("connection") == ["close"] {
            break;
        }
    }
    let open = Mutex::new(idle);
    let left = || {
        let mut open = open.lock().expect("lock");
        open.retain_mut(|stream| !is_closed(stream));
        open.len()
    };
    until("one is closed", || left() < IDLE - 1);
    assert!(left() > IDLE / 2, "they do not go together");
    until("all are closed", || left() == 0);
    let mut tunnel = echo();
    assert_eq!(tunnel.read(&mut [0]).expect("its end"), 0);
    assert_eq!(site.first_ends(), Some(0));
    let log = site.errors();
    assert!(log.contains("1 connections are cut"), "{log}");
}
