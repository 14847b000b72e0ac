//! What a change costs the table: compiling a spec, moving one user among many, and taking a list of a million.

use std::hint::black_box;
use std::time::{Duration, Instant};

use switchyard::rollout::{Known, PoolIdx, ReleaseName, RolloutName, RolloutSpec, Table, UserGroup};

const ROUNDS: usize = 21;
const MILLION: u32 = 1_000_000;

fn name() -> RolloutName {
    RolloutName::parse("shop").expect("name")
}

fn spec(targets: usize) -> RolloutSpec {
    let target = |n: usize| serde_json::json!({ "when": { "header": "X-App-Version", "regex": format!("^{n}\\.") }, "release": "canary" });
    serde_json::from_value(serde_json::json!({
        "releases": { "stable": { "pool": "s" }, "canary": { "pool": "c" } },
        "targets": (0..targets).map(target).collect::<Vec<_>>(),
        "split": { "canary": "10%" },
    }))
    .expect("a spec")
}

fn compiled(spec: &RolloutSpec) -> Table {
    let known = Known {
        pool: &|_| Some(PoolIdx(0)),
        segment: &|_| None,
    };
    Table::compile(&name(), spec, &known).expect("compiles")
}

fn group(users: impl Iterator<Item = u32>) -> Vec<UserGroup> {
    vec![UserGroup {
        release: ReleaseName::parse("canary").expect("name"),
        until: None,
        users: users.map(|n| format!("user-{n}").into()).collect(),
    }]
}

fn median(what: &str, rounds: usize, mut work: impl FnMut() -> Duration) {
    let mut times: Vec<Duration> = (0..rounds).map(|_| work()).collect();
    times.sort_unstable();
    println!("{what:<52} {:>12.1} µs", times[rounds / 2].as_nanos() as f64 / 1000.0);
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let since = Instant::now();
    black_box(work());
    since.elapsed()
}

fn main() {
    // `cargo test --benches` asks for a list and must end.
    if std::env::args().any(|a| a == "--list") {
        return;
    }
    for targets in [0, 5, 50] {
        let spec = spec(targets);
        median(
            &format!("compile, {targets} targets with an expression each"),
            ROUNDS,
            || timed(|| compiled(&spec)),
        );
    }
    let million = group(0..MILLION);
    median("pin a million users in an empty table", 5, || {
        let mut table = compiled(&spec(5));
        timed(|| table.edit_users(true, &[], &million).expect("known"))
    });
    for listed in [0, 100_000, MILLION] {
        let mut table = compiled(&spec(5));
        table.edit_users(true, &[], &group(0..listed)).expect("known");
        let one = group(listed..=listed);
        median(
            &format!("move one user in a table of {listed}, copy included"),
            ROUNDS,
            || {
                timed(|| {
                    let mut next = table.clone();
                    next.edit_users(false, &[], &one).expect("known");
                    next
                })
            },
        );
    }
}
