//! A socket for upgraded requests that keeps the order which Pingora 0.9.1 relies on and does not enforce.
//!
//! Pingora's open bug #946: when the upstream's `101` is read before the queued "no request body" task, that task is
//! taken for the end of the tunnel, and a WebSocket dies right after its handshake. Both are awaited in one `select!`
//! of one task. This socket answers the first read after a write with "not yet" and asks to be polled again at once,
//! so that the queued task, which is ready by then, is always taken first. Only requests that ask for an upgrade
//! use it.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A TCP socket whose first read after each write yields once.
#[derive(Debug)]
pub struct Gate {
    socket: TcpStream,
    wrote: bool,
}

impl Gate {
    pub fn new(socket: TcpStream) -> Self {
        Self { socket, wrote: false }
    }
}

impl AsyncRead for Gate {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.wrote) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut self.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gate {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.wrote = true;
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}

impl VirtualSocket for Gate {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.socket.set_nodelay(true),
            VirtualSockOpt::KeepAlive(keepalive) => SockRef::from(&self.socket).set_tcp_keepalive(
                &socket2::TcpKeepalive::new()
                    .with_time(keepalive.idle)
                    .with_interval(keepalive.interval),
            ),
            other => Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("socket option {other:?} is not known here"),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_first_read_after_a_write_lets_a_ready_task_go_first() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let address = listener.local_addr().expect("address");
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let mut gate = Gate::new(near.expect("connect"));
        let (mut far, _) = far.expect("accept");
        for round in 0..100 {
            gate.write_all(b"ping").await.expect("write");
            far.write_all(b"pong").await.expect("answer");
            gate.socket.readable().await.expect("the answer is there");
            let mut buf = [0; 4];
            let first = tokio::select! {
                biased;
                _ = gate.read_exact(&mut buf) => "answer",
                () = std::future::ready(()) => "queued task",
            };
            assert_eq!(first, "queued task", "round {round}");
            gate.read_exact(&mut buf).await.expect("read");
            assert_eq!(&buf, b"pong");
            far.read_exact(&mut buf).await.expect("read");
        }
    }
}
