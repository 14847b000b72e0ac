//! Scalars as people write them: durations and sizes.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Units of time and their milliseconds, the largest first.
const TIMES: &[(&str, u64)] = &[("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
/// Units of size and their bytes.
const SIZES: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
    ("kB", 1_000),
    ("B", 1),
];
/// Below this, seconds read better than minutes.
const MINUTES_FROM_MILLIS: u64 = 600_000;

/// `500ms`, `3s`, `10m`, `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span(pub Duration);

/// `512`, `64KiB`, `1MiB`, `1GB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(pub u64);

impl JsonSchema for Span {
    fn schema_name() -> Cow<'static, str> {
        "Span".into()
    }

    // Twelve digits of hours are milliseconds that fit 64 bits.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "title": "duration",
            "description": "a whole number and ms, s, m or h, such as 3s",
            "pattern": "^[0-9]{1,12}(ms|s|m|h)$",
            "examples": ["3s"],
        })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    // Ten digits of GiB are bytes that fit 64 bits.
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "integer", "format": "uint64", "minimum": 0 },
                {
                    "type": "string",
                    "title": "size",
                    "description": "bytes, or a whole number and KiB, MiB or GiB, such as 64KiB",
                    "pattern": "^[0-9]{1,10}(B|KiB|MiB|GiB|KB|kB|MB|GB)?$",
                    "examples": ["64KiB"],
                },
            ],
        })
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let millis = amount(&text, TIMES);
        let span = millis.map(|millis| Self(Duration::from_millis(millis)));
        span.ok_or_else(|| de::Error::custom(format!("{text:?} is no duration")))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let bytes = match Written::deserialize(from)? {
            Written::Number(bytes) => Ok(bytes),
            Written::Text(text) => match text.parse() {
                Ok(bytes) => Ok(bytes),
                Err(_) => amount(&text, SIZES).ok_or(text),
            },
        };
        let size = bytes.map(Self);
        size.map_err(|text| de::Error::custom(format!("{text:?} is no size")))
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        let long = millis >= MINUTES_FROM_MILLIS;
        let mut units = TIMES.iter().filter(|(_, unit)| long || *unit <= 1_000);
        match units.find(|(_, unit)| millis.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", millis / unit),
            None => write!(f, "{millis}ms"),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut units = SIZES.iter().filter(|_| self.0 > 0);
        match units.find(|(_, unit)| self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => write!(f, "{}{name}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

fn amount(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, name) = text.split_at(end);
    let (_, unit) = units.iter().find(|(known, _)| *known == name)?;
    number.parse::<u64>().ok()?.checked_mul(*unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_sizes_have_units() {
        assert_eq!(amount("500ms", TIMES), Some(500));
        assert_eq!(amount("10m", TIMES), Some(600_000));
        for bad in ["", "3", "s", "3 s", "-1s", "1d", "99999999999999999999s"] {
            assert_eq!(amount(bad, TIMES), None, "{bad}");
        }
        assert_eq!(amount("64KiB", SIZES), Some(65_536));
        assert_eq!(amount("1TiB", SIZES), None);
    }

    #[test]
    fn they_are_shown_as_people_write_them() {
        for text in ["0s", "500ms", "75s", "120s", "10m", "1h"] {
            let millis = amount(text, TIMES).expect(text);
            assert_eq!(Span(Duration::from_millis(millis)).to_string(), text);
        }
        for (bytes, text) in [(0, "0"), (7, "7B"), (32_768, "32KiB"), (1_000_000, "1MB")] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }

    #[test]
    fn what_the_pattern_takes_is_read() {
        for most in ["999999999999h", "999999999999ms"] {
            assert!(amount(most, TIMES).is_some(), "{most}");
        }
        assert!(amount("9999999999GiB", SIZES).is_some());
    }
}
