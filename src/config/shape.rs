//! What may stand at each place of the file: the JSON Schema, made ready for checking. So the editor and `check` say
//! the same, because they read the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use regex::Regex;
use serde_json::Value as Json;

/// What may stand at one place.
#[derive(Debug, Clone)]
pub enum Shape {
    /// Anything.
    Any,
    /// Any text, or one of a kind.
    Text(Option<Kind>),
    /// One of these words.
    Words(Vec<String>),
    /// A whole number from the first to the second.
    Number(u64, u64),
    /// true or false.
    Flag,
    /// Any number of these.
    List(Arc<Shape>),
    /// Any names, or those of a kind, and what each stands for.
    Map(Option<Kind>, Arc<Shape>),
    /// These keys.
    Record(Arc<BTreeMap<String, Field>>),
    /// One of these.
    Either(Vec<Shape>),
}

/// A kind of text: a duration, a size, a share, a name.
#[derive(Debug, Clone)]
pub struct Kind {
    /// `duration`
    pub title: String,
    /// `a number and ms, s, m or h, such as 3s`
    pub advice: String,
    /// One that is right.
    pub example: String,
    pub pattern: Regex,
}

/// A key of a record.
#[derive(Debug)]
pub struct Field {
    pub shape: Shape,
    pub required: bool,
}

impl Shape {
    /// Reads a JSON Schema of the kind that is derived from types.
    pub fn of(schema: &Json) -> Self {
        let none = Json::Null;
        let named = schema.get("$defs").unwrap_or(&none);
        Reading { named }.shape(schema)
    }

    /// What to write at such a place.
    pub fn advice(&self) -> String {
        match self {
            Self::Any => "a value".to_owned(),
            Self::Text(None) => "a text".to_owned(),
            Self::Text(Some(kind)) => kind.advice.clone(),
            Self::Words(words) => choice(words, "or"),
            Self::Number(least, u64::MAX) => format!("a whole number, at least {least}"),
            Self::Number(least, most) => format!("a whole number from {least} to {most}"),
            Self::Flag => "true or false".to_owned(),
            Self::List(item) => format!("a list, each item {}", item.advice()),
            Self::Map(_, value) => format!("names, each with {}", value.advice()),
            Self::Record(fields) => {
                let all: Vec<String> = fields.keys().cloned().collect();
                let required = fields.iter().filter(|(_, field)| field.required);
                let required: Vec<String> = required.map(|(name, _)| name.clone()).collect();
                let names = if required.is_empty() { &all } else { &required };
                let joint = if required.is_empty() { "or" } else { "and" };
                let plural = if names.len() == 1 { "the key" } else { "the keys" };
                format!("{plural} {}", choice(names, joint))
            }
            Self::Either(shapes) => {
                let each: Vec<String> = shapes.iter().map(Self::advice).collect();
                choice(&each, "or")
            }
        }
    }
}

/// `a, b or c`
pub fn choice(words: &[String], joint: &str) -> String {
    match words {
        [] => String::new(),
        [only] => only.clone(),
        [first @ .., last] => format!("{} {joint} {last}", first.join(", ")),
    }
}

struct Reading<'a> {
    named: &'a Json,
}

