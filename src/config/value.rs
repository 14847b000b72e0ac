//! Scalars as people write them: durations, sizes, and `${VAR}`.

use std::fmt;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};

use super::problem::{Places, Problem};

/// `500ms`, `3s`, `10m`, `1h`.
#[derive(Debug, Clone, Copy, JsonSchema)]
#[schemars(with = "String")]
pub struct Span(pub Duration);

/// `512`, `64KiB`, `1MiB`, `1GB`.
#[derive(Debug, Clone, Copy, JsonSchema)]
#[schemars(with = "String")]
pub struct Size(pub u64);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        span(&text).map(Self).ok_or_else(|| {
            de::Error::custom(format!(
                "{text:?} is no duration: write a number and ms, s, m or h, such as 3s"
            ))
        })
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Scalar::deserialize(from)?.to_string();
        size(&text).map(Self).ok_or_else(|| {
            de::Error::custom(format!(
                "{text:?} is no size: write bytes, or a number and KiB, MiB or GiB"
            ))
        })
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Number(u64),
    Text(String),
}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(n) => write!(f, "{n}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

fn split(text: &str) -> Option<(u64, &str)> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    Some((number.parse().ok()?, unit))
}

fn span(text: &str) -> Option<Duration> {
    let (number, unit) = split(text)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    number.checked_mul(millis).map(Duration::from_millis)
}

fn size(text: &str) -> Option<u64> {
    let (number, unit) = split(text)?;
    let bytes = match unit {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "KB" | "kB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        _ => return None,
    };
    number.checked_mul(bytes)
}

/// Puts the environment's values in place of `${VAR}`; `$${` stands for `${`.
pub fn substituted(file: &str, text: &str, env: &dyn Fn(&str) -> Option<String>) -> Result<String, Vec<Problem>> {
    let mut out = String::with_capacity(text.len());
    let mut problems = Vec::new();
    let places = Places::new(file, text);
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = rest.split_at(at);
        let comment = before.rfind('\n').map_or(before, |n| &before[n..]).contains('#');
        if before.ends_with('$') || comment {
            out.push_str(before.strip_suffix('$').filter(|_| !comment).unwrap_or(before));
            out.push_str("${");
            rest = &after[2..];
            continue;
        }
        out.push_str(before);
        let Some((name, tail)) = after[2..].split_once('}') else {
            problems.push(places.problem("", "has a ${ without }: close it, or write $${"));
            break;
        };
        match env(name) {
            Some(value) => out.push_str(&value),
            None => {
                let message = format!("environment variable {name} is not set: set it, or write the value");
                let mut problem = places.problem("", message);
                problem.line = 1 + text[..text.len() - after.len()].matches('\n').count();
                problems.push(problem);
            }
        }
        rest = tail;
    }
    out.push_str(rest);
    if problems.is_empty() { Ok(out) } else { Err(problems) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_units() {
        assert_eq!(span("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(span("10m"), Some(Duration::from_secs(600)));
        for bad in ["", "3", "s", "3 s", "-1s", "1d", "99999999999999999999s"] {
            assert_eq!(span(bad), None, "{bad}");
        }
        assert_eq!(size("64KiB"), Some(65_536));
        assert_eq!(size("7"), Some(7));
        assert_eq!(size("1TiB"), None);
    }

    #[test]
    fn variables_come_from_the_environment() {
        let env = |name: &str| (name == "A").then(|| "x".to_owned());
        let text = "a: ${A}\nb: $${A}\n# ${B}\n";
        assert_eq!(substituted("f", text, &env), Ok("a: x\nb: ${A}\n# ${B}\n".to_owned()));
        let problems = substituted("f", "a: 1\nb: ${B}\n", &env).expect_err("unset");
        assert_eq!((problems.len(), problems[0].line), (1, 2));
    }
}
