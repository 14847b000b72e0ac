//! Opens the listening sockets before anything else runs, so that an address that cannot be had ends the start with a
//! clear error, and port 0 has a number to print. Pingora then finds them where it looks for inherited ones.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::{IntoRawFd, OwnedFd};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::listening::Service as Listening;
use pingora::services::{Service, ServiceWithDependents};

/// A socket that was opened ahead, under the name by which the service asks for it.
pub struct Opened {
    /// `address:port`, with the port that the system chose.
    pub name: String,
    socket: OwnedFd,
}

impl Opened {
    /// Listens on an address.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn on(address: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        Ok(Self {
            name: listener.local_addr()?.to_string(),
            socket: listener.into(),
        })
    }
}

/// A Pingora listening service whose sockets are open already.
pub struct Prepared<A> {
    inner: Listening<A>,
    opened: Mutex<Vec<Opened>>,
}

impl<A> Prepared<A> {
    /// Around a service that listens on the names of `opened`, and maybe on inherited sockets.
    pub fn new(inner: Listening<A>, opened: Vec<Opened>) -> Self {
        Self {
            inner,
            opened: Mutex::new(opened),
        }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Service for Prepared<A> {
    async fn start_service(&mut self, fds: Option<ListenFds>, shutdown: ShutdownWatch, listeners_per_fd: usize) {
        if let Some(table) = &fds {
            let mut table = table.lock();
            for opened in self.opened.lock().drain(..) {
                table.add(opened.name, opened.socket.into_raw_fd());
            }
        }
        Service::start_service(&mut self.inner, fds, shutdown, listeners_per_fd).await;
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

/// What Pingora's server takes.
pub fn boxed<A: ServerApp + Send + Sync + 'static>(service: Prepared<A>) -> Box<dyn ServiceWithDependents> {
    Box::new(service)
}
