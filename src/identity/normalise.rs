//! From a value to an id, step by step.

use std::borrow::Cow;

use super::settings::Normalise;

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
