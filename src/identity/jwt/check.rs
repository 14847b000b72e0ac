//! Whether a token is believed. Cheap looks come first: its length, its header, its key; then the signature, the
//! claims and the times.

use std::sync::Arc;

use jsonwebtoken::errors::ErrorKind;
use serde_json::{Map, Value};
use thiserror::Error;

use super::cache::{self, Hash};
use super::claims::{Claims, Token};
use super::keys::{Key, KeySet};
use super::settings::{Algorithm, OnInvalid, Settings};
use super::source::Rules;
use crate::identity::UserId;
use crate::identity::normalise::normalised;

/// Longer tokens are not looked at.
const TOKEN_BYTES_MAX: usize = 8 * 1024;

/// Why a token is not believed. Never shows anything of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum Fault {
    /// No token at all.
    #[error("is not written as a token is")]
    Malformed,
    /// More than 8 KiB.
    #[error("is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// `none`, or one that its key is not for.
    #[error("has an algorithm that is not taken")]
    Algorithm,
    /// It wants extensions to be understood.
    #[error("has critical header parameters")]
    Critical,
    /// No such key.
    #[error("names no known key")]
    UnknownKey,
    /// Forged, or signed by another key of that name.
    #[error("has a wrong signature")]
    Signature,
    /// A claim that must be there is not, or is not of its kind.
    #[error("lacks a claim")]
    Claim,
    /// `exp`
    #[error("is expired")]
    Expired,
    /// `nbf`
    #[error("is not valid yet")]
    NotYet,
    /// `iss`
    #[error("has another issuer")]
    Issuer,
    /// `aud`
    #[error("is for another audience")]
    Audience,
}

impl Fault {
    /// The label of metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::TooLong => "too_long",
            Self::Algorithm => "algorithm",
            Self::Critical => "critical",
            Self::UnknownKey => "unknown_key",
            Self::Signature => "signature",
            Self::Claim => "claim",
            Self::Expired => "expired",
            Self::NotYet => "not_yet_valid",
            Self::Issuer => "issuer",
            Self::Audience => "audience",
        }
    }
}

/// A check that has yet to be run; where, its [`algorithm`](Self::algorithm) says.
pub struct Check {
    token: Box<[u8]>,
    hash: Hash,
    key: Arc<Key>,
    keys: Arc<KeySet>,
    rules: Arc<Rules>,
    now: u64,
}

/// What came of a check.
pub struct Checked {
    pub(in crate::identity) result: Result<Arc<Token>, Fault>,
    pub(in crate::identity) on_invalid: OnInvalid,
}

/// What can be said of a token without computing much.
pub(in crate::identity) enum Look {
    Known(Arc<Token>),
    Unknown(Check),
}

/// Looks at a token: it is known, is no good, or has to be checked. `now` is in seconds since 1970.
pub(super) fn look(token: &[u8], rules: &Arc<Rules>, keys: &Arc<KeySet>, now: u64) -> Result<Look, Fault> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(Fault::TooLong);
    }
    let hash = cache::hash(token);
    if let Some(known) = keys.cache.get(&hash, now) {
        return Ok(Look::Known(known));
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| Fault::Malformed)?;
    let algorithm = Algorithm::of_token(header.alg).ok_or(Fault::Algorithm)?;
    if header.crit.is_some() {
        return Err(Fault::Critical);
    }
    let key = keys.find(header.kid.as_deref(), algorithm)?;
    Ok(Look::Unknown(Check {
        token: token.into(),
        hash,
        key: Arc::clone(key),
        keys: Arc::clone(keys),
        rules: Arc::clone(rules),
        now,
    }))
}

impl Check {
    /// What is to be computed.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.key.algorithm
    }

    /// Checks signature, claims and times, and remembers a token that is good.
    #[must_use]
    pub fn run(self) -> Checked {
        Checked {
            result: self.result(),
            on_invalid: self.rules.settings.on_invalid,
        }
    }

    fn result(&self) -> Result<Arc<Token>, Fault> {
        // The same token may have come several times at once.
        if let Some(known) = self.keys.cache.get(&self.hash, self.now) {
            return Ok(known);
        }
        let decoded = jsonwebtoken::decode::<Map<String, Value>>(&self.token, &self.key.material, &self.key.rules);
        let claims = decoded.map_err(|e| fault(e.kind()))?.claims;
        let expires = self.check_times(&claims)?;
        let token = Arc::new(Token {
            id: self.id(&claims)?,
            claims: Claims::read(claims),
            expires,
            key: self.key.print,
        });
        if expires > self.now {
            self.keys.cache.insert(self.hash, Arc::clone(&token));
        }
        Ok(token)
    }

    fn check_times(&self, claims: &Map<String, Value>) -> Result<u64, Fault> {
        let leeway = self.rules.settings.leeway.as_secs();
        let expires = claims.get("exp").and_then(seconds).ok_or(Fault::Claim)?;
        if self.now >= expires.saturating_add(leeway) {
            return Err(Fault::Expired);
        }
        match claims.get("nbf") {
            None => {}
            Some(begins) => {
                let begins = seconds(begins).ok_or(Fault::Claim)?;
                if begins > self.now.saturating_add(leeway) {
                    return Err(Fault::NotYet);
                }
            }
        }
        Ok(expires)
    }

    /// A text; and, unless it is `sub`, which is one by RFC 7519, also a whole number.
    fn id(&self, claims: &Map<String, Value>) -> Result<UserId, Fault> {
        let name = self.rules.settings.claim.as_str();
        let id = match claims.get(name) {
            Some(Value::String(text)) => normalised(&self.rules.normalise, text.as_bytes()),
            Some(Value::Number(number)) if name != Settings::CLAIM && !number.is_f64() => {
                number.to_string().into_bytes().into()
            }
            _ => return Err(Fault::Claim),
        };
        UserId::new(&id).map_err(|_| Fault::Claim)
    }
}

/// Seconds since 1970, which may have a fraction (RFC 7519, 2).
fn seconds(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let number = value.as_f64().filter(|n| (0.0..9e15).contains(n))?;
        // The range above is one in which every whole number is exact.
        Some(number as u64)
    })
}

fn fault(kind: &ErrorKind) -> Fault {
    match kind {
        ErrorKind::InvalidSignature => Fault::Signature,
        ErrorKind::InvalidAlgorithm | ErrorKind::UnsupportedAlgorithm => Fault::Algorithm,
        ErrorKind::InvalidIssuer => Fault::Issuer,
        ErrorKind::InvalidAudience => Fault::Audience,
        ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => Fault::Claim,
        _ => Fault::Malformed,
    }
}
