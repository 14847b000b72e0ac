//! What rosters, and the names beside them, are called by: digests of their bytes.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::Xxh3Default;

use crate::precedence;

/// Digested in about 15 µs, after which requests go first.
const DIGESTED_AT_ONCE: usize = 64 * 1024;

/// What a roster is called: the XXH3-128 digest of its bytes, 32 hexadecimal digits where it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RosterDigest(pub u128);

/// Names a roster in a fact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RosterName {
    /// Its digest.
    pub digest: RosterDigest,
    /// How many ids are in it.
    pub users: u64,
}

/// The ids of the third kind, as they are kept beside the roster for listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NamesMark {
    /// Bytes of them; 0 where there are none.
    pub bytes: u64,
    /// The XXH3-128 digest of these bytes.
    pub digest: u128,
}

/// The XXH3-128 digest of a roster's bytes.
pub(super) fn digest_of(bytes: &[u8]) -> u128 {
    let mut digest = Box::new(Xxh3Default::new());
    for piece in bytes.chunks(DIGESTED_AT_ONCE) {
        digest.update(piece);
        precedence::give_way();
    }
    digest.digest128()
}

impl fmt::Display for RosterDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for RosterDigest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let number = u128::from_str_radix(text, 16).ok().filter(|_| digits);
        number
            .map(Self)
            .ok_or_else(|| format!("{text:?} is no digest of 32 hexadecimal digits"))
    }
}

impl TryFrom<String> for RosterDigest {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<RosterDigest> for String {
    fn from(digest: RosterDigest) -> Self {
        digest.to_string()
    }
}
