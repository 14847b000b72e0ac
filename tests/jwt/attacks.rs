//! Tokens that must not be believed (RFC 8725), each for its own reason.

use serde_json::{Value, json};
use switchyard::identity::Refusal;
use switchyard::identity::jwt::{Fault, Settings};

use crate::dice::Dice;
use crate::signer::{Signer, encoded, set};
use crate::{Bench, NOW, SECRET, all_kinds, claims, claims_with, settings};

fn bench() -> (Bench, Vec<Signer>) {
    let signers = all_kinds();
    (Bench::new(&settings(), &signers.iter().collect::<Vec<_>>()), signers)
}

fn refused(fault: Fault) -> Result<String, Refusal> {
    Err(Refusal::Token(fault))
}

#[test]
fn no_signature_is_no_signature_however_it_is_written() {
    let (bench, _) = bench();
    let payload = encoded(claims().to_string());
    for alg in ["none", "None", "NONE", "nOnE", "", "HS1", "RS257"] {
        for header in [json!({ "alg": alg }), json!({ "alg": alg, "kid": "hs" })] {
            let unsigned = format!("{}.{payload}.", encoded(header.to_string()));
            assert_eq!(bench.now(&unsigned), refused(Fault::Malformed), "{header}");
        }
    }
    for header in [
        json!({}),
        json!({ "alg": null }),
        json!({ "alg": 1 }),
        json!({ "alg": ["HS256"] }),
        json!([]),
    ] {
        let token = format!("{}.{payload}.", encoded(header.to_string()));
        assert_eq!(bench.now(&token), refused(Fault::Malformed), "{header}");
    }
    for kid in ["hs", "rs", "es", "ed"] {
        let header =
            json!({ "alg": match kid { "hs" => "HS256", "rs" => "RS256", "es" => "ES256", _ => "EdDSA" }, "kid": kid });
        let message = format!("{}.{payload}", encoded(header.to_string()));
        for signature in ["", "AA", &encoded([0; 64]), &encoded([0; 32]), &encoded([0; 256])] {
            assert_eq!(
                bench.now(&format!("{message}.{signature}")),
                refused(Fault::Signature),
                "{kid} {signature}"
            );
        }
    }
}

#[test]
fn a_public_key_is_never_taken_for_a_secret() {
    let (bench, signers) = bench();
    for signer in &signers[1..] {
        let key = signer.key();
        let part = |name: &str| {
            let text = key[name].as_str().unwrap_or_default().to_owned();
            base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, text).expect("base64")
        };
        for public in [
            key.to_string().into_bytes(),
            part("n"),
            part("x"),
            set(&[signer]).into_bytes(),
        ] {
            let forger = Signer::secret(signer.kid, &public);
            for header in [
                json!({ "alg": "HS256", "kid": signer.kid }),
                json!({ "alg": "HS256" }),
                json!({ "alg": signer.algorithm(), "kid": signer.kid }),
            ] {
                let told = bench
                    .now(&forger.token_with(&header, &claims()))
                    .map_err(|e| e.status());
                assert_eq!(told, Err(401), "{header}");
            }
        }
        // Even where there is no secret in the set at all.
        let alone = Bench::new(&settings(), &[signer]);
        let token = Signer::secret(signer.kid, &part("x")).token(&claims());
        assert_eq!(alone.now(&token), refused(Fault::Algorithm));
    }
    // Each key with the algorithm of each other one.
    for signer in &signers {
        for other in signers.iter().filter(|other| other.kid != signer.kid) {
            let header = json!({ "alg": other.algorithm(), "kid": signer.kid });
            assert_eq!(
                bench.now(&signer.token_with(&header, &claims())),
                refused(Fault::Algorithm)
            );
        }
    }
}

