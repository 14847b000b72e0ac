//! What a segment of many millions costs: bytes an id, deciding through it (hit and miss, caches warm and cold), building
//! and opening it; beside a hash set, a sorted array and roaring. Prints medians; `make bench` runs it with 10 million ids,
//! `make bench-segments` with 100 million.

use std::collections::HashSet;
use std::hint::black_box;
use std::time::{Duration, Instant};

use roaring::RoaringTreemap;
use switchyard::identity::{Identity, SourceKind, UserId};
use switchyard::rollout::{
    Gathered, Known, Members, NamesMark, NoAttributes, PoolIdx, ReleaseName, RolloutName, RolloutSpec, Roster,
    RosterKey, Table, write_roster,
};

const KEY: RosterKey = RosterKey([7, 11]);
const ASKED: usize = 1 << 20;
const ROUNDS: usize = 7;
/// Ids that are copied at once: few enough for the second cache.
const AT_HAND: usize = 1 << 10;
/// Larger than the caches.
const COLD_BYTES: usize = 64 << 20;
const COLD_ASKED: usize = 200;

/// SplitMix64 of a number: ids that are spread over all that there are.
fn mixed(n: u64) -> u64 {
    let mut n = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// The `n`th id: even ones are members.
#[derive(Clone, Copy)]
enum Ids {
    /// One after the other, as a database numbers its users.
    Dense,
    /// Anywhere in 64 bits.
    Spread,
    Uuids,
    Mails,
}

impl Ids {
    fn id(self, n: u64) -> String {
        match self {
            Self::Dense => n.to_string(),
            Self::Spread => mixed(n).to_string(),
            Self::Uuids => {
                let (a, b) = (mixed(n), mixed(!n));
                let (p, q, r) = (a >> 32, a >> 16 & 0xffff, a & 0xfff);
                format!(
                    "{p:08x}-{q:04x}-4{r:03x}-a{:03x}-{:012x}",
                    b >> 52,
                    b & 0xffff_ffff_ffff
                )
            }
            Self::Mails => format!("user.{}@example.com", mixed(n)),
        }
    }

    fn number(self, n: u64) -> Option<u64> {
        match self {
            Self::Dense => Some(n),
            Self::Spread => Some(mixed(n)),
            Self::Uuids | Self::Mails => None,
        }
    }
}

fn asked(ids: Ids, count: u64, odd: u64) -> Vec<Identity> {
    let user = |nth: usize| Identity::User {
        id: UserId::new(ids.id(mixed(nth as u64) % count * 2 + odd).as_bytes()).expect("id"),
        source: SourceKind::Header,
    };
    (0..ASKED).map(user).collect()
}

fn table(members: &Members) -> Table {
    let spec: RolloutSpec = serde_json::from_value(serde_json::json!({
        "releases": { "stable": { "pool": "s" }, "canary": { "pool": "c" } },
        "targets": [{ "segment": "many", "release": "canary" }],
    }))
    .expect("a spec");
    let known = Known {
        pool: &|_| Some(PoolIdx(0)),
        segment: &|_| Some(members.clone()),
    };
    Table::compile(&RolloutName::parse("shop").expect("name"), &spec, &known).expect("compiles")
}

/// Median nanoseconds of one of many, one after the other. What is asked for is at hand, as an id is that a request has
/// just brought: so many are copied at a time, and that is not counted.
fn warm<T: Clone>(all: &[T], mut ask: impl FnMut(&T) -> bool) -> f64 {
    let mut nanos: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let mut took = Duration::ZERO;
            for some in all.chunks(AT_HAND) {
                let some = some.to_vec();
                let since = Instant::now();
                for one in &some {
                    black_box(ask(black_box(one)));
                }
                took += since.elapsed();
            }
            took.as_nanos() as f64 / all.len() as f64
        })
        .collect();
    nanos.sort_by(f64::total_cmp);
    nanos[ROUNDS / 2]
}

/// Median nanoseconds of one alone, whose lines are in no cache.
fn cold<T>(all: &[T], mut ask: impl FnMut(&T) -> bool) -> f64 {
    let mut flush = vec![0u8; COLD_BYTES];
    let mut nanos = Vec::new();
    for one in all.iter().take(COLD_ASKED) {
        flush
            .iter_mut()
            .step_by(64)
            .for_each(|byte| *byte = byte.wrapping_add(1));
        black_box(&mut flush);
        let since = Instant::now();
        black_box(ask(black_box(one)));
        nanos.push(since.elapsed().as_nanos() as f64);
    }
    nanos.sort_by(f64::total_cmp);
    nanos[nanos.len() / 2]
}

