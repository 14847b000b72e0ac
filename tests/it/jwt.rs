//! Tokens and the whole program: who is believed, what the upstream is told, and keys that come, change and fail.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::{Answer, Origin, PATIENCE, Proxy, fields, nowhere, program, respond};
use crate::signer::{Signer, set};

const SECRET: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

static NUMBER: AtomicUsize = AtomicUsize::new(0);

fn keys_file(keys: &str) -> PathBuf {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("switchyard-it-{}-keys-{number}.json", std::process::id()));
    std::fs::write(&path, keys).expect("file");
    path
}

/// Puts another file in the place of one, whole at every moment.
fn replace(path: &Path, keys: &str) {
    let next = keys_file(keys);
    std::fs::rename(next, path).expect("renamed");
}

fn in_seconds(seconds: i64) -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("after 1970")
        .as_secs();
    i64::try_from(now).expect("fits") + seconds
}

fn claims(user: &str) -> Value {
    json!({ "sub": user, "iss": "https://id.test", "aud": ["shop"], "exp": in_seconds(600) })
}

/// Two releases; user `u1` and whoever is `staff` get canary.
struct Shop {
    stable: Origin,
    canary: Origin,
    proxy: Proxy,
}

impl Shop {
    fn new(jwt: &str) -> Self {
        let (stable, canary) = (Origin::named("stable"), Origin::named("canary"));
        let proxy = Proxy::start(&configuration(&stable, &canary, jwt));
        Self { stable, canary, proxy }
    }

    fn with(&self, token: &str) -> Answer {
        self.proxy.get("/", &format!("Authorization: Bearer {token}\r\n"))
    }

    fn requests(&self) -> usize {
        self.stable.heads().len() + self.canary.heads().len()
    }
}

fn configuration(stable: &Origin, canary: &Origin, jwt: &str) -> String {
    format!(
        "identity:\n  sources:\n    - jwt: {{ issuer: \"https://id.test\", audience: shop, {jwt} }}\n    \
         - header: X-User-Id\n\
         pools: {{ stable: {{ endpoints: [\"{}\"] }}, canary: {{ endpoints: [\"{}\"] }} }}\n\
         routes: [{{ rollout: checkout, id: front }}]\n\
         access_log: {{ user_id: plain }}\n\
         rollouts:\n  checkout:\n    releases: {{ stable: {{ pool: stable }}, canary: {{ pool: canary }} }}\n    \
         targets:\n      - {{ users: [\"u1\"], release: canary }}\n      \
         - {{ when: {{ claim: groups, equals: staff }}, release: canary }}\n",
        stable.address, canary.address
    )
}

fn told_user(origin: &Origin) -> Vec<String> {
    let head = origin.heads().pop().expect("a request");
    fields(&head, "x-user-id").into_iter().map(str::to_owned).collect()
}

#[test]
fn a_token_decides_and_the_upstream_is_told_whose_it_is() {
    let signers = [
        Signer::secret("hs", SECRET),
        Signer::rsa("rs", "rsa"),
        Signer::ec("es"),
        Signer::ed("ed"),
    ];
    let file = keys_file(&set(&signers.iter().collect::<Vec<_>>()));
    let shop = Shop::new(&format!("jwks_file: {}", file.display()));
    for signer in &signers {
        let mine = signer.token(&claims("u1"));
        for turn in ["checked", "known"] {
            let sent = format!("Authorization: Bearer {mine}\r\nX-User-Id: forged\r\n");
            assert_eq!(shop.proxy.get("/", &sent).body, "canary", "{} {turn}", signer.kid);
            assert_eq!(told_user(&shop.canary), ["u1"]);
            let line = shop.proxy.access_line();
            assert_eq!((&line["user"], &line["source"]), (&json!("u1"), &json!("jwt")));
            assert_eq!(line["reason"], "target");
        }
        // The upstream may look at the token, too.
        let head = shop.canary.heads().pop().expect("a request");
        assert_eq!(fields(&head, "authorization"), [format!("Bearer {mine}")]);

        let mut other = claims("u2");
        assert_eq!(shop.with(&signer.token(&other)).body, "stable");
        assert_eq!(told_user(&shop.stable), ["u2"]);
        other["groups"] = json!(["beta", "staff"]);
        assert_eq!(shop.with(&signer.token(&other)).body, "canary", "by a claim");
        shop.proxy.settle(2);
    }
    // Without a token, the next source is asked.
    assert_eq!(shop.proxy.get("/", "X-User-Id: u1\r\n").body, "canary");
    shop.proxy.settle(1);
    let metrics = shop.proxy.metrics();
    for series in [
        "switchyard_tokens_total{outcome=\"cached\"} 4",
        "switchyard_tokens_total{outcome=\"verified\"} 12",
        "switchyard_decisions_total{reason=\"target\",release=\"canary\",rollout=\"checkout\",source=\"jwt\"} 12",
    ] {
        assert!(metrics.contains(series), "{series} is not in {metrics}");
    }
}