#[test]
fn only_the_set_says_which_keys_there_are() {
    let (bench, signers) = bench();
    let forger = Signer::rsa("rs", "other");
    let header = json!({ "alg": "RS256", "kid": "rs" });
    for (name, value) in [
        ("typ", json!("JWT")),
        ("jwk", forger.key()),
        ("jku", json!("http://127.0.0.1:1/keys.json")),
        ("x5u", json!("http://127.0.0.1:1/chain.pem")),
        ("x5c", json!(["MIIB"])),
    ] {
        let mut header = header.clone();
        header[name] = value;
        assert_eq!(
            bench.now(&forger.token_with(&header, &claims())),
            refused(Fault::Signature),
            "{name}"
        );
        // What the header says of keys is not even looked at.
        assert_eq!(
            bench.now(&signers[1].token_with(&header, &claims())),
            Ok("u1".to_owned()),
            "{name}"
        );
    }
    for kid in ["../../../../dev/null", "' OR 1=1 --", "", "RS", "rs ", "rs\u{0}"] {
        let header = json!({ "alg": "RS256", "kid": kid });
        assert_eq!(
            bench.now(&signers[1].token_with(&header, &claims())),
            refused(Fault::UnknownKey),
            "{kid:?}"
        );
    }
    for kid in [json!(1), json!(["rs"]), json!({ "rs": 1 })] {
        let header = json!({ "alg": "RS256", "kid": kid });
        assert_eq!(
            bench.now(&signers[1].token_with(&header, &claims())),
            refused(Fault::Malformed),
            "{kid}"
        );
    }
}

#[test]
fn extensions_that_must_be_understood_are_not() {
    let (bench, signers) = bench();
    for (crit, fault) in [
        (json!(["zz"]), Fault::Critical),
        (json!(["b64"]), Fault::Critical),
        (json!(["exp"]), Fault::Critical),
        (json!([]), Fault::Critical),
        (json!("zz"), Fault::Malformed),
    ] {
        let header = json!({ "alg": "HS256", "kid": "hs", "crit": crit, "zz": 1, "b64": false });
        assert_eq!(
            bench.now(&signers[0].token_with(&header, &claims())),
            refused(fault),
            "{crit}"
        );
    }
}

#[test]
fn what_must_be_claimed_is_claimed_in_its_own_kind() {
    let (bench, signers) = bench();
    let cases: Vec<(&str, Value, Result<&str, Fault>)> = vec![
        ("exp", Value::Null, Err(Fault::Claim)),
        ("exp", json!("1900000000"), Err(Fault::Claim)),
        ("exp", json!(-1), Err(Fault::Claim)),
        ("exp", json!(true), Err(Fault::Claim)),
        ("exp", json!([NOW + 9]), Err(Fault::Malformed)),
        ("exp", json!(1e300), Err(Fault::Claim)),
        ("exp", json!(u64::MAX), Ok("u1")),
        ("exp", json!(1), Err(Fault::Expired)),
        ("exp", json!(NOW as f64 + 0.5), Ok("u1")),
        ("nbf", json!(4_070_908_800_u64), Err(Fault::NotYet)),
        ("nbf", json!("0"), Err(Fault::Claim)),
        ("nbf", json!(0), Ok("u1")),
        ("iss", Value::Null, Err(Fault::Claim)),
        ("iss", json!("https://id.test/"), Err(Fault::Issuer)),
        ("iss", json!(1), Err(Fault::Claim)),
        ("aud", Value::Null, Err(Fault::Claim)),
        ("aud", json!("other"), Err(Fault::Audience)),
        ("aud", json!("Shop"), Err(Fault::Audience)),
        ("aud", json!([]), Err(Fault::Audience)),
        ("aud", json!(["other", "shop-beta"]), Ok("u1")),
        ("sub", Value::Null, Err(Fault::Claim)),
        ("sub", json!(42), Err(Fault::Claim)),
        ("sub", json!(["u1"]), Err(Fault::Malformed)),
        ("sub", json!({ "id": "u1" }), Err(Fault::Malformed)),
        ("sub", json!(true), Err(Fault::Claim)),
        ("sub", json!(""), Err(Fault::Claim)),
        ("sub", json!("a\u{0}b"), Err(Fault::Claim)),
        ("sub", json!("a\r\nX-Evil: 1"), Err(Fault::Claim)),
        ("sub", json!("x".repeat(1025)), Err(Fault::Claim)),
        ("sub", json!("x".repeat(1024)), Ok("")),
    ];
    for (name, value, expected) in cases {
        for signer in &signers {
            let read = bench.now(&signer.token(&claims_with(name, value.clone())));
            match expected {
                Ok("") => assert!(read.is_ok(), "{name}={value}"),
                Ok(id) => assert_eq!(read, Ok(id.to_owned()), "{name}={value}"),
                Err(fault) => assert_eq!(read, refused(fault), "{name}={value}"),
            }
        }
    }
    // A claim of the issuer's own may be a number, as many have it.
    let settings = Settings {
        claim: "uid".to_owned(),
        ..settings()
    };
    let bench = Bench::new(&settings, &[&signers[0]]);
    for (value, expected) in [
        (json!(42), Ok("42".to_owned())),
        (json!("42"), Ok("42".to_owned())),
        (json!(1.5), refused(Fault::Claim)),
        (json!(1e3), refused(Fault::Claim)),
        (json!([42]), refused(Fault::Claim)),
    ] {
        assert_eq!(
            bench.now(&signers[0].token(&claims_with("uid", value.clone()))),
            expected,
            "{value}"
        );
    }
}

