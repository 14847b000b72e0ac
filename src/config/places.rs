//! Where each key of the file stands, and everything that is wrong: every problem of a file is noted here, whoever
//! finds it.

use std::collections::HashSet;

use super::problem::Problem;
use super::tree::{Mark, Node, Value};
use super::variables::Replaced;

/// The most problems that are told one by one: nobody reads more before mending some.
const TOLD_MAX: usize = 1000;

/// The keys of one file, and its problems.
pub struct Places<'a> {
    file: &'a str,
    /// What is left of the file.
    root: Node,
    replaced: &'a Replaced,
    /// What was wrong and is not there any more: nothing more is said about it.
    cut: HashSet<String>,
    /// The keys right above those: what is missing there may be what was cut.
    above: HashSet<String>,
    problems: Vec<Problem>,
    untold: usize,
}

impl<'a> Places<'a> {
    pub fn new(file: &'a str, replaced: &'a Replaced) -> Self {
        let start = Mark { line: 1, column: 1 };
        Self {
            file,
            root: Node {
                from: start,
                to: start,
                value: Value::Null,
            },
            replaced,
            cut: HashSet::new(),
            above: HashSet::new(),
            problems: Vec::new(),
            untold: 0,
        }
    }

    /// Takes the tree in which keys are looked for.
    pub fn set_root(&mut self, root: Node) {
        self.root = root;
    }

    /// A problem with a key such as `pools.stable.endpoints[1]`, at the deepest part of it that is written. Yields
    /// nothing when it only follows from what was cut.
    pub fn problem(&self, key: &str, message: impl Into<String>) -> Option<Problem> {
        if self.is_cut(key) || self.above.contains(key) {
            return None;
        }
        let (mark, _) = find(&self.root, key);
        Some(self.made(mark, key, message))
    }

    /// Whether a key is written in the file.
    pub fn is_written(&self, key: &str) -> bool {
        find(&self.root, key).1
    }

    /// Notes a problem with a key.
    pub fn note(&mut self, key: &str, message: impl Into<String>) {
        if self.is_cut(key) || self.above.contains(key) {
            return;
        }
        let (mark, _) = find(&self.root, key);
        self.note_at(mark, key, message);
    }

    /// Notes a problem at a place.
    pub fn note_at(&mut self, mark: Mark, key: &str, message: impl Into<String>) {
        if self.problems.len() == TOLD_MAX {
            self.untold += 1;
            return;
        }
        let problem = self.made(mark, key, message);
        self.problems.push(problem);
    }

    /// Says no more about a key and what is below it.
    pub fn cut(&mut self, key: &str) {
        let mut above = parent(key);
        self.above.insert(above.to_owned());
        if above.ends_with(']') {
            // A list is judged as a whole by what its items say.
            above = parent(above);
            self.above.insert(above.to_owned());
        }
        self.cut.insert(key.to_owned());
    }

    /// Whether a key, or one above it, was cut.
    pub fn is_cut(&self, key: &str) -> bool {
        let mut part = key;
        loop {
            if self.cut.contains(part) {
                return true;
            }
            if part.is_empty() {
                return false;
            }
            part = parent(part);
        }
    }

    /// Why a stretch of the text has no value, if so.
    pub fn failure(&self, from: Mark, to: Mark) -> Option<String> {
        self.replaced.failure(from, to)
    }

    /// All problems, in the order of the file.
    pub fn into_problems(self) -> Vec<Problem> {
        let mut problems = self.problems;
        problems.sort_by(|a, b| (a.line, a.column, &a.key).cmp(&(b.line, b.column, &b.key)));
        if self.untold > 0 {
            let message = format!("{} more problems are not told: mend these first", self.untold);
            problems.push(Problem {
                file: self.file.to_owned(),
                line: 1,
                column: 1,
                key: String::new(),
                message,
            });
        }
        problems
    }

    fn made(&self, mark: Mark, key: &str, message: impl Into<String>) -> Problem {
        let mark = self.replaced.original(mark);
        Problem {
            file: self.file.to_owned(),
            line: mark.line,
            column: mark.column,
            key: key.to_owned(),
            message: message.into(),
        }
    }
}

/// The key above: `a.b` of `a.b[1]` and of `a.b.c`. A name with a dot in it has one step too many, which does no harm.
fn parent(key: &str) -> &str {
    key.rfind(['.', '[']).map_or("", |at| &key[..at])
}

/// The place of a key, and whether all of it is there.
fn find(root: &Node, key: &str) -> (Mark, bool) {
    let (mut node, mut rest) = (root, key);
    let mut mark = Mark { line: 1, column: 1 };
    while !rest.is_empty() {
        let Some((place, next, tail)) = step(node, rest) else {
            return (mark, false);
        };
        (mark, node, rest) = (place, next, tail);
    }
    (mark, true)
}

/// The longest name at the beginning of `rest` that the node has: a name may have dots in it.
fn step<'n, 'k>(node: &'n Node, rest: &'k str) -> Option<(Mark, &'n Node, &'k str)> {
    match &node.value {
        Value::Map(entries) => {
            let rest = rest.strip_prefix('.').unwrap_or(rest);
            let ends = rest.rmatch_indices(['.', '[']).map(|(at, _)| at);
            std::iter::once(rest.len()).chain(ends).find_map(|end| {
                let entry = entries.get(&rest[..end])?;
                Some((entry.key, &entry.node, &rest[end..]))
            })
        }
        Value::List(items) => {
            let (number, tail) = rest.strip_prefix('[')?.split_once(']')?;
            let item = items.get(number.parse::<usize>().ok()?)?;
            Some((item.from, item, tail))
        }
        Value::Null | Value::Flag(_) | Value::Number(_) | Value::Text(_) => None,
    }
}
