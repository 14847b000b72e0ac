//! Proofs of the core: golden vectors, properties over random histories, and every reason.

use std::net::IpAddr;

use http::HeaderName;
use switchyard::identity::{Identity, SourceKind, UserId};
use switchyard::rollout::{
    Attributes, Bucket, Known, PoolIdx, Reason, ReleaseName, RolloutName, RolloutSpec, Salt, Split, Table, UserGroup,
    Weight,
};

const BUCKETS: u32 = 1_000_000;

/// A small deterministic generator (SplitMix64, Steele et al. 2014), so that every run sees the same histories.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u32) -> u32 {
        u32::try_from(self.next() % u64::from(n)).expect("below n")
    }
}

fn name(text: &str) -> ReleaseName {
    ReleaseName::parse(text).expect("name")
}

fn weights(parts: &[u32]) -> Vec<(ReleaseName, Weight)> {
    let each = parts.iter().enumerate();
    each.map(|(n, p)| (name(&format!("r{n}")), Weight::new(*p).expect("weight")))
        .collect()
}

/// Random weights of `releases` releases that leave something or nothing to stable.
fn roll(dice: &mut Dice, releases: usize) -> Vec<u32> {
    let mut left = BUCKETS;
    let mut parts = vec![0; releases];
    for part in &mut parts {
        *part = match dice.below(4) {
            0 => 0,
            1 => left,
            _ => dice.below(left + 1),
        };
        left -= *part;
    }
    parts
}

fn owned(split: &Split, release: &str) -> u32 {
    let ranges = split.ranges().iter().filter(|r| r.release.as_str() == release);
    ranges.map(|r| r.to - r.from).sum()
}

/// How many buckets change from one owner to another.
fn moved(before: &Split, after: &Split) -> Vec<(String, String, u32)> {
    let mut edges: Vec<u32> = before
        .by_bucket()
        .iter()
        .chain(after.by_bucket())
        .map(|r| r.from)
        .collect();
    edges.sort_unstable();
    edges.dedup();
    edges.push(BUCKETS);
    let mut moves = Vec::new();
    for pair in edges.windows(2) {
        let bucket = Bucket::new(pair[0]).expect("bucket");
        let (from, to) = (before.owner(bucket), after.owner(bucket));
        if from != to {
            moves.push((from.to_string(), to.to_string(), pair[1] - pair[0]));
        }
    }
    moves
}

#[test]
fn buckets_are_those_of_the_golden_vectors() {
    let text = include_str!("fixtures/bucketing.json");
    let file: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let vectors = file["vectors"].as_array().expect("vectors");
    assert_eq!(vectors.len(), 22);
    for vector in vectors {
        let salt = Salt::new(vector["salt"].as_str().expect("salt"));
        let user = vector["user"].as_str().expect("user");
        let bucket = u64::from(salt.bucket(user.as_bytes()).get());
        assert_eq!(Some(bucket), vector["bucket"].as_u64(), "{user}");
    }
}

#[test]
fn a_change_of_weights_moves_exactly_those_who_must_move() {
    let mut dice = Dice(1);
    for history in 0..10_000 {
        let releases = 1 + dice.below(8) as usize;
        let mut split = Split::all_stable();
        for _ in 0..1 + dice.below(6) {
            let parts = roll(&mut dice, releases);
            let next = split.rebalance(&weights(&parts)).expect("at most everyone");
            for (n, part) in parts.iter().enumerate() {
                assert_eq!(owned(&next, &format!("r{n}")), *part, "history {history}");
            }
            let total: u32 = parts.iter().sum();
            assert_eq!(owned(&next, "stable"), BUCKETS - total);
            let names: Vec<String> = (0..releases)
                .map(|n| format!("r{n}"))
                .chain(["stable".to_owned()])
                .collect();
            let growth: u32 = names
                .iter()
                .map(|r| owned(&next, r).saturating_sub(owned(&split, r)))
                .sum();
            let moves = moved(&split, &next);
            assert_eq!(
                moves.iter().map(|(.., n)| n).sum::<u32>(),
                growth,
                "history {history}: more moved than had to"
            );
            for (from, to, _) in &moves {
                assert!(
                    owned(&next, from) < owned(&split, from),
                    "history {history}: {from} did not shrink"
                );
                assert!(
                    owned(&next, to) > owned(&split, to),
                    "history {history}: {to} did not grow"
                );
            }
            split = next;
        }
    }
}

