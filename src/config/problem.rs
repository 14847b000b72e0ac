//! What is wrong with a file, where, and what to write.

use std::fmt;

/// One problem: `file:line:column: key: what is wrong: what to write`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The file.
    pub file: String,
    /// From 1; 0 where there is no file to look into.
    pub line: usize,
    /// From 1, or 0 with the line.
    pub column: usize,
    /// The key, from the top down; empty where there is none.
    pub key: String,
    /// What is wrong, and what to write.
    pub message: String,
}

impl Problem {
    /// Makes it a problem of no file.
    pub(super) fn forget_place(&mut self) {
        (self.line, self.column) = (0, 0);
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        }
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
