//! The YAML as a tree in which every key and every item knows its place. Owns what the file's language is: one
//! document of maps, lists and scalars, with anchors, aliases and merge keys, without tags of its own.

use std::collections::{BTreeMap, HashMap};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

/// No key of the configuration lies deeper; past it the tree is not built, so nothing that walks it runs out of stack.
const DEPTH_MAX: usize = 32;
const NOT_A_KEY: &str = "is a list or map where a key is expected: write a word and a colon before it";
/// How many nodes aliases may add: a file of a few lines cannot become a tree of billions.
const ALIASED_NODES_MAX: usize = 100_000;

/// A place, line and column from 1; a column counts characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    pub line: usize,
    pub column: usize,
}

impl Mark {
    /// The place behind a text that begins here.
    pub fn after(self, text: &str) -> Self {
        match text.rsplit_once('\n') {
            Some((lines, last)) => Self {
                line: self.line + lines.matches('\n').count() + 1,
                column: last.chars().count() + 1,
            },
            None => Self {
                column: self.column + text.chars().count(),
                ..self
            },
        }
    }
}

impl From<Marker> for Mark {
    fn from(marker: Marker) -> Self {
        Self {
            line: marker.line(),
            column: marker.col() + 1,
        }
    }
}

/// A value and the stretch of text that it stands in.
#[derive(Debug, Clone)]
pub struct Node {
    pub from: Mark,
    pub to: Mark,
    pub value: Value,
}

/// What a node is, by the core schema of YAML 1.2.
#[derive(Debug, Clone)]
pub enum Value {
    Null,
    Flag(bool),
    /// As it is written: what it may be depends on the key.
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(BTreeMap<String, Entry>),
}

/// A key's place, and its value.
#[derive(Debug, Clone)]
pub struct Entry {
    pub key: Mark,
    pub node: Node,
}

/// Something that the language does not allow.
#[derive(Debug)]
pub struct Refusal {
    pub at: Mark,
    /// The key that it is about, from the top down; empty where there is none.
    pub key: String,
    pub message: String,
}

/// A document, and what is wrong in it although it can be read.
pub struct Document {
    pub root: Node,
    pub refusals: Vec<Refusal>,
}

/// Reads one document.
///
/// # Errors
/// The first place where the text is not YAML, or not the part of it that is read here.
pub fn read(text: &str) -> Result<Document, Refusal> {
    let mut building = Building::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.map_err(|e| Refusal {
            at: Mark::from(*e.marker()),
            key: String::new(),
            message: match e.info() {
                "recursion limit exceeded" => too_deep(),
                info => format!("is no YAML: {info}: mend this line or the one before it"),
            },
        })?;
        building.event(event, span)?;
    }
    let start = Mark { line: 1, column: 1 };
    Ok(Document {
        root: building.root.unwrap_or(Node {
            from: start,
            to: start,
            value: Value::Map(BTreeMap::new()),
        }),
        refusals: building.refusals,
    })
}

/// A list or map that is not closed yet.
struct Open {
    from: Mark,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    /// The second part is the key that waits for its value.
    Map(BTreeMap<String, Entry>, Option<(String, Mark)>),
}

#[derive(Default)]
struct Building {
    open: Vec<Open>,
    root: Option<Node>,
    anchors: HashMap<usize, Node>,
    aliased: usize,
    documents: usize,
    refusals: Vec<Refusal>,
}

