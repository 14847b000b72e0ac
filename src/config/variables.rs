//! Puts the environment's values in place of `${VAR}`, and remembers where, so that a problem behind one is still told
//! at the column that people see.

use std::fmt;

use super::tree::Mark;

/// A text with its variables replaced. Lines stay lines, because a value has no line break.
pub struct Replaced {
    /// What is parsed.
    pub text: String,
    swaps: Vec<Swap>,
}

struct Swap {
    /// Where the value stands in the new text.
    at: Mark,
    /// In characters, before and after.
    lengths: (usize, usize),
    /// Why there is no value.
    failure: Option<Failure>,
}

/// Why a variable has no value. The message is made where it is told: a text may be full of them.
#[derive(Debug, Clone)]
enum Failure {
    Unclosed,
    Unset(String),
    Broken(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unclosed => f.write_str("has a ${ without a name and a }: write ${NAME}, or $${ for ${ itself"),
            Self::Unset(name) => write!(f, "environment variable {name} is not set: set it, or write the value"),
            Self::Broken(name) => write!(
                f,
                "environment variable {name} has a line break: write the value in a file"
            ),
        }
    }
}

impl Replaced {
    /// Replaces every `${VAR}`; `$${` stands for `${`. What has no value is left as it is, and told by
    /// [`Self::failure`] where the text is used, so that a comment may say anything.
    pub fn new(text: &str, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let mut out = Self {
            text: String::with_capacity(text.len()),
            swaps: Vec::new(),
        };
        let mut at = Mark { line: 1, column: 1 };
        let mut rest = text;
        while let Some(found) = rest.find("${") {
            let (before, after) = rest.split_at(found);
            let (before, escaped) = match before.strip_suffix('$') {
                Some(shorter) => (shorter, true),
                None => (before, false),
            };
            out.text.push_str(before);
            at = at.after(before);
            let (written, value, failure) = if escaped {
                ("$${", "${".to_owned(), None)
            } else {
                variable(after, env)
            };
            let lengths = (written.chars().count(), value.chars().count());
            out.swaps.push(Swap { at, lengths, failure });
            out.text.push_str(&value);
            at.column += lengths.1;
            rest = &rest[before.len() + written.len()..];
        }
        out.text.push_str(rest);
        out
    }

    /// The place in the file of a place in the new text.
    pub fn original(&self, mark: Mark) -> Mark {
        let first = self.swaps.partition_point(|swap| swap.at.line < mark.line);
        let same_line = self.swaps[first..].iter().take_while(|swap| swap.at.line == mark.line);
        let mut column = mark.column;
        for swap in same_line.take_while(|swap| swap.at.column < mark.column) {
            column = (column + swap.lengths.0).saturating_sub(swap.lengths.1);
        }
        Mark { column, ..mark }
    }

    /// Why a stretch of the new text has no value, if so.
    pub fn failure(&self, from: Mark, to: Mark) -> Option<String> {
        let first = self.swaps.partition_point(|swap| swap.at < from);
        let inside = self.swaps[first..].iter().take_while(|swap| swap.at < to);
        inside
            .filter_map(|swap| swap.failure.as_ref())
            .next()
            .map(ToString::to_string)
    }
}

/// What is written at the beginning of a text, its value, and why there is none. The stand-in for a missing value is
/// a word, which is sound YAML wherever a value is.
fn variable<'a>(text: &'a str, env: &dyn Fn(&str) -> Option<String>) -> (&'a str, String, Option<Failure>) {
    let tail = &text[2..];
    let end = tail
        .find(|c: char| !(c.is_ascii_alphanumeric() || c == '_'))
        .unwrap_or(tail.len());
    let (name, rest) = tail.split_at(end);
    if name.is_empty() || !rest.starts_with('}') {
        return ("${", "unclosed".to_owned(), Some(Failure::Unclosed));
    }
    let (value, failure) = match env(name) {
        Some(value) if value.contains(['\n', '\r']) => ("broken".to_owned(), Some(Failure::Broken(name.to_owned()))),
        Some(value) => (value, None),
        None => ("unset".to_owned(), Some(Failure::Unset(name.to_owned()))),
    };
    (&text[..end + 3], value, failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(name: &str) -> Option<String> {
        match name {
            "A" => Some("x".to_owned()),
            "LONG" => Some("0123456789".to_owned()),
            "BROKEN" => Some("a\nb".to_owned()),
            _ => None,
        }
    }

    #[test]
    fn variables_come_from_the_environment() {
        assert_eq!(Replaced::new("a: ${A}\nb: $${A}\n", &env).text, "a: x\nb: ${A}\n");
    }

    #[test]
    fn places_are_those_of_the_file() {
        let replaced = Replaced::new("{ a: ${LONG}, b: ${A}, c: $${, d: 1 }\nc: 1\n", &env);
        assert_eq!(replaced.text, "{ a: 0123456789, b: x, c: ${, d: 1 }\nc: 1\n");
        for (new, old) in [(3, 3), (18, 15), (24, 24), (31, 32)] {
            let mark = Mark { line: 1, column: new };
            assert_eq!(replaced.original(mark).column, old, "{new}");
        }
        let mark = Mark { line: 2, column: 1 };
        assert_eq!(replaced.original(mark), mark);
    }

    #[test]
    fn what_has_no_value_says_why() {
        for (text, why) in [
            ("${B}", "B is not set"),
            ("${BROKEN}", "line break"),
            ("${A", "without a name"),
        ] {
            let replaced = Replaced::new(&format!("a: {text}\n"), &env);
            let (from, to) = (Mark { line: 1, column: 4 }, Mark { line: 1, column: 9 });
            let told = replaced.failure(from, to).expect(text);
            assert!(told.contains(why), "{told}");
        }
    }
}
