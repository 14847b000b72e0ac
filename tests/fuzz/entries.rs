//! What the fuzzers feed, and what must hold whatever they feed. `cargo test` feeds the seeds to the same functions.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use ring::hmac;
use switchyard::admin::lists::{Format, Reading};
use switchyard::config;
use switchyard::identity::{
    Anonymous, Identity, Normalise, Read, Reader, Secret, Settings, Source, SourceKind, UserId, jwt,
};
use switchyard::proxy::fields::Fields;
use switchyard::proxy::guard;
use switchyard::proxy::settings::Limits;
use switchyard::proxy::wire::{Framing, Wire};
use switchyard::rollout::{
    Attributes, Known, Members, PoolIdx, ReleaseName, RolloutName, RolloutSpec, Roster, RosterDigest, SeenUser, Table,
};

/// A fuzzer's name and its function.
pub type Entry = (&'static str, fn(&[u8]));

/// All of them; each has a file in `targets/` and a folder in `seeds/`.
pub const ENTRIES: [Entry; 8] = [
    ("config", config),
    ("identity", identity),
    ("jwt", jwt),
    ("spec", spec),
    ("import", import),
    ("roster", roster),
    ("guard", guard),
    ("frames", frames),
];

/// Any text is a configuration or has problems, each with its place.
pub fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let variable = |name: &str| (name == "KNOWN").then(|| "value".to_owned());
    if let Err(problems) = config::parse("fuzz.yaml", text, &variable) {
        assert!(!problems.is_empty(), "refused without a reason");
        for problem in problems {
            assert!(problem.to_string().starts_with("fuzz.yaml:"), "{problem}");
        }
    }
}

/// Any head yields an id within its bounds or a refusal; and what is read once is read so again.
pub fn identity(bytes: &[u8]) {
    let (choice, rest) = bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest));
    let source = |name: &str| match choice & 3 {
        0 => Source::Header(HeaderName::from_static("x-user-id")),
        1 => Source::Query(name.to_owned()),
        _ => Source::Cookie(name.to_owned()),
    };
    let anonymous = match choice & 4 {
        0 => Anonymous::Reject,
        _ => Anonymous::Cookie {
            name: "anon".to_owned(),
            secret: Secret::new(vec![7; 16]).expect("long enough"),
        },
    };
    let reader = Reader::new(Settings {
        sources: vec![source("uid"), Source::Cookie("uid".to_owned())],
        normalise: vec![
            Normalise::Trim,
            Normalise::Unquote,
            Normalise::PercentDecode,
            Normalise::Lowercase,
        ],
        anonymous,
        ..Settings::default()
    });
    let mut headers = HeaderMap::new();
    let mut query = None;
    for line in rest.split(|b| *b == b'\n') {
        let mut parts = line.splitn(2, |b| *b == b':');
        let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if name == b"?" {
            query = std::str::from_utf8(value).ok();
        } else if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    let trusted = choice & 8 != 0;
    let read = || match reader.read(&headers, query, None, trusted, || 0) {
        Ok(Read::Done(reading)) => Ok(reading.identity),
        Ok(Read::Pending(_)) => panic!("no source has tokens"),
        Err(refusal) => Err(refusal),
    };
    let found = read();
    if let Ok(identity) = &found {
        if let Some(id) = identity.id() {
            assert!((1..=1024).contains(&id.as_bytes().len()), "{id:?}");
        }
        if let Identity::User { source, .. } = identity {
            assert!(
                trusted || source.as_str() != "header",
                "a stranger's header was believed"
            );
        }
    }
    assert_eq!(found, read());
}

/// The second at which tokens are looked at.
const NOW: u64 = 1_800_000_000;
const KEYS: &str =
    r#"{"keys":[{"kty":"oct","kid":"hs","alg":"HS256","k":"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"}]}"#;
const KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

