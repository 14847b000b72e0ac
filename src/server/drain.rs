//! What has to be over before the process may end. Pingora closes the listeners and then sleeps for a fixed time;
//! here listeners are closed by a watch of our own, connections are counted, and the wait ends with the last one.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::protocols::Stream;
use pingora::server::ShutdownWatch;
use tokio::sync::{Notify, watch};

use super::at_once::at_once;
use super::listen::Opened;

/// The least of it: an accepted connection is not counted before its task runs and its TLS handshake is done.
const SETTLE: Duration = Duration::from_millis(100);

/// The listening services and connections of the process.
pub struct Drain {
    closing: watch::Sender<bool>,
    services: Count,
    connections: Count,
    accepting: watch::Sender<usize>,
    sockets: Mutex<Vec<Opened>>,
    leaving: watch::Sender<Option<Duration>>,
}

impl Drain {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            closing: watch::Sender::new(false),
            services: Count::default(),
            connections: Count::default(),
            accepting: watch::Sender::new(0),
            sockets: Mutex::new(Vec::new()),
            leaving: watch::Sender::new(None),
        })
    }

    /// Closes every listener. Open connections finish what they are at, and may begin one more request within `linger`,
    /// in which idle ones are closed one after the other.
    /// Pingora drops a connection whose head is not there yet when it is told to clean up, so this is also what saves the
    /// connections that were accepted just before.
    pub fn close(&self, linger: Duration) {
        self.leaving.send_replace(Some(linger));
        self.sockets.lock().clear();
        self.closing.send_replace(true);
    }

    /// Turns true when listeners are to close.
    pub fn closing(&self) -> ShutdownWatch {
        self.closing.subscribe()
    }

    /// Over how long idle connections are closed, once listeners are.
    pub fn leaving(&self) -> watch::Receiver<Option<Duration>> {
        self.leaving.subscribe()
    }

    /// Open connections.
    pub fn connections(&self) -> usize {
        self.connections.open.load(Ordering::Acquire)
    }

    /// Returns when no service listens any more and no connection is open.
    pub async fn over(&self) {
        // In this order: a service that has ended adds no connection.
        self.services.none().await;
        self.connections.none().await;
    }

    /// The listening sockets of the process, to be handed over.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn sockets(&self) -> std::io::Result<Vec<Opened>> {
        self.sockets.lock().iter().map(Opened::again).collect()
    }

    /// Returns when so many services accept.
    pub async fn accepting(&self, services: usize) {
        // An error would mean that `self` is gone.
        drop(
            self.accepting
                .subscribe()
                .wait_for(|accepting| *accepting >= services)
                .await,
        );
    }

    /// Keeps a socket, to be handed over later.
    pub(super) fn keep(&self, opened: Opened) {
        self.sockets.lock().push(opened);
    }

    /// A service begins to listen. It is over when the guard is dropped.
    pub(super) fn listens(&self) -> Open<'_> {
        self.services.enter()
    }

    /// A service accepts.
    pub(super) fn accepts(&self) {
        self.accepting.send_modify(|accepting| *accepting += 1);
    }
}

/// Counts what is open, and tells when nothing is.
#[derive(Debug, Default)]
struct Count {
    open: AtomicUsize,
    ended: Notify,
}

impl Count {
    fn enter(&self) -> Open<'_> {
        self.open.fetch_add(1, Ordering::AcqRel);
        Open(self)
    }

    async fn none(&self) {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            // Registered before the look, so that an end in between is not missed.
            ended.as_mut().enable();
            if self.open.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// One open thing; closed when dropped.
#[derive(Debug)]
pub struct Open<'a>(&'a Count);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.ended.notify_waiters();
        }
    }
}

/// An application whose connections are counted, on threads of the precedence that is theirs.
pub struct Counted<A> {
    inner: Arc<A>,
    drain: Arc<Drain>,
    precede: fn(),
}

impl<A> Counted<A> {
    /// Counts the connections of `inner`; `precede` is called on each thread that serves one.
    pub fn new(inner: A, drain: &Arc<Drain>, precede: fn()) -> Self {
        Self {
            inner: Arc::new(inner),
            drain: Arc::clone(drain),
            precede,
        }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Counted<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        (self.precede)();
        let _open = self.drain.connections.enter();
        at_once(self.inner.process_new(stream, shutdown)).await
    }

    async fn cleanup(&self) {
        let quiet = async {
            tokio::time::sleep(SETTLE).await;
            self.drain.connections.none().await;
        };
        let linger = self.drain.leaving.borrow().unwrap_or_default();
        // Either way the rest is told to end now.
        drop(tokio::time::timeout(linger, quiet).await);
        self.inner.cleanup().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_over_with_the_last_service_and_the_last_connection() {
        let drain = Drain::new();
        drain.over().await;
        let listening = drain.listens();
        let connection = drain.connections.enter();
        let mut over = Box::pin(drain.over());
        let mut waits = async |what: &str| {
            let early = tokio::time::timeout(Duration::from_secs(1), over.as_mut()).await;
            assert!(early.is_err(), "{what}");
        };
        waits("both are open").await;
        drop(listening);
        waits("a connection is open").await;
        assert_eq!(drain.connections(), 1);
        drop(connection);
        over.await;
    }

    #[tokio::test]
    async fn closing_is_seen_by_whoever_asked_before() {
        let drain = Drain::new();
        let mut closing = drain.closing();
        drain.close(Duration::ZERO);
        closing.changed().await.expect("the sender is there");
        assert!(*closing.borrow());
    }

    struct Cleaned(std::sync::atomic::AtomicBool);

    #[async_trait]
    impl ServerApp for Cleaned {
        async fn process_new(self: &Arc<Self>, _stream: Stream, _shutdown: &ShutdownWatch) -> Option<Stream> {
            None
        }

        async fn cleanup(&self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn open_connections_linger_until_they_are_over_or_their_time_is() {
        const MOMENT: Duration = Duration::from_millis(1);
        const LINGER: Duration = Duration::from_secs(3);
        for ends in [true, false] {
            let drain = Drain::new();
            let counted = Counted::new(Cleaned(false.into()), &drain, || {});
            drain.close(LINGER);
            let connection = drain.connections.enter();
            let mut cleanup = counted.cleanup();
            let early = tokio::time::timeout(LINGER - MOMENT, cleanup.as_mut()).await;
            assert!(early.is_err() && !counted.inner.0.load(Ordering::SeqCst));
            if ends {
                drop(connection);
                assert!(at_once(cleanup.as_mut()).await);
            } else {
                assert!(tokio::time::timeout(2 * MOMENT, cleanup.as_mut()).await.is_ok());
                drop(connection);
            }
            assert!(counted.inner.0.load(Ordering::SeqCst));
        }
    }

    /// Whether it is over without waiting for time.
    async fn at_once(future: impl Future<Output = ()>) -> bool {
        tokio::time::timeout(Duration::ZERO, future).await.is_ok()
    }
}