impl Building {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Refusal> {
        let (from, to) = (Mark::from(span.start), Mark::from(span.end));
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => self.document(from),
            Event::Alias(anchor) => {
                let node = self.alias(anchor, from)?;
                if self.wants_key() && matches!(node.value, Value::List(_) | Value::Map(_)) {
                    return Err(self.refusal(from, NOT_A_KEY));
                }
                self.place(Node { from, to, ..node }, 0)
            }
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref()).map_err(|message| self.refusal(from, message))?;
                self.place(Node { from, to, value }, anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.start(from, anchor, tag.as_deref(), "seq", Inside::List(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.start(from, anchor, tag.as_deref(), "map", Inside::Map(BTreeMap::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(to),
        }
    }

    fn wants_key(&self) -> bool {
        matches!(
            self.open.last(),
            Some(Open {
                inside: Inside::Map(_, None),
                ..
            })
        )
    }

    fn forget_key(&mut self) {
        if let Some(Inside::Map(_, waiting)) = self.open.last_mut().map(|open| &mut open.inside) {
            *waiting = None;
        }
    }

    fn refusal(&self, at: Mark, message: impl Into<String>) -> Refusal {
        let mut key = String::new();
        for open in &self.open {
            match &open.inside {
                Inside::List(items) => key += &format!("[{}]", items.len()),
                Inside::Map(_, Some((name, _))) if key.is_empty() => key += name,
                Inside::Map(_, Some((name, _))) => key += &format!(".{name}"),
                Inside::Map(_, None) => {}
            }
        }
        Refusal {
            at,
            key,
            message: message.into(),
        }
    }

    fn document(&mut self, at: Mark) -> Result<(), Refusal> {
        self.documents += 1;
        if self.documents > 1 {
            let message = "begins a second document: write one, without --- between".to_owned();
            return Err(self.refusal(at, message));
        }
        Ok(())
    }

    fn start(
        &mut self,
        from: Mark,
        anchor: usize,
        tag: Option<&Tag>,
        own: &str,
        inside: Inside,
    ) -> Result<(), Refusal> {
        if let Some(tag) = tag.filter(|tag| !(tag.is_yaml_core_schema() && tag.suffix == own)) {
            let message = format!("has the tag {tag}, which means nothing here: remove it");
            return Err(self.refusal(from, message));
        }
        if self.open.len() == DEPTH_MAX {
            return Err(self.refusal(from, too_deep()));
        }
        if self.wants_key() {
            return Err(self.refusal(from, NOT_A_KEY));
        }
        self.open.push(Open { from, anchor, inside });
        Ok(())
    }

    fn end(&mut self, to: Mark) -> Result<(), Refusal> {
        let Some(Open { from, anchor, inside }) = self.open.pop() else {
            return Ok(());
        };
        let value = match inside {
            Inside::List(items) => Value::List(items),
            Inside::Map(mut entries, _) => {
                if let Some(merged) = entries.remove("<<") {
                    self.merge(&mut entries, merged.node)?;
                }
                Value::Map(entries)
            }
        };
        self.place(Node { from, to, value }, anchor)
    }

    /// `<<: *base` gives the keys of another map that this one does not have.
    fn merge(&mut self, entries: &mut BTreeMap<String, Entry>, from: Node) -> Result<(), Refusal> {
        let at = from.from;
        let maps = match from.value {
            Value::List(items) => items,
            single => vec![Node { value: single, ..from }],
        };
        for map in maps {
            let Value::Map(more) = map.value else {
                let message = "<< merges something else than a map: write an alias of one, such as *name".to_owned();
                return Err(self.refusal(at, message));
            };
            for (key, entry) in more {
                entries.entry(key).or_insert(entry);
            }
        }
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn place(&mut self, node: Node, anchor: usize) -> Result<(), Refusal> {
        if anchor != 0 {
            self.count(&node, node.from)?;
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.inside) {
            None => self.root = Some(node),
            Some(Inside::List(items)) => items.push(node),
            Some(Inside::Map(entries, waiting)) => match waiting.take() {
                None => *waiting = Some((key(&node), node.from)),
                Some((key, mark)) => match entries.get(&key).map(|first| first.key.line) {
                    Some(line) => {
                        *waiting = Some((key, mark));
                        let message = format!("is written twice, first in line {line}: remove one");
                        let refusal = self.refusal(mark, message);
                        self.refusals.push(refusal);
                        self.forget_key();
                    }
                    None => {
                        entries.insert(key, Entry { key: mark, node });
                    }
                },
            },
        }
        Ok(())
    }

    fn alias(&mut self, anchor: usize, at: Mark) -> Result<Node, Refusal> {
        let Some(node) = self.anchors.get(&anchor).cloned() else {
            let message = "stands inside of what it stands for: write it out".to_owned();
            return Err(self.refusal(at, message));
        };
        self.count(&node, at)?;
        Ok(node)
    }

    fn count(&mut self, node: &Node, at: Mark) -> Result<(), Refusal> {
        self.aliased += size(node, ALIASED_NODES_MAX);
        if self.aliased > ALIASED_NODES_MAX {
            let message = format!("anchors and aliases add more than {ALIASED_NODES_MAX} values: write less of them");
            return Err(self.refusal(at, message));
        }
        Ok(())
    }
}

fn too_deep() -> String {
    format!("is nested deeper than {DEPTH_MAX} levels: close some, because no key lies so deep")
}

/// The number of nodes, at most one more than `most`.
fn size(node: &Node, most: usize) -> usize {
    let mut count = 1;
    let mut add = |child: &Node| {
        if count <= most {
            count += size(child, most - count + 1);
        }
    };
    match &node.value {
        Value::List(items) => items.iter().for_each(&mut add),
        Value::Map(entries) => entries.values().for_each(|entry| add(&entry.node)),
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::Text(_) => {}
    }
    count
}

fn key(node: &Node) -> String {
    match &node.value {
        Value::Flag(flag) => flag.to_string(),
        Value::Number(text) | Value::Text(text) => text.clone(),
        // The start of a list or map is refused where a key is expected, and an alias of one is checked.
        Value::Null | Value::List(_) | Value::Map(_) => String::new(),
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Result<Value, String> {
    let quoted = !matches!(style, ScalarStyle::Plain);
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(Value::Text(text.to_owned())),
        Some(tag) => Err(format!("has the tag {tag}, which means nothing here: remove it")),
        None if quoted => Ok(Value::Text(text.to_owned())),
        None => Ok(plain(text)),
    }
}

fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Flag(true),
        "false" | "False" | "FALSE" => Value::Flag(false),
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

/// Whether a plain scalar is a number; digits after a leading zero are a text, so that an id such as 007 stays one.
fn is_number(text: &str) -> bool {
    let digits = text.trim_start_matches(['-', '+']);
    let begins = text.len() - digits.len() <= 1 && digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    let zero = digits.len() > 1 && digits.starts_with('0') && digits.as_bytes()[1].is_ascii_digit();
    begins && !zero && (digits.parse::<f64>().is_ok() || is_hexadecimal(digits) || [".inf", ".nan"].contains(&digits))
}

fn is_hexadecimal(text: &str) -> bool {
    let digits = text.strip_prefix("0x");
    digits.is_some_and(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let refusal = read(text).err().expect("refused");
        format!("{}:{}: {}", refusal.at.line, refusal.at.column, refusal.message)
    }

    #[test]
    fn keys_and_items_know_their_places() {
        let document = read("a:\n  - { b: 1, c: x }\n  - y\n").expect("sound");
        let Value::Map(root) = document.root.value else {
            panic!("no map")
        };
        let Value::List(items) = &root["a"].node.value else {
            panic!("no list")
        };
        assert_eq!(items[0].from, Mark { line: 2, column: 5 });
        assert_eq!(items[1].from, Mark { line: 3, column: 5 });
        let Value::Map(flow) = &items[0].value else {
            panic!("no map")
        };
        assert_eq!(flow["c"].key, Mark { line: 2, column: 13 });
    }

    #[test]
    fn scalars_are_typed_by_the_core_schema() {
        for number in ["0", "1", "-1", "1.5", "1e3", "0x1F", ".5", "+7", ".inf"] {
            assert!(matches!(plain(number), Value::Number(_)), "{number}");
        }
        for text in [
            "007",
            "127.0.0.1",
            "1s",
            "--1",
            "off",
            "yes",
            "12.5%",
            "1_000",
            "infinity",
        ] {
            assert!(matches!(plain(text), Value::Text(_)), "{text}");
        }
    }

    #[test]
    fn anchors_aliases_and_merge_keys_work() {
        let document = read("a: &x { k: 1, l: 2 }\nb: { <<: *x, l: 3 }\nc: [*x]\n").expect("sound");
        let Value::Map(root) = &document.root.value else {
            panic!("no map")
        };
        let Value::Map(b) = &root["b"].node.value else {
            panic!("no map")
        };
        let value = |key: &str| match &b[key].node.value {
            Value::Number(text) => text.clone(),
            other => panic!("{other:?}"),
        };
        assert_eq!((value("k"), value("l")), ("1".to_owned(), "3".to_owned()));
    }

    #[test]
    fn what_could_grow_without_end_is_refused() {
        let mut bomb = "a0: &a0 [1, 2, 3, 4, 5, 6, 7, 8, 9]\n".to_owned();
        for n in 1..12 {
            let before = format!("*a{}", n - 1);
            bomb += &format!("a{n}: &a{n} [{}]\n", vec![before; 9].join(", "));
        }
        assert!(refused(&bomb).contains("add more than"));
        assert!(refused("a: &x [*x]\n").contains("inside of what it stands for"));
        assert!(refused(&"[".repeat(100_000)).contains("nested deeper"));
        assert!(refused(&"- ".repeat(100_000)).contains("nested deeper"));
        assert!(refused(&"{a: ".repeat(100_000)).contains("nested deeper"));
    }

    #[test]
    fn what_is_not_read_here_says_so() {
        assert!(refused("a: 1\n---\nb: 1\n").contains("second document"));
        assert!(refused("a: !secret x\n").contains("has the tag !secret"));
        assert!(refused("? [a]\n: 1\n").starts_with("1:3: is a list or map where a key"));
        assert!(refused("a: [1\nb: 2\n").contains("is no YAML"));
    }

    #[test]
    fn a_key_that_is_written_twice_is_told_and_the_first_counts() {
        let document = read("a: 1\nb: 2\na: 3\n").expect("sound");
        assert_eq!(document.refusals.len(), 1);
        assert_eq!(document.refusals[0].at, Mark { line: 3, column: 1 });
    }
}
