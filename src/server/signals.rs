//! What signals do. QUIT hands the listening sockets to a waiting successor, and drains only once that one accepts. TERM
//! makes the process not ready, keeps the listeners for `drain_delay`, then drains. INT, and a second TERM, end it now.
//! Pingora's own hand-over goes away even when it failed, and its drain is a fixed sleep: neither is used.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use log::{error, info, warn};
use pingora::server::{ShutdownSignal, ShutdownSignalWatch, ShutdownWatch};
use pingora::services::ServiceReadyNotifier;
use pingora::services::background::BackgroundService;
use tokio::signal::unix::{Signal as Incoming, SignalKind, signal};
use tokio::sync::{oneshot, watch};

use super::drain::Drain;
use super::duty::Duty;
use super::{handover, supervisor};
use crate::control::Controller;
use crate::telemetry::access_log::AccessLog;
use crate::telemetry::targets;

/// How long an open connection may begin one more request after TERM.
const LINGER: Duration = Duration::from_secs(1);
/// The same after a hand-over, where nothing hurries, as a part of the drain: a client that keeps its connection is told
/// to leave by the answer to its next request, and those that have none are closed one after the other.
const LINGER_HANDED_OVER: f64 = 0.9;

/// Waits for the signal that ends the process, and drains before Pingora hears of it.
pub struct Signals {
    pub upgrade_sock: PathBuf,
    /// How long listeners stay open after TERM.
    pub drain_delay: Duration,
    /// The most that a drain may take.
    pub drain_max: Duration,
    pub draining: Arc<AtomicBool>,
    pub drain: Arc<Drain>,
    pub access_log: Arc<AccessLog>,
    /// The successor's, once sockets are handed over.
    pub duty: Duty,
    /// Makes no changes then.
    pub controller: Arc<Controller>,
    /// Told when signals are caught.
    pub armed: watch::Sender<bool>,
}

/// What the process is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Quit,
    Terminate,
    Interrupt,
    HangUp,
    User1,
}

/// Whatever else is under way, the process is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Impatience {
    Terminate,
    Interrupt,
}

/// What a QUIT comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Handed,
    Refused,
    Told(Impatience),
}

struct Streams {
    quit: Incoming,
    terminate: Incoming,
    interrupt: Incoming,
    hang_up: Incoming,
    user1: Incoming,
}

impl Streams {
    fn open() -> std::io::Result<Self> {
        Ok(Self {
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
        })
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.quit.recv() => Told::Quit,
            _ = self.terminate.recv() => Told::Terminate,
            _ = self.interrupt.recv() => Told::Interrupt,
            _ = self.hang_up.recv() => Told::HangUp,
            _ = self.user1.recv() => Told::User1,
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let mut streams = match Streams::open() {
            Ok(streams) => streams,
            Err(e) => {
                error!(target: targets::SERVER, "signals cannot be received: {e}: the process ends");
                return ShutdownSignal::FastShutdown;
            }
        };
        self.armed.send_replace(true);
        loop {
            match streams.next().await {
                Told::Quit => {
                    let outcome = tokio::select! {
                        handed = self.hand_over() => if handed { Outcome::Handed } else { Outcome::Refused },
                        told = self.impatience(&mut streams, "a hand-over is under way") => Outcome::Told(told),
                    };
                    match outcome {
                        Outcome::Handed => {
                            self.controller.retire();
                            let linger = self.drain_max.mul_f64(LINGER_HANDED_OVER);
                            return self.leave(Duration::ZERO, linger, &mut streams).await;
                        }
                        Outcome::Told(Impatience::Terminate) => return self.terminate(&mut streams).await,
                        Outcome::Told(Impatience::Interrupt) => return ShutdownSignal::FastShutdown,
                        Outcome::Refused => {}
                    }
                }
                Told::Terminate => return self.terminate(&mut streams).await,
                Told::Interrupt => return ShutdownSignal::FastShutdown,
                Told::HangUp => refuse_hang_up(),
                Told::User1 => self.access_log.reopen(),
            }
        }
    }
}

impl Signals {
    async fn terminate(&self, streams: &mut Streams) -> ShutdownSignal {
        // At once, so that whoever spreads the traffic looks elsewhere while listeners are still open.
        self.draining.store(true, Ordering::Relaxed);
        info!(target: targets::SERVER, "TERM: not ready from now on, draining");
        supervisor::stops().await;
        self.leave(self.drain_delay, LINGER, streams).await
    }

