//! A set of keys (RFC 7517), each with the one algorithm that its kind allows: a key that is public can never be taken
//! for a secret.

use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm as Used, DecodingKey, DecodingKeyKind, Validation};
use ring::digest;
use serde_json::Value;
use thiserror::Error;

use super::cache::Cache;
use super::check::Fault;
use super::settings::{Algorithm, Keys, Settings};
use super::signature;

/// More keys are a mistake; providers have two or three.
const KEYS_MAX: usize = 100;
/// An HMAC key is at least as long as the hash (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;
/// What `ring` verifies with.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;
const POINT_BYTES: usize = 65;
const ED25519_BYTES: usize = 32;

/// Why a text is no set of keys to verify with. Never shows what is in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeysError {
    /// The text.
    #[error("is no JSON Web Key Set: write {{\"keys\": [\u{2026}]}}, as RFC 7517 has it")]
    Form,
    /// Far too many.
    #[error("holds more than {KEYS_MAX} keys")]
    Many,
    /// One key.
    #[error("key {0} {1}")]
    Key(usize, &'static str),
    /// All of them are for something else.
    #[error("holds no key to verify {0} with")]
    None(String),
}

/// Keys, and what was verified with them.
pub struct KeySet {
    keys: Vec<Arc<Key>>,
    pub(super) cache: Cache,
}

pub(super) struct Key {
    name: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) material: DecodingKey,
    pub(super) rules: Validation,
    /// Name, algorithm and material, hashed: what tells it from every other key.
    pub(super) print: [u8; 32],
}

impl KeySet {
    /// Reads the text of a set. Keys for other purposes or algorithms are passed over.
    ///
    /// # Errors
    /// When it is no set, holds a key that is broken or too weak, or none that can be used.
    pub fn read(text: &[u8], settings: &Settings) -> Result<Self, KeysError> {
        signature::install();
        let mut set: Value = serde_json::from_slice(text).map_err(|_| KeysError::Form)?;
        let Some(Value::Array(written)) = set.get_mut("keys").map(Value::take) else {
            return Err(KeysError::Form);
        };
        if written.len() > KEYS_MAX {
            return Err(KeysError::Many);
        }
        let mut keys: Vec<Arc<Key>> = Vec::with_capacity(written.len());
        for (place, key) in written.into_iter().enumerate() {
            let Some(key) = Key::read(key, settings).map_err(|why| KeysError::Key(place, why))? else {
                continue;
            };
            if keys
                .iter()
                .any(|known| (&known.name, known.algorithm) == (&key.name, key.algorithm))
            {
                return Err(KeysError::Key(place, "has the kid of another of the same algorithm"));
            }
            keys.push(Arc::new(key));
        }
        if keys.is_empty() {
            let wanted: Vec<&str> = settings.algorithms.iter().map(|a| a.as_str()).collect();
            return Err(KeysError::None(wanted.join(", ")));
        }
        Ok(Self {
            keys,
            cache: Cache::default(),
        })
    }

    /// This set in place of another one: what was verified with a key of both stays verified.
    #[must_use]
    pub fn after(self, before: &Self) -> Self {
        let is_kept = |print: &[u8; 32]| self.keys.iter().any(|key| key.print == *print);
        self.cache.take_over(&before.cache, |token| is_kept(&token.key));
        self
    }

    /// Whether it has the same keys.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let prints = |set: &Self| set.keys.iter().map(|key| key.print).collect::<Vec<_>>();
        prints(self) == prints(other)
    }

    /// How many keys can be used.
    #[must_use]
    pub fn count(&self) -> usize {
        self.keys.len()
    }

    /// The key that a token names; one that names none means the only key of its algorithm.
    pub(super) fn find(&self, name: Option<&str>, algorithm: Algorithm) -> Result<&Arc<Key>, Fault> {
        let mut able = self.keys.iter().filter(|key| key.algorithm == algorithm);
        let Some(name) = name else {
            let only = able.next().ok_or(Fault::Algorithm)?;
            return able.next().is_none().then_some(only).ok_or(Fault::UnknownKey);
        };
        let is_named = |key: &&Arc<Key>| key.name.as_deref() == Some(name);
        match able.find(is_named) {
            Some(key) => Ok(key),
            None if self.keys.iter().any(|key| is_named(&key)) => Err(Fault::Algorithm),
            None => Err(Fault::UnknownKey),
        }
    }
}

