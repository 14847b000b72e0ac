//! Holds a tree against the shape that it should have, tells every difference, and mends the tree: what is wrong is
//! cut, and what must not be missing is stood in for, so that the rest can be judged, too.

use std::collections::BTreeMap;

use super::places::Places;
use super::shape::{Field, Kind, Shape, choice};
use super::tree::{Entry, Mark, Node, Value};

/// Names farther apart than this are not the same name with a slip in it.
const ALIKE: f64 = 0.8;
/// The longest text that is repeated in a message.
const SHOWN_MAX: usize = 80;

/// Tells every difference between a tree and its shape, and mends the tree.
pub fn check(root: &mut Node, shape: &Shape, places: &mut Places<'_>) {
    let mut checking = Checking {
        places,
        path: String::new(),
        key: Mark { line: 1, column: 1 },
    };
    if !checking.node(root, shape) {
        root.value = Value::Map(BTreeMap::new());
    }
}

struct Checking<'a, 'b> {
    places: &'a mut Places<'b>,
    /// Where we are, from the top down.
    path: String,
    /// The place of the key or item where we are.
    key: Mark,
}

impl Checking<'_, '_> {
    fn note(&mut self, message: impl Into<String>) {
        self.places.note_at(self.key, &self.path, message);
        self.places.cut(&self.path);
    }

    /// Does something one step further down.
    fn below<T>(&mut self, step: &str, mark: Mark, what: impl FnOnce(&mut Self) -> T) -> T {
        let (length, key) = (self.path.len(), self.key);
        if !self.path.is_empty() && !step.starts_with('[') {
            self.path.push('.');
        }
        self.path.push_str(step);
        self.key = mark;
        let result = what(self);
        self.path.truncate(length);
        self.key = key;
        result
    }

    /// Whether a node is sound, or was made so.
    fn node(&mut self, node: &mut Node, shape: &Shape) -> bool {
        if matches!(
            node.value,
            Value::Text(_) | Value::Number(_) | Value::Flag(_) | Value::Null
        ) {
            if let Some(why) = self.places.failure(node.from, node.to) {
                self.note(why);
                return false;
            }
        }
        match (shape, &mut node.value) {
            (Shape::Any, _) | (Shape::Text(None), Value::Text(_)) | (Shape::Flag, Value::Flag(_)) => true,
            (Shape::Text(Some(kind)), Value::Text(text)) => self.kind(text, kind),
            (Shape::Words(words), Value::Text(text)) => self.word(text, words, shape),
            (Shape::Number(least, most), Value::Number(text)) => self.number(text, *least, *most),
            (Shape::List(item), Value::List(items)) => {
                self.items(items, item);
                true
            }
            (Shape::Map(kind, value), Value::Map(entries)) => {
                self.map(entries, kind.as_ref(), value);
                true
            }
            (Shape::Record(fields), Value::Map(entries)) => {
                self.record(entries, fields);
                true
            }
            (Shape::Either(shapes), value) => match (shapes.iter().find(|one| fits(one, value)), value) {
                (Some(Shape::Words(words)), Value::Text(text)) => self.word(text, words, shape),
                (Some(one), _) => self.node(node, one),
                (None, _) => self.wrong_type(node, shape),
            },
            (
                Shape::Text(_)
                | Shape::Words(_)
                | Shape::Number(..)
                | Shape::Flag
                | Shape::List(_)
                | Shape::Map(..)
                | Shape::Record(_),
                _,
            ) => self.wrong_type(node, shape),
        }
    }

    fn wrong_type(&mut self, node: &Node, shape: &Shape) -> bool {
        let message = match (&node.value, shape) {
            (Value::Number(text), Shape::Text(None)) => format!("{text} is a number, not a text: write \"{text}\""),
            (Value::Flag(flag), Shape::Text(None)) => format!("{flag} is no text: write \"{flag}\""),
            (value, _) => format!("{}: write {}", what(value, shape), shape.advice()),
        };
        self.note(message);
        false
    }

    fn kind(&mut self, text: &str, kind: &Kind) -> bool {
        let sound = kind.pattern.is_match(text);
        if !sound {
            self.note(format!("{} is no {}: write {}", quoted(text), kind.title, kind.advice));
        }
        sound
    }

    /// One of a few words; `shape` is all that may stand there.
    fn word(&mut self, text: &str, words: &[String], shape: &Shape) -> bool {
        let known = words.iter().any(|word| word == text);
        if !known {
            let near = near(text, words.iter().map(String::as_str));
            let advice = near.map_or_else(|| shape.advice(), str::to_owned);
            self.note(format!("{} is not known: write {advice}", quoted(text)));
        }
        known
    }

    fn number(&mut self, text: &str, least: u64, most: u64) -> bool {
        let within = text.parse::<u64>().is_ok_and(|n| (least..=most).contains(&n));
        if !within {
            let advice = Shape::Number(least, most).advice();
            self.note(format!("{text} does not fit: write {advice}"));
        }
        within
    }

    fn items(&mut self, items: &mut [Node], shape: &Shape) {
        for (n, item) in items.iter_mut().enumerate() {
            let mark = item.from;
            self.below(&format!("[{n}]"), mark, |this| {
                if !this.node(item, shape) {
                    // A stand-in, so that the items behind it keep their numbers.
                    item.value = stand_in(shape);
                }
            });
        }
    }

