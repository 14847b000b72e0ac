//! Looks at the files of TLS listeners, and has them read again when they change.

use std::sync::Arc;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;

use super::Terminator;
use super::material::stamps;
use crate::server::stamp::LOOK_EACH;

/// Looks after the TLS of all listeners.
pub struct Renewal(pub Vec<Arc<Terminator>>);

#[async_trait]
impl BackgroundService for Renewal {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut seen: Vec<_> = self.0.iter().map(|tls| tls.loaded.clone()).collect();
        let mut turn = tokio::time::interval(LOOK_EACH);
        loop {
            tokio::select! {
                _ = shutdown.wait_for(|over| *over) => return,
                _ = turn.tick() => {}
            }
            for (tls, before) in self.0.iter().zip(&mut seen) {
                let now = stamps(&tls.settings);
                if now != *before {
                    *before = now;
                    tls.reload();
                }
            }
        }
    }
}