/// Bad in every way that there is, by whoever has the right key and by whoever has not.
fn bad_tokens(signer: &Signer) -> Vec<(String, String)> {
    let with = |name: &str, value: Value| {
        let mut claims = claims("admin");
        claims[name] = value;
        (name.to_owned(), signer.token(&claims))
    };
    let mut bad = vec![
        with("exp", json!(in_seconds(-61))),
        with("nbf", json!(in_seconds(120))),
        with("iss", json!("https://evil.test")),
        with("aud", json!(["other"])),
        with("sub", json!(7)),
        ("forged".to_owned(), Signer::ec(signer.kid).token(&claims("admin"))),
        (
            "other algorithm".to_owned(),
            Signer::secret(signer.kid, SECRET).token(&claims("admin")),
        ),
        ("unknown key".to_owned(), Signer::ec("unknown").token(&claims("admin"))),
        ("long".to_owned(), "a.".repeat(4_500)),
    ];
    let cases = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/jwt/attacks.json"));
    let cases: Vec<Value> = serde_json::from_str(&cases.expect("fixture")).expect("JSON");
    assert!(cases.len() > 10);
    bad.extend(cases.iter().map(|case| {
        let text = |key: &str| case[key].as_str().expect("a text").to_owned();
        (text("title"), text("token"))
    }));
    bad
}

#[test]
fn a_bad_token_is_refused_and_nothing_of_it_is_written_anywhere() {
    let signer = Signer::ec("es");
    let file = keys_file(&set(&[&signer]));
    let shop = Shop::new(&format!("jwks_file: {}", file.display()));
    let bad = bad_tokens(&signer);
    for (title, token) in &bad {
        // Not even with what else would have been believed.
        let answer = shop
            .proxy
            .get("/", &format!("Authorization: Bearer {token}\r\nX-User-Id: u1\r\n"));
        assert_eq!(answer.status, 401, "{title}");
        assert_eq!(
            answer.all("www-authenticate"),
            ["Bearer error=\"invalid_token\""],
            "{title}"
        );
    }
    let twice = format!(
        "Authorization: Bearer {0}\r\nAuthorization: Bearer {0}\r\n",
        signer.token(&claims("u1"))
    );
    assert_eq!(shop.proxy.get("/", &twice).status, 400);
    assert_eq!(shop.requests(), 0);
    let mut written: Vec<String> = (0..=bad.len()).map(|_| shop.proxy.access_line().to_string()).collect();
    let metrics = shop.proxy.metrics();
    for outcome in [
        "expired",
        "not_yet_valid",
        "issuer",
        "audience",
        "claim",
        "signature",
        "unknown_key",
        "too_long",
    ] {
        assert!(
            metrics.contains(&format!("switchyard_tokens_total{{outcome=\"{outcome}\"}} ")),
            "{outcome}"
        );
    }
    written.push(metrics);
    shop.proxy.signal("INT");
    written.extend(shop.proxy.end().1);
    let pieces = bad
        .iter()
        .flat_map(|(_, token)| token.split('.'))
        .filter(|piece| piece.len() > 20);
    for piece in pieces {
        let found = written.iter().find(|line| line.contains(piece));
        assert!(found.is_none(), "{piece} is in {found:?}");
    }
}

