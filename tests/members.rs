//! Members against a set that is known to be right: through any sequence of edits, imports and merges.

use std::collections::BTreeSet;

use switchyard::rollout::{
    Draft, Gathered, KeyPart, Members, Merged, NamesMark, Order, Roster, RosterDigest, RosterFault, RosterKey,
    SeenUser, write_roster,
};

const KEY: RosterKey = RosterKey([0x1234_5678_9abc_def0, 42]);

/// Splitmix64: small, and the same on every run.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut n = self.0;
        n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        n ^ (n >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Of a few thousand that there are, of every kind, near misses of each among them.
    fn id(&mut self, there_are: u64) -> String {
        let n = self.below(there_are);
        match self.below(8) {
            0 | 1 => n.to_string(),
            2 => (u64::MAX - n).to_string(),
            3 => format!("{n:08x}-0000-4000-8000-000000000000"),
            4 => format!("00000000-0000-4000-8000-{n:012x}"),
            5 => format!("user-{n}@example.com"),
            6 => format!("0{n}"),
            _ => format!("{n:08X}-0000-4000-8000-00000000000A"),
        }
    }
}

fn bytes_of(mut draft: impl Draft) -> (Vec<u8>, RosterDigest) {
    let (mut bytes, counts) = (Vec::new(), draft.counts());
    let name = write_roster(&mut draft, NamesMark::default(), &mut bytes).expect("memory");
    assert_eq!(name.users, counts.iter().sum::<u64>());
    (bytes, name.digest)
}

fn roster_of(draft: impl Draft) -> Roster {
    let (bytes, digest) = bytes_of(draft);
    Roster::open(bytes.into(), digest).expect("what was written")
}

fn gathered<'a>(ids: impl IntoIterator<Item = &'a String>) -> Gathered {
    let mut gathered = Gathered::new(KEY, 2);
    ids.into_iter().for_each(|id| gathered.add(id));
    gathered
}

fn boxed(ids: &[String]) -> Vec<Box<str>> {
    ids.iter().map(|id| id.as_str().into()).collect()
}

/// The members of a roster by listing it: numbers and UUIDs from their keys, the others from the names beside it.
fn listed(roster: &Roster, names: &[String]) -> BTreeSet<String> {
    let numbers = roster.numbers(None).map(Order::Number);
    let uuids = roster.uuids(None).map(Order::Uuid);
    let ids = numbers.chain(uuids).map(|order| order.id().expect("a bijection"));
    ids.chain(names.iter().cloned()).collect()
}

#[test]
fn a_roster_holds_exactly_its_ids_whatever_their_number() {
    for count in [0u64, 1, 2, 15, 16, 17, 200, 3_000, 120_000] {
        let mut dice = Dice(count);
        let ids: BTreeSet<String> = (0..count).map(|_| dice.id(2 * count + 1)).collect();
        // Some come twice.
        let all = ids.iter().chain(ids.iter().take(50));
        let sorted = gathered(all).sorted().expect("few");
        assert_eq!(sorted.users(), ids.len() as u64);
        let names: Vec<String> = sorted.names().map(ToOwned::to_owned).collect();
        let short: BTreeSet<String> = sorted.ids().into_iter().map(String::from).collect();
        assert_eq!(short, ids);
        let roster = roster_of(sorted);
        assert_eq!(listed(&roster, &names), ids);
        for id in &ids {
            let seen = SeenUser::of(id.as_bytes());
            assert!(roster.contains(id) && roster.holds_part(seen.part), "{id} of {count}");
        }
        for _ in 0..20_000 {
            let id = dice.id(4 * count + 100);
            let seen = SeenUser::of(id.as_bytes());
            let wanted = ids.contains(&id);
            assert_eq!(roster.contains(&id), wanted, "{id} of {count}");
            // Of a UUID half the key is known, which these may share.
            if !matches!(seen.part, KeyPart::Uuid(_)) {
                assert_eq!(roster.holds_part(seen.part), wanted, "{id} of {count}");
            }
        }
    }
}

