//! `conf/switchyard.yaml` shows every key at its place, with the schema's sentence and the real default.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{parsed, text, value};

struct Schema(Value);

impl Schema {
    fn real() -> Self {
        Self(switchyard::config::schema())
    }

    /// What a place may be: the schema there, and what it refers to or offers.
    fn offers<'a>(&'a self, schema: &'a Value, found: &mut Vec<&'a Value>) {
        found.push(schema);
        if let Some(name) = schema["$ref"].as_str() {
            self.offers(&self.0["$defs"][name.trim_start_matches("#/$defs/")], found);
        }
        for each in [&schema["anyOf"], &schema["oneOf"]] {
            each.as_array()
                .into_iter()
                .flatten()
                .for_each(|one| self.offers(one, found));
        }
    }

    /// Every key below a place: its path, with `*` for a name and `[]` for an item, and its schema.
    fn keys<'a>(&'a self, path: &str, schema: &'a Value, found: &mut Vec<(String, &'a Value)>) {
        let mut offers = Vec::new();
        self.offers(schema, &mut offers);
        for offer in offers {
            for (name, below) in offer["properties"].as_object().into_iter().flatten() {
                let path = format!("{path}.{name}");
                found.push((path.clone(), below));
                self.keys(&path, below, found);
            }
            if offer["items"].is_object() {
                self.keys(&format!("{path}[]"), &offer["items"], found);
            }
            for below in offer["patternProperties"]
                .as_object()
                .into_iter()
                .flat_map(|map| map.values())
            {
                self.keys(&format!("{path}.*"), below, found);
            }
            if offer["additionalProperties"].is_object() {
                self.keys(&format!("{path}.*"), &offer["additionalProperties"], found);
            }
        }
    }

    fn all(&self) -> Vec<(String, &Value)> {
        let mut found = Vec::new();
        self.keys("", &self.0, &mut found);
        found
    }
}

/// The file with every key that is off turned on, and, for each line `# or KEY`, the file with that line in the place
/// of the key above it. This is what the file's own heading says.
fn turned_on(text: &str) -> Vec<String> {
    let mut base = Vec::new();
    let mut others = Vec::new();
    for line in text.lines() {
        let indent = line.len() - line.trim_start().len();
        let Some(code) = line.trim_start().strip_prefix("# ") else {
            base.push(line.to_owned());
            continue;
        };
        let spaces = &line[..indent];
        if let Some(other) = code.strip_prefix("or ") {
            others.push(format!("{spaces}{other}"));
        } else if is_key(code) {
            base.push(format!("{spaces}{code}"));
        }
    }
    let first = base.join("\n");
    let others = others.iter().map(|other| {
        let key = other.split(':').next().expect("a key");
        let start = base
            .iter()
            .position(|line| line.starts_with(&format!("{key}:")))
            .expect(key);
        let depth = key.len() - key.trim_start().len();
        let inside = |line: &&String| line.trim().is_empty() || line.len() - line.trim_start().len() > depth;
        let below = base[start + 1..].iter().take_while(inside).count();
        let mut lines = base.clone();
        lines.splice(start..=start + below, [other.clone()]);
        lines.join("\n")
    });
    std::iter::once(first).chain(others).collect()
}

fn is_key(code: &str) -> bool {
    let code = code.trim_start().trim_start_matches("- ");
    let name = code.split(':').next().unwrap_or_default();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    name.len() < code.len() && !name.is_empty() && name.chars().all(plain)
}

/// Every key of a value with its path, as the schema would have it.
fn shown(schema: &Schema, place: &Value, path: &str, value: &Value, found: &mut Vec<(String, Value)>) {
    let mut offers = Vec::new();
    schema.offers(place, &mut offers);
    for (n, item) in value.as_array().into_iter().flatten().enumerate() {
        let items = offers.iter().find(|offer| offer["items"].is_object());
        let items = items.unwrap_or_else(|| panic!("{path}[{n}] is in no schema"));
        shown(schema, &items["items"], &format!("{path}[]"), item, found);
    }
    for (name, below) in value.as_object().into_iter().flatten() {
        if let Some(offer) = offers.iter().find(|offer| offer["properties"][name].is_object()) {
            let path = format!("{path}.{name}");
            found.push((path.clone(), below.clone()));
            shown(schema, &offer["properties"][name], &path, below, found);
        } else {
            let patterns = offers.iter().filter_map(|offer| offer["patternProperties"].as_object());
            let named = patterns.flat_map(|map| map.values()).next();
            let more = offers.iter().map(|offer| &offer["additionalProperties"]);
            let below_schema = named.or_else(|| more.into_iter().find(|schema| schema.is_object()));
            let below_schema = below_schema.unwrap_or_else(|| panic!("{path}.{name} is in no schema"));
            shown(schema, below_schema, &format!("{path}.*"), below, found);
        }
    }
}

