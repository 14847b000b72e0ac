//! Shares of users: integer parts per million, written as percent with up to four decimals.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A share, 0 to 1 000 000 parts per million.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(
    with = "String",
    title = "share",
    description = "a percentage from 0% to 100% with at most four decimals, such as 12.5%",
    extend("pattern" = r"^(100(\.0{1,4})?|[0-9]{1,2}(\.[0-9]{1,4})?)%$", "examples" = ["12.5%"])
)]
pub struct Weight(u32);

/// Text that is no share.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no share: write a percentage from 0% to 100% with at most four decimals, such as 12.5%")]
pub struct WeightError(String);

impl Weight {
    /// Everyone.
    pub const ALL: Self = Self(1_000_000);

    /// Takes parts per million.
    #[must_use]
    pub const fn new(parts_per_million: u32) -> Option<Self> {
        if parts_per_million <= Self::ALL.0 {
            Some(Self(parts_per_million))
        } else {
            None
        }
    }

    /// Reads `12.5%`.
    ///
    /// # Errors
    /// When the text is no percentage from 0% to 100% with at most four decimals.
    pub fn parse(text: &str) -> Result<Self, WeightError> {
        Self::from_percent(text.trim()).ok_or_else(|| WeightError(text.to_owned()))
    }

    fn from_percent(text: &str) -> Option<Self> {
        let number = text.strip_suffix('%')?.trim_end();
        let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(decimals) || decimals.len() > 4 || whole.len() > 3 {
            return None;
        }
        let parts: u32 = format!("{decimals:0<4}").parse().ok()?;
        Self::new(whole.parse::<u32>().ok()? * 10_000 + parts)
    }

    /// The number.
    #[must_use]
    pub const fn parts_per_million(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decimals = format!("{:04}", self.0 % 10_000);
        let whole = self.0 / 10_000;
        match decimals.trim_end_matches('0') {
            "" => write!(f, "{whole}%"),
            decimals => write!(f, "{whole}.{decimals}%"),
        }
    }
}

impl TryFrom<String> for Weight {
    type Error = WeightError;

    fn try_from(text: String) -> Result<Self, WeightError> {
        Self::parse(&text)
    }
}

impl From<Weight> for String {
    fn from(weight: Weight) -> Self {
        weight.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_read_and_written_exactly() {
        for (text, parts) in [
            ("0%", 0),
            ("12.5%", 125_000),
            ("0.0001%", 1),
            ("100%", 1_000_000),
            ("33.3333%", 333_333),
        ] {
            let weight = Weight::parse(text).expect(text);
            assert_eq!((weight.parts_per_million(), weight.to_string().as_str()), (parts, text));
        }
        for bad in [
            "",
            "%",
            "12.5",
            "-1%",
            "101%",
            "100.0001%",
            "1.00001%",
            "1.%",
            ".5%",
            "1e1%",
            "١%",
        ] {
            assert!(Weight::parse(bad).is_err(), "{bad}");
        }
    }
}
