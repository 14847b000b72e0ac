//! The configuration files that come with the program, and what `switchyard check` says of broken ones.

#[path = "config/commented.rs"]
mod commented;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use switchyard::config;

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn text(path: &str) -> String {
    fs::read_to_string(root(path)).expect(path)
}

fn in_folder(path: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root(path)).expect("folder");
    let mut files: Vec<PathBuf> = entries.map(|e| e.expect("entry").path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    files
}

fn switchyard(folder: &Path, arguments: &[&str]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_switchyard"));
    program
        .current_dir(folder)
        .args(arguments)
        .output()
        .expect("the program")
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn parsed(text: &str) -> Result<config::Config, Vec<config::Problem>> {
    config::parse("f", text, &|_| None)
}

/// The value that an editor holds against the schema.
fn value(text: &str) -> Option<Value> {
    let mut value: serde_yaml::Value = serde_yaml::from_str(text).ok()?;
    value.apply_merge().ok()?;
    serde_json::to_value(value).ok()
}

fn schema() -> jsonschema::Validator {
    jsonschema::validator_for(&config::schema()).expect("a schema")
}

/// A folder with the files that the examples name.
fn prepared(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    for below in ["tls", "run"] {
        fs::create_dir_all(folder.join(below)).expect("folder");
    }
    for (kind, from) in [("pem", "test.pem"), ("key", "test.key")] {
        for name in ["edge", "shop", "ca", "client", "clients"] {
            let source = root("tests/fixtures/config/tls").join(from);
            fs::copy(source, folder.join(format!("tls/{name}.{kind}"))).expect("copy");
        }
    }
    fs::copy(root("tests/fixtures/config/keys/good.json"), folder.join("keys.json")).expect("copy");
    fs::write(folder.join("run/anon.key"), "0123456789abcdef0123456789abcdef").expect("write");
    folder
}

#[test]
fn every_file_that_comes_with_the_program_is_valid() {
    let folder = prepared("examples");
    let mut files = in_folder("conf/examples");
    assert!(files.len() >= 12, "{}", files.len());
    files.push(root("conf/switchyard.yaml"));
    for file in files {
        let path = file.display().to_string();
        let output = switchyard(&folder, &["check", "-c", &path]);
        assert_eq!(output.status.code(), Some(0), "{}", told(&output));
        let summary = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(summary.starts_with(&format!("{path}: ok: ")), "{summary}");
        let value = value(&fs::read_to_string(&file).expect("file")).expect("YAML");
        if let Err(e) = schema().validate(&value) {
            panic!("{path}: {} at {}", e, e.instance_path());
        }
    }
}

#[test]
fn broken_files_are_told_to_the_letter() {
    let folder = root("tests/fixtures/config");
    let files = in_folder("tests/fixtures/config/invalid");
    assert!(files.len() >= 40, "{}", files.len());
    let mut wrong = Vec::new();
    for file in files {
        let name = file.file_name().expect("a name").to_string_lossy().into_owned();
        let output = switchyard(&folder, &["check", "-c", &format!("invalid/{name}")]);
        let expected = fs::read_to_string(file.with_extension("expected")).expect("the expected text");
        let told = told(&output);
        if told != expected || output.status.code() != Some(2) || !output.stdout.is_empty() {
            wrong.push(format!("{name}: {:?}\n{told}instead of\n{expected}", output.status));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_schema_refuses_what_has_the_wrong_form_and_nothing_else() {
    let schema = schema();
    let mut counts = [0, 0];
    for file in in_folder("tests/fixtures/config/invalid") {
        let name = file.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = fs::read_to_string(&file).expect("file");
        match name.split('_').next() {
            // What a schema can know.
            Some("form") => {
                let value = value(&text).expect(&name);
                assert!(!schema.is_valid(&value), "{name} has the wrong form");
                counts[0] += 1;
            }
            // What only the program knows.
            Some("sense") => {
                let value = value(&text).expect(&name);
                let problem = schema.validate(&value).err().map(|e| e.to_string());
                assert_eq!(problem, None, "{name} has the right form");
                counts[1] += 1;
            }
            Some("yaml") => {}
            _ => panic!("{name} is of no class"),
        }
    }
    assert!(counts[0] >= 20 && counts[1] >= 10, "{counts:?}");
}

#[test]
fn check_prints_every_problem_and_exits_2_and_warnings_are_none() {
    let folder = prepared("check");
    let broken = "listeners: [{ address: nowhere }]\nthread: 1\npools: { a: {} }\nroutes: [{ pool: b }]\n";
    fs::write(folder.join("broken.yaml"), broken).expect("write");
    let output = switchyard(&folder, &["check", "-c", "broken.yaml"]);
    assert_eq!(output.status.code(), Some(2));
    let places: Vec<String> = told(&output)
        .lines()
        .map(|line| line.splitn(4, ": ").take(2).collect::<Vec<_>>().join(" "))
        .collect();
    assert_eq!(
        places,
        [
            "broken.yaml:1:15 listeners[0].address",
            "broken.yaml:2:1 thread",
            "broken.yaml:3:10 pools.a.endpoints",
            "broken.yaml:4:12 routes[0].pool",
        ]
    );
    let sound = "identity: { trusted_peers: [0.0.0.0/0] }\nlisteners: [{ address: \"127.0.0.1:0\" }]\n\
                 pools: { a: { endpoints: [\"127.0.0.1:1\"] } }\nroutes: [{ pool: a }]\n";
    fs::write(folder.join("sound.yaml"), sound).expect("write");
    let output = switchyard(&folder, &["check", "-c", "sound.yaml"]);
    assert_eq!(output.status.code(), Some(0));
    let warning = "warning: sound.yaml:1:13: identity.trusted_peers: trusts everyone to say who they are";
    assert!(told(&output).starts_with(warning), "{}", told(&output));
    let off = "identity: { trusted_peers: [] }\nlisteners: [{ address: \"127.0.0.1:0\" }]\nroutes: [{ pool: a }]\n\
               pools: { a: { endpoints: [\"127.0.0.1:1\"], tls: { ca: tls/none.pem } } }\n";
    fs::write(folder.join("off.yaml"), off).expect("write");
    let output = switchyard(&folder, &["check", "-c", "off.yaml"]);
    assert_eq!(
        told(&output),
        "warning: off.yaml:1:13: identity.trusted_peers: is empty: the identity header is removed from every request; \
         list your load balancers\n\
         warning: off.yaml:4:50: pools.a.tls.ca: has no effect while TLS is off: write enabled: true, or remove it\n"
    );
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        "off.yaml: ok: 1 pool, 1 route, 0 rollouts\n"
    );
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let folder = prepared("unreadable");
    fs::write(folder.join("latin.yaml"), b"# caf\xe9\n").expect("write");
    for name in ["none.yaml", "latin.yaml", "tls"] {
        let output = switchyard(&folder, &["check", "-c", name]);
        assert_eq!(output.status.code(), Some(2), "{name}");
        assert!(told(&output).starts_with(&format!("{name}: ")), "{}", told(&output));
    }
    let told = told(&switchyard(&folder, &["check", "-c", "latin.yaml"]));
    assert_eq!(told, "latin.yaml: is not UTF-8 in line 1: save it as UTF-8\n");
}

#[test]
fn without_a_file_the_arguments_are_told() {
    let serve = ["serve", "--stable", "http://127.0.0.1:9001/", "--canary", "127.0.0.1"];
    let output = switchyard(&root("tests"), &[&serve[..], &["--listen", "${PORT}"]].concat());
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        told(&output),
        "--listen: \"${PORT}\" is no address and port: write one such as 127.0.0.1:8080\n\
         --stable: \"http://127.0.0.1:9001/\" is a URL, not a host and port: write 127.0.0.1:9001\n\
         --canary: \"127.0.0.1\" is no host and port: write one such as 10.0.0.2:9001 or origin.internal:9001\n"
    );
    for (argument, value) in [
        ("--listen", "127.0.0.1:0"),
        ("--user-header", "X-Id"),
        ("--stable", "127.0.0.1:1"),
    ] {
        let output = switchyard(&root("tests"), &["serve", "-c", "none.yaml", argument, value]);
        assert_eq!(output.status.code(), Some(2));
        assert!(told(&output).contains(&format!("'{argument} ")), "{}", told(&output));
    }
    let output = switchyard(&root("tests"), &["demo", "--listen", "nowhere", "--admin", "\""]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        told(&output),
        "--listen: \"nowhere\" is no address and port: write one such as 127.0.0.1:8080\n\
         --admin: \"\\\"\" is no address and port: write one such as 127.0.0.1:8080\n"
    );
    let open = config::quick("127.0.0.1:9001", "127.0.0.1:9002", "X-User-Id", "0.0.0.0:0").expect("valid");
    let warned: Vec<String> = open.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warned,
        [
            "identity.trusted_peers: only loopback may send the identity header; from others it is removed: list your load balancers"
        ]
    );
    let config = config::quick("127.0.0.1:9001", "origin.internal:9002", "X-User-Id", "127.0.0.1:0");
    let config = config.expect("valid");
    assert_eq!((config.pools.len(), config.warnings.len()), (2, 0));
}

#[test]
fn places_are_right_behind_variables() {
    let env = |name: &str| (name == "HOST").then(|| "127.0.0.1:9001".to_owned());
    let text = "listeners: [{ address: \"127.0.0.1:0\" }]\npools: { a: { endpoints: [\"${HOST}\"], balanc: random } }\n\
                routes: [{ pool: a }]\n";
    let problems = config::parse("f", text, &env).expect_err("broken");
    let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["f:2:39: pools.a.balanc: is not known: did you mean balance?"]);
}

