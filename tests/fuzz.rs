//! The seeds of the fuzzers, and whatever they once found, through the functions that they feed: `make fuzz` goes on from
//! there.

#[path = "fuzz/entries.rs"]
mod entries;

use std::path::Path;

#[test]
fn every_seed_is_read_and_each_of_its_mutilations() {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/seeds");
    for (name, feed) in entries::ENTRIES {
        let files = std::fs::read_dir(seeds.join(name)).expect("a folder of seeds");
        let mut read = 0;
        for file in files {
            let bytes = std::fs::read(file.expect("an entry").path()).expect("a seed");
            feed(&bytes);
            // Cut, and with a bit turned, at up to 64 places.
            let step = (bytes.len() / 64).max(1);
            for at in (0..bytes.len()).step_by(step) {
                feed(&bytes[..at]);
                let mut turned = bytes.clone();
                turned[at] ^= 1 << (at % 8);
                feed(&turned);
            }
            read += 1;
        }
        assert!(read >= 3, "{name} has {read} seeds");
    }
}

#[test]
fn every_fuzzer_has_its_entry() {
    let targets = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/targets");
    let mut names: Vec<String> = std::fs::read_dir(targets)
        .expect("targets")
        .map(|file| file.expect("an entry").path())
        .map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned())
        .collect();
    names.sort();
    let mut entries = entries::ENTRIES.map(|(name, _)| name);
    entries.sort();
    assert_eq!(names, entries);
}
