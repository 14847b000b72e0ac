//! An HTTP/1.1 origin on tokio: many connections at a time, each byte the test's own.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::fields;

/// A connection to the proxy or from it.
pub struct Wire(BufReader<TcpStream>);

impl Wire {
    pub async fn connect(address: &str) -> Self {
        Self::over(TcpStream::connect(address).await.expect("connect"))
    }

    pub fn over(socket: TcpStream) -> Self {
        socket.set_nodelay(true).expect("nodelay");
        Self(BufReader::new(socket))
    }

    pub async fn write(&mut self, text: impl AsRef<[u8]>) -> std::io::Result<()> {
        self.0.get_mut().write_all(text.as_ref()).await
    }

    /// A head up to its empty line; `None` when the connection ends before.
    pub async fn head(&mut self) -> Option<String> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(self.0.read_u8().await.ok()?);
        }
        String::from_utf8(head).ok()
    }

    pub async fn exactly(&mut self, bytes: usize) -> std::io::Result<Bytes> {
        let mut buffer = vec![0; bytes];
        self.0.read_exact(&mut buffer).await?;
        Ok(buffer.into())
    }

    /// The next chunk of a chunked body; empty at its end.
    pub async fn chunk(&mut self) -> std::io::Result<Bytes> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(self.0.read_u8().await?);
        }
        let size = String::from_utf8_lossy(&line).trim().to_owned();
        let size = usize::from_str_radix(&size, 16).map_err(std::io::Error::other)?;
        let mut chunk = self.exactly(size + 2).await?;
        Ok(chunk.split_to(size))
    }

    /// A whole body after this head, which may have any framing but the end of the connection.
    pub async fn body(&mut self, head: &str) -> std::io::Result<Vec<u8>> {
        if let Some(length) = fields(head, "content-length").first() {
            let length = length.parse().map_err(std::io::Error::other)?;
            return Ok(self.exactly(length).await?.to_vec());
        }
        let mut body = Vec::new();
        loop {
            let chunk = self.chunk().await?;
            if chunk.is_empty() {
                return Ok(body);
            }
            body.extend_from_slice(&chunk);
        }
    }

    /// The body of a request with this head, which may have none.
    pub async fn body_of(&mut self, head: &str) -> std::io::Result<Vec<u8>> {
        let framed = ["content-length", "transfer-encoding"].map(|name| !fields(head, name).is_empty());
        if framed.contains(&true) {
            return self.body(head).await;
        }
        Ok(Vec::new())
    }

    /// Reads until the other side ends; how many bytes there were.
    pub async fn rest(&mut self) -> std::io::Result<u64> {
        tokio::io::copy(&mut self.0, &mut tokio::io::sink()).await
    }

    pub fn socket(&self) -> &TcpStream {
        self.0.get_ref()
    }

    /// Nothing may have been read yet.
    pub fn into_socket(self) -> TcpStream {
        self.0.into_inner()
    }
}

/// Accepts for ever; the script has each connection to itself.
pub async fn serve<F, T>(script: F) -> String
where
    F: Fn(Wire) -> T + Clone + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bind");
    let address = listener.local_addr().expect("address").to_string();
    tokio::spawn(accept(listener, script));
    address
}

/// The same, on a listener of the test's; ends with the task that runs it.
pub async fn accept<F, T>(listener: TcpListener, script: F)
where
    F: Fn(Wire) -> T + Send + 'static,
    T: Future<Output = ()> + Send + 'static,
{
    while let Ok((socket, _)) = listener.accept().await {
        tokio::spawn(script(Wire::over(socket)));
    }
}

/// A response with this body.
pub fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}
