//! Reads a request's identity.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use thiserror::Error;

use super::certificate::{CertificateName, ClientCertificate};
use super::field::{self, Several};
use super::id::{IdError, UserId};
use super::jwt::{Check, Checked, Fault, Found, Look, OnInvalid, Token, TokenSource};
use super::normalise::normalised;
use super::settings::{Anonymous, Settings, Source};
use super::visitor::{Minted, VisitorCookie};
use super::{Identity, SourceKind};
use crate::telemetry::metrics;

/// By what the upstream is told a user id where no source is a header field that could tell it.
const USER_ID: HeaderName = HeaderName::from_static("x-user-id");

/// Reads identities as the settings say.
pub struct Reader {
    settings: Settings,
    places: Vec<Place>,
    header_names: Vec<HeaderName>,
    visitor: Option<VisitorCookie>,
}

/// A source at work.
enum Place {
    Header(HeaderName),
    Cookie(String),
    Query(String),
    Certificate(CertificateName),
    Token(Arc<TokenSource>),
}

/// Who asks, or what has to be computed before that is known.
pub enum Read {
    /// It is known.
    Done(Reading),
    /// A token has to be checked first; then [`Reader::settle`] knows.
    Pending(Check),
}

/// Who asks.
#[derive(Debug)]
pub struct Reading {
    /// In short.
    pub identity: Identity,
    /// The token that says so, if one does.
    pub token: Option<Arc<Token>>,
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
    /// A token that is not believed.
    #[error("the token {0}")]
    Token(Fault),
    /// A token, and no keys to check it with.
    #[error("no key to check the token with has come yet")]
    NoKeys,
}

impl Refusal {
    /// The answer: 401 without an id that is believed, 503 where that cannot be known, 400 otherwise.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Missing | Self::Token(_) => 401,
            Self::Repeated(_) | Self::Malformed(..) => 400,
            Self::NoKeys => 503,
        }
    }
}

