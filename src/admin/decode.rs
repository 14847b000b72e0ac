//! JSON into values; of what is none, everything that is wrong, each with its place.

use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_json::error::Category;
use serde_path_to_error::{Path, Segment};

use super::refusal::{Kind, Refusal};
use super::wire::ProblemItem;

/// More problems are not looked for.
const PROBLEMS_MAX: usize = 20;
/// In longer bodies only the first problem is told: looking for the others reads the body once for each.
const LOOKED_THROUGH_MAX: usize = 1 << 20;

/// Reads a JSON object.
///
/// # Errors
/// When it is none, or not that of a `T`.
pub fn json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Refusal> {
    // Fields would be taken from a list in their order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        return Err(Refusal::at(Kind::Invalid, "body", "is a list: send an object"));
    }
    let error = match serde_json::from_slice(bytes) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let kind = match error.classify() {
        Category::Data => Kind::Invalid,
        Category::Io | Category::Syntax | Category::Eof => Kind::Malformed,
    };
    if kind == Kind::Invalid && bytes.len() <= LOOKED_THROUGH_MAX {
        let problems = serde_json::from_slice(bytes).map(problems::<T>).unwrap_or_default();
        if !problems.is_empty() {
            let lines = problems.iter().map(|p| format!("{}: {}", p.key, p.message));
            return Err(Refusal::new(kind, lines.collect::<Vec<_>>().join("\n")).with(problems));
        }
    }
    let text = error.to_string();
    let said = text.rsplit_once(" at line ").map_or(text.as_str(), |(said, _)| said);
    let place = format!("line {}, column {}", error.line(), error.column());
    Err(Refusal::at(kind, place, said))
}

/// What is wrong, one after the other: what was found is taken out, and the rest is looked at again.
fn problems<T: DeserializeOwned>(mut body: Value) -> Vec<ProblemItem> {
    let mut found = Vec::new();
    let mut cut = Cut::default();
    while found.len() < PROBLEMS_MAX {
        let Err(error) = serde_path_to_error::deserialize::<_, T>(&body) else {
            break;
        };
        let key = cut.named(error.path());
        let message = error.inner().to_string();
        // What is missing because it was taken out is no further problem.
        if !(message.starts_with("missing field") && cut.from.contains(&key)) {
            let key = if key.is_empty() { "body".to_owned() } else { key };
            found.push(ProblemItem { key, message });
        }
        if !cut.out(&mut body, error.path()) {
            break;
        }
    }
    found
}

/// What was taken out.
#[derive(Default)]
struct Cut {
    /// From where.
    from: BTreeSet<String>,
    /// So many items of the beginning of a list.
    items: BTreeMap<String, usize>,
}

impl Cut {
    /// `targets[1].release`, as it is in the body that was sent.
    fn named(&self, path: &Path) -> String {
        let mut name = String::new();
        for segment in path {
            name = self.inside(name, segment);
        }
        name
    }

    fn inside(&self, mut name: String, segment: &Segment) -> String {
        match segment {
            Segment::Seq { index } => {
                let index = index + self.items.get(&name).unwrap_or(&0);
                name.push_str(&format!("[{index}]"));
            }
            Segment::Map { key } | Segment::Enum { variant: key } => {
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(key);
            }
            Segment::Unknown => {}
        }
        name
    }

    /// Takes out what is at a place; false where nothing is.
    fn out(&mut self, body: &mut Value, path: &Path) -> bool {
        let (mut within, mut name) = (body, String::new());
        let mut segments = path.iter().peekable();
        while let Some(segment) = segments.next() {
            let last = segments.peek().is_none();
            match (segment, within) {
                (Segment::Seq { index }, Value::Array(items)) if last => {
                    *self.items.entry(name).or_default() += index + 1;
                    items.drain(..=(*index).min(items.len().saturating_sub(1)));
                    return true;
                }
                (Segment::Map { key }, Value::Object(fields)) if last => {
                    self.from.insert(name);
                    return fields.remove(key).is_some();
                }
                (Segment::Seq { index }, Value::Array(items)) => match items.get_mut(*index) {
                    Some(item) => within = item,
                    None => return false,
                },
                (Segment::Map { key }, Value::Object(fields)) => match fields.get_mut(key) {
                    Some(field) => within = field,
                    None => return false,
                },
                _ => return false,
            }
            name = self.inside(name, segment);
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rollout::RolloutSpec;

    fn told(body: &str) -> Vec<(String, String)> {
        let refusal = json::<RolloutSpec>(body.as_bytes()).expect_err("it is wrong");
        let problems = refusal.problem().problems.into_iter();
        problems.map(|p| (p.key, p.message)).collect()
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_place() {
        let body = r#"{
            "releases": { "stable": { "pool": "s" }, "canary": { "pol": "c" }, "x": { "pool": 7 } },
            "split": { "canary": "200%", "x": "1%", "y": "-1%" },
            "targets": [{ "users": ["1"], "release": "no name" }, { "users": "2", "release": "canary" }, { "release": "a b" }],
            "salts": "x",
            "killed": "yes"
        }"#;
        let told = told(body);
        let keys: Vec<&str> = told.iter().map(|(key, _)| key.as_str()).collect();
        for key in [
            "releases.canary.pol",
            "releases.x.pool",
            "split.canary",
            "split.y",
            "salts",
            "killed",
        ] {
            assert!(keys.contains(&key), "{key}: {told:#?}");
        }
        assert_eq!(
            keys.iter().filter(|key| key.starts_with("targets[")).count(),
            3,
            "{told:#?}"
        );
        assert!(keys.iter().any(|key| key.starts_with("targets[2]")), "{told:#?}");
    }

    #[test]
    fn what_is_missing_is_told_and_what_was_written_twice() {
        assert_eq!(told("{}"), [("body".to_owned(), "missing field `releases`".to_owned())]);
        let twice = told(r#"{ "releases": {}, "releases": {} }"#);
        assert!(twice[0].1.contains("duplicate"), "{twice:?}");
        assert_eq!(told("{")[0].0, "line 1, column 1");
        let list = told(r#"[{ "stable": { "pool": "s" } }]"#);
        assert_eq!(list, [("body".to_owned(), "is a list: send an object".to_owned())]);
    }
}
