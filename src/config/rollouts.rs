//! Rollouts in a file of their own, as `switchyard rollout apply` takes them: `rollouts:` by name, a whole
//! configuration file, one rollout's spec, or what the admin API answers.

use std::collections::BTreeMap;

use once_cell::sync::Lazy;
use serde::Deserialize;

use super::places::Places;
use super::problem::Problem;
use super::shape::Shape;
use super::tree::{Node, Value};
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

/// What `GET /api/v1/rollouts` answers.
#[derive(Deserialize)]
struct Answered {
    rollouts: BTreeMap<RolloutName, AnsweredOne>,
}

/// What `GET /api/v1/rollouts/{r}` answers; what follows from the spec is left aside.
#[derive(Deserialize)]
struct AnsweredOne {
    name: Option<RolloutName>,
    revision: Option<u64>,
    spec: RolloutSpec,
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
    let found = typed::tree(&replaced, &mut places).and_then(|root| read(root, &replaced, &mut places));
    let problems = places.into_problems();
    if problems.is_empty() {
        Ok(found.unwrap_or_default())
    } else {
        Err(problems)
    }
}

fn read(mut root: Node, replaced: &Replaced, places: &mut Places<'_>) -> Option<Vec<WrittenRollout>> {
    let has = |key: &str| matches!(&root.value, Value::Map(entries) if entries.contains_key(key));
    if has("rollouts") && has("revision") {
        let answered: Answered = typed::value(root, None, places)?;
        let each = answered.rollouts.into_iter().map(|(name, one)| one.written(Some(name)));
        return Some(each.collect());
    }
    if has("rollouts") {
        let file = typed::file(replaced, places)?;
        let each = file.rollouts.into_iter().map(|(name, spec)| plain(Some(name), spec));
        return Some(each.collect());
    }
    if has("spec") {
        let answered: AnsweredOne = typed::value(root, None, places)?;
        return Some(vec![answered.written(None)]);
    }
    if has("releases") {
        // The name stands beside the spec, which knows no such key.
        let name = match &mut root.value {
            Value::Map(entries) => entries.remove("name"),
            Value::Null | Value::Flag(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => None,
        };
        let name = name.and_then(|entry| match &entry.node.value {
            Value::Text(text) => RolloutName::parse(text)
                .map_err(|e| places.note_at(entry.node.from, "name", e.to_string()))
                .ok(),
            Value::Null | Value::Flag(_) | Value::Number(_) | Value::List(_) | Value::Map(_) => {
                places.note_at(
                    entry.node.from,
                    "name",
                    "is no text: write the rollout's name, in quotes",
                );
                None
            }
        });
        let spec: RolloutSpec = typed::value(root, Some(&SPEC), places)?;
        return Some(vec![plain(name, spec)]);
    }
    places.set_root(root);
    places.note(
        "",
        "holds no rollout: write `rollouts:` with rollouts by name, or one rollout with `name:` and `releases:`",
    );
    None
}

fn plain(name: Option<RolloutName>, spec: RolloutSpec) -> WrittenRollout {
    WrittenRollout {
        name,
        revision: None,
        spec,
    }
}

impl AnsweredOne {
    /// The ranges of an answer whose shares were edited are those of before: they are left out, to be made of the
    /// live ones.
    fn written(mut self, name: Option<RolloutName>) -> WrittenRollout {
        let agree = |ranges: &Vec<Range>| {
            let mut owned: BTreeMap<&ReleaseName, u32> = BTreeMap::new();
            for range in ranges {
                *owned.entry(&range.release).or_default() += range.to.saturating_sub(range.from);
            }
            owned.retain(|name, n| *n > 0 && name.as_str() != ReleaseName::STABLE);
            let asked = self.spec.split.iter();
            let asked = asked.map(|(name, weight)| (name, weight.parts_per_million()));
            owned
                == asked
                    .filter(|(name, n)| *n > 0 && name.as_str() != ReleaseName::STABLE)
                    .collect()
        };
        if !self.spec.ranges.as_ref().is_some_and(agree) {
            self.spec.ranges = None;
        }
        WrittenRollout {
            name: name.or(self.name),
            revision: self.revision,
            spec: self.spec,
        }
    }
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
        assert!(
            unknown.starts_with("f.yaml:3:1: spilt: is not known: did you mean split?"),
            "{unknown}"
        );
        let name = read(&format!("rollouts:\n  -x: {{ {SPEC} }}\n")).expect_err("no name");
        assert!(name.starts_with("f.yaml:2:3: rollouts.-x: \"-x\" is no name"), "{name}");
        assert!(
            read("a: 1")
                .expect_err("none")
                .contains("holds no rollout: write `rollouts:`")
        );
        assert!(read("- 1").is_err() && read("").is_err());
    }
}
