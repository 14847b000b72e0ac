//! Rollouts in a file of their own, as `switchyard rollout apply` takes them: `rollouts:` by name, a whole
//! configuration file, one rollout's spec, or what the admin API answers.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, IntoDeserializer, MapAccess, Visitor, value::MapAccessDeserializer};
use serde::{Deserialize, Deserializer};

use super::problem::{Places, Problem};
use super::{value, written};
use crate::rollout::{Range, ReleaseName, RolloutName, RolloutSpec};

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

/// The top-level keys of a file, which tell what kind it is.
struct Keys(Vec<String>);

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

/// One spec with its name beside it.
struct Named {
    name: Option<RolloutName>,
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
    let text = value::substituted(name, text, env)?;
    let of_yaml = |e: serde_yaml::Error| vec![Problem::of_yaml(name, &e)];
    let Keys(keys) = serde_yaml::from_str(&text).map_err(of_yaml)?;
    let has = |key: &str| keys.iter().any(|k| k == key);
    if has("rollouts") && has("revision") {
        let answered: Answered = serde_yaml::from_str(&text).map_err(of_yaml)?;
        let each = answered.rollouts.into_iter().map(|(name, one)| one.written(Some(name)));
        return Ok(each.collect());
    }
    if has("rollouts") {
        let file: written::File = serde_yaml::from_str(&text).map_err(of_yaml)?;
        return by_name(file.rollouts, &Places::new(name, &text));
    }
    if has("spec") {
        let answered: AnsweredOne = serde_yaml::from_str(&text).map_err(of_yaml)?;
        return Ok(vec![answered.written(None)]);
    }
    if has("releases") {
        let named: Named = serde_yaml::from_str(&text).map_err(of_yaml)?;
        return Ok(vec![WrittenRollout {
            name: named.name,
            revision: None,
            spec: named.spec,
        }]);
    }
    let message =
        "holds no rollout: write `rollouts:` with rollouts by name, or one rollout with `name:` and `releases:`";
    Err(vec![Places::new(name, &text).problem("", message)])
}

fn by_name(rollouts: BTreeMap<String, RolloutSpec>, places: &Places<'_>) -> Result<Vec<WrittenRollout>, Vec<Problem>> {
    let mut found = Vec::with_capacity(rollouts.len());
    let mut problems = Vec::new();
    for (name, spec) in rollouts {
        match RolloutName::parse(&name) {
            Ok(name) => found.push(WrittenRollout {
                name: Some(name),
                revision: None,
                spec,
            }),
            Err(e) => problems.push(places.problem(&format!("rollouts.{name}"), e.to_string())),
        }
    }
    if problems.is_empty() { Ok(found) } else { Err(problems) }
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

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct KeysOnly;
        impl<'de> Visitor<'de> for KeysOnly {
            type Value = Keys;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("keys such as `rollouts:`, or `name:` and `releases:`")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Keys, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, IgnoredAny)) = map.next_entry()? {
                    keys.push(key);
                }
                Ok(Keys(keys))
            }
        }
        from.deserialize_map(KeysOnly)
    }
}

/// Takes `name` out on the way, so that the spec's own unknown keys stay errors with their place.
impl<'de> Deserialize<'de> for Named {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct NameAside;
        impl<'de> Visitor<'de> for NameAside {
            type Value = Named;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a rollout")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Named, A::Error> {
                let mut name = None;
                let rest = WithoutName { map, name: &mut name };
                let spec = RolloutSpec::deserialize(MapAccessDeserializer::new(rest))?;
                Ok(Named { name, spec })
            }
        }
        from.deserialize_map(NameAside)
    }
}

struct WithoutName<'a, A> {
    map: A,
    name: &'a mut Option<RolloutName>,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for WithoutName<'_, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        let mut seed = seed;
        loop {
            match self.map.next_key_seed(KeyOrName(seed))? {
                None => return Ok(None),
                Some(Found::Key(key)) => return Ok(Some(key)),
                Some(Found::Name(unused)) => {
                    *self.name = Some(self.map.next_value()?);
                    seed = unused;
                }
            }
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

/// Looks at a key inside the reader, which knows its place, before the spec does.
struct KeyOrName<K>(K);

enum Found<K, V> {
    Name(K),
    Key(V),
}

impl<'de, K: DeserializeSeed<'de>> DeserializeSeed<'de> for KeyOrName<K> {
    type Value = Found<K, K::Value>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_identifier(self)
    }
}

impl<'de, K: DeserializeSeed<'de>> Visitor<'de> for KeyOrName<K> {
    type Value = Found<K, K::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Self::Value, E> {
        if key == "name" {
            return Ok(Found::Name(self.0));
        }
        self.0.deserialize(key.into_deserializer()).map(Found::Key)
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
        assert!(unknown.starts_with("f.yaml:3:1: unknown field `spilt`"), "{unknown}");
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