#[test]
fn a_claim_that_stands_twice_is_refused_or_the_last_one_counts() {
    let (bench, signers) = bench();
    let header = encoded(json!({ "alg": "HS256", "kid": "hs" }).to_string());
    let twice = |first: &str| {
        let claims = claims().to_string();
        signers[0].signed(&format!(
            "{header}.{}",
            encoded(claims.replacen('{', &format!("{{{first},"), 1))
        ))
    };
    assert_eq!(bench.now(&twice("\"sub\":\"admin\"")).map_err(|e| e.status()), Err(401));
    assert_eq!(bench.now(&twice("\"exp\":1")).map_err(|e| e.status()), Err(401));
    let header = "{\"alg\":\"none\",\"alg\":\"HS256\",\"kid\":\"hs\"}";
    let token = signers[0].signed(&format!("{}.{}", encoded(header), encoded(claims().to_string())));
    assert_eq!(bench.now(&token), refused(Fault::Malformed));
}

#[test]
fn what_is_no_token_is_refused_at_once() {
    let (bench, signers) = bench();
    let good = signers[0].token(&claims());
    let bomb = format!("{{\"alg\":\"HS256\",\"x\":{}", "[".repeat(5_000));
    let deep = format!("{{\"sub\":\"admin\",\"a\":{}", "[".repeat(3_000));
    let header = encoded(json!({ "alg": "HS256", "kid": "hs" }).to_string());
    for token in [
        ".",
        "..",
        "...",
        "a",
        "a.b",
        "a.b.c",
        "a.b.c.d.e",
        "e30.e30.",
        "e30.e30.e30",
        "🦀.🦀.🦀",
        &good[1..],
        &format!("{good}="),
        &format!("{good}."),
        &format!(".{good}"),
        &format!("{good} {good}"),
        &format!("{good},{good}"),
        &good.replace('.', ". "),
        &encoded(&good),
        &format!("{}.e30.AA", encoded(&bomb)),
    ] {
        let value = http::HeaderValue::from_bytes(format!("Bearer {token}").as_bytes()).expect("value");
        let headers = http::HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]);
        crate::CLOCK.set(NOW);
        let told = bench.read(&headers).map(|_| ()).map_err(|e| e.status());
        assert_eq!(told, Err(401), "{token:?}");
    }
    let token = signers[0].signed(&format!("{header}.{}", encoded(&deep)));
    assert_eq!(bench.now(&token), refused(Fault::Malformed));
}