/// A token that nobody signed is never believed; of one that is signed, whatever it holds, an id within its bounds comes
/// out, twice the same, or a refusal; any text is a set of keys or none.
pub fn jwt(bytes: &[u8]) {
    let Some((choice, rest)) = bytes.split_first() else {
        return;
    };
    let settings = jwt::Settings {
        place: jwt::Place::default(),
        claim: if choice & 4 == 0 { "sub" } else { "uid" }.to_owned(),
        keys: jwt::Keys::File("keys.json".into()),
        issuer: None,
        audience: Vec::new(),
        algorithms: jwt::Algorithm::ALL.to_vec(),
        leeway: Duration::from_secs(60),
        on_invalid: jwt::OnInvalid::Reject,
    };
    let keys = if choice & 3 == 2 {
        jwt::KeySet::read(rest, &settings)
    } else {
        jwt::KeySet::read(KEYS.as_bytes(), &settings)
    };
    let Ok(keys) = keys else { return };
    let reader = Reader::new(Settings {
        sources: vec![Source::Jwt(settings)],
        ..Settings::default()
    });
    let source = reader.token_sources().next().expect("a source of tokens");
    source.take(keys);
    let signed = choice & 3 == 1;
    let token = match rest.iter().position(|b| *b == b'\n') {
        Some(end) if signed => {
            let (head, claims) = (&rest[..end], &rest[end + 1..]);
            let content = format!("{}.{}", URL_SAFE_NO_PAD.encode(head), URL_SAFE_NO_PAD.encode(claims));
            let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), content.as_bytes());
            format!("{content}.{}", URL_SAFE_NO_PAD.encode(tag))
        }
        _ => String::from_utf8_lossy(rest).into_owned(),
    };
    let Ok(value) = HeaderValue::from_str(&format!("Bearer {token}")) else {
        return;
    };
    let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]);
    let read = || match reader.read(&headers, None, None, false, || NOW * 1000)? {
        Read::Done(reading) => Ok(reading.identity),
        Read::Pending(check) => reader.settle(&headers, check.run()).map(|reading| reading.identity),
    };
    let found = read();
    if let Ok(Identity::User { id, .. }) = &found {
        assert!(signed, "believed without a signature");
        assert!((1..=1024).contains(&id.as_bytes().len()), "{id:?}");
    }
    assert_eq!(found, read());
}

struct Blank;

impl Attributes for Blank {
    fn header(&self, _name: &HeaderName) -> Option<&[u8]> {
        Some(b"5.2.0")
    }

    fn cookie(&self, _name: &str) -> Option<&[u8]> {
        None
    }

    fn query(&self, _name: &str) -> Option<&[u8]> {
        Some(b"nightly-1")
    }

    fn path(&self) -> &str {
        "/beta/x"
    }

    fn client_ip(&self) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, 1]))
    }
}

/// Any text is a rollout that decides for everyone, and is the same when it is written and read again; or it has
/// problems.
pub fn spec(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(rollouts) = config::rollouts_from("fuzz.yaml", text, &|_| None) {
        for rollout in rollouts {
            decide(&rollout.spec);
        }
    }
    if let Ok(spec) = serde_json::from_str::<RolloutSpec>(text) {
        let written = serde_json::to_string(&spec).expect("a spec can be written");
        let again: RolloutSpec = serde_json::from_str(&written).expect("and read");
        assert_eq!(again, spec);
        decide(&spec);
    }
}

fn user(id: &str) -> Identity {
    let id = UserId::new(id.as_bytes()).expect("an id");
    Identity::User {
        id,
        source: SourceKind::Header,
    }
}

fn decide(spec: &RolloutSpec) {
    let known = Known {
        pool: &|_| Some(PoolIdx(0)),
        segment: &|_| Some(Members::none()),
    };
    let name = RolloutName::parse("fuzz").expect("a name");
    let Ok(table) = Table::compile(&name, spec, &known) else {
        return;
    };
    for identity in [user("1"), user("2"), Identity::Anonymous] {
        let decision = table.decide(&identity, &Blank);
        assert!(usize::from(decision.release.0) < table.releases().len());
    }
    let shares: u32 = table.weights().map(|(_, weight)| weight.parts_per_million()).sum();
    assert_eq!(shares, 1_000_000, "all buckets have an owner");
}

/// A list is read the same in one piece and in many.
pub fn import(bytes: &[u8]) {
    let (choice, rest) = bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest));
    let format = [Format::Ndjson, Format::Csv, Format::Plain][usize::from(choice % 3)];
    let releases: Vec<ReleaseName> = ["stable", "canary"]
        .map(|name| ReleaseName::parse(name).expect("a name"))
        .into();
    let read = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let default = (choice & 0x80 != 0).then(|| releases[0].clone());
        let mut reading = Reading::of_users(format, releases.clone(), default, 0).map_err(|e| format!("{e:?}"))?;
        for piece in pieces {
            reading.feed(piece).map_err(|e| format!("{e:?}"))?;
        }
        let users = reading.end().map_err(|e| format!("{e:?}"))?;
        Ok::<_, String>(users.into_groups())
    };
    let whole = read(&mut std::iter::once(rest));
    let pieces = read(&mut rest.chunks(usize::from(choice % 7) + 1));
    // Of a line that is too long, more or less has arrived when that is seen.
    assert_eq!(whole.is_ok(), pieces.is_ok());
    if let (Ok(whole), Ok(pieces)) = (whole, pieces) {
        assert_eq!(whole, pieces);
    }
}

