//! A proxy that does to the bytes of an endpoint what networks and dying programs do. It stands between the program and
//! an origin; what it does can be changed while connections are open.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// What happens to responses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// They pass.
    None,
    /// They come later.
    Delay(Duration),
    /// They do not come until the fault is another.
    Stall,
    /// The connection is reset when one should begin.
    Reset,
    /// The connection is reset within the head.
    ResetInHead,
    /// The connection is reset within the body.
    ResetInBody,
    /// Something else comes.
    Garbage,
    /// Nothing more comes after one, and the connection stays open.
    HalfClose,
    /// They come byte by byte.
    Drip(Duration),
}

/// The proxy.
pub struct FaultProxy {
    pub address: SocketAddr,
    target: String,
    fault: watch::Sender<Fault>,
    running: Option<JoinSet<()>>,
    /// What makes a black hole of the address: a full queue.
    hole: Option<(TcpListener, Vec<TcpStream>)>,
}

impl FaultProxy {
    /// In front of `target`, on an address of its own: nothing else takes the port while it is dead.
    pub async fn start(host: [u8; 4], target: &str) -> Self {
        let mut proxy = Self {
            address: SocketAddr::from((host, 0)),
            target: target.to_owned(),
            fault: watch::Sender::new(Fault::None),
            running: None,
            hole: None,
        };
        proxy.revive().await;
        proxy
    }

    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }

    /// Refuses new connections and drops those there are.
    pub async fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.shutdown().await;
        }
        self.hole = None;
    }

    /// Drops connections, and answers nothing that asks for a new one.
    pub async fn swallow(&mut self) {
        self.kill().await;
        let socket = TcpSocket::new_v4().expect("socket");
        socket.set_reuseaddr(true).expect("option");
        socket.bind(self.address).expect("bind");
        let listener = socket.listen(0).expect("listen");
        let mut queue = Vec::new();
        // The system takes one or two more than it was told.
        while let Ok(Ok(held)) = tokio::time::timeout(FULL, TcpStream::connect(self.address)).await {
            queue.push(held);
        }
        self.hole = Some((listener, queue));
    }

    /// Serves, where it did before.
    pub async fn revive(&mut self) {
        self.kill().await;
        self.set(Fault::None);
        let listener = TcpListener::bind(self.address).await.expect("bind");
        self.address = listener.local_addr().expect("address");
        let (target, fault) = (self.target.clone(), self.fault.subscribe());
        let mut running = JoinSet::new();
        running.spawn(async move {
            // Its connections end with it.
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                connections.spawn(connection(near, target.clone(), fault.clone()));
            }
        });
        self.running = Some(running);
    }
}

/// How long a connection to a queue that has room would take at the most.
const FULL: Duration = Duration::from_millis(200);

async fn connection(near: TcpStream, target: String, fault: watch::Receiver<Fault>) {
    let Ok(far) = TcpStream::connect(target).await else {
        return;
    };
    for socket in [&near, &far] {
        socket.set_nodelay(true).expect("nodelay");
    }
    let (mut near_read, near_write) = near.into_split();
    let (far_read, mut far_write) = far.into_split();
    let upward = async {
        // An error on either side ends both, as the end does.
        drop(tokio::io::copy(&mut near_read, &mut far_write).await);
    };
    tokio::select! {
        () = upward => {}
        ended = downward(far_read, near_write, fault) => {
            if let Some(Ended::Half(_open)) = ended {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// How a direction ended, where that is not the end of the connection.
enum Ended {
    Half(OwnedWriteHalf),
}

async fn downward(
    mut far: OwnedReadHalf,
    mut near: OwnedWriteHalf,
    mut fault: watch::Receiver<Fault>,
) -> Option<Ended> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = far.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
        let bytes = &buffer[..read];
        let now = *fault.borrow_and_update();
        match now {
            Fault::None => near.write_all(bytes).await.ok()?,
            Fault::Delay(delay) => {
                tokio::time::sleep(delay).await;
                near.write_all(bytes).await.ok()?;
            }
            Fault::Stall => {
                fault.wait_for(|fault| *fault != Fault::Stall).await.ok()?;
                near.write_all(bytes).await.ok()?;
            }
            Fault::Reset => return reset(&near),
            Fault::ResetInHead => {
                near.write_all(&bytes[..read.min(12)]).await.ok()?;
                return reset(&near);
            }
            Fault::ResetInBody => {
                let head = bytes.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |at| at + 4);
                near.write_all(&bytes[..head + (read - head) / 2]).await.ok()?;
                return reset(&near);
            }
            Fault::Garbage => {
                near.write_all(b"\x01\x02 nonsense\r\n\r\n").await.ok()?;
                return None;
            }
            Fault::HalfClose => {
                near.write_all(bytes).await.ok()?;
                near.shutdown().await.ok()?;
                return Some(Ended::Half(near));
            }
            Fault::Drip(pause) => {
                for byte in bytes {
                    near.write_all(&[*byte]).await.ok()?;
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }
}

/// Dropping the connection is a reset from now on.
fn reset(near: &OwnedWriteHalf) -> Option<Ended> {
    near.as_ref().set_zero_linger().expect("linger");
    None
}