impl Key {
    /// `None` for one that is for something else.
    fn read(written: Value, settings: &Settings) -> Result<Option<Self>, &'static str> {
        let Some(kind) = written.get("kty").and_then(Value::as_str).map(str::to_owned) else {
            return Err("has no kty");
        };
        let key: Jwk = serde_json::from_value(written).map_err(|_| "is not written as its kty has it")?;
        // Curves have many names; these two have no such thing.
        if matches!(key.algorithm, AlgorithmParameters::Other(_)) && ["RSA", "oct"].contains(&kind.as_str()) {
            return Err("is not written as its kty has it");
        }
        let Some(algorithm) = algorithm(&key).filter(|algorithm| settings.algorithms.contains(algorithm)) else {
            return Ok(None);
        };
        if algorithm == Algorithm::Hs256 && matches!(settings.keys, Keys::Url { .. }) {
            return Err("is a secret, which no URL should give out: write it to a jwks_file");
        }
        let material = DecodingKey::from_jwk(&key).map_err(|_| "is not base64url")?;
        let bytes = strength(algorithm, material.kind())?;
        let name = key.common.key_id;
        let mut print = digest::Context::new(&digest::SHA256);
        for part in [
            algorithm.as_str().as_bytes(),
            name.as_deref().unwrap_or_default().as_bytes(),
            &bytes,
        ] {
            print.update(&(part.len() as u64).to_be_bytes());
            print.update(part);
        }
        let mut own = [0; 32];
        own.copy_from_slice(print.finish().as_ref());
        Ok(Some(Self {
            name,
            algorithm,
            material,
            rules: rules(algorithm, settings),
            print: own,
        }))
    }
}

/// The one algorithm that a key is for, if it is for signatures and one of ours.
fn algorithm(key: &Jwk) -> Option<Algorithm> {
    let algorithm = match &key.algorithm {
        AlgorithmParameters::RSA(_) => Algorithm::Rs256,
        AlgorithmParameters::EllipticCurve(point) if point.curve == EllipticCurve::P256 => Algorithm::Es256,
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => Algorithm::Eddsa,
        AlgorithmParameters::OctetKey(_) => Algorithm::Hs256,
        _ => return None,
    };
    let common = &key.common;
    let meant = common.key_algorithm.is_none_or(|meant| meant == algorithm.in_key());
    let uses = common.public_key_use.as_ref();
    let operations = common.key_operations.as_ref();
    let verifies = uses.is_none_or(|u| *u == PublicKeyUse::Signature)
        && operations.is_none_or(|all| all.contains(&KeyOperations::Verify));
    (meant && verifies).then_some(algorithm)
}

/// The bytes that make the key; refuses those that are too weak or of the wrong length.
fn strength(algorithm: Algorithm, kind: &DecodingKeyKind) -> Result<Vec<u8>, &'static str> {
    match (algorithm, kind) {
        (Algorithm::Rs256, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            let number = signature::without_zeros(n);
            let bits = number.len() * 8 - number.first().map_or(0, |first| first.leading_zeros() as usize);
            if !RSA_BITS.contains(&bits) {
                return Err("has not 2048 to 8192 bits");
            }
            Ok([number, b"/", signature::without_zeros(e)].concat())
        }
        (Algorithm::Hs256, DecodingKeyKind::SecretOrDer(secret)) if secret.len() < SECRET_BYTES_MIN => {
            Err("is a secret of less than 32 bytes")
        }
        (Algorithm::Es256, DecodingKeyKind::SecretOrDer(point)) if point.len() != POINT_BYTES => {
            Err("is no point of P-256")
        }
        (Algorithm::Eddsa, DecodingKeyKind::SecretOrDer(key)) if key.len() != ED25519_BYTES => {
            Err("is no key of Ed25519")
        }
        (_, DecodingKeyKind::SecretOrDer(bytes)) => Ok(bytes.clone()),
        (_, DecodingKeyKind::RsaModulusExponent { .. }) => Err("is not written as its kty has it"),
    }
}

/// What `jsonwebtoken` checks. Times are compared by [`super::check`], which is told what time it is.
fn rules(algorithm: Algorithm, settings: &Settings) -> Validation {
    let mut rules = Validation::new(algorithm.in_token());
    let mut required = vec!["exp"];
    rules.validate_exp = false;
    rules.validate_nbf = false;
    if let Some(issuer) = &settings.issuer {
        rules.set_issuer(&[issuer]);
        required.push("iss");
    }
    rules.validate_aud = !settings.audience.is_empty();
    if rules.validate_aud {
        rules.set_audience(&settings.audience);
        required.push("aud");
    }
    rules.set_required_spec_claims(&required);
    rules
}

impl Algorithm {
    /// As the standard writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hs256 => "HS256",
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
            Self::Eddsa => "EdDSA",
        }
    }

    /// Of a token's header.
    pub(super) fn of_token(used: Used) -> Option<Self> {
        Self::ALL.into_iter().find(|own| own.in_token() == used)
    }

    const fn in_token(self) -> Used {
        match self {
            Self::Hs256 => Used::HS256,
            Self::Rs256 => Used::RS256,
            Self::Es256 => Used::ES256,
            Self::Eddsa => Used::EdDSA,
        }
    }

    const fn in_key(self) -> KeyAlgorithm {
        match self {
            Self::Hs256 => KeyAlgorithm::HS256,
            Self::Rs256 => KeyAlgorithm::RS256,
            Self::Es256 => KeyAlgorithm::ES256,
            Self::Eddsa => KeyAlgorithm::EdDSA,
        }
    }
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeySet({} keys)", self.keys.len())
    }
}
