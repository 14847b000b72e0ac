//! HTTP/2 to the endpoints: by ALPN and by prior knowledge, many requests on one connection, and late heads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

use crate::authority::Authority;
use crate::harness::{PATIENCE, Proxy, one_pool};

/// Speaks HTTP/2 only. `/hold` waits to be let go, `/late` is never answered, `/slow` pauses inside its body; all
/// else is `ok` at once.
struct Origin {
    address: String,
    connections: Arc<AtomicUsize>,
    /// The path of every request that arrived.
    arrived: Mutex<mpsc::Receiver<String>>,
    go: Arc<Semaphore>,
    _runtime: tokio::runtime::Runtime,
}

impl Origin {
    fn spawn(tls: Option<TlsAcceptor>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("runtime");
        let (told, arrived) = mpsc::channel();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("bind");
        let address = listener.local_addr().expect("address").to_string();
        let (connections, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let (count, gate) = (Arc::clone(&connections), Arc::clone(&go));
        runtime.spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let (told, gate, tls) = (told.clone(), Arc::clone(&gate), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => serve(tls.accept(socket).await.expect("handshake"), told, gate).await,
                        None => serve(socket, told, gate).await,
                    }
                });
            }
        });
        Self {
            address,
            connections,
            arrived: Mutex::new(arrived),
            go,
            _runtime: runtime,
        }
    }

    fn wait_for(&self, path: &str) {
        let arrived = self.arrived.lock().expect("lock").recv_timeout(PATIENCE);
        assert_eq!(arrived.as_deref(), Ok(path));
    }
}

async fn serve<S>(socket: S, told: mpsc::Sender<String>, gate: Arc<Semaphore>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = h2::server::handshake(socket).await.expect("handshake");
    while let Some(Ok((request, answer))) = connection.accept().await {
        told.send(request.uri().path().to_owned()).expect("the test listens");
        tokio::spawn(respond(request, answer, Arc::clone(&gate)));
    }
}

async fn respond(request: Request<RecvStream>, mut answer: SendResponse<Bytes>, gate: Arc<Semaphore>) {
    let path = request.uri().path();
    if path == "/late" {
        return std::future::pending().await;
    }
    if path == "/hold" {
        gate.acquire().await.expect("open").forget();
    }
    let mut body = answer.send_response(Response::new(()), false).expect("head");
    if path == "/slow" {
        body.send_data(Bytes::from_static(b"o"), false).expect("body");
        tokio::time::sleep(Duration::from_millis(900)).await;
        body.send_data(Bytes::from_static(b"k"), true).expect("body");
        return;
    }
    body.send_data(Bytes::from_static(b"ok"), true).expect("body");
}

fn over_tls() -> (Origin, String) {
    let authority = Authority::new();
    let config = Authority::server(&authority.sign("origin.test"), &["h2", "http/1.1"], None);
    let tls = format!(
        "    tls: {{ enabled: true, server_name: origin.test, ca: {} }}",
        authority.file.display()
    );
    (Origin::spawn(Some(TlsAcceptor::from(config))), tls)
}

fn shares_one_connection(origin: &Origin, more: &str) {
    const REQUESTS: usize = 8;
    let proxy = Proxy::start(&one_pool(&origin.address, more));
    assert_eq!(proxy.get("/", "").body, "ok");
    origin.wait_for("/");
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..REQUESTS)
            .map(|_| {
                let client = scope.spawn(|| proxy.get("/hold", "").body);
                origin.wait_for("/hold");
                client
            })
            .collect();
        origin.go.add_permits(REQUESTS);
        for client in clients {
            assert_eq!(client.join().expect("no panic"), "ok");
        }
    });
    assert_eq!(origin.connections.load(Ordering::SeqCst), 1, "{REQUESTS} at a time");
}

#[test]
fn where_alpn_yields_h2_requests_share_a_connection() {
    let (origin, tls) = over_tls();
    shares_one_connection(&origin, &tls);
}

#[test]
fn always_speaks_h2_in_clear_text_by_prior_knowledge() {
    let origin = Origin::spawn(None);
    shares_one_connection(&origin, "    connections: { http2: always }");
}

#[test]
fn without_reuse_every_request_has_a_connection_of_its_own() {
    let origin = Origin::spawn(None);
    let proxy = Proxy::start(&one_pool(
        &origin.address,
        "    connections: { http2: always, reuse: false }",
    ));
    for _ in 0..5 {
        assert_eq!(proxy.get("/", "").body, "ok");
    }
    assert_eq!(origin.connections.load(Ordering::SeqCst), 5);
    proxy.wait_metric("switchyard_upstream_connections", &["pool=\"only\""], 0.0);
}

#[test]
fn a_late_head_is_504_and_harms_no_other_request_on_the_connection() {
    let (origin, tls) = over_tls();
    let more = format!("{tls}\n    connections: {{ response_header_timeout: 400ms }}");
    let proxy = Proxy::start(&one_pool(&origin.address, &more));
    assert_eq!(proxy.get("/", "").body, "ok");
    origin.wait_for("/");
    std::thread::scope(|scope| {
        // A stream by its own word has no limit between two reads; it is open while the other one is given up.
        let slow = scope.spawn(|| proxy.get("/slow", "Accept: text/event-stream\r\n"));
        origin.wait_for("/slow");
        assert_eq!(proxy.get("/late", "").status, 504);
        let slow = slow.join().expect("no panic");
        assert_eq!((slow.status, slow.body.as_str(), slow.complete), (200, "ok", true));
    });
    assert_eq!(proxy.get("/", "").body, "ok");
    let alarms = proxy.alarms();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
}
