//! What is decided for one request, and what a decision may ask of it.

use std::net::IpAddr;

use http::HeaderName;

use super::bucket::Bucket;
use super::table::ReleaseIdx;
use crate::identity::jwt::Claims;

/// What rules may ask of a request.
pub trait Attributes {
    /// The first value of a header field.
    fn header(&self, name: &HeaderName) -> Option<&[u8]>;
    /// The first value of a cookie.
    fn cookie(&self, name: &str) -> Option<&[u8]>;
    /// The first value of a query parameter, as sent.
    fn query(&self, name: &str) -> Option<&[u8]>;
    /// The path, as sent.
    fn path(&self) -> &str;
    /// The client's address.
    fn client_ip(&self) -> Option<IpAddr>;
    /// What the token says that says who asks; requests without one have no claims.
    fn claims(&self) -> Option<&Claims> {
        None
    }
}

/// A request without attributes: what is decided for it is decided by the user alone.
#[derive(Debug, Clone, Copy)]
pub struct NoAttributes;

impl Attributes for NoAttributes {
    fn header(&self, _name: &HeaderName) -> Option<&[u8]> {
        None
    }

    fn cookie(&self, _name: &str) -> Option<&[u8]> {
        None
    }

    fn query(&self, _name: &str) -> Option<&[u8]> {
        None
    }

    fn path(&self) -> &str {
        "/"
    }

    fn client_ip(&self) -> Option<IpAddr> {
        None
    }
}

/// A decision; which release, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// The release, as the table that decided numbers it.
    pub release: ReleaseIdx,
    /// The user's bucket; none for those without an id, and none while the rollout is killed.
    pub bucket: Option<Bucket>,
    /// Why.
    pub reason: Reason,
}

/// Why a release was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The rollout is killed: everyone gets stable.
    Killed,
    /// The user is listed alone.
    User,
    /// A target matched.
    Target,
    /// The user's bucket is owned by a release that is not stable.
    Split,
    /// The user's bucket is stable's.
    Stable,
    /// Nobody known: stable.
    Anonymous,
    /// The decided release has no healthy endpoint, and the rollout falls back to stable.
    Fallback,
}

impl Reason {
    /// All of them, in the order of their indices.
    pub const ALL: [Self; 7] = [
        Self::Killed,
        Self::User,
        Self::Target,
        Self::Split,
        Self::Stable,
        Self::Anonymous,
        Self::Fallback,
    ];

    /// The word in headers, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Killed => "killed",
            Self::User => "user",
            Self::Target => "target",
            Self::Split => "split",
            Self::Stable => "stable",
            Self::Anonymous => "anonymous",
            Self::Fallback => "fallback",
        }
    }

    /// The place among [`Reason::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}