    fn map(&mut self, entries: &mut BTreeMap<String, Entry>, kind: Option<&Kind>, shape: &Shape) {
        let keeps_name = matches!(shape, Shape::Record(_));
        entries.retain(|name, entry| {
            self.below(name, entry.key, |this| {
                if kind.is_some_and(|kind| !this.kind(name, kind)) {
                    return false;
                }
                let sound = this.node(&mut entry.node, shape);
                if !sound && keeps_name {
                    // What points at the name is not wrong.
                    entry.node.value = stand_in(shape);
                }
                sound || keeps_name
            })
        });
    }

    fn record(&mut self, entries: &mut BTreeMap<String, Entry>, fields: &BTreeMap<String, Field>) {
        entries.retain(|name, entry| self.below(name, entry.key, |this| this.field(name, entry, fields)));
        for (name, field) in fields.iter().filter(|(_, field)| field.required) {
            if entries.contains_key(name) {
                continue;
            }
            let mark = self.key;
            self.below(name, mark, |this| {
                if !this.places.is_cut(&this.path) {
                    this.note(format!("is missing: write {}", field.shape.advice()));
                }
            });
            let node = Node {
                from: mark,
                to: mark,
                value: stand_in(&field.shape),
            };
            entries.insert(name.clone(), Entry { key: mark, node });
        }
    }

    /// Whether a key of a record stays.
    fn field(&mut self, name: &str, entry: &mut Entry, fields: &BTreeMap<String, Field>) -> bool {
        match fields.get(name) {
            Some(field) => {
                // An empty section is one whose keys are all commented out.
                let empty = matches!(entry.node.value, Value::Null) && !field.required;
                !empty && self.node(&mut entry.node, &field.shape)
            }
            None => {
                self.unknown(name, fields);
                false
            }
        }
    }

    fn unknown(&mut self, name: &str, fields: &BTreeMap<String, Field>) {
        match near(name, fields.keys().map(String::as_str)) {
            Some(meant) => {
                self.note(format!("is not known: did you mean {meant}?"));
                // The meant key is not missing: it is this one.
                let parent = self.path.len() - name.len();
                self.places.cut(&format!("{}{meant}", &self.path[..parent]));
            }
            None => {
                let known: Vec<String> = fields.keys().cloned().collect();
                self.note(format!("is not known: write {}", choice(&known, "or")));
            }
        }
    }
}

fn fits(shape: &Shape, value: &Value) -> bool {
    match shape {
        Shape::Any => true,
        Shape::Text(_) | Shape::Words(_) => matches!(value, Value::Text(_)),
        Shape::Number(..) => matches!(value, Value::Number(_)),
        Shape::Flag => matches!(value, Value::Flag(_)),
        Shape::List(_) => matches!(value, Value::List(_)),
        Shape::Map(..) | Shape::Record(_) => matches!(value, Value::Map(_)),
        Shape::Either(shapes) => shapes.iter().any(|shape| fits(shape, value)),
    }
}

/// What a value is, where it should be something else.
fn what(value: &Value, wanted: &Shape) -> String {
    match (value, wanted) {
        (Value::Null, _) => "is empty".to_owned(),
        (Value::Flag(flag), _) => format!("is {flag}"),
        (Value::Number(text), Shape::Text(Some(kind))) => format!("{text} is no {}", kind.title),
        (Value::Number(text), _) => format!("is the number {text}"),
        (Value::Text(text), Shape::Number(..)) => format!("{} is no number", quoted(text)),
        (Value::Text(text), _) => format!("is the text {}", quoted(text)),
        (Value::List(_), _) => "is a list".to_owned(),
        (Value::Map(_), _) => "is a map".to_owned(),
    }
}

fn quoted(text: &str) -> String {
    if text.chars().count() > SHOWN_MAX {
        let start: String = text.chars().take(SHOWN_MAX).collect();
        return format!("{start:?}…");
    }
    format!("{text:?}")
}

/// The name that was meant, if one is near.
fn near<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let distance = |other: &str| strsim::jaro_winkler(name, other);
    let each = known.map(|other| (distance(other), other));
    let best = each.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 >= ALIKE).then_some(best.1)
}

/// A sound value for what is wrong or missing. Nothing is said about it later, because its place counts as cut.
fn stand_in(shape: &Shape) -> Value {
    match shape {
        Shape::Any => Value::Null,
        Shape::Text(kind) => Value::Text(kind.as_ref().map_or("x".to_owned(), |kind| kind.example.clone())),
        // The last word is the one with the fewest consequences: passthrough.
        Shape::Words(words) => Value::Text(words.last().cloned().unwrap_or_default()),
        Shape::Number(least, _) => Value::Number(least.to_string()),
        Shape::Flag => Value::Flag(false),
        Shape::List(_) => Value::List(Vec::new()),
        Shape::Map(..) => Value::Map(BTreeMap::new()),
        Shape::Record(fields) => {
            let required = fields.iter().filter(|(_, field)| field.required);
            let at = Mark { line: 1, column: 1 };
            let entry = |field: &Field| Entry {
                key: at,
                node: Node {
                    from: at,
                    to: at,
                    value: stand_in(&field.shape),
                },
            };
            Value::Map(required.map(|(name, field)| (name.clone(), entry(field))).collect())
        }
        Shape::Either(shapes) => shapes.first().map_or(Value::Null, stand_in),
    }
}
