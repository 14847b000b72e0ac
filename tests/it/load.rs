//! Clients of every kind that never try again: what is sent once and not answered is a failure.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;

use crate::harness::certificate::Certificate;

/// How many echoes or streams one connection has, where nothing ends it before.
const TURNS: usize = 200;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Kept,
    New,
    H2c,
    Tls,
    TlsNew,
    TlsH2,
    WebSocket,
    Grpc,
}

impl Kind {
    pub const ALL: [Self; 8] = [
        Self::Kept,
        Self::New,
        Self::H2c,
        Self::Tls,
        Self::TlsNew,
        Self::TlsH2,
        Self::WebSocket,
        Self::Grpc,
    ];
}

/// Where the program listens.
pub struct Places {
    pub http: String,
    /// HTTP/2 without TLS.
    pub h2c: String,
    pub https: String,
    pub certificate: Certificate,
}

/// What became of all requests.
pub struct Load {
    places: Places,
    stop: AtomicBool,
    served: [AtomicUsize; Kind::ALL.len()],
    failures: Mutex<Vec<String>>,
    /// Told of every turn, whatever became of it.
    turns: watch::Sender<()>,
}

type Turn = Result<(), String>;

impl Load {
    /// Starts clients of every kind.
    pub fn start(places: Places) -> (Arc<Self>, tokio::task::JoinSet<()>) {
        let load = Arc::new(Self {
            places,
            stop: AtomicBool::new(false),
            served: Default::default(),
            failures: Mutex::default(),
            turns: watch::Sender::default(),
        });
        let mut clients = tokio::task::JoinSet::new();
        for kind in Kind::ALL {
            for _ in 0..2 {
                clients.spawn(Arc::clone(&load).client(kind));
            }
        }
        (load, clients)
    }