impl Reading<'_> {
    fn shape(&self, schema: &Json) -> Shape {
        if let Some(name) = schema.get("$ref").and_then(Json::as_str) {
            let name = name.trim_start_matches("#/$defs/");
            return self.shape(&self.named[name]);
        }
        if let Some(each) = schema
            .get("anyOf")
            .or_else(|| schema.get("oneOf"))
            .and_then(Json::as_array)
        {
            return self.either(each);
        }
        if let Some(words) = schema.get("enum").and_then(Json::as_array) {
            return Shape::Words(texts(words));
        }
        if let Some(word) = schema.get("const") {
            return Shape::Words(texts(std::slice::from_ref(word)));
        }
        let types: Vec<&str> = match schema.get("type") {
            Some(Json::String(one)) => vec![one],
            Some(Json::Array(several)) => several.iter().filter_map(Json::as_str).collect(),
            _ => Vec::new(),
        };
        let shapes: Vec<Shape> = types.iter().filter_map(|name| self.typed(name, schema)).collect();
        one_of(shapes)
    }

    fn either(&self, each: &[Json]) -> Shape {
        let mut words = Vec::new();
        let mut shapes = Vec::new();
        let is_null = |schema: &&Json| schema.get("type").and_then(Json::as_str) == Some("null");
        for schema in each.iter().filter(|schema| !is_null(schema)) {
            match self.shape(schema) {
                Shape::Words(more) => words.extend(more),
                Shape::Either(more) => shapes.extend(more),
                shape => shapes.push(shape),
            }
        }
        if !words.is_empty() {
            shapes.insert(0, Shape::Words(words));
        }
        one_of(shapes)
    }

    fn typed(&self, name: &str, schema: &Json) -> Option<Shape> {
        Some(match name {
            "string" => Shape::Text(kind(schema)),
            "integer" | "number" => number(schema),
            "boolean" => Shape::Flag,
            "array" => Shape::List(Arc::new(
                schema.get("items").map_or(Shape::Any, |item| self.shape(item)),
            )),
            "object" => self.object(schema),
            _ => return None,
        })
    }

    fn object(&self, schema: &Json) -> Shape {
        if let Some(properties) = schema.get("properties").and_then(Json::as_object) {
            let required = schema.get("required").and_then(Json::as_array);
            let required = required.map(|names| texts(names)).unwrap_or_default();
            let fields = properties.iter().map(|(name, schema)| {
                let field = Field {
                    shape: self.shape(schema),
                    required: required.contains(name),
                };
                (name.clone(), field)
            });
            return Shape::Record(Arc::new(fields.collect()));
        }
        let patterns = schema.get("patternProperties").and_then(Json::as_object);
        match patterns.and_then(|patterns| patterns.iter().next()) {
            Some((pattern, value)) => Shape::Map(self.kind_of(pattern), Arc::new(self.shape(value))),
            None => match schema.get("additionalProperties") {
                Some(value) => Shape::Map(None, Arc::new(self.shape(value))),
                None => Shape::Any,
            },
        }
    }

    /// The kind whose pattern the keys of a map have.
    fn kind_of(&self, pattern: &str) -> Option<Kind> {
        let named = self.named.as_object()?;
        let same = |schema: &&Json| schema.get("pattern").and_then(Json::as_str) == Some(pattern);
        named.values().find(same).and_then(kind)
    }
}

fn one_of(mut shapes: Vec<Shape>) -> Shape {
    match shapes.len() {
        0 => Shape::Any,
        1 => shapes.remove(0),
        _ => Shape::Either(shapes),
    }
}

fn texts(list: &[Json]) -> Vec<String> {
    list.iter().filter_map(Json::as_str).map(str::to_owned).collect()
}

fn number(schema: &Json) -> Shape {
    let bound = |name: &str| schema.get(name).and_then(Json::as_u64);
    let format = match schema.get("format").and_then(Json::as_str) {
        Some("uint8") => u64::from(u8::MAX),
        Some("uint16") => u64::from(u16::MAX),
        Some("uint32") => u64::from(u32::MAX),
        _ => u64::MAX,
    };
    Shape::Number(bound("minimum").unwrap_or(0), bound("maximum").unwrap_or(format))
}

fn kind(schema: &Json) -> Option<Kind> {
    let text = |name: &str| schema.get(name).and_then(Json::as_str).unwrap_or_default().to_owned();
    let pattern = Regex::new(schema.get("pattern")?.as_str()?).ok()?;
    let example = schema.get("examples").and_then(|list| list.get(0)?.as_str());
    Some(Kind {
        title: text("title"),
        advice: text("description"),
        example: example.unwrap_or_default().to_owned(),
        pattern,
    })
}