#[test]
fn what_follows_from_a_cut_key_is_not_told() {
    // Every reference into a section that is wrong as a whole, and the section itself.
    let text = "listeners: [{ address: \"127.0.0.1:0\" }]\npools: 5\nroutes: [{ rollout: shop }, { pool: a, match: { path: /a } }]\n\
                rollouts: { shop: { releases: { stable: { pool: a } }, split: { stable: 100% } } }\n";
    let problems = parsed(text).expect_err("broken");
    assert_eq!(problems.len(), 1, "{problems:#?}");
    assert_eq!((problems[0].line, problems[0].key.as_str()), (2, "pools"));
}

#[test]
fn ten_thousand_problems_are_counted_and_a_thousand_told() {
    let users: String = (0..10_000).map(|n| format!("      u{n}: 5\n")).collect();
    let text = format!(
        "listeners: [{{ address: \"127.0.0.1:0\" }}]\npools: {{ a: {{ endpoints: [\"127.0.0.1:1\"] }} }}\n\
         routes: [{{ rollout: shop }}]\nrollouts:\n  shop:\n    releases: {{ stable: {{ pool: a }} }}\n    users:\n{users}"
    );
    let problems = parsed(&text).expect_err("broken");
    assert_eq!(problems.len(), 1001);
    assert_eq!((problems[0].line, problems[0].column), (8, 7));
    assert!(
        problems[1000].message.starts_with("9000 more problems"),
        "{}",
        problems[1000]
    );
}