#[test]
fn the_growth_of_one_release_moves_nobody_between_two_others_and_shrinking_back_restores_everyone() {
    let mut dice = Dice(2);
    for history in 0..10_000 {
        let releases = 2 + dice.below(7) as usize;
        let mut parts = roll(&mut dice, releases);
        let mut split = Split::all_stable();
        for _ in 0..dice.below(3) {
            parts = roll(&mut dice, releases);
            split = split.rebalance(&weights(&parts)).expect("at most everyone");
        }
        split = split.rebalance(&weights(&parts)).expect("at most everyone");
        let free = BUCKETS - parts.iter().sum::<u32>();
        let grows = dice.below(u32::try_from(releases).expect("few")) as usize;
        let mut grown_parts = parts.clone();
        grown_parts[grows] += dice.below(free + 1);
        let grown = split.rebalance(&weights(&grown_parts)).expect("at most everyone");
        for (from, to, _) in moved(&split, &grown) {
            assert_eq!(
                (from.as_str(), to),
                ("stable", format!("r{grows}")),
                "history {history}"
            );
        }
        let back = grown.rebalance(&weights(&parts)).expect("at most everyone");
        let same = (0..64).all(|_| {
            let bucket = Bucket::new(dice.below(BUCKETS)).expect("bucket");
            back.owner(bucket) == split.owner(bucket)
        });
        assert!(
            same && moved(&split, &back).is_empty(),
            "history {history}: {split:?} {grown:?} {back:?}"
        );
    }
}

#[test]
fn shares_of_users_are_those_of_the_weights_and_salts_are_independent() {
    const USERS: u32 = 200_000;
    let salts = [Salt::new("one"), Salt::new("two")];
    let mut both = [[0u32; 10]; 10];
    for user in 0..USERS {
        let id = format!("user-{user}");
        let [a, b] = salts.map(|salt| salt.bucket(id.as_bytes()).get() / (BUCKETS / 10));
        both[a as usize][b as usize] += 1;
    }
    let expected = f64::from(USERS) / 100.0;
    let chi: f64 = both
        .iter()
        .flatten()
        .map(|n| (f64::from(*n) - expected).powi(2) / expected)
        .sum();
    // 99 degrees of freedom: the 99.9th percentile of chi-square is 148.2.
    assert!(chi < 148.2, "{chi}");
    for row in both {
        let share = f64::from(row.iter().sum::<u32>()) / f64::from(USERS);
        // Five standard deviations of a binomial share of a tenth.
        assert!((share - 0.1).abs() < 5.0 * (0.09 / f64::from(USERS)).sqrt(), "{share}");
    }
}

#[derive(Default)]
struct Request {
    header: Option<(&'static str, &'static str)>,
    path: &'static str,
    client: Option<&'static str>,
}

impl Attributes for Request {
    fn header(&self, name: &HeaderName) -> Option<&[u8]> {
        self.header
            .filter(|(n, _)| *n == name.as_str())
            .map(|(_, v)| v.as_bytes())
    }

    fn cookie(&self, _name: &str) -> Option<&[u8]> {
        None
    }

    fn query(&self, _name: &str) -> Option<&[u8]> {
        None
    }

    fn path(&self) -> &str {
        self.path
    }

    fn client_ip(&self) -> Option<IpAddr> {
        self.client.map(|ip| ip.parse().expect("address"))
    }
}

