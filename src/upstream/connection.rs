//! One open upstream connection as this module sees it: whether the head of a response is overdue, and a way to end
//! it from outside. Pingora's read timeout counts every read, so it would cut slow bodies and WebSockets; Go's
//! `ResponseHeaderTimeout`, which this replaces, bounds only the wait for the head.

use std::fmt;
use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::upstreams::peer::Tracing;
use socket2::SockRef;

use super::kept::Kept;
use super::pace::Pace;
use super::splice::NextHead;
use super::whole::Shortcut;
use crate::clock::Tick;

/// What came on a connection and was not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Peeked {
    /// Nothing.
    Silence,
    /// Something.
    Bytes,
    /// Its end, or an error.
    End,
}

const NOT_WAITING: u64 = 0;
const EXPIRED: u64 = u64::MAX;

/// An open connection. Holds a second descriptor of the socket, so that shutting it down can never hit another
/// connection that got the same number.
pub struct Connection {
    socket: OwnedFd,
    head_due: AtomicU64,
    /// What comes of its request's body at once, in bytes.
    body: AtomicUsize,
    pace: Pace,
    shortcut: Shortcut,
    next_head: NextHead,
    /// Where it waits for its next request.
    home: Weak<Kept>,
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("socket", &self.socket)
            .field("head_due", &self.head_due)
            .finish_non_exhaustive()
    }
}

impl Connection {
    pub(super) fn new(socket: OwnedFd, home: Weak<Kept>) -> Self {
        Self {
            socket,
            head_due: AtomicU64::new(NOT_WAITING),
            body: AtomicUsize::new(0),
            pace: Pace::default(),
            shortcut: Shortcut::default(),
            next_head: NextHead::default(),
            home,
        }
    }

    /// The one that Pingora carries with its digest, where `Dial` put it.
    pub fn of(digest: &ProxyDigest) -> Option<Arc<Self>> {
        digest.user_data.as_ref()?.downcast_ref::<Arc<Self>>().cloned()
    }

    /// Where it waits for its next request, if there is such a place.
    pub(super) fn home(&self) -> Option<Arc<Kept>> {
        self.home.upgrade()
    }

    /// How its responses are taken.
    pub fn pace(&self) -> &Pace {
        &self.pace
    }

    /// Where a response that is all there at once is left.
    pub fn shortcut(&self) -> &Shortcut {
        &self.shortcut
    }

    /// The head of the next request, if it is not Pingora's.
    pub fn next_head(&self) -> &NextHead {
        &self.next_head
    }

    /// So much of the next request's body is here, and all that there is: it is written as soon as the head is.
    pub fn body_comes(&self, bytes: usize) {
        self.body.store(bytes, Ordering::Relaxed);
    }

    /// What is written as soon as the head is.
    pub(super) fn coming_body(&self) -> usize {
        self.body.load(Ordering::Relaxed)
    }

    /// The request is sent: from now on the head of the response is due at `due`.
    pub fn expect_head_by(&self, due: Tick) {
        self.head_due.store(due.millis(), Ordering::Release);
    }

    /// The head is there, or the request is over.
    pub fn head_arrived(&self) {
        let clear = |due: u64| (due != EXPIRED && due != NOT_WAITING).then_some(NOT_WAITING);
        // Nothing to clear means that the time was over first, and that stands.
        let _was = self.head_due.fetch_update(Ordering::AcqRel, Ordering::Acquire, clear);
    }

    /// Whether the connection was ended because the head did not come in time.
    pub fn expired(&self) -> bool {
        self.head_due.load(Ordering::Acquire) == EXPIRED
    }

    /// Looks at what is there to be read, and leaves it there.
    pub(super) fn peek(&self) -> Peeked {
        let mut byte = [MaybeUninit::uninit(); 1];
        match SockRef::from(&self.socket).peek(&mut byte) {
            // The runtime has it never wait.
            Err(e) if e.kind() == ErrorKind::WouldBlock => Peeked::Silence,
            Ok(1..) => Peeked::Bytes,
            Ok(0) | Err(_) => Peeked::End,
        }
    }

    /// Makes the next read see the end of the stream, so that the connection is not used again.
    pub fn end(&self) {
        // It may be closed already: then there is nothing left to end.
        drop(SockRef::from(&self.socket).shutdown(std::net::Shutdown::Both));
    }

    fn expire_if_overdue(&self, now: Tick) {
        let due = self.head_due.load(Ordering::Acquire);
        let overdue = due != NOT_WAITING && due != EXPIRED && due <= now.millis();
        let won = overdue
            && self
                .head_due
                .compare_exchange(due, EXPIRED, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        if won {
            self.end();
        }
    }
}

/// The open connections of one endpoint.
#[derive(Debug, Default)]
pub struct Registry {
    open: AtomicUsize,
    members: Mutex<Vec<Weak<Connection>>>,
}

impl Registry {
    /// Adds a connection, and yields what Pingora keeps with the stream to tell when it is closed.
    pub(super) fn add(self: &Arc<Self>, connection: &Arc<Connection>) -> Box<dyn Tracing> {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.members.lock().push(Arc::downgrade(connection));
        Box::new(Closing(Arc::clone(self)))
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Ends those whose response head is overdue, and forgets those that are gone.
    pub fn sweep(&self, now: Tick) {
        self.members.lock().retain(|member| match member.upgrade() {
            Some(connection) => {
                connection.expire_if_overdue(now);
                true
            }
            None => false,
        });
    }
}

#[derive(Debug)]
struct Closing(Arc<Registry>);

impl Tracing for Closing {
    fn on_connected(&self) {}

    fn on_disconnected(&self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }

    fn boxed_clone(&self) -> Box<dyn Tracing> {
        Box::new(Self(Arc::clone(&self.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let near = TcpStream::connect(listener.local_addr().expect("address")).expect("connect");
        let (far, _) = listener.accept().expect("accept");
        (near, far)
    }

    fn watched(stream: &TcpStream) -> Arc<Connection> {
        Arc::new(Connection::new(stream.try_clone().expect("clone").into(), Weak::new()))
    }

    #[test]
    fn an_overdue_head_ends_the_connection_and_says_so() {
        let (mut near, _far) = pair();
        let registry = Arc::new(Registry::default());
        let connection = watched(&near);
        let _tracing = registry.add(&connection);
        let start = Tick::from_millis(1_000);
        connection.expect_head_by(start.after(Duration::from_secs(60)));
        registry.sweep(start.after(Duration::from_millis(59_999)));
        assert!(!connection.expired());
        registry.sweep(start.after(Duration::from_secs(60)));
        assert!(connection.expired());
        assert_eq!(near.read(&mut [0; 1]).expect("end of stream"), 0);
        connection.head_arrived();
        assert!(connection.expired(), "what expired stays expired");
    }

    #[test]
    fn a_head_in_time_leaves_the_connection_alone_for_ever() {
        let (near, _far) = pair();
        let registry = Arc::new(Registry::default());
        let connection = watched(&near);
        let tracing = registry.add(&connection);
        connection.expect_head_by(Tick::from_millis(10));
        connection.head_arrived();
        registry.sweep(Tick::from_millis(u64::MAX - 1));
        assert!(!connection.expired());
        assert_eq!(registry.open(), 1);
        tracing.on_disconnected();
        assert_eq!(registry.open(), 0);
        drop(connection);
        registry.sweep(Tick::from_millis(1));
        assert!(registry.members.lock().is_empty());
    }
}
