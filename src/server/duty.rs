//! Which of two processes makes what is due, while one replaces the other: the one that accepts. The one that drains may have an
//! older configuration, and would give up a scheduled change that names what it does not know.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::watch;

/// Whether this process makes what is due: not before it accepts, and not once it hands over.
#[derive(Clone)]
pub struct Duty(Arc<watch::Sender<bool>>);

impl Duty {
    /// Not yet.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    /// This process makes it from now on.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// Another process makes it from now on.
    pub fn end(&self) {
        self.0.send_replace(false);
    }

    /// Does that work on duty: begun anew each time, and let go of where it is when duty ends. Returns when the work is over.
    pub async fn during<W: Future<Output = ()>>(&self, work: impl Fn() -> W) {
        let mut on = self.0.subscribe();
        // An error means that nobody can begin any more; `self` can.
        while on.wait_for(|on| *on).await.is_ok() {
            tokio::select! {
                () = work() => return,
                _ = on.wait_for(|on| !*on) => {}
            }
        }
    }
}
