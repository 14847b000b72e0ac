//! The walls of one package: floors, doors and sizes. When it hurts, improve the design, not this test.

use std::fs;
use std::path::{Path, PathBuf};

/// A module, what of ours it may use, and which crates beyond `std` it may name.
const FLOORS: &[(&str, &[&str], &[&str])] = &[
    ("allocator", &[], &["libmimalloc_sys"]),
    ("clock", &[], &["once_cell", "jiff", "nix"]),
    ("prefetch", &[], &[]),
    ("precedence", &[], &["libc", "log", "rustix", "tokio"]),
    (
        "telemetry",
        &["precedence"],
        &[
            "log",
            "env_logger",
            "once_cell",
            "itoa",
            "memchr",
            "parking_lot",
            "rustix",
            "xxhash_rust",
            "prometheus",
            "thiserror",
            "serde_json",
        ],
    ),
    (
        "identity",
        &["telemetry"],
        &[
            "http",
            "smallvec",
            "ipnet",
            "ring",
            "thiserror",
            "arc_swap",
            "jsonwebtoken",
            "parking_lot",
            "serde_json",
        ],
    ),
    (
        "rollout",
        // Long work on millions of users lets requests go first.
        &["identity", "precedence", "prefetch"],
        &[
            "serde",
            "schemars",
            "http",
            "bytes",
            "hashbrown",
            "smallvec",
            "xxhash_rust",
            "regex",
            "semver",
            "ipnet",
            "thiserror",
            "wide",
        ],
    ),
    (
        "upstream",
        &["rollout", "clock", "telemetry"],
        &[
            "pingora",
            "pingora_load_balancing",
            "bytes",
            "memchr",
            "tokio",
            "async_trait",
            "arc_swap",
            "parking_lot",
            "serde",
            "thiserror",
            "log",
            "socket2",
            "http",
            "httparse",
            "ipnet",
            "base64",
            "rustls_pki_types",
            "x509_parser",
            "fastrand",
            "xxhash_rust",
        ],
    ),
    (
        "store",
        &["rollout", "clock", "precedence", "telemetry"],
        &[
            "rustix",
            "tokio",
            "async_trait",
            "rusqlite",
            "serde",
            "serde_json",
            "schemars",
            "thiserror",
            "flate2",
            "libc",
            "log",
            "memmap2",
            "parking_lot",
            "xxhash_rust",
            "zstd",
        ],
    ),
    (
        "control",
        &["rollout", "store", "clock", "precedence", "prefetch", "telemetry"],
        &[
            "arc_swap",
            "http",
            "log",
            "parking_lot",
            "serde_json",
            "thiserror",
            "tokio",
        ],
    ),
    (
        "proxy",
        &["identity", "rollout", "upstream", "control", "telemetry", "clock"],
        &[
            "pingora",
            "pingora_proxy",
            "http",
            "bytes",
            "log",
            "async_trait",
            "smallvec",
            "memchr",
            "fastrand",
            "parking_lot",
            "futures_util",
            "tokio",
        ],
    ),
    (
        "admin",
        &[
            "precedence",
            "identity",
            "rollout",
            "control",
            "upstream",
            "telemetry",
            "clock",
        ],
        &[
            "arc_swap",
            "axum",
            "bytes",
            "flate2",
            "futures_util",
            "http",
            "hashbrown",
            "hyper",
            "hyper_util",
            "memchr",
            "serde_path_to_error",
            "pingora",
            "tokio",
            "async_trait",
            "log",
            "parking_lot",
            "ring",
            "schemars",
            "serde",
            "serde_json",
            "subtle",
            "thiserror",
            "tokio",
            "xxhash_rust",
            "zstd",
        ],
    ),
    (
        "config",
        &[
            "identity",
            "rollout",
            "upstream",
            "proxy",
            "admin",
            "server",
            "telemetry",
            "store",
        ],
        &[
            "serde",
            "serde_yaml",
            "serde_json",
            "serde_path_to_error",
            "saphyr_parser",
            "schemars",
            "once_cell",
            "regex",
            "strsim",
            "thiserror",
            "http",
            "ipnet",
        ],
    ),
    (
        "server",
        &[
            "clock",
            "precedence",
            "telemetry",
            "identity",
            "rollout",
            "upstream",
            "control",
            "store",
            "proxy",
            "admin",
            "config",
        ],
        &[
            "pingora",
            "pingora_proxy",
            "tokio",
            "async_trait",
            "arc_swap",
            "parking_lot",
            "nix",
            "rustix",
            "rustls",
            "rustls_pki_types",
            "sd_notify",
            "socket2",
            "thiserror",
            "x509_parser",
            "log",
            "ureq",
        ],
    ),
    (
        "cli",
        &["server", "config", "admin", "clock", "telemetry", "identity", "rollout"],
        &[
            "clap",
            "clap_complete",
            "comfy_table",
            "indicatif",
            "terminal_size",
            "ureq",
            "ring",
            "serde",
            "serde_json",
            "thiserror",
            "axum",
            "tokio",
            "http",
        ],
    ),
];

const BANNED_IN_NAMES: &[&str] = &[
    "manager", "util", "helper", "common", "misc", "info", "data", "process", "factory", "wrapper", "base",
];
/// Where what no safe crate offers is asked of the system.
const UNSAFE: &[&str] = &[
    "src/allocator.rs",
    "src/precedence.rs",
    "src/prefetch.rs",
    "src/proxy/engine.rs",
    "src/store/rosters/folder.rs",
];
const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

