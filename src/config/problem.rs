//! What is wrong with a file, where, and what to write.

use std::fmt;

/// One problem: `file:line:column: key: what is wrong: what to write`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// The key, from the top down; empty where there is none.
    pub key: String,
    /// What is wrong, and what to write.
    pub message: String,
}

impl Problem {
    pub(super) fn of_yaml(file: &str, error: &serde_yaml::Error) -> Self {
        let (line, column) = error.location().map_or((1, 1), |l| (l.line(), l.column()));
        let text = error.to_string();
        let place = format!(" at line {line} column {column}");
        Self {
            file: file.to_owned(),
            line,
            column,
            key: String::new(),
            message: text.replace(&place, ""),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Problems, a line each.
pub(super) fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

/// Finds the place of a key in a text, by following indentation.
pub(super) struct Places<'a> {
    file: &'a str,
    lines: Vec<&'a str>,
}

impl<'a> Places<'a> {
    pub(super) fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            lines: text.lines().collect(),
        }
    }

    /// A problem at the place of a key such as `pools.stable.endpoints[1]`: at the deepest part of it that is found.
    pub(super) fn problem(&self, key: &str, message: impl Into<String>) -> Problem {
        let (line, column) = self.find(key);
        Problem {
            file: self.file.to_owned(),
            line,
            column,
            key: key.to_owned(),
            message: message.into(),
        }
    }

    fn find(&self, key: &str) -> (usize, usize) {
        let (mut line, mut column) = (0, 0);
        for part in key.split(['.', '[']) {
            let name = part.trim_end_matches(']');
            if name.bytes().all(|b| b.is_ascii_digit()) {
                continue;
            }
            match self.next(line, column, name) {
                Some(found) => (line, column) = found,
                None => break,
            }
        }
        (line + 1, column + 1)
    }

    /// The next place at or after the given one where `name:` stands.
    fn next(&self, line: usize, column: usize, name: &str) -> Option<(usize, usize)> {
        let needle = format!("{name}:");
        self.lines.iter().enumerate().skip(line).find_map(|(n, text)| {
            let from = if n == line { column } else { 0 };
            let tail = text.get(from..)?;
            let code = tail.split(" #").next().unwrap_or(tail);
            let starts = code.match_indices(&needle).map(|(at, _)| at);
            let mut whole = starts.filter(|at| *at == 0 || code[..*at].ends_with([' ', '{', ',', '"', '\'', '[']));
            whole.next().map(|at| (n, from + at))
        })
    }
}
