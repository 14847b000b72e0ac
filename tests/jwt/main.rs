//! Tokens as the reader of identities takes them, without a socket: every kind of forgery, every moment.

#[path = "../store/dice.rs"]
mod dice;
mod signer;

mod attacks;
mod cached;
mod keys;

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use switchyard::identity::jwt::{Algorithm, Claims, KeySet, Keys, OnInvalid, Place, Settings, Token, TokenSource};
use switchyard::identity::{self, Identity, Read, Reader, Reading, Refusal, Source};
use switchyard::rollout::{Attributes, Known, PoolIdx, RolloutName, RolloutSpec, Table};

use signer::{Signer, set};

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

thread_local! {
    static CLOCK: Cell<u64> = const { Cell::new(NOW) };
}

fn settings() -> Settings {
    Settings {
        place: Place::default(),
        claim: Settings::CLAIM.to_owned(),
        keys: Keys::File("keys.json".into()),
        issuer: Some("https://id.test".to_owned()),
        audience: vec!["shop".to_owned(), "shop-beta".to_owned()],
        algorithms: Algorithm::ALL.to_vec(),
        leeway: Duration::from_secs(60),
        on_invalid: OnInvalid::Reject,
    }
}

fn claims() -> Value {
    json!({ "sub": "u1", "iss": "https://id.test", "aud": "shop", "exp": NOW + 600 })
}

/// The claims with one changed, or taken away by `null`.
fn claims_with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    if claims[name].is_null() {
        claims.as_object_mut().expect("an object").remove(name);
    }
    claims
}

struct Bench {
    reader: Reader,
    source: Arc<TokenSource>,
}

impl Bench {
    fn new(settings: &Settings, keys: &[&Signer]) -> Self {
        let bench = Self::without_keys(settings);
        bench.take(&set(keys));
        bench
    }

    fn without_keys(settings: &Settings) -> Self {
        let reader = Reader::new(identity::Settings {
            sources: vec![
                Source::Jwt(settings.clone()),
                Source::Header(HeaderName::from_static("x-user-id")),
                Source::Cookie("uid".to_owned()),
            ],
            ..identity::Settings::default()
        });
        let source = Arc::clone(reader.token_sources().next().expect("a source of tokens"));
        Self { reader, source }
    }

    fn take(&self, keys: &str) -> bool {
        let keys = KeySet::read(keys.as_bytes(), self.source.settings()).expect("keys");
        self.source.take(keys)
    }

    fn read(&self, headers: &HeaderMap) -> Result<Reading, Refusal> {
        let now = || CLOCK.get() * 1000;
        match self.reader.read(headers, None, None, true, now)? {
            Read::Done(reading) => Ok(reading),
            Read::Pending(check) => self.reader.settle(headers, check.run()),
        }
    }

    /// The id that a token brings at a time, or why not.
    fn at(&self, now: u64, token: &str) -> Result<String, Refusal> {
        CLOCK.set(now);
        self.read(&bearer(token)).map(|reading| {
            let id = reading.identity.id().map(|id| id.as_bytes().to_vec());
            String::from_utf8(id.unwrap_or_default()).expect("UTF-8")
        })
    }

    fn now(&self, token: &str) -> Result<String, Refusal> {
        self.at(NOW, token)
    }

    /// Whether the reader knows the token without checking anything.
    fn knows(&self, now: u64, token: &str) -> bool {
        CLOCK.set(now);
        matches!(
            self.reader
                .read(&bearer(token), None, None, false, || CLOCK.get() * 1000),
            Ok(Read::Done(_))
        )
    }
}

fn bearer(token: &str) -> HeaderMap {
    fields(&[(AUTHORIZATION, &format!("Bearer {token}"))])
}

