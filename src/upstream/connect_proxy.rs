//! CONNECT proxies between this process and the endpoints: which one the environment asks for, by the rules of Go's
//! `ProxyFromEnvironment`, and the handshake that opens the tunnel.

use std::net::IpAddr;

use base64::Engine as _;
use ipnet::IpNet;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The largest answer to a CONNECT that is read: a status line and a few fields.
const ANSWER_BYTES_MAX: usize = 8 * 1024;

/// A proxy as its URL names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectProxy {
    /// Name or address.
    pub host: String,
    /// Port; 80 where the URL has none.
    pub port: u16,
    authorization: Option<String>,
}

/// What is wrong with a proxy's URL.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ProxyUrlError {
    /// TLS to the proxy itself.
    #[error("only proxies of the form http://[user:password@]host:port are supported, not {0:?}")]
    Scheme(String),
    /// No host, or no number for a port.
    #[error("proxy URL has no valid host and port: write http://host:port")]
    Authority,
}

impl ConnectProxy {
    /// Reads `http://[user:password@]host[:port]`; the scheme may be left out.
    ///
    /// # Errors
    /// On another scheme, or no host or port.
    pub fn parse(url: &str) -> Result<Self, ProxyUrlError> {
        let rest = match url.split_once("://") {
            Some(("http", rest)) => rest,
            Some((scheme, _)) => return Err(ProxyUrlError::Scheme(scheme.to_owned())),
            None => url,
        };
        let authority = rest.split('/').next().unwrap_or_default();
        let (user, place) = match authority.rsplit_once('@') {
            Some((user, place)) => (Some(user), place),
            None => (None, authority),
        };
        let (host, port) = split_port(place).ok_or(ProxyUrlError::Authority)?;
        if host.is_empty() {
            return Err(ProxyUrlError::Authority);
        }
        let encode = |user: &str| base64::engine::general_purpose::STANDARD.encode(user);
        Ok(Self {
            host: host.to_owned(),
            port: port.unwrap_or(80),
            authorization: user.map(|u| format!("Proxy-Authorization: Basic {}\r\n", encode(u))),
        })
    }

    /// Asks for a tunnel to `target` (`host:port`) over a fresh connection to the proxy.
    ///
    /// # Errors
    /// When the proxy does not answer 200, or talks before it was asked.
    pub async fn open(&self, stream: &mut TcpStream, target: &str) -> Result<(), TunnelError> {
        let authorization = self.authorization.as_deref().unwrap_or_default();
        let head = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{authorization}\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::with_capacity(256);
        // Byte by byte: whatever follows the head belongs to the tunnel.
        while !answer.ends_with(b"\r\n\r\n") {
            if answer.len() == ANSWER_BYTES_MAX {
                return Err(TunnelError::Refused("an endless head".to_owned()));
            }
            answer.push(stream.read_u8().await?);
        }
        let line = String::from_utf8_lossy(answer.split(|b| *b == b'\r').next().unwrap_or_default());
        let accepted = line.starts_with("HTTP/1.") && line.split(' ').nth(1) == Some("200");
        if accepted {
            Ok(())
        } else {
            Err(TunnelError::Refused(line.into_owned()))
        }
    }
}

/// Why a tunnel did not open.
#[derive(Debug, Error)]
pub enum TunnelError {
    /// The connection to the proxy failed.
    #[error("proxy connection failed: {0}")]
    Io(#[from] std::io::Error),
    /// The proxy said no.
    #[error("proxy answered {0:?} to CONNECT")]
    Refused(String),
}

/// The proxy variables of the environment, read once at start.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProxyEnvironment {
    http: Option<ConnectProxy>,
    https: Option<ConnectProxy>,
    exempt: Vec<Exempt>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Exempt {
    All,
    Net(IpNet),
    /// `example.com` and what ends in `.example.com`; with a leading dot only the latter.
    Domain {
        suffix: String,
        itself: bool,
        port: Option<u16>,
    },
    Address {
        ip: IpAddr,
        port: Option<u16>,
    },
}

impl ProxyEnvironment {
    /// Reads `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`, upper case before lower case, through `var`.
    ///
    /// # Errors
    /// When a proxy's URL cannot be read; the variable's name comes first.
    pub fn read(var: &dyn Fn(&str) -> Option<String>) -> Result<Self, (&'static str, ProxyUrlError)> {
        let either = |upper: &str| {
            var(upper)
                .or_else(|| var(&upper.to_lowercase()))
                .filter(|v| !v.is_empty())
        };
        let proxy = |name: &'static str| {
            either(name)
                .map(|url| ConnectProxy::parse(&url).map_err(|e| (name, e)))
                .transpose()
        };
        Ok(Self {
            http: proxy("HTTP_PROXY")?,
            https: proxy("HTTPS_PROXY")?,
            exempt: exemptions(&either("NO_PROXY").unwrap_or_default()),
        })
    }