struct Source {
    path: PathBuf,
    module: String,
    /// Without tests.
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("readable folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let below = path.strip_prefix(&root).expect("below src");
                let first = below
                    .components()
                    .next()
                    .expect("a name")
                    .as_os_str()
                    .to_string_lossy()
                    .into_owned();
                let text = fs::read_to_string(&path).expect("readable file");
                let code = text
                    .split("#[cfg(test)]\nmod tests")
                    .next()
                    .unwrap_or_default()
                    .to_owned();
                found.push(Source {
                    module: first.trim_end_matches(".rs").to_owned(),
                    text: code,
                    path,
                });
            }
        }
    }
    assert!(found.len() > 40, "only {} files were found", found.len());
    found
}

fn is_root(source: &Source) -> bool {
    source.module == "lib" || source.module == "main"
}

/// The first segments of the paths behind `marker`, such as `crate::`.
fn named<'a>(text: &'a str, marker: &'a str) -> impl Iterator<Item = &'a str> {
    text.lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(move |line| {
            line.match_indices(marker).map(move |(at, _)| {
                let rest = &line[at + marker.len()..];
                rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .next()
                    .unwrap_or_default()
            })
        })
}

#[test]
fn imports_go_downward_only() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| !is_root(s)) {
        let Some((_, allowed, _)) = FLOORS.iter().find(|(name, ..)| *name == source.module) else {
            wrong.push(format!(
                "{}: module {} has no floor",
                source.path.display(),
                source.module
            ));
            continue;
        };
        for used in named(&source.text, "crate::").filter(|used| !used.is_empty()) {
            if used != source.module && !allowed.contains(&used) {
                wrong.push(format!("{}: uses {used}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn each_crate_is_named_behind_its_door_only() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("manifest");
    let section = manifest
        .split("[dependencies]")
        .nth(1)
        .and_then(|rest| rest.split("\n[").next())
        .expect("dependencies");
    let crates: Vec<String> = section
        .lines()
        .filter_map(|line| line.split_once(" = ").map(|(name, _)| name.trim().replace('-', "_")))
        .collect();
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|s| !is_root(s)) {
        let Some((_, _, doors)) = FLOORS.iter().find(|(name, ..)| *name == source.module) else {
            continue;
        };
        for name in &crates {
            let uses = source.text.lines().any(|line| {
                let code = line.trim_start();
                let begins = |prefix: &str| {
                    code.strip_prefix(prefix).is_some_and(|rest| {
                        rest.starts_with(name.as_str()) && rest[name.len()..].starts_with([':', ';', ' '])
                    })
                };
                begins("use ") || begins("pub use ")
            });
            if uses && !doors.contains(&name.as_str()) {
                wrong.push(format!("{}: names {name}", source.path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_unsafe_is_where_it_is_known_and_says_why_it_is_sound() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for source in sources() {
        let below = source.path.strip_prefix(root).expect("below the root");
        let known = UNSAFE.iter().any(|path| Path::new(path) == below);
        let lines: Vec<&str> = source.text.lines().collect();
        for (n, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let block = code.contains("unsafe {");
            let argued = lines[n.saturating_sub(4)..n]
                .iter()
                .any(|before| before.contains("// SAFETY:"));
            if (block && !argued) || ((block || code.contains("unsafe_code")) && !known) {
                wrong.push(format!("{}:{}", source.path.display(), n + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_and_functions_fit() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        if lines.len() > FILE_LINES_MAX {
            wrong.push(format!("{}: {} lines", source.path.display(), lines.len()));
        }
        let mut open: Option<(usize, usize)> = None;
        for (n, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let code = line.trim_start();
            let starts = [
                "fn ",
                "pub fn ",
                "async fn ",
                "pub async fn ",
                "pub(super) fn ",
                "pub(crate) fn ",
            ];
            if open.is_none() && starts.iter().any(|s| code.starts_with(s)) {
                open = Some((n, indent));
            }
            if let Some((start, depth)) = open {
                if indent == depth && (code == "}" || code.ends_with(';')) {
                    if n - start + 1 > FUNCTION_LINES_MAX {
                        wrong.push(format!(
                            "{}:{}: function of {} lines",
                            source.path.display(),
                            start + 1,
                            n - start + 1
                        ));
                    }
                    open = None;
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn time_unwraps_and_names_keep_the_rules() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        let place = |n: usize| format!("{}:{}", source.path.display(), n + 1);
        for (n, line) in lines.iter().enumerate() {
            if line.trim_start().starts_with("//") {
                continue;
            }
            let reads_time = line.contains("Instant::now") || line.contains("SystemTime::now");
            if reads_time && source.module != "clock" {
                wrong.push(format!("{}: reads the time", place(n)));
            }
            if line.contains(".unwrap()") {
                wrong.push(format!("{}: unwrap()", place(n)));
            }
            let told = lines[n.saturating_sub(3)..n]
                .iter()
                .any(|before| before.contains("// invariant:"));
            if line.contains(".expect(") && !told {
                wrong.push(format!("{}: expect( without an invariant", place(n)));
            }
            for mark in ["todo!", "unimplemented!", "allow(dead_code)"] {
                if line.contains(mark) {
                    wrong.push(format!("{}: {mark}", place(n)));
                }
            }
        }
        let name = source.path.file_stem().expect("a name").to_string_lossy().into_owned();
        if name.split('_').any(|word| BANNED_IN_NAMES.contains(&word)) {
            wrong.push(format!("{}: banned word in the name", source.path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_map_in_the_crate_documentation_lists_every_module() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let map = fs::read_to_string(root.join("lib.rs")).expect("lib.rs");
    for (module, ..) in FLOORS {
        assert!(
            map.contains(&format!("//! - [`{module}`]")),
            "{module} is not on the map"
        );
        assert!(root.join(format!("{module}.rs")).exists(), "{module} has no file");
    }
    let listed = map.lines().filter(|line| line.starts_with("//! - [`")).count();
    assert_eq!(listed, FLOORS.len());
}
