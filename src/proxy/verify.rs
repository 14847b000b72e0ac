//! Checks tokens away from the threads that carry traffic. At most half of the processors do that at a time, so that a
//! flood of forged tokens leaves the others to those whose tokens are known.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use pingora::Result;
use tokio::sync::{AcquireError, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::gateway::refused;
use crate::identity::jwt::{Check, Checked};
use crate::telemetry::metrics;

/// How many may wait; with 0.1 ms for one check, some 0.1 s of work.
const WAITING_MAX: usize = 1024;
/// How long one may wait.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// Runs checks.
pub struct Verifier {
    waiting: Semaphore,
    running: Arc<Semaphore>,
}

impl Verifier {
    /// As many at a time as the machine can spare.
    pub fn new() -> Self {
        let processors = thread::available_parallelism().map_or(1, usize::from);
        Self {
            waiting: Semaphore::new(WAITING_MAX),
            running: Arc::new(Semaphore::new((processors / 2).max(1))),
        }
    }

    /// Runs one.
    ///
    /// # Errors
    /// 503 when too many wait, or this one has for too long.
    pub async fn run(&self, check: Check) -> Result<Checked> {
        let _waits = self.waiting.try_acquire().map_err(|_| busy())?;
        let turn = timeout(WAIT_MAX, Arc::clone(&self.running).acquire_owned()).await;
        let turn = turn.map_err(|_| busy())?.map_err(|_: AcquireError| busy())?;
        let run = spawn_blocking(move || {
            // Held until the work is over, even if nobody waits for it any more.
            let _turn = turn;
            check.run()
        });
        run.await.map_err(|_| busy())
    }
}

fn busy() -> Box<pingora::Error> {
    metrics::token("busy");
    metrics::refused("identity");
    refused(503, "too many tokens wait to be checked")
}
