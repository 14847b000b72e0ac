//! The dependency audit, as far as it runs without a network: where every crate comes from, under which licence, and
//! that none is of a version with a known hole. `cargo audit` and `cargo deny` know more; they need their databases.

use std::path::Path;
use std::process::Command;

/// Licences that go with Apache-2.0 and ask for no more than notices. A crate must offer one of them for each part of it.
const LICENCES: &[&str] = &[
    "MIT",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// The first version without the hole, and where it is written down.
const FIRST_SOUND: &[(&str, [u64; 3], &str)] = &[
    ("bytes", [1, 11, 1], "RUSTSEC-2026-0007"),
    ("h2", [0, 4, 16], "RUSTSEC-2026-0258, and 2024-0332 before it"),
    ("lru", [0, 18, 2], "RUSTSEC-2026-0253"),
    (
        "pingora-core",
        [0, 9, 1],
        "RUSTSEC-2026-0033 and 0034; 0.9.0 panics with tokio 1.54",
    ),
    ("pingora-proxy", [0, 9, 1], "CVE-2026-105299"),
    ("rustls", [0, 23, 19], "RUSTSEC-2024-0399"),
    ("tungstenite", [0, 20, 1], "RUSTSEC-2023-0065"),
    ("zstd", [0, 14, 3], "RUSTSEC-2026-0391, 0395 to 0406, 0410"),
];

struct Crate {
    name: String,
    version: [u64; 3],
    licence: String,
    source: Option<String>,
}

fn cargo(arguments: &[&str]) -> Vec<u8> {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .output()
        .expect("cargo runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{told}");
    output.stdout
}

/// Those that are built on this machine: what other systems need was never fetched here.
fn crates() -> Vec<Crate> {
    let about = String::from_utf8(cargo(&["-vV"])).expect("text");
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    let of_host = ["--filter-platform", host.expect("a host")];
    let metadata = ["metadata", "--locked", "--offline", "--format-version", "1"];
    let metadata: serde_json::Value =
        serde_json::from_slice(&cargo(&[&metadata[..], &of_host].concat())).expect("JSON");
    let text = |package: &serde_json::Value, key: &str| package[key].as_str().map(ToOwned::to_owned);
    let packages = metadata["packages"].as_array().expect("packages");
    let crates = packages.iter().map(|package| {
        let version = text(package, "version").expect("a version");
        let plain = version.split(['-', '+']).next().expect("numbers");
        let mut numbers = plain.split('.').map(|n| n.parse().expect("a number"));
        Crate {
            name: text(package, "name").expect("a name"),
            version: std::array::from_fn(|_| numbers.next().expect("three numbers")),
            licence: text(package, "license").unwrap_or_default(),
            source: text(package, "source"),
        }
    });
    crates.collect()
}

/// Whether an SPDX expression (or the old `A/B`) can be met by the licences above.
fn is_met(expression: &str) -> bool {
    let parts = expression.replace(['(', ')'], "").replace('/', " OR ");
    let choice = |part: &str| part.split(" OR ").any(|one| LICENCES.contains(&one.trim()));
    parts.split(" AND ").all(choice)
}

#[test]
fn every_crate_comes_from_the_registry_under_a_licence_that_goes_with_ours() {
    let crates = crates();
    assert!(crates.len() > 200, "{}", crates.len());
    let mut wrong = Vec::new();
    for one in crates {
        let here = one.source.is_none() && one.name == env!("CARGO_PKG_NAME");
        let registry = one.source.as_deref().is_some_and(|s| s.starts_with("registry+"));
        if !here && !registry {
            wrong.push(format!("{} comes from {:?}", one.name, one.source));
        }
        if !is_met(&one.licence) {
            wrong.push(format!("{} is under {:?}", one.name, one.licence));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_crate_is_of_a_version_with_a_known_hole() {
    let crates = crates();
    let mut wrong = Vec::new();
    for (name, sound, advisory) in FIRST_SOUND {
        let mut of_name = crates.iter().filter(|one| one.name == *name).peekable();
        if of_name.peek().is_none() {
            wrong.push(format!("{name} is no longer used: take it off the list"));
        }
        let unsound = of_name.filter(|one| one.version < *sound);
        wrong.extend(unsound.map(|one| format!("{name} is {:?}, {advisory} asks for {sound:?}", one.version)));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_licence_is_met_by_one_of_each_choice() {
    for (expression, met) in [
        ("MIT", true),
        ("MIT OR GPL-3.0", true),
        ("Apache-2.0 / MIT", true),
        ("(MIT OR Apache-2.0) AND Unicode-3.0", true),
        ("GPL-3.0", false),
        ("MIT AND GPL-3.0", false),
        ("", false),
    ] {
        assert_eq!(is_met(expression), met, "{expression}");
    }
}