#[test]
fn a_bad_token_is_nobody_s_where_the_file_says_so() {
    let signer = Signer::ec("es");
    let file = keys_file(&set(&[&signer]));
    let shop = Shop::new(&format!("jwks_file: {}, on_invalid: anonymous", file.display()));
    for (title, token) in &bad_tokens(&signer) {
        let answer = shop
            .proxy
            .get("/", &format!("Authorization: Bearer {token}\r\nX-User-Id: u1\r\n"));
        assert_eq!((answer.status, answer.body.as_str()), (200, "stable"), "{title}");
        assert_eq!(told_user(&shop.stable), Vec::<String>::new(), "{title}");
        assert_eq!(shop.proxy.access_line()["user"], Value::Null, "{title}");
    }
    assert_eq!(shop.with(&signer.token(&claims("u1"))).body, "canary");
}

#[test]
fn a_file_of_keys_is_read_again_and_a_broken_one_changes_nothing_and_is_told_once() {
    let (old, new) = (Signer::ed("old"), Signer::ed("new"));
    let file = keys_file(&set(&[&old]));
    let shop = Shop::new(&format!("jwks_file: {}", file.display()));
    let (by_old, by_new) = (old.token(&claims("u1")), new.token(&claims("u1")));
    assert_eq!((shop.with(&by_old).status, shop.with(&by_new).status), (200, 401));
    replace(&file, &set(&[&new, &old]));
    shop.proxy.wait_told("changed: 2", 1);
    assert_eq!((shop.with(&by_old).status, shop.with(&by_new).status), (200, 200));
    replace(&file, &set(&[&new]));
    shop.proxy.wait_told("changed: 1", 1);
    assert_eq!((shop.with(&by_old).status, shop.with(&by_new).status), (401, 200));
    replace(&file, "{}");
    shop.proxy.wait_told("the keys from before stay in use", 1);
    // Another file, as broken: looked at, and not told again.
    replace(&file, "{ }");
    let failed = || shop.proxy.metrics().contains("switchyard_jwks_failures_total 2");
    let since = std::time::Instant::now();
    while !failed() {
        assert!(since.elapsed() < PATIENCE, "it is not looked at again");
    }
    assert_eq!((shop.with(&by_old).status, shop.with(&by_new).status), (401, 200));
    replace(&file, &set(&[&new]));
    shop.proxy.wait_told("are there again: 1", 1);
    let alarms = shop.proxy.alarms();
    assert_eq!(alarms.len(), 1, "{alarms:?}");
}

