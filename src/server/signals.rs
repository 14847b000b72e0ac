//! What signals do. QUIT hands over only to a waiting successor: Pingora would go away either way. TERM makes the
//! process not ready, keeps the listeners for `drain_delay`, then drains. INT, and a second TERM, end it now.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use log::{error, info, warn};
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::telemetry::access_log::AccessLog;
use crate::telemetry::targets;

/// Waits for the signal that ends the process.
pub struct Signals {
    pub upgrade_sock: PathBuf,
    pub drain_delay: Duration,
    pub draining: Arc<AtomicBool>,
    pub access_log: Arc<AccessLog>,
}

struct Streams {
    quit: Signal,
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
    user1: Signal,
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
        loop {
            tokio::select! {
                _ = streams.quit.recv() => {
                    if self.successor_waits() {
                        self.draining.store(true, Ordering::Relaxed);
                        return ShutdownSignal::GracefulUpgrade;
                    }
                    warn!(
                        target: targets::SERVER,
                        "QUIT refused: no successor waits at {}; start one with serve -u first, serving goes on",
                        self.upgrade_sock.display()
                    );
                }
                _ = streams.terminate.recv() => {
                    self.draining.store(true, Ordering::Relaxed);
                    info!(target: targets::SERVER, "TERM: not ready from now on, draining");
                    tokio::select! {
                        () = tokio::time::sleep(self.drain_delay) => {}
                        _ = streams.terminate.recv() => return ShutdownSignal::FastShutdown,
                        _ = streams.interrupt.recv() => return ShutdownSignal::FastShutdown,
                    }
                    tokio::spawn(end_at_once_on(streams));
                    return ShutdownSignal::GracefulTerminate;
                }
                _ = streams.interrupt.recv() => return ShutdownSignal::FastShutdown,
                _ = streams.hang_up.recv() => warn!(
                    target: targets::SERVER,
                    "HUP refused: the configuration is read at start only; start a successor with the new file"
                ),
                _ = streams.user1.recv() => self.access_log.reopen(),
            }
        }
    }
}

impl Signals {
    fn successor_waits(&self) -> bool {
        std::os::unix::fs::FileTypeExt::is_socket(&match std::fs::metadata(&self.upgrade_sock) {
            Ok(found) => found.file_type(),
            Err(_) => return false,
        })
    }
}

async fn end_at_once_on(mut streams: Streams) {
    tokio::select! {
        _ = streams.terminate.recv() => {}
        _ = streams.interrupt.recv() => {}
    }
    std::process::exit(0);
}