fn spec(json: serde_json::Value) -> RolloutSpec {
    serde_json::from_value(json).expect("spec")
}

fn compile(spec: &RolloutSpec) -> Result<Table, Vec<String>> {
    let rollout = RolloutName::parse("checkout").expect("name");
    let pool = |name: &switchyard::rollout::PoolName| match name.as_str() {
        "s" => Some(PoolIdx(0)),
        "c" => Some(PoolIdx(1)),
        _ => None,
    };
    let known = Known {
        pool: &pool,
        segment: &|_| None,
    };
    Table::compile(&rollout, spec, &known).map_err(|problems| {
        problems
            .into_iter()
            .map(|p| format!("{}: {}", p.path, p.message))
            .collect()
    })
}

fn user(id: &str) -> Identity {
    Identity::User {
        id: UserId::new(id.as_bytes()).expect("id"),
        source: SourceKind::Header,
    }
}

fn checkout() -> serde_json::Value {
    serde_json::json!({
        "releases": { "stable": { "pool": "s" }, "canary": { "pool": "c" } },
        "users": { "alone": "canary", "alone-stable": "stable" },
        "targets": [
            { "users": ["listed", "alone-stable"], "release": "canary" },
            { "when": { "header": "X-App-Version", "semver": ">=5.2.0" }, "release": "canary" },
            { "when": { "path": "/beta" }, "release": "canary" },
            { "when": { "cidr": "10.0.0.0/8" }, "release": "canary" },
            { "when": { "header": "X-Group", "regex": "^qa-" }, "release": "canary" },
        ],
        "split": { "canary": "50%" },
        "unhealthy": "stable",
    })
}

#[test]
fn every_reason_has_its_case() {
    let table = compile(&spec(checkout())).expect("compiles");
    let decide = |identity: &Identity, request: &Request| {
        let decision = table.decide(identity, request);
        (table.release(decision.release).name.to_string(), decision.reason)
    };
    let plain = Request {
        path: "/",
        ..Request::default()
    };
    let got = |release: &str, reason| (release.to_owned(), reason);
    assert_eq!(decide(&user("alone"), &plain), got("canary", Reason::User));
    assert_eq!(decide(&user("alone-stable"), &plain), got("stable", Reason::User));
    assert_eq!(decide(&user("listed"), &plain), got("canary", Reason::Target));
    assert_eq!(decide(&Identity::Anonymous, &plain), got("stable", Reason::Anonymous));
    for request in [
        Request {
            header: Some(("x-app-version", "v5.2")),
            path: "/",
            client: None,
        },
        Request {
            header: Some(("x-group", "qa-7")),
            path: "/",
            client: None,
        },
        Request {
            path: "/beta/x",
            ..Request::default()
        },
        Request {
            path: "/",
            client: Some("::ffff:10.1.2.3"),
            ..Request::default()
        },
    ] {
        assert_eq!(decide(&Identity::Anonymous, &request), got("canary", Reason::Target));
    }
    for request in [
        Request {
            header: Some(("x-app-version", "5.1.9")),
            path: "/betamax",
            client: Some("11.0.0.1"),
        },
        Request {
            header: Some(("x-app-version", "new")),
            path: "/",
            client: None,
        },
    ] {
        assert_eq!(decide(&Identity::Anonymous, &request), got("stable", Reason::Anonymous));
    }
    let halves: Vec<_> = (0..100).map(|n| decide(&user(&n.to_string()), &plain)).collect();
    assert!(halves.contains(&got("canary", Reason::Split)) && halves.contains(&got("stable", Reason::Stable)));
    let visitor = Identity::Visitor {
        id: UserId::new(b"listed").expect("id"),
    };
    assert!(matches!(decide(&visitor, &plain).1, Reason::Split | Reason::Stable));
    let pinned = table.decide(&user("alone"), &plain);
    let fallback = table.fallback(&pinned).expect("unhealthy: stable");
    assert_eq!((fallback.release, fallback.reason), (table.stable(), Reason::Fallback));
    let mut killed = spec(checkout());
    killed.killed = true;
    let killed = compile(&killed).expect("compiles").decide(&user("alone"), &plain);
    assert_eq!((killed.reason, killed.bucket), (Reason::Killed, None));
}