#[test]
fn members_are_those_of_a_set_through_any_edits_imports_and_merges() {
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let there_are = 20 + dice.below(3_000);
        let mut model: BTreeSet<String> = BTreeSet::new();
        let (mut members, mut names) = (Members::none(), Vec::new());
        for _ in 0..30 {
            let some: Vec<String> = (0..dice.below(400)).map(|_| dice.id(there_are)).collect();
            match dice.below(10) {
                0 => {
                    let sorted = gathered(&some).sorted().expect("few");
                    names = sorted.names().map(ToOwned::to_owned).collect();
                    members = Members::of(roster_of(sorted));
                    model = some.into_iter().collect();
                }
                1 => {
                    members.edit(true, &[], &boxed(&some));
                    names.clear();
                    model = some.into_iter().collect();
                }
                2 | 3 => {
                    if let Some(roster) = members.roster() {
                        let merged = Merged::new(roster, members.since());
                        let kept = names.iter().map(|name| Ok::<Box<str>, ()>(name.as_str().into()));
                        let mut all = Vec::new();
                        let put = |name: &str| {
                            all.push(name.to_owned());
                            Ok(())
                        };
                        merged.names(kept, put).expect("kept");
                        let (bytes, digest) = bytes_of(merged);
                        // The same as a list of the same ids would have made.
                        assert_eq!(bytes, bytes_of(gathered(&model).sorted().expect("few")).0);
                        let next = Roster::open(bytes.into(), digest).expect("what was written");
                        (members, names) = (Members::of(next), all);
                        assert_eq!(members.since_len(), 0);
                    }
                }
                4..=6 => {
                    members.edit(false, &boxed(&some), &[]);
                    some.iter().for_each(|id| {
                        model.remove(id);
                    });
                }
                _ => {
                    let (out, into) = some.split_at(some.len() / 3);
                    members.edit(false, &boxed(out), &boxed(into));
                    out.iter().for_each(|id| {
                        model.remove(id);
                    });
                    model.extend(into.iter().cloned());
                }
            }
            assert_eq!(members.len(), model.len(), "seed {seed}");
            assert_eq!(members.is_empty(), model.is_empty());
            for id in model.iter().take(200) {
                assert!(members.contains(id), "seed {seed}: {id}");
            }
            for _ in 0..300 {
                let id = dice.id(there_are);
                assert_eq!(members.contains(&id), model.contains(&id), "seed {seed}: {id}");
            }
        }
    }
}

#[test]
fn copies_of_members_do_not_change_with_each_other() {
    let ids: Vec<String> = (0..1_000).map(|n| n.to_string()).collect();
    let first = Members::of(roster_of(gathered(&ids).sorted().expect("few")));
    let mut second = first.clone();
    second.edit(false, &boxed(&ids[..2]), &["x".into()]);
    assert!(first.contains("0") && !first.contains("x") && first.len() == 1_000);
    assert!(!second.contains("0") && second.contains("x") && second.len() == 999);
    // Back to what it was leaves nothing beside the roster.
    second.edit(false, &["x".into()], &boxed(&ids[..2]));
    assert_eq!((second.since_len(), second.len()), (0, 1_000));
}

#[test]
fn bytes_that_are_not_what_was_written_are_refused() {
    let mut dice = Dice(9);
    let ids: Vec<String> = (0..5_000).map(|_| dice.id(10_000)).collect();
    let (bytes, digest) = bytes_of(gathered(&ids).sorted().expect("few"));
    let open = |bytes: Vec<u8>| Roster::open(bytes.into(), digest).map(|_| ());
    assert_eq!(open(bytes.clone()), Ok(()));
    assert_eq!(open(Vec::new()), Err(RosterFault::NotARoster));
    assert_eq!(open(b"SQLite format 3".repeat(20)), Err(RosterFault::NotARoster));
    for cut in [1, 100, bytes.len() / 2, bytes.len() - 100] {
        let short = bytes[..bytes.len() - cut].to_vec();
        let told = open(short);
        assert!(
            matches!(told, Err(RosterFault::Length { .. } | RosterFault::NotARoster)),
            "{told:?}"
        );
    }
    for _ in 0..300 {
        let (at, bit) = (dice.below(bytes.len() as u64) as usize, dice.below(8));
        let mut wrong = bytes.clone();
        wrong[at] ^= 1 << bit;
        assert!(open(wrong).is_err(), "bit {bit} of byte {at}");
    }
}

#[test]
fn an_id_takes_few_bytes() {
    let (mut numbers, mut uuids) = (Gathered::new(KEY, 2), Gathered::new(KEY, 2));
    let mut dice = Dice(1);
    let count = 1_000_000;
    for n in 0..count {
        numbers.add(&(n * 3).to_string());
        let (a, b) = (dice.next(), dice.next());
        let uuid = format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            a >> 32,
            a >> 16 & 0xffff,
            a & 0xfff,
            b >> 52,
            b & 0xffff_ffff_ffff
        );
        uuids.add(&uuid);
    }
    let each = |gathered: Gathered| roster_of(gathered.sorted().expect("few")).size() as f64 / count as f64;
    assert!(each(numbers) <= 7.0);
    assert!(each(uuids) <= 15.0);
}
