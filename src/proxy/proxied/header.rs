//! The header of the PROXY protocol, version 1 and 2 (haproxy.org, proxy-protocol.txt, section 2): who a connection
//! comes from, as the one who relays it says. Read to its last byte and not one further.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

/// A line of version 1 with the longest addresses, its end included (section 2.1).
const LINE_BYTES_MAX: usize = 107;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// What may follow the first 16 bytes of version 2: addresses have 216 at most, the rest is for what a relay adds, such as
/// a certificate's name. More is refused, though the format has room for 64 KiB.
const REST_BYTES_MAX: usize = 4096;

/// What a header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// The client.
    Client(SocketAddr),
    /// The relay itself, which looks after our health.
    Relay,
    /// Somebody of whom the relay knows no address.
    Unknown,
}

/// Why there is no header.
#[derive(Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The connection ended before it began.
    Gone,
    /// It is not written as it must be.
    Malformed,
    /// The connection ended in the midst of it.
    Cut,
}

/// Reads a header.
pub async fn read<S: AsyncRead + Unpin + ?Sized>(from: &mut S) -> Result<Said, Wrong> {
    let mut first = [0];
    match from.read(&mut first).await {
        Ok(0) | Err(_) => Err(Wrong::Gone),
        Ok(_) if first[0] == b'P' => line(from).await,
        Ok(_) if first[0] == SIGNATURE[0] => frame(from).await,
        Ok(_) => Err(Wrong::Malformed),
    }
}

fn cut(_: io::Error) -> Wrong {
    Wrong::Cut
}

async fn line<S: AsyncRead + Unpin + ?Sized>(from: &mut S) -> Result<Said, Wrong> {
    let mut line = [0; LINE_BYTES_MAX];
    line[0] = b'P';
    for end in 1..LINE_BYTES_MAX {
        line[end] = from.read_u8().await.map_err(cut)?;
        if line[end] == b'\n' {
            return version_1(&line[..=end]).ok_or(Wrong::Malformed);
        }
        // What is no header is known before its line ends, if it ever does.
        if !b"PROXY ".starts_with(&line[..(end + 1).min(6)]) {
            return Err(Wrong::Malformed);
        }
    }
    Err(Wrong::Malformed)
}

fn version_1(line: &[u8]) -> Option<Said> {
    let line = std::str::from_utf8(line.strip_suffix(b"\r\n")?).ok()?;
    if line.contains('\r') {
        return None;
    }
    let said = line.strip_prefix("PROXY ")?;
    if said == "UNKNOWN" || said.starts_with("UNKNOWN ") {
        return Some(Said::Unknown);
    }
    let mut words = said.split(' ');
    let mut next = || words.next();
    let (family, source, target) = (next()?, next()?, next()?);
    let (source_port, target_port) = (port(next()?)?, port(next()?)?);
    if next().is_some() {
        return None;
    }
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(Into::into),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(Into::into),
            _ => None,
        }
    };
    // What it was sent to is not used, and must be right all the same.
    let (source, _) = (address(source)?, (address(target)?, target_port));
    Some(Said::Client(SocketAddr::new(source, source_port)))
}

/// Decimal, without a sign or a zero in front.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

