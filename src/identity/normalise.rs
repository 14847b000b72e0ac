//! From a value to an id, step by step.

use std::borrow::Cow;
use std::sync::Arc;

use thiserror::Error;

use super::id::{IdError, UserId};
use super::settings::Normalise;
use super::{Identity, SourceKind};

/// The steps of a configuration, for ids that come from elsewhere than a request.
#[derive(Debug, Clone)]
pub struct Normaliser {
    steps: Arc<[Normalise]>,
    /// No request's id begins or ends with spaces.
    trims: bool,
    /// No request's id has capital letters of ASCII.
    lowers: bool,
}

/// An id that no request can have.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("is that of no request: identity.normalise makes it {0:?}, write that")]
pub struct NeverAsked(String);

impl Normaliser {
    /// These steps, in order.
    #[must_use]
    pub fn new(steps: &[Normalise]) -> Self {
        let (mut trims, mut lowers) = (false, false);
        for step in steps {
            // What quotes or escapes let through is anything again, whatever was done before.
            (trims, lowers) = match step {
                Normalise::Trim => (true, lowers),
                Normalise::Unquote => (false, lowers),
                Normalise::Lowercase => (trims, true),
                Normalise::PercentDecode => (false, false),
            };
        }
        Self {
            steps: steps.into(),
            trims,
            lowers,
        }
    }

    /// Who a request asks for whose source has that value.
    ///
    /// # Errors
    /// When such a request would be refused.
    pub fn identity(&self, value: &str) -> Result<Identity, IdError> {
        if value.is_empty() {
            return Err(IdError::Empty);
        }
        let value = normalised(&self.steps, value.as_bytes());
        if value.is_empty() {
            return Ok(Identity::Anonymous);
        }
        Ok(Identity::User {
            id: UserId::new(&value)?,
            source: SourceKind::Header,
        })
    }

    /// Whether a request may have an id. Costs a look at its letters, and nothing at all where any id may come.
    ///
    /// # Errors
    /// When none can, so that whatever is kept for it is for nobody.
    pub fn check(&self, id: &str) -> Result<(), NeverAsked> {
        let bytes = id.as_bytes();
        let lowered = !self.lowers || !bytes.iter().any(u8::is_ascii_uppercase);
        let trimmed = !self.trims || bytes.trim_ascii().len() == bytes.len();
        if lowered && trimmed {
            return Ok(());
        }
        let asked = normalised(&self.steps, bytes);
        Err(NeverAsked(String::from_utf8_lossy(&asked).into_owned()))
    }
}

/// The value after all steps.
pub(super) fn normalised<'a>(steps: &[Normalise], value: &'a [u8]) -> Cow<'a, [u8]> {
    steps.iter().fold(Cow::Borrowed(value), |value, step| step.apply(value))
}

impl Normalise {
    fn apply(self, value: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
        match self {
            Self::Trim => narrowed(value, <[u8]>::trim_ascii),
            Self::Unquote => narrowed(value, |v| {
                v.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\"")).unwrap_or(v)
            }),
            Self::Lowercase if value.iter().any(u8::is_ascii_uppercase) => Cow::Owned(value.to_ascii_lowercase()),
            Self::PercentDecode if value.contains(&b'%') => Cow::Owned(decoded(&value)),
            Self::Lowercase | Self::PercentDecode => value,
        }
    }
}

fn narrowed<'a>(value: Cow<'a, [u8]>, narrow: impl Fn(&[u8]) -> &[u8]) -> Cow<'a, [u8]> {
    match value {
        Cow::Borrowed(value) => Cow::Borrowed(narrow(value)),
        Cow::Owned(value) => Cow::Owned(narrow(&value).to_vec()),
    }
}

fn decoded(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = code.filter(|c| c.bytes().all(|b| b.is_ascii_hexdigit()));
        match byte.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            Some(byte) if *first == b'%' => {
                out.push(byte);
                rest = &after[2..];
            }
            _ => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::Normalise::{Lowercase, PercentDecode, Trim, Unquote};
    use super::*;

    #[test]
    fn an_id_is_refused_exactly_where_no_value_becomes_it() {
        let alphabet = [b'a', b'A', b' ', b'"', b'%', b'4', b'1'];
        let words = |most: u32| {
            let each = (1..=most).flat_map(|length| (0..7_usize.pow(length)).map(move |n| (length, n)));
            each.map(|(length, n)| {
                let letters = (0..length).map(|place| alphabet[n / 7_usize.pow(place) % 7] as char);
                letters.collect::<String>()
            })
        };
        let orders: [&[Normalise]; 10] = [
            &[],
            &[Trim, Unquote],
            &[Unquote, Trim],
            &[Lowercase],
            &[Trim, Unquote, Lowercase],
            &[Lowercase, Trim],
            &[Lowercase, Unquote],
            &[Lowercase, PercentDecode],
            &[PercentDecode, Lowercase],
            &[Trim, PercentDecode],
        ];
        for steps in orders {
            let normaliser = Normaliser::new(steps);
            for id in words(2) {
                let escaped: String = id.bytes().map(|byte| format!("%{byte:02x}")).collect();
                let values = [
                    id.clone(),
                    format!("\"{id}\""),
                    escaped.clone(),
                    format!("\"{escaped}\""),
                ];
                let may_come = values
                    .iter()
                    .any(|v| *normalised(steps, v.as_bytes()) == *id.as_bytes());
                assert_eq!(normaliser.check(&id).is_ok(), may_come, "{steps:?} {id:?}");
            }
        }
        let refused = Normaliser::new(&[Trim, Unquote, Lowercase]).check("BOB");
        let text = "is that of no request: identity.normalise makes it \"bob\", write that";
        assert_eq!(refused.map_err(|e| e.to_string()), Err(text.to_owned()));
    }
}
