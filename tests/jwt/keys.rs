//! Which sets of keys are taken, and what each key is good for.

use std::time::Duration;

use serde_json::{Value, json};
use switchyard::identity::Refusal;
use switchyard::identity::jwt::{Algorithm, Fault, KeySet, Keys, KeysError, Settings};

use crate::signer::{Signer, encoded};
use crate::{Bench, SECRET, claims, settings};

fn read(set: &Value) -> Result<usize, KeysError> {
    KeySet::read(set.to_string().as_bytes(), &settings()).map(|set| set.count())
}

fn with(signer: &Signer, name: &str, value: Value) -> Value {
    let mut key = signer.key();
    key[name] = value;
    key
}

#[test]
fn a_set_that_is_broken_or_weak_is_refused_with_the_place_of_the_key() {
    let (hs, rs, es, ed) = (
        Signer::secret("hs", SECRET),
        Signer::rsa("rs", "rsa"),
        Signer::ec("es"),
        Signer::ed("ed"),
    );
    let good = hs.key();
    for (key, problem) in [
        (
            with(&hs, "k", json!(encoded(&SECRET[..31]))),
            "is a secret of less than 32 bytes",
        ),
        (with(&hs, "k", json!("")), "is a secret of less than 32 bytes"),
        (with(&hs, "k", json!("a b c")), "is not base64url"),
        (with(&rs, "n", json!(encoded([0xff; 128]))), "has not 2048 to 8192 bits"),
        (
            with(&rs, "n", json!(encoded([0xff; 1025]))),
            "has not 2048 to 8192 bits",
        ),
        (with(&rs, "n", json!(1)), "is not written as its kty has it"),
        (with(&es, "x", json!(encoded([1; 31]))), "is no point of P-256"),
        (with(&ed, "x", json!(encoded([1; 31]))), "is no key of Ed25519"),
        (json!({ "k": "AAAA" }), "has no kty"),
        (json!("oct"), "has no kty"),
        (good.clone(), "has the kid of another of the same algorithm"),
    ] {
        let told = read(&json!({ "keys": [good, key] })).map_err(|e| e.to_string());
        assert_eq!(told, Err(format!("key 1 {problem}")), "{key}");
    }
    for form in [
        json!({}),
        json!([]),
        json!({ "keys": {} }),
        json!({ "keys": null }),
        json!("keys"),
    ] {
        assert_eq!(read(&form), Err(KeysError::Form), "{form}");
    }
    assert_eq!(KeySet::read(b"{", &settings()).map(|_| ()), Err(KeysError::Form));
    let many: Vec<Value> = (0..101).map(|_| good.clone()).collect();
    assert_eq!(read(&json!({ "keys": many })), Err(KeysError::Many));
}

#[test]
fn keys_for_other_things_are_passed_over() {
    let (hs, rs, es) = (Signer::secret("hs", SECRET), Signer::rsa("rs", "rsa"), Signer::ec("es"));
    let others = [
        with(&rs, "use", json!("enc")),
        with(&rs, "alg", json!("PS256")),
        with(&rs, "alg", json!("RS512")),
        with(&rs, "alg", json!("HS256")),
        with(&es, "key_ops", json!(["encrypt"])),
        with(&es, "crv", json!("P-384")),
        json!({ "kty": "AKP", "alg": "ML-DSA-44", "pub": "AAAA" }),
    ];
    for other in &others {
        let set = json!({ "keys": [other, hs.key()] });
        assert_eq!(read(&set), Ok(1), "{other}");
        assert!(
            matches!(read(&json!({ "keys": [other] })), Err(KeysError::None(_))),
            "{other}"
        );
    }
    assert!(matches!(read(&json!({ "keys": [] })), Err(KeysError::None(_))));
    let only = Settings {
        algorithms: vec![Algorithm::Es256],
        ..settings()
    };
    let set = json!({ "keys": [hs.key(), rs.key(), es.key()] }).to_string();
    assert_eq!(KeySet::read(set.as_bytes(), &only).map(|set| set.count()), Ok(1));
    let bench = Bench::without_keys(&only);
    assert!(bench.take(&set));
    assert!(bench.now(&es.token(&claims())).is_ok());
    assert_eq!(bench.now(&hs.token(&claims())), Err(Refusal::Token(Fault::UnknownKey)));
}

#[test]
fn a_secret_is_taken_from_a_file_only() {
    let url = Keys::Url {
        url: "https://id.test/keys".to_owned(),
        refresh: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
    };
    let settings = Settings {
        keys: url,
        ..settings()
    };
    let set = json!({ "keys": [Signer::secret("hs", SECRET).key()] }).to_string();
    let told = KeySet::read(set.as_bytes(), &settings).map(|_| ());
    assert!(told.is_err_and(|e| e.to_string().contains("write it to a jwks_file")));
}

#[test]
fn a_token_without_a_kid_means_the_only_key_of_its_algorithm() {
    let (one, two, es) = (Signer::ed("one"), Signer::ed("two"), Signer::ec("es"));
    let token = one.token_with(&json!({ "alg": "EdDSA" }), &claims());
    let bench = Bench::new(&settings(), &[&one, &es]);
    assert!(bench.now(&token).is_ok());
    let bench = Bench::new(&settings(), &[&one, &two]);
    assert_eq!(bench.now(&token), Err(Refusal::Token(Fault::UnknownKey)));
    let bench = Bench::new(&settings(), &[&es]);
    assert_eq!(bench.now(&token), Err(Refusal::Token(Fault::Algorithm)));
}

#[test]
fn numbers_of_a_key_may_have_zeros_in_front() {
    let rs = Signer::rsa("rs", "rsa");
    let key = rs.key();
    let n = base64::Engine::decode(
        &base64::engine::general_purpose::URL_SAFE_NO_PAD,
        key["n"].as_str().expect("n"),
    );
    let padded = [vec![0], n.expect("base64")].concat();
    let bench = Bench::without_keys(&settings());
    assert!(bench.take(&json!({ "keys": [with(&rs, "n", json!(encoded(padded)))] }).to_string()));
    assert!(bench.now(&rs.token(&claims())).is_ok());
}