fn fields(fields: &[(HeaderName, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(name, HeaderValue::from_str(value).expect("value"));
    }
    headers
}

fn all_kinds() -> Vec<Signer> {
    vec![
        Signer::secret("hs", SECRET),
        Signer::rsa("rs", "rsa"),
        Signer::ec("es"),
        Signer::ed("ed"),
    ]
}

#[test]
fn a_token_of_every_algorithm_says_who_asks_and_what_else_it_holds() {
    let signers = all_kinds();
    let bench = Bench::new(&settings(), &signers.iter().collect::<Vec<_>>());
    for signer in &signers {
        let token = signer.token(&claims_with("groups", json!(["staff", "beta"])));
        CLOCK.set(NOW);
        for turn in ["verified", "cached"] {
            let reading = bench.read(&bearer(&token)).expect(turn);
            assert_eq!(reading.identity.source().as_str(), "jwt", "{turn}");
            assert_eq!(reading.identity.user().map(|id| id.as_bytes()), Some(&b"u1"[..]));
            let token = reading.token.expect("the token");
            assert_eq!(token.claims.values("groups").collect::<Vec<_>>(), ["staff", "beta"]);
        }
    }
}

#[test]
fn a_token_is_found_where_the_settings_say_only() {
    let signer = Signer::secret("hs", SECRET);
    let token = signer.token(&claims());
    let at = |place: Place, headers: &[(HeaderName, &str)]| {
        let bench = Bench::new(&Settings { place, ..settings() }, &[&signer]);
        CLOCK.set(NOW);
        let reading = bench.read(&fields(headers)).map_err(|refusal| refusal.status())?;
        Ok::<_, u16>(reading.identity.source().as_str())
    };
    let authorization = || Place::Header(AUTHORIZATION);
    let own = HeaderName::from_static("x-token");
    let cookie = http::header::COOKIE;
    for (scheme, expected) in [
        ("Bearer ", Ok("jwt")),
        ("bearer  ", Ok("jwt")),
        ("Basic ", Ok("none")),
        ("", Ok("none")),
        ("Bearers ", Ok("none")),
    ] {
        let value = format!("{scheme}{token}");
        assert_eq!(at(authorization(), &[(AUTHORIZATION, &value)]), expected, "{scheme:?}");
    }
    for (headers, expected) in [
        (vec![(AUTHORIZATION, "Bearer")], Ok("none")),
        (vec![(AUTHORIZATION, "Bearer x"), (AUTHORIZATION, "Bearer x")], Err(400)),
        (
            vec![(AUTHORIZATION, "Bearer x"), (HeaderName::from_static("x-user-id"), "7")],
            Err(401),
        ),
    ] {
        assert_eq!(at(authorization(), &headers), expected, "{headers:?}");
    }
    assert_eq!(at(Place::Header(own.clone()), &[(own.clone(), &token)]), Ok("jwt"));
    let value = format!("Bearer {token}");
    assert_eq!(at(Place::Header(own.clone()), &[(own.clone(), &value)]), Ok("jwt"));
    assert_eq!(at(Place::Header(own), &[(AUTHORIZATION, &value)]), Ok("none"));
    let value = format!("a=b; session={token}");
    assert_eq!(
        at(Place::Cookie("session".to_owned()), &[(cookie.clone(), &value)]),
        Ok("jwt")
    );
    let value = format!("session={token}; session=x");
    assert_eq!(at(Place::Cookie("session".to_owned()), &[(cookie, &value)]), Err(400));
}

#[test]
fn the_id_is_normalised_like_any_other_and_told_to_the_upstream_by_a_header() {
    let signer = Signer::secret("hs", SECRET);
    let reader = Reader::new(identity::Settings {
        sources: vec![Source::Jwt(settings())],
        normalise: vec![identity::Normalise::Trim, identity::Normalise::Lowercase],
        ..identity::Settings::default()
    });
    assert_eq!(reader.header_names(), [HeaderName::from_static("x-user-id")]);
    let source = reader.token_sources().next().expect("a source");
    assert!(source.take(KeySet::read(set(&[&signer]).as_bytes(), source.settings()).expect("keys")));
    let headers = bearer(&signer.token(&claims_with("sub", json!(" U-1 "))));
    let Ok(Read::Done(reading)) = reader.read(&headers, None, None, false, || NOW * 1000) else {
        panic!("HMAC is checked at once");
    };
    assert_eq!(reading.identity.id().map(|id| id.as_bytes()), Some(&b"u-1"[..]));
}

#[test]
fn who_sends_a_bad_token_is_refused_or_nobody_whatever_else_they_send() {
    let signer = Signer::secret("hs", SECRET);
    let others = [
        (HeaderName::from_static("x-user-id"), "7"),
        (http::header::COOKIE, "uid=8"),
    ];
    let asked = |on_invalid, keys: bool, token: Option<&str>| {
        let settings = Settings {
            on_invalid,
            ..settings()
        };
        let bench = Bench::without_keys(&settings);
        if keys {
            bench.take(&set(&[&signer]));
        }
        let mut headers = fields(&others);
        if let Some(token) = token {
            headers.extend(bearer(token));
        }
        CLOCK.set(NOW);
        bench
            .read(&headers)
            .map(|reading| reading.identity)
            .map_err(|refusal| refusal.status())
    };
    let good = signer.token(&claims());
    for bad in ["x", "..", "a.b.c", &signer.token(&claims_with("exp", json!(1)))] {
        assert_eq!(asked(OnInvalid::Reject, true, Some(bad)), Err(401), "{bad}");
        assert_eq!(
            asked(OnInvalid::Anonymous, true, Some(bad)),
            Ok(Identity::Anonymous),
            "{bad}"
        );
    }
    assert_eq!(asked(OnInvalid::Reject, false, Some(&good)), Err(503));
    assert_eq!(asked(OnInvalid::Anonymous, false, Some(&good)), Ok(Identity::Anonymous));
    for (keys, on_invalid) in [(true, OnInvalid::Reject), (false, OnInvalid::Reject)] {
        let without = asked(on_invalid, keys, None).map(|identity| identity.source().as_str());
        assert_eq!(without, Ok("header"), "without a token the next source is asked");
    }
}

struct Holder(Arc<Token>);

impl Attributes for Holder {
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

    fn client_ip(&self) -> Option<std::net::IpAddr> {
        None
    }

    fn claims(&self) -> Option<&Claims> {
        Some(&self.0.claims)
    }
}

#[test]
fn a_rule_on_a_claim_is_met_by_any_of_its_values_and_explained() {
    let spec: RolloutSpec = serde_json::from_value(json!({
        "releases": { "stable": { "pool": "s" }, "canary": { "pool": "c" } },
        "targets": [
            { "when": { "claim": "groups", "equals": "staff" }, "release": "canary" },
            { "when": { "claim": "level", "regex": "^[3-9]$" }, "release": "canary" },
        ],
    }))
    .expect("a spec");
    let known = Known {
        pool: &|name| Some(PoolIdx(u16::from(name.as_str() == "c"))),
        segment: &|_| None,
    };
    let table = Table::compile(&RolloutName::parse("shop").expect("name"), &spec, &known).expect("compiles");
    let signer = Signer::secret("hs", SECRET);
    let bench = Bench::new(&settings(), &[&signer]);
    for (name, value, pool) in [
        ("groups", json!(["beta", "staff"]), 1),
        ("groups", json!("staff"), 1),
        ("groups", json!("staffer"), 0),
        ("level", json!(3), 1),
        ("level", json!(10), 0),
        ("other", json!("staff"), 0),
    ] {
        CLOCK.set(NOW);
        let reading = bench
            .read(&bearer(&signer.token(&claims_with(name, value.clone()))))
            .expect("good");
        let holder = Holder(reading.token.expect("a token"));
        let (decision, told) = table.explain(&spec, &reading.identity, &holder);
        assert_eq!(table.release(decision.release).pool, PoolIdx(pool), "{name} {value}");
        if value.is_array() {
            let why = &told.steps.last().expect("a step").why;
            assert_eq!(why, "claim groups is \"beta, staff\", which meets equals \"staff\"");
        }
    }
}
