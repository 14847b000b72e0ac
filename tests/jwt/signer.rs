//! An issuer of tokens for tests: signs anything with any header, so that every kind of bad token can be made.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaPublicKeyComponents,
};
use ring::{hmac, rsa};
use serde_json::{Value, json};

/// A key with its name.
pub struct Signer {
    pub kid: &'static str,
    kind: Kind,
}

enum Kind {
    Secret(Vec<u8>),
    Rsa(Box<rsa::KeyPair>),
    Ec(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

pub fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signer {
    pub fn secret(kid: &'static str, secret: &[u8]) -> Self {
        Self {
            kid,
            kind: Kind::Secret(secret.to_vec()),
        }
    }

    /// By a file in `tests/fixtures/jwt`: making an RSA key takes seconds.
    pub fn rsa(kid: &'static str, file: &str) -> Self {
        let path = format!("{}/tests/fixtures/jwt/{file}.pk8", env!("CARGO_MANIFEST_DIR"));
        let key = rsa::KeyPair::from_pkcs8(&std::fs::read(path).expect("fixture")).expect("RSA key");
        Self {
            kid,
            kind: Kind::Rsa(Box::new(key)),
        }
    }

    pub fn ec(kid: &'static str) -> Self {
        let (how, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let key = EcdsaKeyPair::generate_pkcs8(how, &random).expect("key");
        let key = EcdsaKeyPair::from_pkcs8(how, key.as_ref(), &random).expect("key");
        Self {
            kid,
            kind: Kind::Ec(key),
        }
    }

    pub fn ed(kid: &'static str) -> Self {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).expect("key");
        Self {
            kid,
            kind: Kind::Ed(Ed25519KeyPair::from_pkcs8(key.as_ref()).expect("key")),
        }
    }

    pub fn algorithm(&self) -> &'static str {
        match &self.kind {
            Kind::Secret(_) => "HS256",
            Kind::Rsa(_) => "RS256",
            Kind::Ec(_) => "ES256",
            Kind::Ed(_) => "EdDSA",
        }
    }

    /// What is known to those who verify, as a JSON Web Key.
    pub fn key(&self) -> Value {
        let mut key = match &self.kind {
            Kind::Secret(secret) => json!({ "kty": "oct", "k": encoded(secret) }),
            Kind::Rsa(pair) => {
                let public = RsaPublicKeyComponents::<Vec<u8>>::from(pair.public());
                json!({
                    "kty": "RSA", "use": "sig",
                    "n": encoded(public.n),
                    "e": encoded(public.e),
                })
            }
            Kind::Ec(pair) => {
                let point = pair.public_key().as_ref();
                json!({ "kty": "EC", "crv": "P-256", "x": encoded(&point[1..33]), "y": encoded(&point[33..]) })
            }
            Kind::Ed(pair) => json!({ "kty": "OKP", "crv": "Ed25519", "x": encoded(pair.public_key()) }),
        };
        key["kid"] = self.kid.into();
        key["alg"] = self.algorithm().into();
        key
    }

    pub fn token(&self, claims: &Value) -> String {
        self.token_with(
            &json!({ "alg": self.algorithm(), "kid": self.kid, "typ": "JWT" }),
            claims,
        )
    }

    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        self.signed(&format!(
            "{}.{}",
            encoded(header.to_string()),
            encoded(claims.to_string())
        ))
    }

    /// Signs what stands before the second dot, whatever it is.
    pub fn signed(&self, message: &str) -> String {
        let random = SystemRandom::new();
        let bytes = message.as_bytes();
        let signature = match &self.kind {
            Kind::Secret(secret) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                hmac::sign(&key, bytes).as_ref().to_vec()
            }
            Kind::Rsa(pair) => {
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, bytes, &mut signature)
                    .expect("signed");
                signature
            }
            Kind::Ec(pair) => pair.sign(&random, bytes).expect("signed").as_ref().to_vec(),
            Kind::Ed(pair) => pair.sign(bytes).as_ref().to_vec(),
        };
        format!("{message}.{}", encoded(signature))
    }
}

/// The text of a set of keys.
pub fn set(keys: &[&Signer]) -> String {
    let keys: Vec<Value> = keys.iter().map(|signer| signer.key()).collect();
    json!({ "keys": keys }).to_string()
}
