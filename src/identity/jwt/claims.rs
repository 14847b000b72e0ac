//! What a verified token says.

use serde_json::{Map, Value};

use crate::identity::UserId;

/// A token that was verified.
#[derive(Debug)]
pub struct Token {
    /// Whose it is.
    pub id: UserId,
    /// What else it says.
    pub claims: Claims,
    /// The second since 1970 from which on it is not valid any more, its `exp`.
    pub(super) expires: u64,
    /// The key that it was verified with; see [`super::keys`].
    pub(super) key: [u8; 32],
}

impl Token {
    /// About what it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        let claims = self.claims.0.iter();
        let claims: usize = claims.map(|(name, value)| name.len() + value.len() + 48).sum();
        self.id.as_bytes().len() + claims + 256
    }
}

/// Claims by name: texts, numbers and flags, and lists of these as several of one name. Not shown by `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Claims(Vec<(String, String)>);

impl Claims {
    /// Of these names and values.
    #[must_use]
    pub fn of(pairs: impl IntoIterator<Item = (String, String)>) -> Self {
        Self(pairs.into_iter().collect())
    }

    pub(super) fn read(claims: Map<String, Value>) -> Self {
        let mut pairs = Vec::with_capacity(claims.len());
        for (name, value) in claims {
            match value {
                Value::Array(items) => {
                    let each = items.into_iter().filter_map(plain);
                    pairs.extend(each.map(|item| (name.clone(), item)));
                }
                value => pairs.extend(plain(value).map(|value| (name, value))),
            }
        }
        Self(pairs)
    }

    /// The values of a claim: one, several if it is a list, or none.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.0.iter().filter(move |(known, _)| known == name);
        named.map(|(_, value)| value.as_str())
    }
}

impl std::fmt::Debug for Claims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Claims(..)")
    }
}

fn plain(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_texts_by_name_and_lists_are_several() {
        let Value::Object(claims) = serde_json::json!({
            "plan": "gold", "level": 3, "staff": true, "groups": ["a", 7, null, ["x"]], "nested": { "a": "b" }, "no": null,
        }) else {
            panic!("an object");
        };
        let claims = Claims::read(claims);
        for (name, expected) in [
            ("plan", &["gold"][..]),
            ("level", &["3"]),
            ("staff", &["true"]),
            ("groups", &["a", "7"]),
            ("nested", &[]),
            ("no", &[]),
            ("other", &[]),
        ] {
            assert_eq!(claims.values(name).collect::<Vec<_>>(), expected, "{name}");
        }
        assert_eq!(format!("{claims:?}"), "Claims(..)");
    }
}