async fn frame<S: AsyncRead + Unpin + ?Sized>(from: &mut S) -> Result<Said, Wrong> {
    let mut head = [0; 16];
    head[0] = SIGNATURE[0];
    for end in 1..SIGNATURE.len() {
        head[end] = from.read_u8().await.map_err(cut)?;
        if head[end] != SIGNATURE[end] {
            return Err(Wrong::Malformed);
        }
    }
    from.read_exact(&mut head[SIGNATURE.len()..]).await.map_err(cut)?;
    let [.., command, family, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > REST_BYTES_MAX || !matches!(command, 0x20 | 0x21) {
        return Err(Wrong::Malformed);
    }
    let mut rest = vec![0; length];
    from.read_exact(&mut rest).await.map_err(cut)?;
    version_2(command == 0x20, family, &rest).ok_or(Wrong::Malformed)
}

fn version_2(local: bool, family: u8, rest: &[u8]) -> Option<Said> {
    // A connection of the relay's own may say anything of addresses (section 2.2).
    if local {
        return Some(Said::Relay);
    }
    let (said, more) = match family {
        0x11 => {
            let (addresses, more) = rest.split_at_checked(12)?;
            let source: [u8; 4] = addresses[..4].try_into().ok()?;
            let port = u16::from_be_bytes([addresses[8], addresses[9]]);
            (Said::Client(SocketAddr::new(Ipv4Addr::from(source).into(), port)), more)
        }
        0x21 => {
            let (addresses, more) = rest.split_at_checked(36)?;
            let source: [u8; 16] = addresses[..16].try_into().ok()?;
            let port = u16::from_be_bytes([addresses[32], addresses[33]]);
            (Said::Client(SocketAddr::new(Ipv6Addr::from(source).into(), port)), more)
        }
        0x31 => (Said::Unknown, rest.split_at_checked(216)?.1),
        // Unspecified: nothing that follows means anything.
        0x00 => return Some(Said::Unknown),
        // Datagrams do not come over a stream.
        _ => return None,
    };
    are_whole(more).then_some(said)
}

/// Whether what a relay adds has the lengths that it says: a type, two bytes of length, so many bytes.
fn are_whole(mut added: &[u8]) -> bool {
    while !added.is_empty() {
        let [_, high, low, rest @ ..] = added else {
            return false;
        };
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let Some((_, next)) = rest.split_at_checked(length) else {
            return false;
        };
        added = next;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is read, and what is left.
    fn reading(bytes: &[u8]) -> (Result<Said, Wrong>, usize) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("runtime");
        let mut from = bytes;
        let said = runtime.block_on(read(&mut from));
        (said, from.len())
    }

    fn client(text: &str) -> Result<Said, Wrong> {
        Ok(Said::Client(text.parse().expect("address")))
    }

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, rest].concat()
    }

    const FOUR: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 1, 0x1f, 0x90, 0, 80];

    #[test]
    fn a_line_says_who_the_client_is() {
        let longest = format!(
            "PROXY TCP6 {0} {0} 65535 65535\r\n",
            "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
        );
        for (line, expected) in [
            (
                "PROXY TCP4 192.0.2.7 198.51.100.1 8080 80\r\n",
                client("192.0.2.7:8080"),
            ),
            (
                "PROXY TCP4 255.255.255.255 255.255.255.255 65535 0\r\n",
                client("255.255.255.255:65535"),
            ),
            ("PROXY TCP6 2001:db8::7 ::1 1 2\r\n", client("[2001:db8::7]:1")),
            (&longest, client("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")),
            ("PROXY UNKNOWN\r\n", Ok(Said::Unknown)),
            ("PROXY UNKNOWN what ever 1 2\r\n", Ok(Said::Unknown)),
        ] {
            assert_eq!(
                reading(format!("{line}GET / HTTP/1.1").as_bytes()),
                (expected, 14),
                "{line:?}"
            );
        }
    }

    #[test]
    fn a_line_that_is_written_otherwise_is_refused() {
        for line in [
            "PROXY TCP4 192.0.2.7 198.51.100.1 8080 80\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 8080\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 8080 80 \r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 8080 80 1\r\n",
            "PROXY  TCP4 192.0.2.7 198.51.100.1 8080 80\r\n",
            "PROXY TCP4 192.0.2.7  198.51.100.1 8080 80\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 08080 80\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 +80 80\r\n",
            "PROXY TCP4 192.0.2.7 198.51.100.1 65536 80\r\n",
            "PROXY TCP4 192.0.2.007 198.51.100.1 80 80\r\n",
            "PROXY TCP4 ::1 ::1 80 80\r\n",
            "PROXY TCP6 192.0.2.7 198.51.100.1 80 80\r\n",
            "PROXY TCP6 ::1%eth0 ::1 80 80\r\n",
            "PROXY UDP4 192.0.2.7 198.51.100.1 80 80\r\n",
            "PROXY tcp4 192.0.2.7 198.51.100.1 80 80\r\n",
            "PROXY UNKNOWNS\r\n",
            "PROXY\r\n",
            "PROXY TCP4 192.0.2.7\r 198.51.100.1 80 80\r\n",
            "proxy TCP4 192.0.2.7 198.51.100.1 80 80\r\n",
            "POST / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\n",
            " PROXY UNKNOWN\r\n",
        ] {
            assert_eq!(reading(line.as_bytes()).0, Err(Wrong::Malformed), "{line:?}");
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(1000));
        assert_eq!(
            reading(endless.as_bytes()),
            (Err(Wrong::Malformed), 1014 - LINE_BYTES_MAX)
        );
    }

    #[test]
    fn a_frame_says_who_the_client_is() {
        let six = [&[0x20, 1, 0xd, 0xb8][..], &[0; 11], &[7], &[0; 16], &[0, 1, 0, 2]].concat();
        let added = [&FOUR[..], &[0x04, 0, 3, 1, 2, 3, 0x20, 0, 0]].concat();
        for (frame, expected) in [
            (v2(0x21, 0x11, &FOUR), client("192.0.2.7:8080")),
            (v2(0x21, 0x21, &six), client("[2001:db8::7]:1")),
            (v2(0x21, 0x11, &added), client("192.0.2.7:8080")),
            (v2(0x21, 0x31, &[0; 216]), Ok(Said::Unknown)),
            (v2(0x21, 0x00, &[9; 40]), Ok(Said::Unknown)),
            (v2(0x20, 0x00, &[]), Ok(Said::Relay)),
            (v2(0x20, 0x11, &FOUR), Ok(Said::Relay)),
            (v2(0x20, 0x11, &[1, 2, 3]), Ok(Said::Relay)),
        ] {
            let bytes = [&frame[..], b"GET / HTTP/1.1"].concat();
            assert_eq!(reading(&bytes), (expected, 14), "{frame:?}");
        }
    }

    #[test]
    fn a_frame_that_is_made_otherwise_is_refused() {
        for frame in [
            v2(0x11, 0x11, &FOUR),
            v2(0x22, 0x11, &FOUR),
            v2(0x31, 0x11, &FOUR),
            v2(0x21, 0x12, &FOUR),
            v2(0x21, 0x22, &[0; 36]),
            v2(0x21, 0x41, &FOUR),
            v2(0x21, 0x11, &FOUR[..11]),
            v2(0x21, 0x21, &[0; 35]),
            v2(0x21, 0x31, &[0; 215]),
            v2(0x21, 0x11, &[&FOUR[..], &[4, 0]].concat()),
            v2(0x21, 0x11, &[&FOUR[..], &[4, 0, 2, 1]].concat()),
            v2(0x21, 0x11, &[0; 4097]),
            b"\r\n\r\n\0\r\nQUIX\n!\x11\0\0".to_vec(),
            b"\r\nGET / HTTP/1.1\r\n".to_vec(),
        ] {
            assert_eq!(reading(&frame).0, Err(Wrong::Malformed), "{frame:?}");
        }
    }

    #[test]
    fn a_header_that_ends_early_is_none() {
        assert_eq!(reading(b"").0, Err(Wrong::Gone));
        for whole in [
            b"PROXY TCP4 192.0.2.7 198.51.100.1 8080 80\r\n".to_vec(),
            v2(0x21, 0x11, &FOUR),
        ] {
            for end in 1..whole.len() {
                assert_eq!(reading(&whole[..end]).0, Err(Wrong::Cut), "{end} of {whole:?}");
            }
        }
    }
}