/// An identity provider; what it answers can be changed.
fn provider(address: &str, keys: &Arc<Mutex<String>>) -> Origin {
    let keys = Arc::clone(keys);
    Origin::spawn_at(address, move |_, stream| {
        let keys = keys.lock().expect("lock").clone();
        if keys.is_empty() {
            drop(stream.write_all(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"));
            return false;
        }
        respond(stream, &keys)
    })
}

#[test]
fn keys_come_from_a_url_change_with_it_and_outlive_its_failures() {
    let (old, new) = (Signer::rsa("old", "rsa"), Signer::rsa("new", "other"));
    let (by_old, by_new) = (old.token(&claims("u1")), new.token(&claims("u1")));
    let answer = Arc::new(Mutex::new(set(&[&old])));
    let provider = provider("127.0.0.1:0", &answer);
    let url = format!(
        "jwks_url: \"http://{}/keys?private=1\", refresh: 100ms",
        provider.address
    );
    let shop = Shop::new(&url);
    assert_eq!(
        (shop.with(&by_old).body.as_str(), shop.with(&by_new).status),
        ("canary", 401)
    );
    *answer.lock().expect("lock") = set(&[&old, &new]);
    shop.proxy.wait_told("changed: 2", 1);
    assert_eq!((shop.with(&by_old).status, shop.with(&by_new).status), (200, 200));
    for broken in ["", "no keys", "{\"keys\":[]}"] {
        let told = ["500", "is no JSON Web Key Set", "holds no key"];
        *answer.lock().expect("lock") = broken.to_owned();
        let place = ["", "no keys", "{\"keys\":[]}"]
            .iter()
            .position(|b| *b == broken)
            .expect("one");
        shop.proxy.wait_told(told[place], 1);
        let seen = provider.heads().len();
        let since = std::time::Instant::now();
        while provider.heads().len() < seen + 2 {
            assert!(since.elapsed() < PATIENCE, "it is not fetched again");
        }
        assert_eq!(
            (shop.with(&by_old).status, shop.with(&by_new).status),
            (200, 200),
            "{broken:?}"
        );
    }
    *answer.lock().expect("lock") = set(&[&new]);
    shop.proxy.wait_told("changed: 1", 1);
    assert_eq!((shop.with(&by_old).status, shop.with(&by_new).status), (401, 200));
    let alarms = shop.proxy.alarms();
    assert_eq!(alarms.len(), 3, "each once: {alarms:?}");
    assert!(alarms.iter().all(|line| !line.contains("private")), "{alarms:?}");
}

#[test]
fn without_keys_tokens_cannot_be_judged_until_the_provider_is_there() {
    let signer = Signer::ec("es");
    let token = signer.token(&claims("u1"));
    let address = nowhere();
    let url = format!("jwks_url: \"http://{address}/keys\", refresh: 200ms");
    let shop = Shop::new(&url);
    shop.proxy
        .wait_told("requests with a token are answered 503 until they come", 1);
    assert_eq!(shop.with(&token).status, 503);
    assert_eq!(shop.proxy.get("/", "X-User-Id: u1\r\n").body, "canary");
    let anonymous = Shop::new(&format!("{url}, on_invalid: anonymous"));
    assert_eq!(anonymous.with(&token).body, "stable");
    let _provider = provider(&address, &Arc::new(Mutex::new(set(&[&signer]))));
    shop.proxy.wait_told("are there again: 1", 1);
    assert_eq!(shop.with(&token).body, "canary");
    anonymous.proxy.wait_told("are there again: 1", 1);
    assert_eq!(anonymous.with(&token).body, "canary");
}

#[test]
fn a_successor_without_keys_takes_nothing_over() {
    let (stable, canary) = (Origin::named("stable"), Origin::named("canary"));
    let file = std::env::temp_dir().join(format!("switchyard-it-{}-successor.yaml", std::process::id()));
    let jwt = format!("jwks_url: \"http://{}/keys\"", nowhere());
    let yaml = configuration(&stable, &canary, &jwt);
    let text = format!("listeners: [{{ address: \"127.0.0.1:0\" }}]\nadmin: off\nstore: {{ memory: {{}} }}\n{yaml}");
    std::fs::write(&file, text).expect("file");
    let ended = Command::new(program())
        .args(["serve", "-u", "-c"])
        .arg(&file)
        .env_remove("HTTP_PROXY")
        .env_remove("http_proxy")
        .output()
        .expect("the program");
    let told = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("no token can be checked without keys"), "{told}");
}

#[test]
fn a_flood_of_forged_tokens_leaves_those_alone_whose_tokens_are_known() {
    let signer = Signer::ec("es");
    let file = keys_file(&set(&[&signer]));
    let shop = Shop::new(&format!("jwks_file: {}", file.display()));
    let good = signer.token(&claims("u1"));
    assert_eq!(shop.with(&good).body, "canary");
    let forger = Signer::ec(signer.kid);
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let flood: Vec<_> = (0..8)
            .map(|n| {
                let (shop, forger, over) = (&shop, &forger, &over);
                scope.spawn(move || {
                    let mut refused = 0;
                    while !over.load(Ordering::Relaxed) || refused < 10 {
                        let forged = forger.token(&claims(&format!("{n}-{refused}")));
                        let status = shop.with(&forged).status;
                        assert!(matches!(status, 401 | 503), "{status}");
                        refused += 1;
                    }
                    refused
                })
            })
            .collect();
        for _ in 0..200 {
            assert_eq!(shop.with(&good).body, "canary");
        }
        over.store(true, Ordering::Relaxed);
        for thread in flood {
            assert!(thread.join().expect("no panic") >= 10);
        }
    });
}
