//! HTTP/2 by the `h2` crate, frame by frame: clients of the proxy and origins behind it.

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A connection by prior knowledge, and the task that drives it: ending that task is leaving without a word.
pub async fn connect(address: &str) -> (SendRequest<Bytes>, JoinHandle<()>) {
    let socket = TcpStream::connect(address).await.expect("connect");
    socket.set_nodelay(true).expect("nodelay");
    over(socket).await
}

/// The same, over what is connected already.
pub async fn over(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> (SendRequest<Bytes>, JoinHandle<()>) {
    let (client, connection) = h2::client::Builder::new()
        .initial_window_size(1 << 20)
        .initial_connection_window_size(1 << 20)
        .handshake(socket)
        .await
        .expect("handshake");
    // How a connection ends is seen by its streams.
    let driver = tokio::spawn(async move { drop(connection.await) });
    (client, driver)
}

/// A request for a path.
pub fn request(method: &str, path: &str) -> Request<()> {
    let uri = format!("http://t.example{path}");
    Request::builder().method(method).uri(uri).body(()).expect("request")
}

/// Sends a request without a body, or with one that is still to come.
pub async fn send(
    client: &SendRequest<Bytes>,
    request: Request<()>,
    end: bool,
) -> (h2::client::ResponseFuture, SendStream<Bytes>) {
    let mut client = client.clone().ready().await.expect("ready");
    client.send_request(request, end).expect("sent")
}

/// A whole response: its body, and its trailers.
pub async fn get(client: &SendRequest<Bytes>, path: &str) -> Result<(Response<Vec<u8>>, HeaderMap), h2::Error> {
    let (response, _) = send(client, request("GET", path), true).await;
    collect(response.await?).await
}

/// Reads a response to its end.
pub async fn collect(response: Response<RecvStream>) -> Result<(Response<Vec<u8>>, HeaderMap), h2::Error> {
    let (head, mut body) = response.into_parts();
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    Ok((Response::from_parts(head, bytes), trailers))
}

/// Writes all of `bytes`, as fast as the other side takes them.
pub async fn write(stream: &mut SendStream<Bytes>, mut bytes: Bytes, end: bool) -> Result<(), h2::Error> {
    while !bytes.is_empty() {
        stream.reserve_capacity(bytes.len());
        let granted = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
        let granted = granted.ok_or_else(|| h2::Error::from(h2::Reason::CANCEL))??;
        let piece = bytes.split_to(granted.min(bytes.len()));
        stream.send_data(piece, end && bytes.is_empty())?;
    }
    Ok(())
}

/// An origin that speaks only HTTP/2; its script gets every request.
pub async fn origin<F, T>(script: F) -> String
where
    F: Fn(Request<RecvStream>, SendResponse<Bytes>) -> T + Clone + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let script = script.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::Builder::new()
                    .initial_window_size(1 << 20)
                    .initial_connection_window_size(1 << 20)
                    .handshake::<_, Bytes>(socket)
                    .await
                    .expect("handshake");
                while let Some(Ok((request, answer))) = connection.accept().await {
                    tokio::spawn(script(request, answer));
                }
            });
        }
    });
    address
}

/// Answers with 200 and a body.
pub fn answer(mut stream: SendResponse<Bytes>, body: &'static str) {
    let mut body_stream = stream.send_response(Response::new(()), false).expect("head");
    body_stream
        .send_data(Bytes::from_static(body.as_bytes()), true)
        .expect("body");
}
