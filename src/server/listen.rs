//! Opens the listening sockets before anything else runs, so that an address that cannot be had ends the start with a
//! clear error, and port 0 has a number to print. Pingora then finds them where it looks for inherited ones.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{IntoRawFd, OwnedFd};
use std::sync::Arc;
use std::task::Poll;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::server::{ListenFds, Server, ShutdownWatch};
use pingora::services::listening::Service as Listening;
use pingora::services::{Service, ServiceHandle, ServiceWithDependents};

use super::accept::Accepting;
use super::drain::Drain;

/// For what is read in small pieces: TLS records, and the word of a relay. Pingora's 64 KiB for each idle connection
/// would be most of its memory.
const BUFFER_BYTES: usize = 8 * 1024;
/// What Pingora has for writes: about one segment.
const WRITE_BYTES: usize = 1460;
/// How many connections may wait to be accepted, as in Pingora's listeners; the system lowers it to its own bound
/// (`net.core.somaxconn`). The standard library's 128 are filled by a burst of clients, whose next try is a second later.
const BACKLOG: i32 = 65_535;

/// A socket that was opened ahead, or that a running process handed over, under the name by which the service asks for
/// it.
#[derive(Debug)]
pub struct Opened {
    /// `address:port`, with the port that the system chose.
    pub name: String,
    /// Listens, and does not block.
    pub socket: OwnedFd,
}

impl Opened {
    /// Listens on an address.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn on(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        // It listens already, and now with room.
        rustix::net::listen(&listener, BACKLOG)?;
        Ok(Self {
            name: listener.local_addr()?.to_string(),
            socket: listener.into(),
        })
    }

    /// The same socket once more.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn again(&self) -> std::io::Result<Self> {
        Ok(Self {
            name: self.name.clone(),
            socket: self.socket.try_clone()?,
        })
    }
}

/// Where listening sockets come from: the running process that is replaced, and the system.
#[derive(Default)]
pub struct Sockets {
    inherited: Vec<Opened>,
}

impl Sockets {
    /// With those of the running process.
    pub fn inherited(inherited: Vec<Opened>) -> Self {
        Self { inherited }
    }

    /// The socket for an address: the running process's, or a new one.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn take(&mut self, address: SocketAddr) -> std::io::Result<Opened> {
        let name = address.to_string();
        match self.inherited.iter().position(|opened| opened.name == name) {
            Some(place) => Ok(self.inherited.swap_remove(place)),
            None => Opened::on(address),
        }
    }

    /// The running process's socket with the port of an address that cannot be had: one address is within the other.
    pub fn in_the_way(&self, address: SocketAddr) -> Option<&str> {
        let port = |name: &str| name.parse::<SocketAddr>().map(|held| held.port()).ok();
        let mut names = self.inherited.iter().map(|opened| opened.name.as_str());
        names.find(|name| port(name) == Some(address.port()))
    }
}

/// Pingora's listening service for what comes before HTTP in clear text.
pub fn buffered<A>(name: &str, app: A, opened: &[Opened]) -> Listening<A> {
    let mut service = Listening::new(name.to_owned(), app);
    for socket in opened {
        let buffers = L4BufferSettings::new(BUFFER_BYTES, WRITE_BYTES);
        service.add_listener(ListenerConfig::tcp(socket.name.clone()).l4_buffer(buffers));
    }
    service
}

/// How listening services come into the server: what each of them waits for, and what closes it.
pub struct Entrance {
    /// Ready before the first connection is accepted.
    pub needs: Vec<ServiceHandle>,
    /// Closes them, and knows when they are over.
    pub drain: Arc<Drain>,
    /// How many services were added.
    pub services: usize,
}

impl Entrance {
    /// Adds a service that has Pingora listen on `opened`. The sockets are kept for a successor too.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn add<A: ServerApp + Send + Sync + 'static>(
        &mut self,
        server: &mut Server,
        inner: Listening<A>,
        opened: Vec<Opened>,
    ) -> std::io::Result<()> {
        self.keep(&opened)?;
        let service = Prepared {
            inner,
            opened: Mutex::new(opened),
            drain: Arc::clone(&self.drain),
            closing: self.drain.closing(),
        };
        self.add_service(server, Box::new(service));
        Ok(())
    }

    /// Adds a service that accepts at `opened` itself. The sockets are kept for a successor too.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn add_accepting<A: ServerApp + Send + Sync + 'static>(
        &mut self,
        server: &mut Server,
        name: &str,
        app: A,
        opened: Vec<Opened>,
        threads: Option<usize>,
    ) -> std::io::Result<()> {
        self.keep(&opened)?;
        let service = Accepting::new(name, app, opened, &self.drain, threads);
        self.add_service(server, Box::new(service));
        Ok(())
    }

    fn keep(&self, opened: &[Opened]) -> std::io::Result<()> {
        opened.iter().try_for_each(|socket| {
            self.drain.keep(socket.again()?);
            Ok(())
        })
    }

    fn add_service(&mut self, server: &mut Server, service: Box<dyn ServiceWithDependents>) {
        self.services += 1;
        let handle = server.add_boxed_service(service);
        for needed in &self.needs {
            handle.add_dependency(needed);
        }
    }
}

/// A Pingora listening service whose sockets are open already.
struct Prepared<A> {
    inner: Listening<A>,
    opened: Mutex<Vec<Opened>>,
    drain: Arc<Drain>,
    closing: ShutdownWatch,
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Service for Prepared<A> {
    /// The server's own watch is not used: it turns when the process ends, which is after the drain.
    async fn start_service(&mut self, fds: Option<ListenFds>, _shutdown: ShutdownWatch, listeners_per_fd: usize) {
        let _listening = self.drain.listens();
        if let Some(table) = &fds {
            let mut table = table.lock();
            for opened in self.opened.lock().drain(..) {
                table.add(opened.name, opened.socket.into_raw_fd());
            }
        }
        let mut serving = Service::start_service(&mut self.inner, fds, self.closing.clone(), listeners_per_fd);
        // With the sockets there, it waits for nothing before its accept loops are spawned; then it waits for their end.
        let begun = std::future::poll_fn(|context| Poll::Ready(serving.as_mut().poll(context))).await;
        if begun.is_pending() {
            self.drain.accepts();
            serving.await;
        }
    }

    fn name(&self) -> &str {
        Service::name(&self.inner)
    }

    fn threads(&self) -> Option<usize> {
        Service::threads(&self.inner)
    }

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Service::listen_addresses(&self.inner)
    }
}
