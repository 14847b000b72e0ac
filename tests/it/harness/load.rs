//! Clients that keep asking and never try again: what is not answered as it should be is a failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::origin::Wire;
use super::{PATIENCE, fields};

/// No more failures are kept word by word.
const TOLD_MAX: usize = 20;

/// What clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    stop: AtomicBool,
    answered: watch::Sender<u64>,
    failed: AtomicU64,
    told: Mutex<Vec<String>>,
    /// Of answered requests.
    micros: Mutex<Vec<u32>>,
}

/// Clients at work.
pub struct Load {
    seen: Arc<Seen>,
    clients: JoinSet<()>,
}

/// What became of it.
#[derive(Debug)]
pub struct Tally {
    pub answered: u64,
    pub failed: u64,
    pub told: Vec<String>,
    micros: Vec<u32>,
}

impl Load {
    /// So many clients, each with a connection of its own, that send a request as soon as the one before is answered, or
    /// after `pause`.
    pub fn start(address: &str, clients: usize, pause: Duration) -> Self {
        let seen = Arc::new(Seen::default());
        let mut running = JoinSet::new();
        for _ in 0..clients {
            running.spawn(client(address.to_owned(), pause, Arc::clone(&seen)));
        }
        Self { seen, clients: running }
    }

    pub fn answered(&self) -> u64 {
        *self.seen.answered.borrow()
    }

    pub fn failed(&self) -> u64 {
        self.seen.failed.load(Ordering::SeqCst)
    }

    /// Waits until so many more requests were answered.
    pub async fn serve(&self, more: u64) {
        let wanted = self.answered() + more;
        let mut answered = self.seen.answered.subscribe();
        let all = tokio::time::timeout(PATIENCE, answered.wait_for(|answered| *answered >= wanted)).await;
        assert!(all.is_ok(), "requests are not answered: {:?}", self.seen.told.lock());
    }

    pub async fn stop(mut self) -> Tally {
        self.seen.stop.store(true, Ordering::SeqCst);
        while let Some(client) = self.clients.join_next().await {
            client.expect("no client panics");
        }
        let mut micros = std::mem::take(&mut *self.seen.micros.lock());
        micros.sort_unstable();
        Tally {
            answered: self.answered(),
            failed: self.failed(),
            told: std::mem::take(&mut *self.seen.told.lock()),
            micros,
        }
    }
}

impl Tally {
    /// The time that so many of a thousand answers took at most, in milliseconds.
    pub fn millis(&self, per_mille: usize) -> f64 {
        let last = self.micros.len().saturating_sub(1);
        let at = (self.micros.len() * per_mille / 1000).min(last);
        self.micros.get(at).map_or(0.0, |micros| f64::from(*micros) / 1000.0)
    }

    pub fn nothing_failed(&self) {
        assert_eq!(self.failed, 0, "of {}: {:#?}", self.answered, self.told);
        assert!(self.answered > 0);
    }
}

async fn client(address: String, pause: Duration, seen: Arc<Seen>) {
    let mut connection = None;
    while !seen.stop.load(Ordering::SeqCst) {
        let since = Instant::now();
        let asked = tokio::time::timeout(PATIENCE, ask(&address, &mut connection)).await;
        match asked.unwrap_or_else(|_| Err("no answer".to_owned())) {
            Ok(()) => {
                let micros = u32::try_from(since.elapsed().as_micros()).unwrap_or(u32::MAX);
                seen.micros.lock().push(micros);
                seen.answered.send_modify(|answered| *answered += 1);
            }
            Err(why) => {
                connection = None;
                seen.failed.fetch_add(1, Ordering::SeqCst);
                let mut told = seen.told.lock();
                if told.len() < TOLD_MAX {
                    told.push(why);
                }
            }
        }
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

/// One request, on the connection that there is.
async fn ask(address: &str, connection: &mut Option<Wire>) -> Result<(), String> {
    let wire = match connection {
        Some(wire) => wire,
        None => {
            let socket = tokio::net::TcpStream::connect(address).await;
            connection.insert(Wire::over(socket.map_err(|e| format!("connect: {e}"))?))
        }
    };
    let written = wire.write("GET /load HTTP/1.1\r\nHost: t.example\r\n\r\n").await;
    written.map_err(|e| format!("write: {e}"))?;
    let head = wire.head().await.ok_or("closed before a head")?;
    let body = wire.body(&head).await.map_err(|e| format!("body: {e}"))?;
    if !head.starts_with("HTTP/1.1 200 ") || body.is_empty() {
        return Err(head);
    }
    if fields(&head, "connection") == ["close"] {
        *connection = None;
    }
    Ok(())
}
