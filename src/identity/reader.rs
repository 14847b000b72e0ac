//! Reads a request's identity.

use std::borrow::Cow;
use std::net::IpAddr;

use http::header::COOKIE;
use http::{HeaderMap, HeaderName};
use thiserror::Error;

use super::certificate::ClientCertificate;
use super::id::{IdError, UserId};
use super::settings::{Anonymous, Normalise, Settings, Source};
use super::visitor::{Minted, VisitorCookie};
use super::{Identity, SourceKind};

/// Reads identities as the settings say.
pub struct Reader {
    settings: Settings,
    header_names: Vec<HeaderName>,
    visitor: Option<VisitorCookie>,
}

/// Why a request is refused; never shows the value.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// More than one value, and they differ or stand in several header lines.
    #[error("{0} holds more than one user id")]
    Repeated(String),
    /// A value that is no id.
    #[error("the user id in {0} {1}")]
    Malformed(String, IdError),
    /// No id, and the settings want one.
    #[error("no user id")]
    Missing,
}

impl Refusal {
    /// The answer: 401 without an id, 400 otherwise.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Missing => 401,
            Self::Repeated(_) | Self::Malformed(..) => 400,
        }
    }
}

impl Reader {
    /// Reads as `settings` say.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let header = |source: &Source| match source {
            Source::Header(name) => Some(name.clone()),
            Source::Cookie(_) | Source::Query(_) | Source::ClientCertificate(_) => None,
        };
        let visitor = match &settings.anonymous {
            Anonymous::Cookie { name, secret } => Some(VisitorCookie::new(name.clone(), secret)),
            Anonymous::Stable | Anonymous::Reject => None,
        };
        Self {
            header_names: settings.sources.iter().filter_map(header).collect(),
            settings,
            visitor,
        }
    }

    /// Whether that peer may send identity and forwarding fields.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.settings.trusted_peers.iter().any(|net| net.contains(&peer))
    }

    /// The identity header fields: removed from untrusted requests, overwritten for the upstream.
    #[must_use]
    pub fn header_names(&self) -> &[HeaderName] {
        &self.header_names
    }

    /// Who asks. The first source that yields an id wins.
    ///
    /// # Errors
    /// When a source holds several ids or something that is none, or when there is none and one is wanted.
    pub fn read(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        certificate: Option<&ClientCertificate>,
        trusted: bool,
    ) -> Result<Identity, Refusal> {
        for source in &self.settings.sources {
            let found = match source {
                Source::Header(name) if trusted => self.id(header(headers, name), || format!("header {name}"))?,
                Source::Header(_) => None,
                Source::Cookie(name) => self.id(cookie(headers, name), || format!("cookie {name}"))?,
                Source::Query(name) => self.id(parameter(query, name), || format!("query parameter {name}"))?,
                Source::ClientCertificate(which) => {
                    let names = certificate.map(|shown| shown.all(*which)).unwrap_or_default();
                    self.id(only(names), || format!("client certificate {}", which.as_str()))?
                }
            };
            if let Some(id) = found {
                let source = source.kind();
                return Ok(Identity::User { id, source });
            }
        }
        self.nobody(headers)
    }

    /// A cookie for one who has none, where the settings want that.
    #[must_use]
    pub fn mint(&self, random: [u8; 16], secure: bool) -> Option<Minted> {
        self.visitor.as_ref()?.mint(random, secure)
    }

    fn nobody(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        let known = self.visitor.as_ref().and_then(|visitor| {
            let value = cookie(headers, visitor.name()).ok()??;
            visitor.read(value)
        });
        match (known, &self.settings.anonymous) {
            (Some(id), _) => Ok(Identity::Visitor { id }),
            (None, Anonymous::Reject) => Err(Refusal::Missing),
            (None, Anonymous::Stable | Anonymous::Cookie { .. }) => Ok(Identity::Anonymous),
        }
    }

    fn id(&self, found: Result<Option<&[u8]>, Several>, place: impl Fn() -> String) -> Result<Option<UserId>, Refusal> {
        let Some(value) = found.map_err(|Several| Refusal::Repeated(place()))? else {
            return Ok(None);
        };
        let value = self.normalised(value);
        if value.is_empty() {
            return Ok(None);
        }
        UserId::new(&value)
            .map(Some)
            .map_err(|e| Refusal::Malformed(place(), e))
    }

    fn normalised<'a>(&self, value: &'a [u8]) -> Cow<'a, [u8]> {
        self.settings
            .normalise
            .iter()
            .fold(Cow::Borrowed(value), |value, step| step.apply(value))
    }
}

impl Source {
    const fn kind(&self) -> SourceKind {
        match self {
            Self::Header(_) => SourceKind::Header,
            Self::Cookie(_) => SourceKind::Cookie,
            Self::Query(_) => SourceKind::Query,
            Self::ClientCertificate(_) => SourceKind::ClientCertificate,
        }
    }
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

/// More values than one.
struct Several;

fn only(names: &[String]) -> Result<Option<&[u8]>, Several> {
    match names {
        [] => Ok(None),
        [name] => Ok(Some(name.as_bytes())),
        _ => Err(Several),
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a [u8]>, Several> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    match values.next() {
        Some(_) => Err(Several),
        None => Ok(first.map(|v| v.as_bytes())),
    }
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a [u8]>, Several> {
    let lines = headers.get_all(COOKIE).iter();
    let pairs = lines.flat_map(|line| line.as_bytes().split(|b| *b == b';'));
    let mut values = pairs.filter_map(|pair| value_of(pair.trim_ascii(), name));
    let first = values.next();
    if values.any(|other| Some(other) != first) {
        return Err(Several);
    }
    Ok(first)
}

fn parameter<'a>(query: Option<&'a str>, name: &str) -> Result<Option<&'a [u8]>, Several> {
    let pairs = query.unwrap_or_default().as_bytes().split(|b| *b == b'&');
    let mut values = pairs.filter_map(|pair| value_of(pair, name));
    let first = values.next();
    match values.next() {
        Some(_) => Err(Several),
        None => Ok(first),
    }
}

fn value_of<'a>(pair: &'a [u8], name: &str) -> Option<&'a [u8]> {
    pair.strip_prefix(name.as_bytes())?.strip_prefix(b"=")
}

