//! On what terms a change is asked for: its query parameters and headers, read strictly.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};

use super::parameters::Parameters;
use super::refusal::{Kind, Refusal};
use super::state::State;
use super::tokens::Who;
use super::wire::{IDEMPOTENCY_KEY, X_REASON, X_SOURCE};
use crate::clock;
use crate::control::{Asked, Idempotency, Source};
use crate::rollout::{Moment, Revision};

const REASON_BYTES_MAX: usize = 1_000;
const KEY_BYTES_MAX: usize = 255;

/// What every change may be told, and who asks.
#[derive(Debug, Clone)]
pub struct Terms {
    who: Who,
    reason: Option<String>,
    source: Source,
    /// The revision that what is changed must have.
    pub expected: Option<Revision>,
    key: Option<String>,
    /// When it is to be made.
    pub at: Option<Moment>,
    /// Only say what would be done.
    pub dry_run: bool,
    allow_flips: bool,
}

impl Terms {
    /// Reads the terms; parameters that are not theirs are left in the second.
    ///
    /// # Errors
    /// On the first that is wrong.
    pub fn read(parts: &Parts) -> Result<(Self, Parameters), Refusal> {
        let mut query = Parameters::read(parts)?;
        let who = parts.extensions.get::<Who>().cloned();
        let who = who.ok_or_else(|| Refusal::new(Kind::Unauthorised, "nobody is known to ask"))?;
        let terms = Self {
            who,
            reason: reason(&parts.headers)?,
            source: source(&parts.headers)?,
            expected: if_match(&parts.headers)?,
            key: idempotency_key(&parts.headers)?,
            at: query.take("at").map(|at| moment("at", &at)).transpose()?,
            dry_run: query.flag("dry_run")?,
            allow_flips: query.flag("allow_flips")?,
        };
        Ok((terms, query))
    }

    /// For the controller; `digest` is the request's.
    pub fn asked(self, digest: [u8; 32]) -> Asked {
        let actor = self.who.name.to_string();
        Asked {
            idempotency: self.key.map(|key| Idempotency {
                key,
                actor: actor.clone(),
                digest,
            }),
            actor,
            reason: self.reason,
            source: self.source,
            expected: self.expected,
            at: self.at,
            dry_run: self.dry_run,
            allow_flips: self.allow_flips,
        }
    }
}

impl FromRequestParts<State> for Terms {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &State) -> Result<Self, Refusal> {
        let (terms, rest) = Self::read(parts)?;
        rest.end()?;
        Ok(terms)
    }
}

/// A moment as RFC 3339 has it, at that place of the request.
///
/// # Errors
/// When it is none.
pub fn moment(key: &str, text: &str) -> Result<Moment, Refusal> {
    clock::parse_rfc3339(text)
        .map(Moment)
        .map_err(|e| Refusal::at(Kind::Malformed, key, e))
}

fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value.map(|v| v.as_bytes())),
        (_, Some(_)) => Err(Refusal::at(
            Kind::Malformed,
            name.as_str(),
            "is there twice: send it once",
        )),
    }
}

fn if_match(headers: &HeaderMap) -> Result<Option<Revision>, Refusal> {
    let Some(value) = only(headers, &header::IF_MATCH)? else {
        return Ok(None);
    };
    let wrong = |why: &str| Err(Refusal::at(Kind::Malformed, "If-Match", why));
    if value == b"*" {
        return wrong("* matches anything, which protects nothing: write the revision, such as \"17\"");
    }
    if value.starts_with(b"W/") {
        return wrong("a weak tag never matches: write the revision, such as \"17\"");
    }
    let digits = value.strip_prefix(b"\"").and_then(|v| v.strip_suffix(b"\""));
    let text = digits.and_then(|d| std::str::from_utf8(d).ok());
    let plain = text.filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
    match plain.and_then(|t| t.parse().ok()) {
        Some(number) => Ok(Some(Revision(number))),
        None => wrong("is no revision: write one in quotes, such as \"17\", as the ETag says it"),
    }
}

fn reason(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = only(headers, &HeaderName::from_static(X_REASON))? else {
        return Ok(None);
    };
    let text = String::from_utf8(percent_decoded(value));
    let sound = text
        .ok()
        .filter(|t| t.len() <= REASON_BYTES_MAX && !t.chars().any(char::is_control));
    let sound = sound.ok_or_else(|| {
        let text = format!("is not UTF-8, longer than {REASON_BYTES_MAX} bytes, or holds control characters");
        Refusal::at(Kind::Malformed, "X-Reason", text)
    })?;
    Ok(Some(sound).filter(|text| !text.trim().is_empty()))
}

/// `%C3%A9` becomes its bytes; what is no such code stays.
fn percent_decoded(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|two| std::str::from_utf8(two).ok());
        let byte = code
            .filter(|c| *first == b'%' && c.bytes().all(|b| b.is_ascii_hexdigit()))
            .and_then(|c| u8::from_str_radix(c, 16).ok());
        match byte {
            Some(byte) => {
                out.push(byte);
                rest = &after[2..];
            }
            None => {
                out.push(*first);
                rest = after;
            }
        }
    }
    out
}

fn source(headers: &HeaderMap) -> Result<Source, Refusal> {
    match only(headers, &HeaderName::from_static(X_SOURCE))? {
        None | Some(b"api") => Ok(Source::Api),
        Some(b"cli") => Ok(Source::Cli),
        Some(b"console") => Ok(Source::Console),
        Some(other) => {
            let other = String::from_utf8_lossy(other);
            let text = format!("{other:?} is none of api, cli and console: leave it out");
            Err(Refusal::at(Kind::Malformed, "X-Source", text))
        }
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = only(headers, &HeaderName::from_static(IDEMPOTENCY_KEY))? else {
        return Ok(None);
    };
    let sound = (1..=KEY_BYTES_MAX).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic);
    let text = std::str::from_utf8(value).ok().filter(|_| sound);
    let text = text.ok_or_else(|| {
        let text = format!("is not 1 to {KEY_BYTES_MAX} visible ASCII characters");
        Refusal::at(Kind::Malformed, "Idempotency-Key", text)
    })?;
    Ok(Some(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn with(name: &'static str, value: &[u8]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_bytes(value).expect("a value"));
        headers
    }

    #[test]
    fn if_match_takes_one_strong_revision_and_nothing_else() {
        let read = |value: &[u8]| if_match(&with("if-match", value)).ok().flatten().map(|r| r.0);
        assert_eq!(read(b"\"17\""), Some(17));
        for bad in [
            "17",
            "W/\"17\"",
            "*",
            "\"\"",
            "\"17",
            "\"+17\"",
            "\"17\", \"18\"",
            "\"99999999999999999999\"",
        ] {
            assert!(if_match(&with("if-match", bad.as_bytes())).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_reason_is_text_or_percent_encoded_text() {
        let read = |value: &[u8]| reason(&with("x-reason", value)).ok().flatten();
        assert_eq!(read(b"caf%C3%A9 50% off"), Some("café 50% off".to_owned()));
        assert_eq!(read("café".as_bytes()), Some("café".to_owned()));
        assert_eq!(read(b"  "), None);
        assert!(reason(&with("x-reason", b"%ff")).is_err());
        assert!(reason(&with("x-reason", b"a%0ab")).is_err());
        assert!(reason(&with("x-reason", &[b'x'; 1001])).is_err());
    }
}
