//! What a token costs: to know one that was verified, to check one by each kind of key, to refuse one. Nanoseconds and
//! allocations; a check is what `identity::jwt::Algorithm::is_quick` is about.

use std::alloc::System;
use std::hint::black_box;
use std::time::{Duration, Instant};

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderValue};
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use switchyard::identity::jwt::{Algorithm, KeySet, Keys, OnInvalid, Place, Settings};
use switchyard::identity::{self, Read, Reader, Source};

#[path = "../tests/jwt/signer.rs"]
mod signer;

use signer::{Signer, set};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const NOW: u64 = 1_800_000_000;
const TOKENS: usize = 100;
const ROUNDS: usize = 51;

fn reader(signer: &Signer) -> Reader {
    let reader = Reader::new(identity::Settings {
        sources: vec![Source::Jwt(Settings {
            place: Place::default(),
            claim: Settings::CLAIM.to_owned(),
            keys: Keys::File("keys.json".into()),
            issuer: Some("https://id.example.com".to_owned()),
            audience: vec!["shop".to_owned()],
            algorithms: Algorithm::ALL.to_vec(),
            leeway: Duration::from_secs(60),
            on_invalid: OnInvalid::Reject,
        })],
        ..identity::Settings::default()
    });
    let source = reader.token_sources().next().expect("a source");
    source.take(KeySet::read(set(&[signer]).as_bytes(), source.settings()).expect("keys"));
    reader
}

fn claims(user: usize, filling: usize) -> Value {
    json!({
        "sub": format!("user-{user}"), "iss": "https://id.example.com", "aud": ["shop"], "exp": NOW + 600,
        "iat": NOW, "groups": ["staff", "beta"], "filling": "x".repeat(filling),
    })
}

fn requests(signer: &Signer, filling: usize) -> Vec<HeaderMap> {
    let request = |user| {
        let value = format!("Bearer {}", signer.token(&claims(user, filling)));
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(&value).expect("value"))])
    };
    (0..TOKENS).map(request).collect()
}

/// Whether all were believed.
fn read(reader: &Reader, requests: &[HeaderMap]) -> bool {
    let each = requests.iter().map(|headers| {
        let read = reader.read(black_box(headers), None, None, false, || NOW * 1000);
        match read {
            Ok(Read::Done(reading)) => black_box(reading).token.is_some(),
            Ok(Read::Pending(check)) => reader.settle(headers, check.run()).is_ok(),
            Err(_) => false,
        }
    });
    each.fold(true, |all, one| all & one)
}

/// Nanoseconds of the fastest round, which nothing else disturbed, and allocations of one request; of readers that `fresh` makes, or of one that has seen them all.
fn measure(signer: &Signer, requests: &[HeaderMap], fresh: bool, believed: bool) -> (f64, usize) {
    let seasoned = reader(signer);
    assert_eq!(read(&seasoned, requests), believed);
    let mut fastest = f64::MAX;
    let mut allocations = 0;
    for _ in 0..ROUNDS {
        let reader = if fresh { &reader(signer) } else { &seasoned };
        let region = Region::new(ALLOCATOR);
        let since = Instant::now();
        assert_eq!(read(reader, requests), believed);
        fastest = fastest.min(since.elapsed().as_nanos() as f64 / requests.len() as f64);
        allocations = region.change().allocations / requests.len();
    }
    (fastest, allocations)
}

fn main() {
    // `cargo test --benches` asks for a list and must end.
    if std::env::args().any(|a| a == "--list") {
        return;
    }
    let secret = Signer::secret("hs", b"0123456789abcdef0123456789abcdef");
    let elliptic = Signer::ec("es");
    println!("{TOKENS} tokens; the fastest of {ROUNDS} rounds");
    println!("{:<34} {:>10} {:>12}", "", "ns each", "allocations");
    let show = |what: &str, (nanos, allocations): (f64, usize)| println!("{what:<34} {nanos:>10.0} {allocations:>12}");
    for filling in [0, 5_000] {
        let requests = requests(&elliptic, filling);
        let bytes = requests[0][AUTHORIZATION].len();
        show(
            &format!("known, {bytes} bytes"),
            measure(&elliptic, &requests, false, true),
        );
    }
    for filling in [0, 5_000] {
        let requests = requests(&secret, filling);
        let bytes = requests[0][AUTHORIZATION].len();
        show(
            &format!("HS256, {bytes} bytes"),
            measure(&secret, &requests, true, true),
        );
    }
    for (what, signer) in [
        ("RS256, 2048 bits", Signer::rsa("rs", "rsa")),
        ("RS256, 4096 bits", Signer::rsa("rs", "large")),
        ("ES256", Signer::ec("es")),
        ("EdDSA", Signer::ed("ed")),
    ] {
        show(what, measure(&signer, &requests(&signer, 0), true, true));
    }
    let forged = requests(&Signer::ec("es"), 0);
    show("ES256, forged", measure(&elliptic, &forged, false, false));
    let unknown = requests(&Signer::ec("unknown"), 0);
    show("unknown key", measure(&elliptic, &unknown, false, false));
}
