//! A client that is answered before it has sent all gets its answer, and not the reset of a connection that is closed on it.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::certificate::Certificate;
use crate::harness::origin::{Wire, serve};
use crate::harness::{Proxy, one_pool};

/// More than the buffers between the two take.
const BODY_BYTES: usize = 32 * 1024 * 1024;

/// Sends a request that will not be read, all of it, before it reads. What it gets up to the end of the connection.
async fn uploads(mut stream: impl AsyncRead + AsyncWrite + Unpin, head: &str) -> String {
    stream.write_all(head.as_bytes()).await.expect("write");
    let sent = stream.write_all(&vec![b'x'; BODY_BYTES]).await;
    sent.and(stream.flush().await)
        .unwrap_or_else(|e| panic!("{head:?}: {e}"));
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer).await;
    read.unwrap_or_else(|e| panic!("{head:?}: {e}"));
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_client_that_is_refused_may_send_all_before_it_reads_why() {
    // It answers an upload before that is over, and closes.
    let hasty = serve(|mut wire: Wire| async move {
        wire.head().await.expect("a request");
        wire.write("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            .await
            .expect("the proxy reads");
        drop(wire.rest().await);
    })
    .await;
    let certificate = Certificate::new();
    let listeners = format!("{{ address: \"127.0.0.1:0\" }}, {}", certificate.listener());
    let limits = "limits: { body_bytes_max: 33MiB, header_bytes_max: 32KiB }\n";
    let yaml = one_pool(&hasty, limits).replace("{ pool: only }", "{ match: { path: /x }, pool: only }");
    let proxy = Proxy::start_on(&listeners, &yaml, &[]);
    let length = format!("Host: t.example\r\nContent-Length: {BODY_BYTES}\r\n\r\n");
    for (head, status) in [
        (
            "POST /x HTTP/1.1\r\nHost: t.example\r\nContent-Length: 99999999\r\n\r\n".to_owned(),
            413,
        ),
        (format!("POST /none HTTP/1.1\r\n{length}"), 404),
        (format!("POST /x_y HTTP/1.1\r\nA_B: c\r\n{length}"), 400),
        (format!("POST /x HTTP/1.1\r\nA B: c\r\n{length}"), 400),
        (format!("POST /x HTTP/1.1\r\nA: {}", "x".repeat(1024)), 431),
        (format!("POST /x HTTP/1.1\r\nExpect: 100-continue\r\n{length}"), 403),
    ] {
        for tls in [false, true] {
            let answer = if tls {
                let address = proxy.https.as_deref().expect("a listener");
                uploads(certificate.connect(address, &["http/1.1"]).await, &head).await
            } else {
                uploads(TcpStream::connect(&proxy.http).await.expect("connect"), &head).await
            };
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {status} ")),
                "{head:?}, TLS {tls}: {answer}"
            );
        }
    }
}