#[test]
fn a_token_has_8_kib_at_most() {
    let (bench, signers) = bench();
    let filled = |bytes: usize| signers[0].token(&claims_with("filling", json!("x".repeat(bytes))));
    let most = (1..)
        .map(filled)
        .step_by(64)
        .take_while(|token| token.len() <= 8192)
        .last()
        .expect("some");
    assert!(most.len() > 8_000, "{}", most.len());
    assert_eq!(bench.now(&most), Ok("u1".to_owned()));
    assert_eq!(bench.now(&filled(8_192)), refused(Fault::TooLong));
    assert_eq!(bench.now(&"a".repeat(1 << 20)), refused(Fault::TooLong));
}

#[test]
fn no_change_of_a_single_character_is_believed() {
    let (bench, signers) = bench();
    for signer in &signers {
        let good = signer.token(&claims());
        for place in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
            let forged = String::from_utf8(bytes).expect("ASCII");
            assert!(bench.now(&forged).is_err(), "{} at {place}", signer.kid);
        }
        assert_eq!(bench.now(&good), Ok("u1".to_owned()));
    }
}

#[test]
fn nothing_that_chance_makes_is_believed_or_stops_the_reader() {
    let (bench, signers) = bench();
    let mut dice = Dice(8);
    let letters = b"ABCxyz019-_.=+/ {}\"";
    for round in 0..5_000 {
        let good = signers[usize::try_from(dice.below(4)).expect("small")]
            .token_with(&json!({ "alg": "HS256", "kid": "hs" }), &claims());
        // Never the whole of a good token: signer 0 is the only one whose signature this header is for.
        let mut bytes = good.into_bytes();
        for _ in 0..=dice.below(3) {
            let at = usize::try_from(dice.below(bytes.len() as u64)).expect("fits");
            if dice.chance(3) {
                bytes.truncate(at.max(1));
            } else if dice.chance(2) {
                bytes[at] = letters[usize::try_from(dice.below(letters.len() as u64)).expect("fits")];
            } else {
                bytes.insert(
                    at,
                    letters[usize::try_from(dice.below(letters.len() as u64)).expect("fits")],
                );
            }
        }
        let text = String::from_utf8(bytes).expect("ASCII");
        if let Ok(id) = bench.now(&text) {
            // Cut to nothing it is no token, and blanks around one are none of it.
            let blank = text.trim().is_empty() && id.is_empty();
            let whole = text.trim() == signers[0].token_with(&json!({ "alg": "HS256", "kid": "hs" }), &claims());
            assert!(blank || whole, "round {round}: {text:?} is {id:?}");
        }
    }
}

#[test]
fn nothing_shows_a_token_or_a_secret() {
    let (bench, signers) = bench();
    let token = signers[0].token(&claims_with("sub", json!("very-private")));
    crate::CLOCK.set(NOW);
    let reading = bench.read(&crate::bearer(&token)).expect("good");
    let refusal = bench.now(&token.replace('.', "..")).expect_err("bad");
    let broken =
        switchyard::identity::jwt::KeySet::read(b"{\"keys\":[{\"kty\":\"oct\",\"k\":\"hidden\"}]}", &settings());
    let shown = format!(
        "{reading:?} {refusal:?} {refusal} {:?} {broken:?} {}",
        bench.source,
        broken.as_ref().err().map(ToString::to_string).unwrap_or_default()
    );
    let secret = String::from_utf8_lossy(SECRET).into_owned();
    for hidden in [
        "very-private",
        "u1",
        "hidden",
        &encoded(SECRET),
        &secret,
        &token[..10],
        &token[token.len() - 10..],
    ] {
        assert!(!shown.contains(hidden), "{hidden} is in {shown}");
    }
}