fn keys_of(schema: &Schema, text: &str) -> Vec<(String, Value)> {
    let mut found = Vec::new();
    shown(schema, &schema.0, "", &value(text).expect("YAML"), &mut found);
    found
}

#[test]
fn the_commented_file_holds_every_key_at_its_place() {
    let schema = Schema::real();
    let versions = turned_on(&text("conf/switchyard.yaml"));
    assert!(versions.len() > 2, "{}", versions.len());
    let shown: BTreeSet<String> = versions
        .iter()
        .flat_map(|text| keys_of(&schema, text))
        .map(|(path, _)| path)
        .collect();
    let all = schema.all();
    assert!(all.len() > 90, "{}", all.len());
    let missing: Vec<&String> = all
        .iter()
        .map(|(path, _)| path)
        .filter(|path| !shown.contains(*path))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}");
    for text in versions {
        // Turned on, everything has the right form: what is wrong can only be a file that is not there.
        let problems = parsed(&text).err().unwrap_or_default();
        let wrong: Vec<_> = problems.iter().map(ToString::to_string).collect();
        let wrong: Vec<_> = wrong
            .iter()
            .filter(|told| !told.contains("write the path of"))
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }
}

#[test]
fn every_default_that_is_shown_is_the_real_one() {
    let schema = Schema::real();
    let text = text("conf/switchyard.yaml");
    let all = schema.all();
    let default = |path: &str| {
        all.iter()
            .find(|(known, _)| known == path)
            .map(|(_, schema)| &schema["default"])
    };
    let as_it_is = keys_of(&schema, &text);
    let only_off = keys_of(&schema, &turned_on(&text)[0]);
    let only_off = only_off
        .iter()
        .filter(|(path, _)| !as_it_is.iter().any(|(known, _)| known == path));
    let mut compared = 0;
    for (path, value) in as_it_is.iter().chain(only_off) {
        let Some(default) = default(path).filter(|default| !default.is_null()) else {
            continue;
        };
        // A section's default is that of its keys, which are compared one by one, and names and items are examples.
        let leaf = !value.is_object() && !["", "[]"].contains(&default.to_string().as_str());
        if leaf && *path != ".listeners" && *path != ".routes" {
            assert_eq!(value, default, "{path}");
            compared += 1;
        }
    }
    assert!(compared > 45, "{compared}");
    let defaults = all.iter().filter(|(_, schema)| !schema["default"].is_null()).count();
    assert!(defaults > 60, "{defaults}");
}

#[test]
fn the_commented_file_builds_what_a_bare_one_does() {
    let written = parsed(&text("conf/switchyard.yaml")).expect("valid");
    let bare = r#"
listeners: [{ address: "127.0.0.1:8080" }]
pools: { stable: { endpoints: ["127.0.0.1:9001"] }, canary: { endpoints: ["127.0.0.1:9002"] } }
routes: [{ rollout: checkout, id: front }]
rollouts:
  checkout:
    releases: { stable: { pool: stable }, canary: { pool: canary } }
    users: { "7": canary }
    targets:
      - { users: ["42", "1001"], release: canary }
      - { when: { header: X-App-Version, semver: ">=5.2.0" }, release: canary }
    split: { canary: 12.5% }
    salt: checkout
"#;
    let bare = parsed(bare).expect("valid");
    assert_eq!(written.server, bare.server);
    assert_eq!(written.listeners, bare.listeners);
    assert_eq!(written.admin, bare.admin);
    assert_eq!(written.pools, bare.pools);
    assert_eq!(written.routes, bare.routes);
    assert_eq!(written.limits, bare.limits);
    assert_eq!(written.access_log, bare.access_log);
    assert_eq!(written.rollouts, bare.rollouts);
    assert_eq!(format!("{:?}", written.identity), format!("{:?}", bare.identity));
}

#[test]
fn a_comment_is_the_sentence_of_the_schema() {
    let schema = Schema::real();
    let plain = |text: &str| text.replace(['`', '\n'], "").trim_end_matches('.').to_lowercase();
    let told: BTreeSet<(String, String)> = schema
        .all()
        .iter()
        .map(|(path, schema)| {
            let name = path.rsplit('.').next().expect("a name").to_owned();
            (name, plain(schema["description"].as_str().unwrap_or_default()))
        })
        .collect();
    let mut commented = 0;
    let text = text("conf/switchyard.yaml");
    for line in text.lines() {
        let code = line
            .trim_start()
            .trim_start_matches("# ")
            .trim_start()
            .trim_start_matches("- ");
        let Some((code, comment)) = code.rsplit_once(" # ").filter(|_| is_key(code)) else {
            continue;
        };
        let name = code.split(':').next().expect("a key");
        let pair = (name.to_owned(), plain(comment));
        assert!(
            told.contains(&pair),
            "{line}\nis none of\n{:#?}",
            told.iter().filter(|(n, _)| n == name)
        );
        commented += 1;
    }
    assert!(commented > 90, "{commented}");
}
