//! What the reader of identities is told at start.

use std::net::IpAddr;

use http::HeaderName;
use ipnet::IpNet;
use thiserror::Error;

use super::certificate::CertificateName;
use super::jwt;

/// Where ids are looked for and whom to believe.
#[derive(Debug, Clone)]
pub struct Settings {
    /// In order; the first that yields an id wins.
    pub sources: Vec<Source>,
    /// The peers that may send the identity header and `X-Forwarded-*`.
    pub trusted_peers: Peers,
    /// What is done to a value before it is an id, in order.
    pub normalise: Vec<Normalise>,
    /// What happens to those without an id.
    pub anonymous: Anonymous,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            sources: vec![Source::Header(HeaderName::from_static("x-user-id"))],
            trusted_peers: Peers::new(vec![
                IpNet::new_assert([127, 0, 0, 0].into(), 8),
                IpNet::new_assert(std::net::Ipv6Addr::LOCALHOST.into(), 128),
            ]),
            normalise: vec![Normalise::Trim, Normalise::Unquote],
            anonymous: Anonymous::Stable,
        }
    }
}

/// Peers by their networks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peers(Vec<IpNet>);

impl Peers {
    /// Those in any of these.
    #[must_use]
    pub fn new(networks: Vec<IpNet>) -> Self {
        Self(networks)
    }

    /// Whether that one is among them; an IPv4 address in IPv6 is the one that it maps.
    #[must_use]
    pub fn contains(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.0.iter().any(|network| network.contains(&peer))
    }

    /// The networks.
    #[must_use]
    pub fn networks(&self) -> &[IpNet] {
        &self.0
    }

    /// Whether everyone is.
    #[must_use]
    pub fn are_all(&self) -> bool {
        self.0.iter().any(|network| network.prefix_len() == 0)
    }
}

/// One place where an id may be. Cookies and query parameters are the user's own and are read from anyone; a header
/// field is what a gateway in front says, and is read from trusted peers only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A header field, from trusted peers.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
    /// A query parameter.
    Query(String),
    /// A token, from anyone: it proves itself.
    Jwt(jwt::Settings),
    /// The certificate that the client has shown, from anyone: the listener has verified it.
    ClientCertificate(CertificateName),
}

/// One step from a value to an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Normalise {
    /// Spaces and tabs around it are dropped.
    Trim,
    /// Double quotes around it are dropped.
    Unquote,
    /// ASCII letters become lower case.
    Lowercase,
    /// `%41` becomes `A`; what is no such code stays.
    PercentDecode,
}

/// What happens to those without an id.
#[derive(Debug, Clone)]
pub enum Anonymous {
    /// They get what targets say of attributes, else stable.
    Stable,
    /// They are answered 401.
    Reject,
    /// They get a signed cookie, and are divided like users.
    Cookie {
        /// The cookie's name.
        name: String,
        /// What it is signed with.
        secret: Secret,
    },
}

/// A key for signing; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

/// A secret that is too short to be one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("is shorter than {} bytes: write at least as many random ones", Secret::BYTES_MIN)]
pub struct SecretTooShort;

impl Secret {
    /// The shortest key that is taken.
    pub const BYTES_MIN: usize = 16;

    /// Takes a key.
    ///
    /// # Errors
    /// When it is shorter than 16 bytes.
    pub fn new(bytes: Vec<u8>) -> Result<Self, SecretTooShort> {
        if bytes.len() < Self::BYTES_MIN {
            return Err(SecretTooShort);
        }
        Ok(Self(bytes))
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}
