//! Wire-level attacks: bytes that two parsers could read in two ways, forged identities, faulty origins. Each is
//! played against the program with an origin that keeps every byte; `tests/fixtures/attacks.json` says what may come
//! of it. Afterwards another client must get its own answer, and no one else's.

mod case;
mod client;
mod judge;
mod origin;
mod slow;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use self::case::{Case, Proto, Script};
use self::origin::Recorder;
use crate::harness::{Proxy, exchange};

/// Programs that share the cases of a test.
const LANES: usize = 3;

const PLAIN: &str = "GET /c/canary HTTP/1.1\r\nHost: t.example\r\nConnection: close\r\n\r\n";

const IDENTITY: &str = "identity:\n  sources: [ { header: X-User-Id }, { cookie: uid }, { query: uid } ]\n";

fn configuration(origin: &str, connections: &str) -> String {
    format!(
        "{IDENTITY}pools: {{ only: {{ endpoints: [\"{origin}\"]{connections} }} }}\n\
         routes: [ {{ match: {{ host: t.example }}, pool: only }} ]\n"
    )
}

/// A listener with more said of it, such as `, h2c: true`.
fn on(more: &str) -> String {
    format!("{{ address: \"127.0.0.1:0\"{more} }}")
}

/// Plays cases one after another against a program of its own, until none is left.
fn lane(listener: &str, connections: &str, cases: &[&Case], next: &AtomicUsize) -> Vec<String> {
    let origin = Recorder::spawn();
    let proxy = Proxy::start_on(&on(listener), &configuration(&origin.address, connections), &[]);
    let mut wrong = Vec::new();
    while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
        for fault in play(case, &proxy, &origin) {
            wrong.push(format!("{} ({}): {fault}", case.id, case.title));
        }
    }
    let alarms = proxy.alarms();
    wrong.extend(alarms.into_iter().filter(|line| line.contains("panicked")));
    wrong
}

fn play(case: &Case, proxy: &Proxy, origin: &Recorder) -> Vec<String> {
    let mark = origin.begin(case.upstream_script.clone());
    let seen = client::play(&proxy.http, case);
    origin.behave();
    let after = exchange(&proxy.http, case.follow_up.as_deref().unwrap_or(PLAIN));
    let mut wrong = judge::judge(case, &seen, &origin.end(&mark), &after.body);
    if after.status != 200 || !after.body.starts_with("own:/c/") {
        wrong.push(format!("the next client got {} {:?}", after.status, after.body));
    }
    wrong
}

fn all_are_inside(listener: &str, connections: &str, chosen: impl Fn(&Case) -> bool) {
    let cases = case::all();
    let cases: Vec<&Case> = cases.iter().filter(|case| chosen(case)).collect();
    assert!(!cases.is_empty(), "no case is chosen");
    let next = AtomicUsize::new(0);
    let wrong: Vec<String> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES.min(cases.len()))
            .map(|_| scope.spawn(|| lane(listener, connections, &cases, &next)))
            .collect();
        lanes.into_iter().flat_map(|l| l.join().expect("no panic")).collect()
    });
    assert!(
        wrong.is_empty(),
        "{} of {}:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
}

/// Whether its origin takes longer than a head may take.
fn is_slow(case: &Case) -> bool {
    let slow = |script: &Script| script.drip.is_some() || script.then == case::Then::Hang;
    case.upstream_script.as_ref().is_some_and(slow)
}

#[test]
fn attacks_over_http_1_are_held() {
    all_are_inside("", "", |case| case.proto != Proto::H2 && !is_slow(case));
}

#[test]
fn attacks_over_http_1_are_held_where_http_2_is_spoken_too() {
    // There, the preface of HTTP/2 is no attack.
    all_are_inside(", h2c: true", "", |case| {
        case.proto == Proto::H1 && case.id != "HDR-044"
    });
}

#[test]
fn attacks_over_http_2_are_held() {
    all_are_inside(", h2c: true", "", |case| case.proto == Proto::H2);
}

#[test]
fn an_origin_that_drips_its_head_is_given_up() {
    let short = ", connections: { response_header_timeout: 500ms }";
    all_are_inside("", short, is_slow);
}

#[test]
fn every_case_has_its_own_id_and_something_to_judge() {
    let cases = case::all();
    let ids: BTreeSet<&str> = cases.iter().map(|case| case.id.as_str()).collect();
    assert_eq!(ids.len(), cases.len());
    for case in &cases {
        assert!(!case.accept.is_empty() && !case.steps.is_empty(), "{}", case.id);
        assert!(!case.class.is_empty(), "{}", case.id);
        assert!(case.note.as_ref().is_none_or(|note| !note.is_empty()), "{}", case.id);
    }
}