/// Nanoseconds of a read whose place is told by the read before it, anywhere in so many bytes: what a miss of all caches
/// takes on this machine, by which the others are to be judged.
fn read_that_waits(bytes: usize) -> f64 {
    let memory: Vec<u64> = (0..(bytes / 8) as u64).map(mixed).collect();
    let steps = vec![(); ASKED];
    let mut place = 1; // mixed(0) is 0, from which nothing leads on
    warm(&steps, |()| {
        place = black_box(memory[place % memory.len()] as usize ^ place.rotate_left(1));
        true
    })
}

fn seconds<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let since = Instant::now();
    let done = work();
    println!("  {what:<44} {:>9.3} s", since.elapsed().as_secs_f64());
    done
}

fn roster(name: &str, ids: Ids, count: u64) {
    println!("{name}, {count} of them");
    let mut gathered = Gathered::new(KEY, 2);
    seconds("gathered, the making of the ids included", || {
        (0..count).for_each(|n| gathered.add(&ids.id(2 * n)));
    });
    let mut sorted = seconds("sorted", || gathered.sorted().expect("few"));
    let mut bytes = Vec::new();
    let written = seconds("written, with its digest", || {
        write_roster(&mut sorted, NamesMark::default(), &mut bytes).expect("memory")
    });
    assert_eq!(written.users, sorted.users());
    drop(sorted);
    let roster = seconds("opened: digest compared, places looked at", || {
        Roster::open(bytes.into(), written.digest).expect("what was written")
    });
    println!(
        "  {:<44} {:>9.2} bytes",
        "an id",
        roster.size() as f64 / written.users as f64
    );
    let table = table(&Members::of(roster));
    let canary = table
        .index(&ReleaseName::parse("canary").expect("name"))
        .expect("a release");
    let decide = |identity: &Identity| table.decide(identity, &NoAttributes).release == canary;
    for (what, odd) in [("a hit", 0), ("a miss", 1)] {
        let users = asked(ids, count, odd);
        assert_eq!(
            users.iter().filter(|user| decide(user)).count(),
            if odd == 0 { ASKED } else { 0 }
        );
        println!(
            "  decide, {what:<36} {:>9.1} ns, cold {:.0} ns",
            warm(&users, decide),
            cold(&users, decide)
        );
    }
}

/// The same numbers otherwise.
fn others(name: &str, ids: Ids, count: u64) {
    let numbers: Vec<u64> = (0..count).filter_map(|n| ids.number(2 * n)).collect();
    let asked = |odd: u64| -> Vec<u64> {
        let number = |nth: usize| ids.number(mixed(nth as u64) % count * 2 + odd);
        (0..ASKED).filter_map(number).collect()
    };
    let (hits, misses) = (asked(0), asked(1));
    let show = |what: &str, bytes: f64, ask: &dyn Fn(&u64) -> bool| {
        let (hit, miss) = (warm(&hits, ask), warm(&misses, ask));
        println!("  {name}, {what:<30} {bytes:>6.2} bytes an id, hit {hit:>6.1} ns, miss {miss:>6.1} ns");
    };
    let tree: RoaringTreemap = numbers.iter().copied().collect();
    let bytes = tree.serialized_size() as f64 / count as f64;
    show("roaring", bytes, &|n| tree.contains(*n));
    drop(tree);
    let set: HashSet<u64> = numbers.iter().copied().collect();
    let slots = (set.capacity() * 8 / 7).next_power_of_two();
    show("hash set", (slots * 9) as f64 / count as f64, &|n| set.contains(n));
    drop(set);
    let mut array = numbers;
    array.sort_unstable();
    show("sorted array", 8.0, &|n| array.binary_search(n).is_ok());
}

fn main() {
    // `cargo test --benches` asks for a list and must end.
    if std::env::args().any(|a| a == "--list") {
        return;
    }
    let millions: u64 = std::env::var("MILLIONS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(10);
    let count = millions * 1_000_000;
    let bytes = 7 * count as usize;
    println!(
        "a read that waits for memory, within {bytes} bytes: {:.1} ns",
        read_that_waits(bytes)
    );
    roster("numbers from 64 bits", Ids::Spread, count);
    roster("numbers one after the other", Ids::Dense, count);
    roster("UUIDs", Ids::Uuids, count);
    roster("mail addresses", Ids::Mails, count);
    others("from 64 bits", Ids::Spread, count);
    others("one after the other", Ids::Dense, count);
}