/// Bytes are a roster that can be asked and listed, or are refused, whatever their name; nothing of it is out of bounds.
pub fn roster(bytes: &[u8]) {
    let digest = RosterDigest(xxhash_rust::xxh3::xxh3_128(bytes));
    let Ok(roster) = Roster::open(bytes.to_vec().into(), digest) else {
        return;
    };
    let mut listed = 0;
    for (order, _) in roster.listed(None) {
        listed += 1;
        if let Some(id) = order.id() {
            // Keys out of order, which no writer writes, are not found, or are.
            std::hint::black_box(roster.contains(&id));
        }
    }
    assert_eq!(listed, roster.name().users);
    for id in ["", "0", "42", "123e4567-e89b-12d3-a456-426614174000", "anna"] {
        std::hint::black_box(roster.contains(id));
        std::hint::black_box(roster.holds_part(SeenUser::of(id.as_bytes()).part));
    }
}

/// A head is refused or sound, a body is judged the same however it is cut, and what passes names one host and one length.
pub fn guard(bytes: &[u8]) {
    let limits = Limits::default();
    let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
        return;
    };
    let (head, body) = bytes.split_at(end + 4);
    let sound = guard::check_head_bytes(head, &limits).is_ok();
    if let Some(request) = parsed(head) {
        let identity = [HeaderName::from_static("x-user-id")];
        let fields = Fields::of(&request.headers, &identity);
        if sound && guard::check_head(&request, fields, &limits, &identity).is_ok() {
            let count = |name: &str| request.headers.get_all(name).iter().count();
            assert!(count("host") <= 1);
            assert!(count("content-length") + count("transfer-encoding") <= 1);
        }
    }
    if bytes.len() > limits.header_bytes_max {
        return;
    }
    for framing in [Framing::Chunked, Framing::Length(3), Framing::None] {
        let together = Wire::new(limits, false);
        let begun = together.read(bytes, Instant::now);
        let together = begun.is_ok() && together.head_ends(head, framing).is_ok();
        for size in [1, 2, 7] {
            let wire = Wire::new(limits, false);
            let begun = head.chunks(size).all(|piece| wire.read(piece, Instant::now).is_ok());
            let apart = begun
                && wire.head_ends(head, framing).is_ok()
                && body.chunks(size).all(|piece| wire.read(piece, Instant::now).is_ok());
            assert_eq!(together, apart, "{framing:?} in pieces of {size}");
        }
    }
}

/// As lenient as a parser may be.
fn parsed(head: &[u8]) -> Option<RequestHeader> {
    let mut lines = head
        .split(|b| *b == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let mut words = lines.next()?.split(|b| *b == b' ');
    let method = std::str::from_utf8(words.next()?).ok()?;
    let target = words.next()?;
    let mut request = RequestHeader::build(method, target, None).ok()?;
    for line in lines.filter(|line| !line.is_empty()) {
        let at = line.iter().position(|b| *b == b':')?;
        let name = std::str::from_utf8(&line[..at]).ok()?.trim().to_owned();
        let value = HeaderValue::from_bytes(line[at + 1..].trim_ascii()).ok()?;
        request.append_header(name, value).ok()?;
    }
    Some(request)
}

/// The frames of an HTTP/2 client are judged the same however they are cut.
pub fn frames(bytes: &[u8]) {
    let now = Instant::now();
    let all = [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        &[0, 0, 0, 4, 0, 0, 0, 0, 0],
        bytes,
    ]
    .concat();
    let judge = |size: usize| {
        let wire = Wire::new(Limits::default(), true);
        all.chunks(size).try_for_each(|piece| wire.read(piece, || now))
    };
    let whole = judge(all.len());
    for size in [1, 3, 10] {
        assert_eq!(judge(size), whole, "in pieces of {size}");
    }
}
