//! From text to the shapes that people write: reads the tree, has it checked and mended, and makes values of it.

use once_cell::sync::Lazy;
use serde::de::DeserializeOwned;
use serde_yaml::{Mapping, Number, Value as Yaml};

use super::places::Places;
use super::shape::Shape;
use super::tree::{self, Node, Value};
use super::variables::Replaced;
use super::{check, schema, written};

static SHAPE: Lazy<Shape> = Lazy::new(|| Shape::of(&schema()));

/// Reads a file; everything that is wrong with its form is noted, and what is left is yielded, if anything is.
pub fn file(replaced: &Replaced, places: &mut Places<'_>) -> Option<written::File> {
    let document = match tree::read(&replaced.text) {
        Ok(document) => document,
        Err(refusal) => {
            places.note_at(refusal.at, &refusal.key, refusal.message);
            return None;
        }
    };
    for refusal in document.refusals {
        places.note_at(refusal.at, &refusal.key, refusal.message);
    }
    node(document.root, &SHAPE, places)
}

/// Makes a value of a tree that has that shape; everything that is wrong with its form is noted.
pub fn node<T: DeserializeOwned>(mut root: Node, shape: &Shape, places: &mut Places<'_>) -> Option<T> {
    check::check(&mut root, shape, places);
    let value = yaml(&root);
    places.set_root(root);
    match serde_path_to_error::deserialize(value) {
        Ok(value) => Some(value),
        // Something that a type refuses although the schema has it.
        Err(e) => {
            places.note(&e.path().to_string(), e.inner().to_string());
            None
        }
    }
}

fn yaml(node: &Node) -> Yaml {
    match &node.value {
        Value::Null => Yaml::Null,
        Value::Flag(flag) => Yaml::Bool(*flag),
        Value::Number(text) => match text.parse::<u64>() {
            Ok(number) => Yaml::Number(Number::from(number)),
            Err(_) => Yaml::String(text.clone()),
        },
        Value::Text(text) => Yaml::String(text.clone()),
        Value::List(items) => Yaml::Sequence(items.iter().map(yaml).collect()),
        Value::Map(entries) => {
            let each = entries.iter();
            let each = each.map(|(name, entry)| (Yaml::String(name.clone()), yaml(&entry.node)));
            Yaml::Mapping(each.collect::<Mapping>())
        }
    }
}
