//! Names, checked once: 1 to 63 letters, digits, `.`, `_` and `-`, beginning with a letter or digit, so that they
//! fit labels, header values and URLs as they are.

use std::fmt;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use thiserror::Error;

const LENGTH_MAX: usize = 63;

/// Text that is no name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no name: write 1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit")]
pub struct NameError(String);

fn check(text: &str) -> Result<Arc<str>, NameError> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let first = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if first && text.len() <= LENGTH_MAX && text.bytes().all(allowed) {
        Ok(text.into())
    } else {
        Err(NameError(text.to_owned()))
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(
            with = "String",
            title = "name",
            description = "1 to 63 letters, digits, '.', '_' or '-', beginning with a letter or digit",
            extend("pattern" = "^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$", "examples" = ["x"])
        )]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks a name.
            ///
            /// # Errors
            /// When the text is no name.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                check(text).map(Self)
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }
    };
}

name!(
    /// Names a pool.
    PoolName
);
name!(
    /// Names a route.
    RouteId
);
name!(
    /// Names a rollout.
    RolloutName
);
name!(
    /// Names a release.
    ReleaseName
);
name!(
    /// Names a segment.
    SegmentName
);

impl ReleaseName {
    /// The role that everyone falls back to.
    pub const STABLE: &'static str = "stable";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_once() {
        for good in ["a", "A-1.b_c", &"x".repeat(63)] {
            assert_eq!(PoolName::parse(good).map(|n| n.to_string()), Ok(good.to_owned()));
        }
        for bad in ["", "-a", "a b", "a/b", "é", &"x".repeat(64)] {
            assert!(PoolName::parse(bad).is_err(), "{bad}");
        }
    }
}