    /// The proxy for `host:port`, if any. Loopback is always direct, as in Go.
    pub fn for_target(&self, tls: bool, host: &str, port: u16) -> Option<&ConnectProxy> {
        let proxy = if tls { &self.https } else { &self.http };
        let ip = host.parse::<IpAddr>().ok();
        let loopback = host.eq_ignore_ascii_case("localhost") || ip.is_some_and(|ip| ip.is_loopback());
        let direct = loopback || self.exempt.iter().any(|e| e.covers(host, ip, port));
        proxy.as_ref().filter(|_| !direct)
    }
}

impl Exempt {
    fn covers(&self, host: &str, ip: Option<IpAddr>, port: u16) -> bool {
        let same_port = |wanted: &Option<u16>| wanted.is_none_or(|p| p == port);
        match self {
            Self::All => true,
            Self::Net(net) => ip.is_some_and(|ip| net.contains(&ip)),
            Self::Address { ip: own, port } => ip == Some(*own) && same_port(port),
            Self::Domain { suffix, itself, port } => {
                let host = host.trim_end_matches('.').to_ascii_lowercase();
                let below = host.ends_with(suffix.as_str());
                (below || *itself && suffix[1..] == host) && same_port(port)
            }
        }
    }
}

fn exemptions(list: &str) -> Vec<Exempt> {
    list.split(',')
        .map(|entry| entry.trim().to_ascii_lowercase())
        .filter(|entry| !entry.is_empty())
        .map(|entry| exemption(&entry))
        .collect()
}

fn exemption(entry: &str) -> Exempt {
    if entry == "*" {
        return Exempt::All;
    }
    if let Ok(net) = entry.parse::<IpNet>() {
        return Exempt::Net(net);
    }
    let (host, port) = split_port(entry).unwrap_or((entry, None));
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Exempt::Address { ip, port };
    }
    let host = host.strip_prefix('*').unwrap_or(host);
    let itself = !host.starts_with('.');
    let suffix = if itself { format!(".{host}") } else { host.to_owned() };
    Exempt::Domain { suffix, itself, port }
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_port(place: &str) -> Option<(&str, Option<u16>)> {
    if let Some(rest) = place.strip_prefix('[') {
        let (host, after) = rest.split_once(']')?;
        return match after.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok()?))),
            None => after.is_empty().then_some((host, None)),
        };
    }
    match place.split_once(':') {
        Some((host, port)) => Some((host, Some(port.parse().ok()?))),
        None => Some((place, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> ProxyEnvironment {
        let var = |name: &str| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        ProxyEnvironment::read(&var).expect("readable")
    }

    #[test]
    fn the_scheme_selects_the_variable_and_loopback_is_direct() {
        let env = environment(&[("HTTP_PROXY", "http://p1:3128"), ("https_proxy", "p2")]);
        let host = |tls| env.for_target(tls, "origin.test", 80).map(|p| p.host.clone());
        assert_eq!(host(false).as_deref(), Some("p1"));
        assert_eq!(host(true).as_deref(), Some("p2"));
        for local in ["localhost", "127.0.0.1", "127.9.9.9", "::1"] {
            assert_eq!(env.for_target(false, local, 80), None, "{local}");
        }
    }

    #[test]
    fn no_proxy_takes_names_suffixes_networks_addresses_and_ports() {
        let env = environment(&[
            ("HTTP_PROXY", "http://p:1"),
            (
                "NO_PROXY",
                "example.com, .only.below ,10.0.0.0/8,192.0.2.7:81,*.star.test,port.test:8080",
            ),
        ]);
        let direct = |host: &str, port: u16| env.for_target(false, host, port).is_none();
        for (host, port, expected) in [
            ("example.com", 80, true),
            ("a.example.com", 80, true),
            ("notexample.com", 80, false),
            ("only.below", 80, false),
            ("a.only.below", 80, true),
            ("10.1.2.3", 80, true),
            ("11.1.2.3", 80, false),
            ("192.0.2.7", 81, true),
            ("192.0.2.7", 80, false),
            ("a.star.test", 80, true),
            ("port.test", 8080, true),
            ("port.test", 80, false),
        ] {
            assert_eq!(direct(host, port), expected, "{host}:{port}");
        }
        assert!(
            environment(&[("HTTP_PROXY", "p"), ("NO_PROXY", "*")])
                .for_target(false, "x", 1)
                .is_none()
        );
    }

    #[test]
    fn urls_that_cannot_be_used_are_refused() {
        assert_eq!(
            ConnectProxy::parse("socks5://p:1"),
            Err(ProxyUrlError::Scheme("socks5".to_owned()))
        );
        for bad in ["http://", "http://:80", "http://h:99999", "http://h:x"] {
            assert_eq!(ConnectProxy::parse(bad), Err(ProxyUrlError::Authority), "{bad}");
        }
        let proxy = ConnectProxy::parse("http://user:pw@[::1]:3128/").expect("readable");
        assert_eq!((proxy.host.as_str(), proxy.port), ("::1", 3128));
        assert_eq!(
            proxy.authorization.as_deref(),
            Some("Proxy-Authorization: Basic dXNlcjpwdw==\r\n")
        );
    }
}
