//! Explain and plan agree with what is decided, over random rollouts, users and requests.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::HeaderName;
use serde_json::{Value, json};
use switchyard::identity::{Identity, SourceKind, UserId};
use switchyard::rollout::{
    Attributes, Bucket, Known, Members, Move, PoolIdx, Reason, ReleaseName, RolloutName, RolloutSpec, Seen, SeenUser,
    Table, Weight,
};

/// SplitMix64 (Steele et al. 2014): every run sees the same cases.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn one_of<'a>(&mut self, all: &[&'a str]) -> &'a str {
        all[usize::try_from(self.below(all.len() as u64)).expect("a place")]
    }

    fn user(&mut self) -> String {
        self.below(60).to_string()
    }

    fn users(&mut self) -> Vec<String> {
        (0..self.below(6)).map(|_| self.user()).collect()
    }
}

struct Request {
    header: Option<&'static str>,
    cookie: Option<&'static str>,
    query: Option<&'static str>,
    path: &'static str,
    client: Option<IpAddr>,
}

impl Attributes for Request {
    fn header(&self, name: &HeaderName) -> Option<&[u8]> {
        self.header.filter(|_| name == "x-app").map(str::as_bytes)
    }

    fn cookie(&self, name: &str) -> Option<&[u8]> {
        self.cookie.filter(|_| name == "c").map(str::as_bytes)
    }

    fn query(&self, name: &str) -> Option<&[u8]> {
        self.query.filter(|_| name == "q").map(str::as_bytes)
    }

    fn path(&self) -> &str {
        self.path
    }

    fn client_ip(&self) -> Option<IpAddr> {
        self.client
    }
}

fn request(dice: &mut Dice) -> Request {
    Request {
        header: [None, Some("5.1.0"), Some("6.0.0"), Some("nonsense")][dice.below(4) as usize],
        cookie: [None, Some("on")][dice.below(2) as usize],
        query: [None, Some("yes"), Some("yesterday")][dice.below(3) as usize],
        path: dice.one_of(&["/", "/beta", "/beta/x", "/betamax"]),
        client: [None, Some(IpAddr::from([10, 0, 0, 1]))][dice.below(2) as usize],
    }
}

fn target(dice: &mut Dice, attributes: bool) -> Value {
    let release = dice.one_of(&["stable", "canary", "beta"]);
    let what = match dice.below(if attributes { 7 } else { 2 }) {
        0 => return json!({"segment": "testers", "release": release}),
        1 => return json!({"users": dice.users(), "release": release}),
        2 => json!({"header": "X-App", "semver": ">=5.2.0"}),
        3 => json!({"cookie": "c", "equals": "on"}),
        4 => json!({"query": "q", "prefix": "yes"}),
        5 => json!({"path": "/beta"}),
        _ => json!({"cidr": "10.0.0.0/8"}),
    };
    json!({"when": what, "release": release})
}

fn spec(dice: &mut Dice, attributes: bool) -> RolloutSpec {
    let canary = dice.below(1_000_001);
    let beta = dice.below(1_000_001 - canary);
    let share = |parts: u64| {
        Weight::new(u32::try_from(parts).expect("parts"))
            .expect("a share")
            .to_string()
    };
    let users: BTreeMap<String, &str> = dice
        .users()
        .into_iter()
        .map(|user| (user, dice.one_of(&["stable", "canary", "beta"])))
        .collect();
    let targets: Vec<Value> = (0..dice.below(4)).map(|_| target(dice, attributes)).collect();
    let written = json!({
        "releases": {"beta": {"pool": "p"}, "canary": {"pool": "p"}, "stable": {"pool": "p"}},
        "users": users,
        "targets": targets,
        "split": {"canary": share(canary), "beta": share(beta)},
        "killed": dice.below(10) == 0,
    });
    serde_json::from_value(written).expect("a spec")
}

fn compile(spec: &RolloutSpec) -> Table {
    let mut members = Members::none();
    members.edit(false, &[], &["1".into(), "2".into(), "3".into()]);
    let known = Known {
        pool: &|_| Some(PoolIdx(0)),
        segment: &|_| Some(members.clone()),
    };
    let name = RolloutName::parse("checkout").expect("a name");
    Table::compile(&name, spec, &known).expect("a table")
}

fn identity(dice: &mut Dice) -> Identity {
    let id = UserId::new(dice.user().as_bytes()).expect("an id");
    match dice.below(8) {
        0 => Identity::Anonymous,
        1 => Identity::Visitor { id },
        _ => Identity::User {
            id,
            source: SourceKind::Header,
        },
    }
}