#[test]
fn one_users_move_changes_that_user_only() {
    let table = compile(&spec(checkout())).expect("compiles");
    let canary = table.index(&name("canary")).expect("canary");
    let plain = Request {
        path: "/",
        ..Request::default()
    };
    let edited = |table: &Table, unset: &[Box<str>], set: &[UserGroup]| {
        let mut next = table.clone();
        next.edit_users(false, unset, set).expect("known releases");
        next
    };
    let group = UserGroup {
        release: name("canary"),
        until: None,
        users: vec!["mover".into()],
    };
    let with = edited(&table, &[], &[group]);
    assert_eq!(with.single_user("mover"), Some(&name("canary")));
    assert_eq!(with.index(&name("canary")), Some(canary));
    assert_eq!(with.decide(&user("mover"), &plain).reason, Reason::User);
    let without = edited(&with, &["mover".into()], &[]);
    for n in 0..1000 {
        let who = user(&format!("u{n}"));
        assert_eq!(table.decide(&who, &plain), with.decide(&who, &plain));
    }
    assert_eq!(
        without.decide(&user("mover"), &plain),
        table.decide(&user("mover"), &plain)
    );
}

#[test]
fn all_problems_are_listed_with_their_place() {
    let broken = spec(serde_json::json!({
        "releases": { "canary": { "pool": "nowhere" } },
        "users": { "": "canary", "x": "gone" },
        "targets": [
            { "users": ["a"], "when": { "path": "/" }, "release": "canary" },
            { "segment": "testers", "release": "canary" },
            { "when": { "header": "X", "regex": "(" }, "release": "beta" },
            { "when": { "path": "beta" }, "release": "canary" },
            { "when": { "cookie": "c" }, "release": "canary" },
            { "when": { "claim": "sub" }, "release": "canary" },
        ],
        "split": { "canary": "60%", "beta": "50%" },
        "salt": "",
    }));
    let problems = compile(&broken).expect_err("broken");
    for expected in [
        "releases: has no release stable",
        "releases.canary.pool: pool \"nowhere\" does not exist",
        "users.: the user id is empty",
        "users.x: release \"gone\" does not exist: write one of canary",
        "targets[0]: says not exactly one of",
        "targets[1].segment: segment \"testers\" does not exist",
        "targets[2].release: release \"beta\" does not exist",
        "targets[2].when.regex: \"(\" is no regular expression",
        "targets[3].when.path: \"beta\" does not begin with '/'",
        "targets[4].when: says not exactly one thing about cookie \"c\"",
        "targets[5].when: says not exactly one thing about claim \"sub\"",
        "split.beta: release \"beta\" does not exist",
        "split: weights add up to 110%, more than 100%",
        "salt: is empty",
    ] {
        assert!(
            problems.iter().any(|p| p.starts_with(expected)),
            "{expected} is not in {problems:#?}"
        );
    }
    assert_eq!(problems.len(), 14, "{problems:#?}");
}

#[test]
fn stored_ranges_must_agree_with_the_weights() {
    let mut stored = spec(checkout());
    let split = compile(&stored).expect("compiles").split().clone();
    stored.ranges = Some(split.ranges().to_vec());
    compile(&stored).expect("ranges that agree");
    stored
        .split
        .insert(name("canary"), Weight::parse("40%").expect("weight"));
    assert!(compile(&stored).expect_err("no longer agree")[0].starts_with("ranges: do not agree with split"));
    stored.ranges = Some(split.ranges()[1..].to_vec());
    assert!(compile(&stored).expect_err("a hole")[0].starts_with("ranges: stored ranges do not cover"));
}
