//! The last step of a start: listeners accept once all is prepared, and whoever waits for it is told: the process that
//! is replaced, and the one that started the daemon.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use log::{error, info, warn};
use parking_lot::Mutex;
use pingora::server::ShutdownWatch;
use pingora::services::ServiceReadyNotifier;
use pingora::services::background::BackgroundService;
use tokio::sync::watch;

use super::daemon::Starter;
use super::drain::Drain;
use super::duty::Duty;
use super::handover::Successor;
use super::pid_file::{PidFile, PidFileError};
use super::settings::ServerSettings;
use super::start::RunOptions;
use super::supervisor;
use crate::control::Follower;
use crate::rollout::{RolloutName, RolloutSpec};
use crate::telemetry::targets;

/// Exit code of a process that prepared to accept, and may not.
const FAILED: i32 = 1;

/// A service that is ready when this process may accept; listeners depend on it, and it on all that they need.
pub struct Takeover {
    /// The end of a hand-over, if there is one.
    pub successor: Mutex<Option<Successor>>,
    pub drain: Arc<Drain>,
    /// How many services listen, once it is known.
    pub services: watch::Receiver<Option<usize>>,
    pub follower: Arc<Follower>,
    /// The rollouts of the configuration: those that routes lead to are seeded where the store does not have them.
    pub seed: Vec<(RolloutName, RolloutSpec)>,
    pub pid_file: Arc<PidPlace>,
    /// Who started this process, and waits.
    pub starter: Option<Arc<Starter>>,
    /// Turns true once this process accepts.
    pub serves: Arc<AtomicBool>,
    /// Begins then.
    pub duty: Duty,
}

#[async_trait]
impl BackgroundService for Takeover {
    async fn start_with_ready_notifier(&self, _shutdown: ShutdownWatch, ready: ServiceReadyNotifier) {
        let successor = match self.agree().await {
            Ok(successor) => successor,
            Err(e) => {
                error!(target: targets::SERVER, "no hand-over: {e}: the running process serves on, this one ends");
                self.give_up(&format!("no hand-over: {e}"));
            }
        };
        // Nothing keeps this process from accepting now: one that comes to nothing leaves nothing in the store.
        if let Err(e) = self.follower.complete(&self.seed).await {
            error!(target: targets::SERVER, "{e}: this process ends");
            self.give_up(&e.to_string());
        }
        ready.notify_ready();
        let mut services = self.services.clone();
        // An error means that the server is gone, and the process with it.
        let Ok(count) = services.wait_for(Option::is_some).await.map(|count| *count) else {
            return;
        };
        self.drain.accepting(count.unwrap_or_default()).await;
        self.tell(successor).await;
    }
}

impl Takeover {
    /// Nothing is accepted yet.
    fn give_up(&self, why: &str) -> ! {
        if let Some(starter) = &self.starter {
            starter.failed(why);
        }
        std::process::exit(FAILED);
    }

    /// Says that all is prepared, and waits to be told to accept.
    async fn agree(&self) -> Result<Option<Successor>, super::handover::HandoverError> {
        let Some(successor) = self.successor.lock().take() else {
            return Ok(None);
        };
        let agreed = tokio::task::spawn_blocking(move || successor.ready().map(|()| successor)).await;
        agreed.map_err(std::io::Error::other)?.map(Some)
    }

    /// This process accepts.
    async fn tell(&self, successor: Option<Successor>) {
        self.serves.store(true, Ordering::Release);
        self.duty.begin();
        let revision = self.follower.live().pin().revision().0;
        // Before the old process hears of it, and ends: a service whose main process has ended is over.
        supervisor::serves().await;
        if let Err(e) = self.pid_file.replace() {
            error!(target: targets::SERVER, "{e}: it names the process that was replaced");
        }
        if let Some(successor) = successor {
            match successor.accepting(revision) {
                Ok(()) => info!(target: targets::SERVER, "the sockets are taken over"),
                Err(e) => warn!(target: targets::SERVER, "the process that was replaced is gone: {e}"),
            }
        }
        if let Some(starter) = &self.starter {
            starter.ready(revision);
        }
    }
}

/// The daemon's pid file: from the start on, or, for a successor, from when it accepts. Other processes have none.
pub struct PidPlace {
    settings: ServerSettings,
    daemon: bool,
    held: Mutex<Option<PidFile>>,
}

impl PidPlace {
    /// Claims the file, unless it is a running process's to be replaced.
    ///
    /// # Errors
    /// When another process has it, or it cannot be written.
    pub fn new(settings: &ServerSettings, options: RunOptions) -> Result<Arc<Self>, PidFileError> {
        let claims = options.daemon && !options.upgrade;
        let held = if claims {
            Some(PidFile::claim(&settings.pid_file)?)
        } else {
            None
        };
        Ok(Arc::new(Self {
            settings: settings.clone(),
            daemon: options.daemon,
            held: Mutex::new(held),
        }))
    }

    /// A successor puts its own in the place of its predecessor's.
    ///
    /// # Errors
    /// When it cannot be written.
    fn replace(&self) -> Result<(), PidFileError> {
        let mut held = self.held.lock();
        if self.daemon && held.is_none() {
            *held = Some(PidFile::replace(&self.settings.pid_file)?);
        }
        Ok(())
    }

    /// The process ends.
    pub fn remove(&self) {
        drop(self.held.lock().take());
    }
}