#[test]
fn explain_decides_as_decide_does_and_its_last_step_is_the_one_that_matched() {
    let mut dice = Dice(3);
    for _ in 0..600 {
        let spec = spec(&mut dice, true);
        let table = compile(&spec);
        for _ in 0..20 {
            let (identity, request) = (identity(&mut dice), request(&mut dice));
            let decision = table.decide(&identity, &request);
            let (explained, told) = table.explain(&spec, &identity, &request);
            assert_eq!(explained, decision);
            assert_eq!(told.release, table.release(decision.release).name);
            assert_eq!(told.reason, decision.reason.as_str());
            assert_eq!(told.bucket, decision.bucket.map(Bucket::get));
            let (last, before) = told.steps.split_last().expect("a step");
            assert!(last.matched && before.iter().all(|step| !step.matched), "{told:?}");
            assert!(told.steps.iter().all(|step| !step.why.is_empty()), "{told:?}");
            let word = match told.reason.as_str() {
                "killed" => "kill",
                "user" => "user",
                "target" => "targets[",
                _ => "split",
            };
            assert!(last.step.starts_with(word), "{told:?}");
        }
    }
}

#[test]
fn the_share_at_which_a_user_enters_is_exact() {
    let mut dice = Dice(5);
    let request = request(&mut Dice(1));
    for _ in 0..300 {
        let spec = spec(&mut dice, false);
        let table = compile(&spec);
        let identity = identity(&mut dice);
        let (_, told) = table.explain(&spec, &identity, &request);
        let Some(bucket) = told.bucket.and_then(Bucket::new) else {
            continue;
        };
        for entry in &told.enters {
            let owner_with = |share: u32| {
                let weights: Vec<(ReleaseName, Weight)> = table
                    .weights()
                    .filter(|(name, _)| name.as_str() != ReleaseName::STABLE)
                    .map(|(name, weight)| {
                        let own = Weight::new(share).filter(|_| *name == entry.release);
                        (name.clone(), own.unwrap_or(weight))
                    })
                    .collect();
                let split = table.split().rebalance(&weights).expect("within everyone");
                split.owner(bucket).clone()
            };
            let Some(share) = entry.share.map(Weight::parts_per_million) else {
                assert!(!entry.inside);
                let free = weight(&table, ReleaseName::STABLE) + weight(&table, entry.release.as_str());
                assert_ne!(owner_with(free), entry.release, "{entry:?}");
                continue;
            };
            assert_eq!(owner_with(share), entry.release, "{entry:?}");
            assert_ne!(owner_with(share - 1), entry.release, "{entry:?}");
            assert_eq!(entry.inside, share <= weight(&table, entry.release.as_str()));
        }
    }
}

fn weight(table: &Table, release: &str) -> u32 {
    let found = table.weights().find(|(name, _)| name.as_str() == release);
    found.map_or(0, |(_, weight)| weight.parts_per_million())
}

#[test]
fn a_plan_tells_exactly_who_of_the_seen_moves() {
    let mut dice = Dice(7);
    let request = request(&mut Dice(1));
    for _ in 0..300 {
        let (before, after) = (compile(&spec(&mut dice, false)), compile(&spec(&mut dice, false)));
        let mut seen = Vec::new();
        let mut expected: BTreeMap<(ReleaseName, ReleaseName), usize> = BTreeMap::new();
        for _ in 0..40 {
            let identity = identity(&mut dice);
            let decision = before.decide(&identity, &request);
            let Some(bucket) = decision.bucket else { continue };
            seen.push(Seen {
                user: identity.user().map(|id| SeenUser::of(id.as_bytes())),
                bucket,
                release: decision.release,
                reason: decision.reason,
            });
            let from = before.release(decision.release).name.clone();
            let to = after.release(after.decide(&identity, &request).release).name.clone();
            if from != to {
                *expected.entry((from, to)).or_default() += 1;
            }
        }
        let plan = before.plan(&after, &seen);
        let moves: Vec<Move> = expected
            .into_iter()
            .map(|((from, to), users)| Move { from, to, users })
            .collect();
        assert_eq!((plan.moves, plan.unknown, plan.seen), (moves, 0, seen.len()));
    }
}

#[test]
fn a_plan_of_many_users_and_many_targets_looks_each_of_them_up_once() {
    // Each user looked for in each target would be four times four hundred million look-ups.
    let many = 20_000;
    let of_all = |release: &str| {
        let target = |n: u32| json!({ "users": [n.to_string()], "release": release });
        let targets: Vec<Value> = (0..many).map(target).collect();
        let pool = json!({ "pool": "p" });
        let releases = json!({ "stable": pool, "canary": pool, "beta": pool });
        let spec = json!({ "releases": releases, "targets": targets });
        compile(&serde_json::from_value(spec).expect("a spec"))
    };
    let (before, after) = (of_all("canary"), of_all("beta"));
    let seen: Vec<Seen> = (0..many)
        .map(|n| {
            let id = UserId::new(n.to_string().as_bytes()).expect("an id");
            let user = Some(SeenUser::of(id.as_bytes()));
            Seen {
                user,
                bucket: Bucket::new(0).expect("a bucket"),
                release: before
                    .index(&ReleaseName::parse("canary").expect("a name"))
                    .expect("it is there"),
                reason: Reason::Target,
            }
        })
        .collect();
    let moved = before.plan(&after, &seen).moves;
    let name = |text: &str| ReleaseName::parse(text).expect("a name");
    let (from, to, users) = (name("canary"), name("beta"), seen.len());
    assert_eq!(moved, [Move { from, to, users }]);
}
