//! HTTP/2 frame by frame, for clients that no library would be.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A field of a header block, without compression.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        // Seven bits, then sevens of what is above them (RFC 7541, 5.1).
        if text.len() < 127 {
            bytes.push(u8::try_from(text.len()).expect("short"));
        } else {
            bytes.push(127);
            let mut rest = text.len() - 127;
            while rest >= 128 {
                bytes.push(u8::try_from(rest % 128).expect("seven bits") | 0x80);
                rest /= 128;
            }
            bytes.push(u8::try_from(rest).expect("seven bits"));
        }
        bytes.extend_from_slice(text.as_bytes());
    }
    bytes
}

/// The header block of a request.
pub fn head(method: &str, path: &str) -> Vec<u8> {
    [
        (":method", method),
        (":scheme", "http"),
        (":authority", "t.example"),
        (":path", path),
    ]
    .map(|(name, value)| field(name, value))
    .concat()
}

/// A request without a body, or one whose body is still to come.
pub fn request(stream: u32, method: &str, path: &str, end: bool) -> Vec<u8> {
    let flags = END_HEADERS | if end { END_STREAM } else { 0 };
    frame(HEADERS, flags, stream, &head(method, path))
}

/// What every client begins with.
pub fn preface() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat()
}

/// What the other side says.
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// The next frame; none at the end of the connection.
pub fn next(stream: &mut TcpStream) -> Option<Frame> {
    let mut head = [0; 9];
    stream.read_exact(&mut head).ok()?;
    let number = |bytes: &[u8]| bytes.iter().fold(0_u32, |all, byte| all << 8 | u32::from(*byte));
    let mut payload = vec![0; usize::try_from(number(&head[..3])).expect("small")];
    stream.read_exact(&mut payload).ok()?;
    Some(Frame {
        kind: head[3],
        flags: head[4],
        stream: number(&head[5..]),
        payload,
    })
}

/// Sends `piece` again and again and reads what comes meanwhile, until the other side ends the connection; how often it
/// was sent.
pub fn flood(stream: &mut TcpStream, most: usize, mut piece: impl FnMut(usize) -> Vec<u8>) -> usize {
    let mut listening = stream.try_clone().expect("clone");
    // Reading all the while: a client that does not would be ended for that.
    let ended = std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        loop {
            match listening.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
                Err(_) => return true,
            }
        }
    });
    let mut sent = 0;
    while sent < most && stream.write_all(&piece(sent)).is_ok() {
        sent += 1;
    }
    assert!(ended.join().expect("no panic"), "{sent} were sent, and nobody minded");
    sent
}