impl Reader {
    /// Reads as `settings` say.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let visitor = match &settings.anonymous {
            Anonymous::Cookie { name, secret } => Some(VisitorCookie::new(name.clone(), secret)),
            Anonymous::Stable | Anonymous::Reject => None,
        };
        let place = |source: &Source| match source {
            Source::Header(name) => Place::Header(name.clone()),
            Source::Cookie(name) => Place::Cookie(name.clone()),
            Source::Query(name) => Place::Query(name.clone()),
            Source::ClientCertificate(which) => Place::Certificate(*which),
            Source::Jwt(token) => {
                let source = TokenSource::new(token.clone(), settings.normalise.clone());
                Place::Token(Arc::new(source))
            }
        };
        let places: Vec<Place> = settings.sources.iter().map(place).collect();
        Self {
            header_names: header_names(&places),
            places,
            settings,
            visitor,
        }
    }

    /// Whether that peer may send identity and forwarding fields.
    #[must_use]
    pub fn trusts(&self, peer: IpAddr) -> bool {
        self.settings.trusted_peers.contains(peer)
    }

    /// The identity header fields: removed from untrusted requests, overwritten for the upstream.
    #[must_use]
    pub fn header_names(&self) -> &[HeaderName] {
        &self.header_names
    }

    /// The sources of tokens, whose keys are somebody else's to bring.
    pub fn token_sources(&self) -> impl Iterator<Item = &Arc<TokenSource>> {
        self.places.iter().filter_map(|place| match place {
            Place::Token(source) => Some(source),
            Place::Header(_) | Place::Cookie(_) | Place::Query(_) | Place::Certificate(_) => None,
        })
    }

    /// Who asks. The first source that yields an id wins; a token that is not believed ends the search. `now` tells
    /// milliseconds since 1970, and is asked where there is a token.
    ///
    /// # Errors
    /// When a source holds several ids or something that is none, or when there is none and one is wanted.
    pub fn read(
        &self,
        headers: &HeaderMap,
        query: Option<&str>,
        certificate: Option<&ClientCertificate>,
        trusted: bool,
        now: fn() -> u64,
    ) -> Result<Read, Refusal> {
        for place in &self.places {
            let (found, source) = match place {
                Place::Header(name) if trusted => {
                    let id = self.id(field::header(headers, name), || format!("header {name}"))?;
                    (id, SourceKind::Header)
                }
                Place::Header(_) => continue,
                Place::Cookie(name) => {
                    let id = self.id(field::cookie(headers, name), || format!("cookie {name}"))?;
                    (id, SourceKind::Cookie)
                }
                Place::Query(name) => {
                    let id = self.id(field::parameter(query, name), || format!("query parameter {name}"))?;
                    (id, SourceKind::Query)
                }
                Place::Certificate(which) => {
                    let names = certificate.map(|shown| shown.all(*which)).unwrap_or_default();
                    let id = self.id(field::only(names), || format!("client certificate {}", which.as_str()))?;
                    (id, SourceKind::ClientCertificate)
                }
                Place::Token(source) => match self.token(source, headers, now)? {
                    Some(read) => return Ok(read),
                    None => continue,
                },
            };
            if let Some(id) = found {
                return Ok(Read::Done(Identity::User { id, source }.into()));
            }
        }
        Ok(Read::Done(self.nobody(headers)?.into()))
    }

    /// Who asks, once the token of the request with these `headers` is checked.
    ///
    /// # Errors
    /// When the token is not believed and must be, or there is nobody and must be.
    pub fn settle(&self, headers: &HeaderMap, checked: Checked) -> Result<Reading, Refusal> {
        match checked.result {
            Ok(token) => {
                metrics::token("verified");
                Ok(token.into())
            }
            Err(fault) => {
                metrics::token(fault.as_str());
                self.not_believed(headers, checked.on_invalid, Refusal::Token(fault))
            }
        }
    }

    /// What an answer of 401 says in `WWW-Authenticate` (RFC 6750, 3), where a token would have helped.
    #[must_use]
    pub fn challenge(&self, refusal: &Refusal) -> Option<&'static str> {
        match refusal {
            Refusal::Token(_) => Some("Bearer error=\"invalid_token\""),
            Refusal::Missing if self.token_sources().next().is_some() => Some("Bearer"),
            Refusal::Missing | Refusal::Repeated(_) | Refusal::Malformed(..) | Refusal::NoKeys => None,
        }
    }

    /// A cookie for one who has none, where the settings want that.
    #[must_use]
    pub fn mint(&self, random: [u8; 16], secure: bool) -> Option<Minted> {
        self.visitor.as_ref()?.mint(random, secure)
    }

    fn token(&self, source: &TokenSource, headers: &HeaderMap, now: fn() -> u64) -> Result<Option<Read>, Refusal> {
        let on_invalid = source.settings().on_invalid;
        let found = source.find(headers, now);
        match found.map_err(|Several| Refusal::Repeated(source.settings().place.to_string()))? {
            Found::Nothing => Ok(None),
            Found::Token(Ok(Look::Known(token))) => {
                metrics::token_cached();
                Ok(Some(Read::Done(token.into())))
            }
            Found::Token(Ok(Look::Unknown(check))) if check.algorithm().is_quick() => {
                let reading = self.settle(headers, check.run())?;
                Ok(Some(Read::Done(reading)))
            }
            Found::Token(Ok(Look::Unknown(check))) => Ok(Some(Read::Pending(check))),
            Found::Token(Err(fault)) => {
                metrics::token(fault.as_str());
                let reading = self.not_believed(headers, on_invalid, Refusal::Token(fault))?;
                Ok(Some(Read::Done(reading)))
            }
            Found::NoKeys => {
                metrics::token("no_keys");
                let reading = self.not_believed(headers, on_invalid, Refusal::NoKeys)?;
                Ok(Some(Read::Done(reading)))
            }
        }
    }

    /// No other source is asked: who sends a bad token is not who they say, whatever else they send.
    fn not_believed(&self, headers: &HeaderMap, then: OnInvalid, refusal: Refusal) -> Result<Reading, Refusal> {
        match then {
            OnInvalid::Reject => Err(refusal),
            OnInvalid::Anonymous => Ok(self.nobody(headers)?.into()),
        }
    }

    fn nobody(&self, headers: &HeaderMap) -> Result<Identity, Refusal> {
        let known = self.visitor.as_ref().and_then(|visitor| {
            let value = field::cookie(headers, visitor.name()).ok()??;
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
        let value = normalised(&self.settings.normalise, value);
        if value.is_empty() {
            return Ok(None);
        }
        UserId::new(&value)
            .map(Some)
            .map_err(|e| Refusal::Malformed(place(), e))
    }
}

impl From<Identity> for Reading {
    fn from(identity: Identity) -> Self {
        Self { identity, token: None }
    }
}

impl From<Arc<Token>> for Reading {
    fn from(token: Arc<Token>) -> Self {
        Self {
            identity: Identity::User {
                id: token.id.clone(),
                source: SourceKind::Jwt,
            },
            token: Some(token),
        }
    }
}

fn header_names(places: &[Place]) -> Vec<HeaderName> {
    let header = |place: &Place| match place {
        Place::Header(name) => Some(name.clone()),
        Place::Cookie(_) | Place::Query(_) | Place::Certificate(_) | Place::Token(_) => None,
    };
    let names: Vec<HeaderName> = places.iter().filter_map(header).collect();
    // What proves these ends here, or is not the upstream's to check.
    let proved = |place: &Place| matches!(place, Place::Token(_) | Place::Certificate(_));
    if names.is_empty() && places.iter().any(proved) {
        return vec![USER_ID];
    }
    names
}

#[cfg(test)]
mod tests {
    use super::super::settings::{Normalise, Secret};
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

    fn read(reader: &Reader, headers: &HeaderMap, query: Option<&str>, trusted: bool) -> Result<Identity, Refusal> {
        match reader.read(headers, query, None, trusted, || 0)? {
            Read::Done(reading) => Ok(reading.identity),
            Read::Pending(_) => panic!("there are no tokens here"),
        }
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
        let read = |headers: &HeaderMap, query, trusted| user(read(&reader, headers, query, trusted));
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
                user(read(&reader, &headers(&fields), query, true)),
                Err(status),
                "{fields:?} {query:?}"
            );
        }
        let same = headers(&[("cookie", "uid=1; uid=1")]);
        assert_eq!(user(read(&reader, &same, None, true)), Ok(("1".to_owned(), "cookie")));
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
            let read = read(&reader, &headers(&[("x-user-id", sent)]), None, true);
            assert_eq!(user(read), Ok((expected.to_owned(), "header")), "{sent}");
        }
        let control = read(&reader, &headers(&[("x-user-id", "a%0a")]), None, true);
        assert_eq!(user(control), Err(400));
    }

    #[test]
    fn those_without_an_id_are_treated_as_configured() {
        let none = headers(&[]);
        let strict = reader(|s| s.anonymous = Anonymous::Reject);
        assert_eq!(user(read(&strict, &none, None, true)), Err(401));
        let secret = Secret::new(vec![1; 16]).expect("long enough");
        let minting = reader(|s| {
            s.anonymous = Anonymous::Cookie {
                name: "sy".to_owned(),
                secret: secret.clone(),
            };
        });
        assert_eq!(read(&minting, &none, None, true), Ok(Identity::Anonymous));
        let minted = minting.mint([3; 16], false).expect("minted");
        let value = minted.set_cookie.split(';').next().expect("pair");
        let known = read(&minting, &headers(&[("cookie", value)]), None, true);
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
