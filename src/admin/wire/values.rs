//! What a request may have several of under one name: one text, or a list of them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

/// By name, what a request has: each once, or several times in the order of the list.
pub type Named = BTreeMap<String, Values>;

/// The values of one name, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Values(Vec<String>);

impl Values {
    /// Collects those of each name.
    pub fn by_name(pairs: impl IntoIterator<Item = (String, String)>) -> Named {
        let mut named = Named::new();
        for (name, value) in pairs {
            named.entry(name).or_default().0.push(value);
        }
        named
    }

    /// Each value with its name.
    pub fn pairs(named: Named) -> impl Iterator<Item = (String, String)> {
        let each = |(name, Self(values)): (String, Self)| values.into_iter().map(move |value| (name.clone(), value));
        named.into_iter().flat_map(each)
    }
}

impl Serialize for Values {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => serializer.serialize_str(one),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Values {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMore)
    }
}

struct OneOrMore;

impl<'de> Visitor<'de> for OneOrMore {
    type Value = Values;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text, or a list of texts")
    }

    fn visit_str<E>(self, text: &str) -> Result<Values, E> {
        Ok(Values(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Values, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = items.next_element()? {
            values.push(value);
        }
        Ok(Values(values))
    }
}

impl JsonSchema for Values {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Values".into()
    }

    fn json_schema(_generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }] })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_a_text_and_several_are_a_list() {
        let text = r#"{"a":"1","b":["2","3"],"c":[]}"#;
        let named: Named = serde_json::from_str(text).expect("JSON");
        assert_eq!(serde_json::to_string(&named).expect("JSON"), text);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let pairs = [pair("a", "1"), pair("b", "2"), pair("b", "3")];
        assert_eq!(Values::pairs(named.clone()).collect::<Vec<_>>(), pairs);
        assert_eq!(Values::by_name(pairs)["b"], named["b"]);
        let wrong = serde_json::from_str::<Named>(r#"{"a":1}"#).expect_err("a number");
        assert!(
            wrong.to_string().contains("expected a text, or a list of texts"),
            "{wrong}"
        );
    }
}
