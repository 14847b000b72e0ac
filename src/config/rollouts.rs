//! Rollouts in a file of their own, as `switchyard rollout apply` takes them: `rollouts:` by name, a whole
//! configuration file, one rollout's spec, or what the admin API answers.

use std::collections::BTreeMap;

use once_cell::sync::Lazy;

use super::places::Places;
use super::problem::Problem;
use super::shape::Shape;
use super::tree::{self, Entry, Node, Value};
use super::typed;
use super::variables::Replaced;
use crate::rollout::{Range, ReleaseName, RolloutName, RolloutSpec};

static SPEC: Lazy<Shape> = Lazy::new(|| Shape::of(&schemars::schema_for!(RolloutSpec).to_value()));

/// A rollout as a file has it.
#[derive(Debug, Clone, PartialEq)]
pub struct WrittenRollout {
    /// Its name, where the file says it.
    pub name: Option<RolloutName>,
    /// The revision that it was read at, where it came from the API.
    pub revision: Option<u64>,
    /// What it is made of.
    pub spec: RolloutSpec,
}

/// Reads the rollouts of a text that came from the file `name`, YAML or JSON.
///
/// # Errors
/// All that is wrong with it.
pub fn rollouts_from(
    name: &str,
    text: &str,
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Vec<WrittenRollout>, Vec<Problem>> {
    let replaced = Replaced::new(text, env);
    let mut places = Places::new(name, &replaced);
    let found = read(&replaced, &mut places);
    let problems = places.into_problems();
    if problems.is_empty() { Ok(found) } else { Err(problems) }
}

fn read(replaced: &Replaced, places: &mut Places<'_>) -> Vec<WrittenRollout> {
    let document = match tree::read(&replaced.text) {
        Ok(document) => document,
        Err(refusal) => {
            places.note_at(refusal.at, &refusal.key, refusal.message);
            return Vec::new();
        }
    };
    let has = |key: &str| entries(&document.root).is_some_and(|entries| entries.contains_key(key));
    if has("rollouts") && !has("revision") {
        let file = typed::file(replaced, places);
        let rollouts = file.map(|file| file.rollouts).unwrap_or_default().into_iter();
        let each = rollouts.map(|(name, spec)| WrittenRollout {
            name: Some(name),
            revision: None,
            spec,
        });
        return each.collect();
    }
    for refusal in document.refusals {
        places.note_at(refusal.at, &refusal.key, refusal.message);
    }
    if has("rollouts") {
        return listed(document.root, places);
    }
    if has("spec") || has("releases") {
        return one(document.root, None, places).into_iter().collect();
    }
    let message =
        "holds no rollout: write `rollouts:` with rollouts by name, or one rollout with `name:` and `releases:`";
    places.note("", message);
    Vec::new()
}

fn entries(node: &Node) -> Option<&BTreeMap<String, Entry>> {
    match &node.value {
        Value::Map(entries) => Some(entries),
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => None,
    }
}

fn into_entries(node: Node) -> BTreeMap<String, Entry> {
    match node.value {
        Value::Map(entries) => entries,
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => BTreeMap::new(),
    }
}

fn named(name: &str, key: &str, places: &mut Places<'_>) -> Option<RolloutName> {
    RolloutName::parse(name)
        .map_err(|e| places.note(key, e.to_string()))
        .ok()
}

/// What `GET /api/v1/rollouts` answers.
fn listed(root: Node, places: &mut Places<'_>) -> Vec<WrittenRollout> {
    let all = into_entries(root).remove("rollouts");
    let all = all.map(|entry| into_entries(entry.node)).unwrap_or_default();
    let each = all.into_iter().filter_map(|(name, entry)| {
        let name = named(&name, &name, places)?;
        one(entry.node, Some(name), places)
    });
    each.collect()
}

/// A spec with its name beside it, or what `GET /api/v1/rollouts/{r}` answers; what follows from the spec is left aside.
fn one(mut root: Node, name: Option<RolloutName>, places: &mut Places<'_>) -> Option<WrittenRollout> {
    let Value::Map(fields) = &mut root.value else {
        places.note_at(
            root.from,
            "",
            "is no rollout: write `releases:` and what else it is made of",
        );
        return None;
    };
    let own = match fields.remove("name").map(|entry| entry.node.value) {
        Some(Value::Text(text) | Value::Number(text)) => Some(named(&text, "name", places)?),
        Some(Value::Null | Value::Flag(_) | Value::List(_) | Value::Map(_)) | None => None,
    };
    let revision = match fields.get("revision").map(|entry| &entry.node.value) {
        Some(Value::Number(text)) => text.parse().ok(),
        Some(Value::Null | Value::Flag(_) | Value::Text(_) | Value::List(_) | Value::Map(_)) | None => None,
    };
    let name = name.or(own);
    match fields.remove("spec") {
        None => Some(WrittenRollout {
            name,
            revision: None,
            spec: typed::node(root, &SPEC, places)?,
        }),
        Some(spec) => {
            let mut spec: RolloutSpec = typed::node(spec.node, &SPEC, places)?;
            // Of an answer whose shares were edited, the ranges are those of before: live ones take their place.
            spec.ranges = spec.ranges.take().filter(|ranges| agree(&spec, ranges));
            Some(WrittenRollout { name, revision, spec })
        }
    }
}

/// Whether each release but stable has the share that its ranges have.
fn agree(spec: &RolloutSpec, ranges: &[Range]) -> bool {
    let mut owned: BTreeMap<&ReleaseName, u32> = BTreeMap::new();
    for range in ranges {
        *owned.entry(&range.release).or_default() += range.to.saturating_sub(range.from);
    }
    let counts = |(name, parts): &(&ReleaseName, u32)| *parts > 0 && name.as_str() != ReleaseName::STABLE;
    let asked = spec
        .split
        .iter()
        .map(|(name, weight)| (name, weight.parts_per_million()));
    asked.filter(counts).eq(owned.into_iter().filter(counts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<WrittenRollout>, String> {
        rollouts_from("f.yaml", text, &|_| None).map_err(|problems| super::super::problem::lines(&problems))
    }

    const SPEC: &str = "releases: { stable: { pool: stable }, canary: { pool: canary } }";

    #[test]
    fn one_rollout_several_a_whole_file_and_the_api_answer_are_read_alike() {
        let named = format!("name: checkout\n{SPEC}\nsplit: {{ canary: 12.5% }}\n");
        let one = read(&named).expect("one");
        assert_eq!(one.len(), 1);
        let texts = [
            format!("rollouts: {{ checkout: {{ {SPEC}, split: {{ canary: 12.5% }} }} }}"),
            format!("pools: {{}}\nrollouts:\n  checkout: {{ {SPEC}, split: {{ canary: 12.5% }} }}\n"),
        ];
        for text in texts {
            assert_eq!(read(&text).expect("several"), one);
        }
        let spec = serde_json::to_value(&one[0].spec).expect("JSON");
        let got = serde_json::json!({ "revision": 7, "spec": spec, "weights": { "canary": "12.5%" }, "users": 3 });
        let unnamed = read(&got.to_string()).expect("an answer");
        assert_eq!(
            (&unnamed[0].name, unnamed[0].revision, &unnamed[0].spec),
            (&None, Some(7), &one[0].spec)
        );
        let list = serde_json::json!({ "revision": 9, "rollouts": { "checkout": got } });
        let listed = read(&list.to_string()).expect("a list");
        assert_eq!(
            (&listed[0].name, listed[0].revision, &listed[0].spec),
            (&one[0].name, Some(7), &one[0].spec)
        );
    }

    #[test]
    fn ranges_of_an_answer_stay_as_long_as_its_shares_do() {
        let answer = |share: &str| {
            let spec = serde_json::json!({
                "releases": { "stable": { "pool": "stable" }, "canary": { "pool": "canary" } },
                "split": { "canary": share },
                "ranges": [
                    { "from": 0, "to": 125_000, "release": "canary" },
                    { "from": 125_000, "to": 1_000_000, "release": "stable" },
                ],
            });
            let read = read(&serde_json::json!({ "revision": 7, "spec": spec }).to_string()).expect("an answer");
            read[0].spec.ranges.is_some()
        };
        assert_eq!((answer("12.5%"), answer("20%")), (true, false));
    }

    #[test]
    fn what_is_wrong_has_its_place() {
        let unknown = read(&format!("name: checkout\n{SPEC}\nspilt: {{ canary: 5% }}\n")).expect_err("unknown key");
        assert!(unknown.starts_with("f.yaml:3:1: spilt: "), "{unknown}");
        let name = read(&format!("rollouts:\n  -x: {{ {SPEC} }}\n")).expect_err("no name");
        assert!(name.starts_with("f.yaml:2:3: rollouts.-x: "), "{name}");
        assert!(
            read("a: 1")
                .expect_err("none")
                .contains("holds no rollout: write `rollouts:`")
        );
        assert!(read("- 1").is_err() && read("").is_err());
    }
}
