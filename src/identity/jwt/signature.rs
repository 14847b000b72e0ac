//! The signatures by `ring`, which TLS uses already, behind the interface that `jsonwebtoken` has for that: its own
//! backends would be a second library of cryptography in the program.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::signature::{Error as Wrong, Verifier};
use jsonwebtoken::{Algorithm, DecodingKey, DecodingKeyKind};
use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
    VerificationAlgorithm,
};

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

/// Makes signatures verifiable. Once is enough, more do no harm.
pub(super) fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // invariant: nobody else in this program sets one, and this runs once.
        PROVIDER.install_default().expect("there is no provider yet");
    });
}

struct Verifying {
    algorithm: Algorithm,
    key: Key,
}

enum Key {
    Secret(hmac::Key),
    Rsa { n: Vec<u8>, e: Vec<u8> },
    Point(&'static dyn VerificationAlgorithm, Vec<u8>),
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let point = |how: &'static dyn VerificationAlgorithm| Ok(Key::Point(how, key.try_get_as_bytes()?.to_vec()));
    let made: Result<Key, Error> = match (algorithm, key.kind()) {
        _ if algorithm.family() != key.family() => Err(ErrorKind::InvalidAlgorithm.into()),
        (Algorithm::HS256, _) => Ok(Key::Secret(hmac::Key::new(hmac::HMAC_SHA256, key.try_get_as_bytes()?))),
        (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, e }) => Ok(Key::Rsa {
            n: without_zeros(n).to_vec(),
            e: without_zeros(e).to_vec(),
        }),
        (Algorithm::ES256, _) => point(&ECDSA_P256_SHA256_FIXED),
        (Algorithm::EdDSA, _) => point(&ED25519),
        _ => Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    Ok(Box::new(Verifying {
        algorithm: *algorithm,
        key: made?,
    }))
}

/// Numbers may be written with zeros in front, which `ring` refuses.
pub(super) fn without_zeros(number: &[u8]) -> &[u8] {
    let first = number.iter().position(|byte| *byte != 0);
    number.get(first.unwrap_or(number.len())..).unwrap_or_default()
}

impl Verifier<Vec<u8>> for Verifying {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), Wrong> {
        let checked = match &self.key {
            Key::Secret(key) => hmac::verify(key, message, signature),
            Key::Rsa { n, e } => {
                RsaPublicKeyComponents { n, e }.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            Key::Point(how, key) => UnparsedPublicKey::new(*how, key).verify(message, signature),
        };
        checked.map_err(|_| Wrong::new())
    }
}

impl JwtVerifier for Verifying {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
