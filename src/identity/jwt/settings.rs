//! What is believed of tokens, as it is told at start.

use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use http::header::AUTHORIZATION;

/// One source of tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where a token is looked for.
    pub place: Place,
    /// The claim that holds the user id.
    pub claim: String,
    /// Where the keys are.
    pub keys: Keys,
    /// What `iss` must be; anything where there is none.
    pub issuer: Option<String>,
    /// One of which must be in `aud`; anything where there is none.
    pub audience: Vec<String>,
    /// Which algorithms are taken; each key has one of its own.
    pub algorithms: Vec<Algorithm>,
    /// How far the issuer's clock may be off.
    pub leeway: Duration,
    /// What happens to a request with a token that is not believed.
    pub on_invalid: OnInvalid,
}

impl Settings {
    /// The claim that the standard has for it (RFC 7519, 4.1.2).
    pub const CLAIM: &str = "sub";
    /// How far a clock may be off by default.
    pub const LEEWAY: Duration = Duration::from_secs(60);
    /// How often keys are fetched again by default.
    pub const REFRESH: Duration = Duration::from_secs(300);
    /// How long a fetch may take by default.
    pub const TIMEOUT: Duration = Duration::from_secs(5);
}

/// Where a token is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A header field; with `Bearer` before the token, which `Authorization` must have and others may.
    Header(HeaderName),
    /// A cookie.
    Cookie(String),
}

impl Default for Place {
    fn default() -> Self {
        Self::Header(AUTHORIZATION)
    }
}

/// Where keys are; a JSON Web Key Set (RFC 7517) either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keys {
    /// In a file, read again when it changes.
    File(PathBuf),
    /// At a URL.
    Url {
        /// `https://…`
        url: String,
        /// How often it is fetched.
        refresh: Duration,
        /// How long a fetch may take.
        timeout: Duration,
    },
}

/// How a token is signed (RFC 7518, 3.1; RFC 8037).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// HMAC with SHA-256: a secret of at least 32 bytes that both sides know.
    Hs256,
    /// RSA (PKCS #1 1.5) with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    Eddsa,
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hs256, Self::Rs256, Self::Es256, Self::Eddsa];

    /// Whether a check costs less than handing it to another thread: 5 µs for 8 KiB, where the others take 30 to 300.
    #[must_use]
    pub const fn is_quick(self) -> bool {
        matches!(self, Self::Hs256)
    }
}

/// What happens to a request with a token that is not believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnInvalid {
    /// It is answered 401.
    Reject,
    /// It is nobody's, whatever other sources say.
    Anonymous,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header {name}"),
            Self::Cookie(name) => write!(f, "cookie {name}"),
        }
    }
}