#[cfg(test)]
mod tests {
    use super::super::settings::Secret;
    use super::*;
    use http::HeaderValue;

    fn headers(fields: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_bytes(value.as_bytes()).expect("value"),
            )
        };
        fields.iter().map(field).collect()
    }

    fn reader(change: impl Fn(&mut Settings)) -> Reader {
        let mut settings = Settings {
            sources: vec![
                Source::Header(HeaderName::from_static("x-user-id")),
                Source::Cookie("uid".to_owned()),
                Source::Query("uid".to_owned()),
            ],
            ..Settings::default()
        };
        change(&mut settings);
        Reader::new(settings)
    }

    fn user(read: Result<Identity, Refusal>) -> Result<(String, &'static str), u16> {
        match read {
            Ok(identity) => Ok((
                identity
                    .id()
                    .map(|id| String::from_utf8_lossy(id.as_bytes()).into_owned())
                    .unwrap_or_default(),
                identity.source().as_str(),
            )),
            Err(refusal) => Err(refusal.status()),
        }
    }

    #[test]
    fn the_first_source_that_yields_an_id_wins() {
        let reader = reader(|_| {});
        let all = headers(&[("x-user-id", "1"), ("cookie", "a=b; uid=2")]);
        let read = |headers: &HeaderMap, query, trusted| user(reader.read(headers, query, None, trusted));
        assert_eq!(read(&all, Some("uid=3"), true), Ok(("1".to_owned(), "header")));
        assert_eq!(read(&all, Some("uid=3"), false), Ok(("2".to_owned(), "cookie")));
        assert_eq!(
            read(&headers(&[]), Some("x=1&uid=3"), false),
            Ok(("3".to_owned(), "query"))
        );
        assert_eq!(read(&headers(&[]), None, true), Ok((String::new(), "none")));
        assert_eq!(
            read(&headers(&[("x-user-id", " \"\" ")]), Some("uid=3"), true),
            Ok(("3".to_owned(), "query"))
        );
    }

    #[test]
    fn several_or_malformed_ids_are_refused() {
        let reader = reader(|_| {});
        let long = "x".repeat(1025);
        for (fields, query, status) in [
            (vec![("x-user-id", "1"), ("x-user-id", "1")], None, 400),
            (vec![("x-user-id", long.as_str())], None, 400),
            (vec![("x-user-id", "a\tb")], None, 400),
            (vec![("cookie", "uid=1; uid=2")], None, 400),
            (vec![], Some("uid=1&uid=1"), 400),
        ] {
            assert_eq!(
                user(reader.read(&headers(&fields), query, None, true)),
                Err(status),
                "{fields:?} {query:?}"
            );
        }
        let same = headers(&[("cookie", "uid=1; uid=1")]);
        assert_eq!(
            user(reader.read(&same, None, None, true)),
            Ok(("1".to_owned(), "cookie"))
        );
    }

    #[test]
    fn values_are_normalised_in_order() {
        let steps = vec![
            Normalise::Trim,
            Normalise::Unquote,
            Normalise::PercentDecode,
            Normalise::Lowercase,
        ];
        let reader = reader(|s| s.normalise = steps.clone());
        for (sent, expected) in [(" \"A%42c\" ", "abc"), ("a%zz%4", "a%zz%4"), ("%41%2B", "a+")] {
            let read = reader.read(&headers(&[("x-user-id", sent)]), None, None, true);
            assert_eq!(user(read), Ok((expected.to_owned(), "header")), "{sent}");
        }
        let control = reader.read(&headers(&[("x-user-id", "a%0a")]), None, None, true);
        assert_eq!(user(control), Err(400));
    }

    #[test]
    fn those_without_an_id_are_treated_as_configured() {
        let none = headers(&[]);
        let strict = reader(|s| s.anonymous = Anonymous::Reject);
        assert_eq!(user(strict.read(&none, None, true)), Err(401));
        let secret = Secret::new(vec![1; 16]).expect("long enough");
        let minting = reader(|s| {
            s.anonymous = Anonymous::Cookie {
                name: "sy".to_owned(),
                secret: secret.clone(),
            };
        });
        assert_eq!(minting.read(&none, None, true), Ok(Identity::Anonymous));
        let minted = minting.mint([3; 16], false).expect("minted");
        let value = minted.set_cookie.split(';').next().expect("pair");
        let known = minting.read(&headers(&[("cookie", value)]), None, true);
        assert_eq!(known, Ok(Identity::Visitor { id: minted.id }));
        assert!(reader(|_| {}).mint([3; 16], false).is_none());
    }

    #[test]
    fn a_mapped_address_is_trusted_as_the_one_it_maps() {
        let reader = reader(|_| {});
        for (peer, expected) in [
            ("127.0.0.1", true),
            ("::ffff:127.0.0.9", true),
            ("::1", true),
            ("10.0.0.1", false),
        ] {
            assert_eq!(reader.trusts(peer.parse().expect("address")), expected, "{peer}");
        }
    }
}
