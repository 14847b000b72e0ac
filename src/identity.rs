//! Who asks: from a request's header fields, cookies, query and tokens to a user id, a visitor, or nobody. Pure.

mod certificate;
pub mod jwt;

mod field;
mod id;
mod normalise;
mod reader;
mod settings;
mod visitor;

pub use certificate::{CertificateName, ClientCertificate};
pub use id::{IdError, UserId};
pub use normalise::{NeverAsked, Normaliser};
pub use reader::{Read, Reader, Reading, Refusal};
pub use settings::{Anonymous, Normalise, Peers, Secret, Settings, Source};
pub use visitor::Minted;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A user.
    User {
        /// The id that is bucketed, and that the upstream is told.
        id: UserId,
        /// Where it came from.
        source: SourceKind,
    },
    /// Nobody known, with a cookie of ours that keeps them on one release.
    Visitor {
        /// The id in the cookie.
        id: UserId,
    },
    /// Nobody known.
    Anonymous,
}

/// Where an identity came from; a label of metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// A header field.
    Header,
    /// A cookie.
    Cookie,
    /// A query parameter.
    Query,
    /// A token.
    Jwt,
    /// A client's certificate.
    ClientCertificate,
    /// Our own cookie for those who are not known.
    Anonymous,
    /// Nowhere.
    None,
}

impl Identity {
    /// The id that is bucketed, if there is one.
    #[must_use]
    pub fn id(&self) -> Option<&UserId> {
        match self {
            Self::User { id, .. } | Self::Visitor { id } => Some(id),
            Self::Anonymous => None,
        }
    }

    /// The id of a user; a visitor's is none.
    #[must_use]
    pub fn user(&self) -> Option<&UserId> {
        match self {
            Self::User { id, .. } => Some(id),
            Self::Visitor { .. } | Self::Anonymous => None,
        }
    }

    /// Where it came from.
    #[must_use]
    pub fn source(&self) -> SourceKind {
        match self {
            Self::User { source, .. } => *source,
            Self::Visitor { .. } => SourceKind::Anonymous,
            Self::Anonymous => SourceKind::None,
        }
    }
}

impl SourceKind {
    /// The label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Cookie => "cookie",
            Self::Query => "query",
            Self::Jwt => "jwt",
            Self::ClientCertificate => "client_certificate",
            Self::Anonymous => "anonymous",
            Self::None => "none",
        }
    }

    /// The place among `telemetry::metrics::SOURCES`; a test holds the two together.
    #[must_use]
    pub const fn index(self) -> usize {
        match self {
            Self::Header => 0,
            Self::Cookie => 1,
            Self::Query => 2,
            Self::Jwt => 3,
            Self::ClientCertificate => 6,
            Self::Anonymous => 4,
            Self::None => 5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SourceKind;
    use crate::telemetry::metrics::SOURCES;

    #[test]
    fn sources_stand_where_their_labels_do() {
        for kind in [
            SourceKind::Header,
            SourceKind::Cookie,
            SourceKind::Query,
            SourceKind::Jwt,
            SourceKind::ClientCertificate,
            SourceKind::Anonymous,
            SourceKind::None,
        ] {
            assert_eq!(SOURCES[kind.index()], kind.as_str());
        }
    }
}