    /// Keeps the listeners for `delay`, closes them, and waits for what is in flight.
    async fn leave(&self, delay: Duration, linger: Duration, streams: &mut Streams) -> ShutdownSignal {
        let drained = async {
            tokio::time::sleep(delay).await;
            self.draining.store(true, Ordering::Relaxed);
            self.drain.close(linger);
            tokio::time::timeout(self.drain_max, self.drain.over()).await
        };
        tokio::select! {
            done = drained => match done {
                Ok(()) => info!(target: targets::SERVER, "drained: nothing is in flight"),
                Err(_) => warn!(
                    target: targets::SERVER,
                    "{} connections are cut: they are not over within server.drain ({:?})",
                    self.drain.connections(), self.drain_max
                ),
            },
            _ = self.impatience(streams, "the process is on its way out already") => {
                return ShutdownSignal::FastShutdown;
            }
        }
        ShutdownSignal::GracefulTerminate
    }

    /// Returns when the process is told to end while it is at something else.
    async fn impatience(&self, streams: &mut Streams, busy: &str) -> Impatience {
        loop {
            match streams.next().await {
                Told::Terminate => return Impatience::Terminate,
                Told::Interrupt => return Impatience::Interrupt,
                Told::Quit => warn!(target: targets::SERVER, "QUIT refused: {busy}"),
                Told::HangUp => refuse_hang_up(),
                Told::User1 => self.access_log.reopen(),
            }
        }
    }

    /// Gives the listening sockets to a waiting successor, and waits until it accepts; says why if that does not work.
    async fn hand_over(&self) -> bool {
        let path = self.upgrade_sock.display();
        if !self.successor_waits() {
            warn!(
                target: targets::SERVER,
                "QUIT refused: no successor waits at {path}; switchyard upgrade starts one, serving goes on"
            );
            return false;
        }
        let sockets = match self.drain.sockets() {
            Ok(sockets) => sockets,
            Err(e) => {
                error!(target: targets::SERVER, "QUIT refused: no hand-over at {path}: {e}; serving goes on");
                return false;
            }
        };
        // Before the successor's begins.
        self.duty.end();
        let (told, outcome) = oneshot::channel();
        let to = self.upgrade_sock.clone();
        // A thread that nobody joins, so that INT need not wait for it.
        let giving = std::thread::Builder::new().name("hand-over".to_owned()).spawn(move || {
            if told.send(handover::give(&to, &sockets)).is_err() {
                info!(target: targets::SERVER, "the process was told to end during the hand-over");
            }
        });
        let failure = match (giving, outcome.await) {
            (Ok(_), Ok(Ok(successor))) => {
                let successor = successor.replacen(' ', " at revision ", 1);
                info!(
                    target: targets::SERVER,
                    "QUIT: process {successor} accepts at the handed-over sockets; draining"
                );
                return true;
            }
            (Ok(_), Ok(Err(e))) => e.to_string(),
            (Err(e), _) => e.to_string(),
            (Ok(_), Err(_)) => "its thread ended early".to_owned(),
        };
        error!(target: targets::SERVER, "QUIT refused: no hand-over at {path}: {failure}; serving goes on");
        self.duty.begin();
        false
    }

    fn successor_waits(&self) -> bool {
        std::os::unix::fs::FileTypeExt::is_socket(&match std::fs::metadata(&self.upgrade_sock) {
            Ok(found) => found.file_type(),
            Err(_) => return false,
        })
    }
}

fn refuse_hang_up() {
    warn!(
        target: targets::SERVER,
        "HUP refused: the configuration is read at start only; replace it with switchyard upgrade"
    );
}

/// A service that is ready once signals are caught. Listeners depend on it: whoever sees the process answer may
/// signal it, and an uncaught signal would kill it.
pub struct Armed(pub watch::Receiver<bool>);

#[async_trait]
impl BackgroundService for Armed {
    async fn start_with_ready_notifier(&self, _shutdown: ShutdownWatch, ready: ServiceReadyNotifier) {
        // An error means that the watch for signals is gone, and the process with it.
        drop(self.0.clone().wait_for(|armed| *armed).await);
        ready.notify_ready();
    }
}
