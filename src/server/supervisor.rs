//! What whoever runs this process is told of it, over the socket of sd_notify(3): that it serves and is the main
//! process now, that it is about to end, and that it is alive. Nothing where there is no such socket.

use std::time::Duration;

use async_trait::async_trait;
use log::warn;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use sd_notify::NotifyState;

use crate::telemetry::targets;

/// How long it may take to be heard. Serving does not depend on it.
const HEARD_WITHIN: Duration = Duration::from_secs(1);

/// The process serves. It is the main one from now on, also where another was before.
pub async fn serves() {
    tell(vec![NotifyState::MainPid(std::process::id()), NotifyState::Ready]).await;
}

/// The process drains, and ends then. A process that was replaced does not say so: the service goes on.
pub async fn stops() {
    tell(vec![NotifyState::Stopping]).await;
}

async fn tell(states: Vec<NotifyState<'static>>) {
    let words = format!("{states:?}");
    // It blocks for as long as nobody reads what was said before.
    let said = tokio::task::spawn_blocking(move || sd_notify::notify(&states));
    let failure = match tokio::time::timeout(HEARD_WITHIN, said).await {
        Ok(Ok(Ok(()))) => return,
        Ok(Ok(Err(e))) => e.to_string(),
        Ok(Err(e)) => e.to_string(),
        Err(_) => format!("nobody reads it within {HEARD_WITHIN:?}"),
    };
    warn!(target: targets::SERVER, "NOTIFY_SOCKET: {words} cannot be said: {failure}");
}

/// Says twice in each period that the process is alive, where a watchdog wants to hear it.
pub struct Alive;

#[async_trait]
impl BackgroundService for Alive {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let Some(period) = sd_notify::watchdog_enabled().filter(|period| !period.is_zero()) else {
            return;
        };
        let mut turn = tokio::time::interval(period / 2);
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|over| *over) => return,
                _ = turn.tick() => {}
            }
            tell(vec![NotifyState::Watchdog]).await;
        }
    }
}
