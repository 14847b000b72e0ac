//! A listening service for HTTP in clear text. Pingora's own keeps room for a TLS handshake, 9 KB, in the task of each
//! connection as long as it is open; here the application is what a connection's task begins with.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use log::error;
use parking_lot::Mutex;
use pingora::apps::ServerApp;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::{GetSocketDigest, SocketDigest, UniqueID};
use pingora::server::{ListenFds, ShutdownWatch};
use pingora::services::Service;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::drain::Drain;
use super::listen::Opened;
use crate::telemetry::targets;

/// After a failure to accept: what lacks, descriptors mostly, takes a while to be there again.
const PAUSE: Duration = Duration::from_millis(100);

/// How much the system takes for a client beyond what is on its way to it (TCP_NOTSENT_LOWAT of tcp(7)). Left alone it takes up
/// to 4 MiB for one that takes nothing, and who takes what is learned too late. A client is sent so much within half a
/// millisecond at a gigabit a second, so one that takes waits for no more.
const UNSENT_MAX: u32 = 64 * 1024;

/// Accepts at sockets that are open already, and has an application serve each connection in a task of its own.
pub struct Accepting<A> {
    name: String,
    app: Arc<A>,
    opened: Mutex<Vec<Opened>>,
    drain: Arc<Drain>,
    threads: Option<usize>,
}

impl<A> Accepting<A> {
    /// At these sockets, until `drain` closes them; on so many threads of its own, or as many as the server has.
    pub fn new(name: &str, app: A, opened: Vec<Opened>, drain: &Arc<Drain>, threads: Option<usize>) -> Self {
        Self {
            threads,
            name: name.to_owned(),
            app: Arc::new(app),
            opened: Mutex::new(opened),
            drain: Arc::clone(drain),
        }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> Service for Accepting<A> {
    /// The server's own watch is not used: it turns when the process ends, which is after the drain.
    async fn start_service(&mut self, _fds: Option<ListenFds>, _shutdown: ShutdownWatch, loops: usize) {
        let _listening = self.drain.listens();
        let mut accepting = JoinSet::new();
        for opened in std::mem::take(&mut *self.opened.lock()) {
            let name = opened.name;
            let listener = match TcpListener::from_std(opened.socket.into()) {
                Ok(listener) => Arc::new(listener),
                Err(e) => {
                    error!(target: targets::SERVER, "cannot listen on {name}: {e}");
                    return;
                }
            };
            for _ in 0..loops.max(1) {
                let app = Arc::clone(&self.app);
                let closing = self.drain.closing();
                accepting.spawn(accept(Arc::clone(&listener), name.clone(), app, closing));
            }
        }
        self.drain.accepts();
        while accepting.join_next().await.is_some() {}
        self.app.cleanup().await;
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        self.threads
    }
}

async fn accept<A: ServerApp + Send + Sync + 'static>(
    listener: Arc<TcpListener>,
    name: String,
    app: Arc<A>,
    mut closing: ShutdownWatch,
) {
    let mut told = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // An error means that the drain is gone, and the process with it.
            _ = closing.wait_for(|closing| *closing) => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                told = false;
                let (app, closing) = (Arc::clone(&app), closing.clone());
                let stream = connection(socket, peer);
                tokio::spawn(async move { app.process_new(Box::new(stream), &closing).await });
            }
            // The client is gone already.
            Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(e) => {
                if !std::mem::replace(&mut told, true) {
                    error!(target: targets::SERVER, "accepting at {name} failed: {e}; trying again until it works");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// As Pingora's listeners make it, but without buffers: what is behind has its own.
fn connection(socket: TcpStream, peer: std::net::SocketAddr) -> Stream {
    // It fails for a client that is gone already: whoever reads from it will see that.
    drop(socket.set_nodelay(true));
    drop(SockRef::from(&socket).set_tcp_notsent_lowat(UNSENT_MAX));
    let mut stream = Stream::from(socket);
    let digest = SocketDigest::from_raw_fd(stream.id());
    // It is new, and so has no address yet.
    drop(digest.peer_addr.set(Some(SocketAddr::Inet(peer))));
    stream.set_socket_digest(digest);
    stream
}