    pub fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
    }

    /// Requests answered as they should be.
    pub fn served(&self) -> usize {
        self.served.iter().map(|count| count.load(Ordering::SeqCst)).sum()
    }

    /// The same, by kind.
    pub fn by_kind(&self) -> Vec<(Kind, usize)> {
        let counts = self.served.iter().map(|count| count.load(Ordering::SeqCst));
        Kind::ALL.into_iter().zip(counts).collect()
    }

    pub fn failures(&self) -> Vec<String> {
        self.failures.lock().expect("lock").clone()
    }

    /// Waits until so many requests more were answered, or one failed; false if neither happens in time.
    pub async fn more(&self, requests: usize, patience: Duration) -> bool {
        let (wanted, mut turns) = (self.served() + requests, self.turns.subscribe());
        let all = async {
            while self.served() < wanted && self.failures().is_empty() {
                turns.changed().await.expect("this load has the other end");
            }
        };
        tokio::time::timeout(patience, all).await.is_ok()
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    async fn client(self: Arc<Self>, kind: Kind) {
        while !self.stopped() {
            let served = || {
                self.served[kind as usize].fetch_add(1, Ordering::SeqCst);
                self.turns.send_replace(());
            };
            let turn = match kind {
                Kind::Kept => self.kept(&served).await,
                Kind::New => self.new_one(&served).await,
                Kind::H2c => self.h2c("/", "", &served).await,
                Kind::Grpc => self.h2c("/grpc/Echo/Say", "application/grpc", &served).await,
                Kind::Tls => self.tls_kept(&served).await,
                Kind::TlsNew => self.tls_new(&served).await,
                Kind::TlsH2 => self.tls_h2(&served).await,
                Kind::WebSocket => self.web_socket(&served).await,
            };
            if let Err(e) = turn {
                self.failures.lock().expect("lock").push(format!("{kind:?}: {e}"));
                self.turns.send_replace(());
            }
        }
    }

    async fn kept(&self, served: &impl Fn()) -> Turn {
        self.ask_until_told(connect(&self.places.http).await?, served).await
    }

    async fn tls_kept(&self, served: &impl Fn()) -> Turn {
        let places = &self.places;
        let stream = places.certificate.connect(&places.https, &["http/1.1"]).await;
        self.ask_until_told(stream, served).await
    }

    async fn new_one(&self, served: &impl Fn()) -> Turn {
        ask(&mut BufReader::new(connect(&self.places.http).await?), "close").await?;
        served();
        Ok(())
    }

    async fn tls_new(&self, served: &impl Fn()) -> Turn {
        let places = &self.places;
        let stream = places.certificate.connect(&places.https, &["http/1.1"]).await;
        ask(&mut BufReader::new(stream), "close").await?;
        served();
        Ok(())
    }

    /// One connection, until an answer says that it closes.
    async fn ask_until_told<S>(&self, stream: S, served: &impl Fn()) -> Turn
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut stream = BufReader::new(stream);
        let mut closes = false;
        while !closes && !self.stopped() {
            closes = ask(&mut stream, "keep-alive").await?;
            served();
        }
        Ok(())
    }

    async fn h2c(&self, path: &str, kind: &str, served: &impl Fn()) -> Turn {
        let stream = connect(&self.places.h2c).await?;
        self.streams(stream, path, kind, served).await
    }

    async fn tls_h2(&self, served: &impl Fn()) -> Turn {
        let places = &self.places;
        let stream = places.certificate.connect(&places.https, &["h2"]).await;
        self.streams(stream, "/", "", served).await
    }

    /// Streams on one connection, until the other side says goodbye.
    async fn streams<S>(&self, stream: S, path: &str, kind: &str, served: &impl Fn()) -> Turn
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (mut client, connection) = h2::client::handshake(stream).await.map_err(text)?;
        let connection = tokio::spawn(connection);
        for _ in 0..TURNS {
            client = match client.ready().await {
                Ok(client) => client,
                // Nothing is sent: it is no failure of a request.
                Err(e) if e.is_go_away() => {
                    drop(connection.await);
                    return Ok(());
                }
                Err(e) => return Err(format!("not ready: {e}")),
            };
            let request = http::Request::post(format!("http://edge.test{path}"));
            let request = request.header("content-type", kind).header("te", "trailers").body(());
            let sent = client.send_request(request.expect("a request"), false);
            let (answer, mut body) = sent.map_err(|e| format!("not sent: {e}"))?;
            body.send_data(Bytes::from_static(b"word"), true).map_err(text)?;
            let answer = match answer.await {
                Ok(answer) => answer,
                // It crossed the goodbye on its way, which says that it was not processed (RFC 9113, 6.8): this client
                // answers the ping behind the goodbye before it sends what is waiting.
                Err(e) if e.is_go_away() && e.is_remote() && e.reason() == Some(h2::Reason::NO_ERROR) => {
                    drop(connection.await);
                    return Ok(());
                }
                Err(e) => return Err(format!("no answer: {e}")),
            };
            let (head, mut body) = answer.into_parts();
            let mut whole = Vec::new();
            while let Some(piece) = body.data().await {
                let piece = piece.map_err(|e| format!("no body: {e}"))?;
                body.flow_control().release_capacity(piece.len()).map_err(text)?;
                whole.extend_from_slice(&piece);
            }
            let trailers = body.trailers().await.map_err(text)?;
            let complete = kind.is_empty() || trailers.is_some_and(|t| t["grpc-status"] == "0");
            if head.status != 200 || whole != b"ok" || !complete {
                return Err(format!("{head:?} {whole:?}"));
            }
            served();
            if self.stopped() {
                break;
            }
        }
        drop(client);
        // It ends by itself, however the other side goes.
        drop(connection.await);
        Ok(())
    }

    async fn web_socket(&self, served: &impl Fn()) -> Turn {
        let socket = connect(&self.places.http).await?;
        let (mut socket, _) = client_async("ws://t.example/ws", socket)
            .await
            .map_err(|e| format!("handshake: {e}"))?;
        for n in 0..TURNS {
            let word = Message::text(format!("word {n}"));
            socket.send(word.clone()).await.map_err(text)?;
            let echo = socket.next().await.ok_or("no echo")?.map_err(text)?;
            if echo != word {
                return Err(format!("{echo:?}"));
            }
            served();
            if self.stopped() {
                break;
            }
        }
        socket.close(None).await.map_err(text)?;
        while let Some(Ok(_)) = socket.next().await {}
        Ok(())
    }
}

fn text(e: impl std::fmt::Display) -> String {
    e.to_string()
}

async fn connect(address: &str) -> Result<TcpStream, String> {
    let stream = TcpStream::connect(address).await.map_err(|e| format!("connect: {e}"))?;
    stream.set_nodelay(true).map_err(text)?;
    Ok(stream)
}

/// One request and its answer; whether the answer says that the connection closes.
async fn ask<S>(stream: &mut BufReader<S>, connection: &str) -> Result<bool, String>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let request = format!("GET / HTTP/1.1\r\nHost: edge.test\r\nConnection: {connection}\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|e| format!("write: {e}"))?;
    stream.flush().await.map_err(|e| format!("flush: {e}"))?;
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = stream.read_line(&mut head).await;
        if read.map_err(|e| format!("head: {e}"))? == 0 {
            return Err(format!("closed after {head:?}"));
        }
    }
    let mut body = [0; 2];
    stream.read_exact(&mut body).await.map_err(|e| format!("body: {e}"))?;
    if !head.starts_with("HTTP/1.1 200 ") || &body != b"ok" {
        return Err(head);
    }
    Ok(crate::harness::fields(&head, "connection") == ["close"])
}
