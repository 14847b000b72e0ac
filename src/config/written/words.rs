//! Settings that are one word of a few. Each is the twin of a type that code uses, so that a default stands there only.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{identity, telemetry, upstream};

/// Declares the written twin of an enum, and the way there and back.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident for $used:path { $($(#[$about:meta])* $word:ident,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name {
            $($(#[$about])* $word,)*
        }

        impl From<$name> for $used {
            fn from(written: $name) -> Self {
                match written {
                    $($name::$word => Self::$word,)*
                }
            }
        }

        impl From<$used> for $name {
            fn from(used: $used) -> Self {
                use $used as Used;
                match used {
                    $(Used::$word => Self::$word,)*
                }
            }
        }
    };
}

words! {
    /// One step from a value to an id.
    Normalise for identity::Normalise {
        /// Spaces around it are dropped.
        Trim,
        /// Quotes around it are dropped.
        Unquote,
        /// Letters become lower case.
        Lowercase,
        /// `%41` becomes `A`.
        PercentDecode,
    }
}

words! {
    /// Which name in a certificate.
    CertificateName for identity::CertificateName {
        /// The subject's common name.
        CommonName,
        /// The alternative name that is a host name.
        Dns,
        /// The alternative name that is a URI.
        Uri,
        /// The alternative name that is a mail address.
        Email,
    }
}

words! {
    /// How an endpoint is picked.
    Balance for upstream::settings::Balance {
        /// In turn, by weight.
        RoundRobin,
        /// At random, by weight.
        Random,
        /// By a consistent hash of the user id.
        User,
        /// The one with the fewest requests in flight.
        LeastRequests,
    }
}

words! {
    /// Which HTTP version is spoken to the endpoints.
    Http2 for upstream::settings::Http2 {
        /// What ALPN yields.
        Auto,
        /// HTTP/1.1 only.
        Never,
        /// HTTP/2 only.
        Always,
    }
}

words! {
    /// After what a request is tried again.
    RetryOn for upstream::settings::RetryCause {
        /// No connection came about.
        Connect,
        /// A reused connection was closed, and the request is replayable.
        ReusedConnectionClosed,
        /// A new connection was closed before an answer, the request is replayable, and there is another endpoint.
        ConnectionClosed,
    }
}

words! {
    /// How a line looks.
    Format for telemetry::settings::LogFormat {
        /// One JSON object.
        Json,
        /// The combined format.
        Combined,
    }
}

words! {
    /// How a user id is shown.
    Shown for telemetry::settings::UserIdShown {
        /// Its hash.
        Hashed,
        /// As it is.
        Plain,
        /// Not at all.
        None,
    }
}

words! {
    /// What happens to a request with a bad token.
    OnInvalid for identity::jwt::OnInvalid {
        /// 401.
        Reject,
        /// It is nobody's, whatever other sources say.
        Anonymous,
    }
}

/// How a token is signed, as the standard writes it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
pub enum Algorithm {
    /// HMAC with SHA-256.
    #[serde(rename = "HS256")]
    Hs256,
    /// RSA with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
    /// Ed25519.
    #[serde(rename = "EdDSA")]
    Eddsa,
}

impl From<Algorithm> for identity::jwt::Algorithm {
    fn from(written: Algorithm) -> Self {
        match written {
            Algorithm::Hs256 => Self::Hs256,
            Algorithm::Rs256 => Self::Rs256,
            Algorithm::Es256 => Self::Es256,
            Algorithm::Eddsa => Self::Eddsa,
        }
    }
}

impl From<identity::jwt::Algorithm> for Algorithm {
    fn from(used: identity::jwt::Algorithm) -> Self {
        use identity::jwt::Algorithm as Used;
        match used {
            Used::Hs256 => Self::Hs256,
            Used::Rs256 => Self::Rs256,
            Used::Es256 => Self::Es256,
            Used::Eddsa => Self::Eddsa,
        }
    }
}