#[test]
fn every_sound_host_and_path_makes_an_id() {
    let text = "listeners: [{ address: \"127.0.0.1:0\" }]\npools: { a: { endpoints: [\"127.0.0.1:1\"] } }\nroutes:\n\
                \x20 - { pool: a, match: { host: \"[::1]\", path: /_next/%C3%A9 } }\n\
                \x20 - { pool: a, match: { host: _dmarc.example.com } }\n\
                \x20 - { pool: a, match: { host: \"*.example.com\", path: /a/b } }\n\
                \x20 - { pool: a }\n";
    let config = parsed(text).expect("valid");
    let ids: Vec<&str> = config.routes.iter().map(|route| route.id.as_str()).collect();
    assert_eq!(ids, ["1_-_next-_C3_A9", "dmarc.example.com", "example.com-a-b", "any"]);
}

/// The commented file without its comments: small, and with every section.
fn dense() -> String {
    let text = text("conf/switchyard.yaml");
    let lines = text
        .lines()
        .map(|line| line.split(" #").next().unwrap_or(line).trim_end());
    let lines: Vec<&str> = lines
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    lines.join("\n")
}

#[test]
fn a_file_cut_off_at_any_byte_never_panics() {
    let text = dense();
    let cut = (0..text.len()).filter_map(|end| text.get(..end));
    let refused = cut.filter(|text| parsed(text).is_err()).count();
    assert!(refused > text.len() / 2, "{refused}");
}

#[test]
fn flipped_bytes_never_panic() {
    let text = dense().into_bytes();
    let mut random = fastrand::Rng::with_seed(42);
    let mut refused = 0;
    for _ in 0..1000 {
        let mut broken = text.clone();
        for _ in 0..random.usize(1..8) {
            let at = random.usize(..broken.len());
            broken[at] = match random.u8(..4) {
                0 => random.u8(..),
                1 => b"{}[]:,&*!|>'\"%@`#-?\n\t$ "[random.usize(..23)],
                2 => broken[random.usize(..text.len())],
                _ => broken[at] ^ (1 << random.u8(..8)),
            };
        }
        refused += usize::from(parsed(&String::from_utf8_lossy(&broken)).is_err());
    }
    assert!(refused > 500, "{refused}");
}
