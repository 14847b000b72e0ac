//! What a decision costs: nanoseconds and allocations, with 100,000 listed users and five targets, for every way a
//! request can end up. The bar is 100 ns and no allocation.

use std::alloc::System;
use std::hint::black_box;
use std::net::IpAddr;
use std::time::Instant;

use http::HeaderName;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use switchyard::identity::{Identity, SourceKind, UserId};
use switchyard::rollout::{Attributes, Known, PoolIdx, RolloutName, RolloutSpec, Table};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const LISTED: u32 = 100_000;
const ROUNDS: usize = 51;
const DECISIONS: usize = 20_000;

/// A request of a browser, as rules look at it.
struct Request;

impl Attributes for Request {
    fn header(&self, name: &HeaderName) -> Option<&[u8]> {
        match name.as_str() {
            "x-app-version" => Some(b"5.1.9"),
            "user-agent" => Some(b"Mozilla/5.0 (X11; Linux x86_64)"),
            _ => None,
        }
    }

    fn cookie(&self, _name: &str) -> Option<&[u8]> {
        None
    }

    fn query(&self, _name: &str) -> Option<&[u8]> {
        None
    }

    fn path(&self) -> &str {
        "/checkout/cart"
    }

    fn client_ip(&self) -> Option<IpAddr> {
        Some(IpAddr::from([203, 0, 113, 7]))
    }
}

fn table(killed: bool) -> Table {
    let listed: serde_json::Map<_, _> = (0..LISTED).map(|n| (format!("listed-{n}"), "canary".into())).collect();
    let spec: RolloutSpec = serde_json::from_value(serde_json::json!({
        "releases": { "stable": { "pool": "s" }, "canary": { "pool": "c" } },
        "users": listed,
        "targets": [
            { "users": ["42", "1001"], "release": "canary" },
            { "when": { "header": "X-App-Version", "semver": ">=5.2.0" }, "release": "canary" },
            { "when": { "header": "User-Agent", "prefix": "Preview/" }, "release": "canary" },
            { "when": { "path": "/beta" }, "release": "canary" },
            { "when": { "cidr": "192.0.2.0/24" }, "release": "canary" },
        ],
        "split": { "canary": "10%" },
        "killed": killed,
    }))
    .expect("a spec");
    let known = Known {
        pool: &|_| Some(PoolIdx(0)),
        segment: &|_| None,
    };
    Table::compile(&RolloutName::parse("shop").expect("name"), &spec, &known).expect("compiles")
}

fn users(of: impl Fn(u32) -> String) -> Vec<Identity> {
    let user = |n: u32| Identity::User {
        // A stride that visits the listed users out of order, as traffic does.
        id: UserId::new(of(n * 7919 % LISTED).as_bytes()).expect("id"),
        source: SourceKind::Header,
    };
    (0..u32::try_from(DECISIONS).expect("fits")).map(user).collect()
}

/// Median nanoseconds, and allocations in all.
fn measure(table: &Table, identities: &[Identity]) -> (f64, usize) {
    let mut nanos = Vec::with_capacity(ROUNDS);
    let region = Region::new(ALLOCATOR);
    let before = region.change().allocations;
    for _ in 0..ROUNDS {
        let since = Instant::now();
        for identity in identities {
            black_box(table.decide(black_box(identity), &Request));
        }
        nanos.push(since.elapsed().as_nanos() as f64 / identities.len() as f64);
    }
    let allocations = region.change().allocations - before;
    nanos.sort_by(f64::total_cmp);
    (nanos[ROUNDS / 2], allocations)
}

fn cases() -> [(&'static str, Table, Vec<Identity>); 4] {
    [
        ("listed user", table(false), users(|n| format!("listed-{n}"))),
        (
            "by hash, after all targets",
            table(false),
            users(|n| format!("user-{n}")),
        ),
        (
            "nobody, after all targets",
            table(false),
            vec![Identity::Anonymous; DECISIONS],
        ),
        ("killed", table(true), users(|n| format!("user-{n}"))),
    ]
}

/// Decides so often and nothing else, for a program that counts instructions (`make bench-check`).
fn decide_only(case: &str, decisions: usize) {
    let all = cases();
    let found = all.iter().find(|(what, ..)| *what == case);
    let (_, table, identities) = found.expect("a case of this bench");
    for identity in identities.iter().cycle().take(decisions) {
        black_box(table.decide(black_box(identity), &Request));
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    // `cargo test --benches` asks for a list and must end.
    if arguments.iter().any(|a| a == "--list") {
        return;
    }
    if let [word, case, decisions] = &arguments[..] {
        assert_eq!(word, "count", "count CASE DECISIONS");
        return decide_only(case, decisions.parse().expect("a number"));
    }
    println!("{LISTED} listed users, 5 targets; median of {ROUNDS} rounds");
    println!("{:<34} {:>8} {:>12}", "", "ns each", "allocations");
    for (what, table, identities) in &cases() {
        let (nanos, allocations) = measure(table, identities);
        println!("{what:<34} {nanos:>8.1} {allocations:>12}");
    }
}
