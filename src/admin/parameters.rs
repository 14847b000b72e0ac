//! Query parameters and names in paths, read strictly: what is not known is told, not ignored.

use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, Query};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use super::refusal::{Kind, Refusal};
use super::state::State;

/// Parameters that nobody has taken yet.
#[derive(Debug)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// Reads a request's query.
    ///
    /// # Errors
    /// When it cannot be decoded, or names a parameter twice.
    pub fn read(parts: &Parts) -> Result<Self, Refusal> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|e| Refusal::new(Kind::Malformed, e.body_text()))?;
        for (place, (name, _)) in pairs.iter().enumerate() {
            if pairs[..place].iter().any(|(other, _)| other == name) {
                return Err(Refusal::at(Kind::Malformed, name, "is there twice: write it once"));
            }
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let place = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.swap_remove(place).1)
    }

    /// Whether a parameter is `true`.
    ///
    /// # Errors
    /// When it is neither `true` nor `false`.
    pub fn flag(&mut self, name: &str) -> Result<bool, Refusal> {
        match self.take(name).as_deref() {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(other) => {
                let text = format!("{other:?} is neither true nor false");
                Err(Refusal::at(Kind::Malformed, name, text))
            }
        }
    }

    /// A number within bounds.
    ///
    /// # Errors
    /// When it is none.
    pub fn number(&mut self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Refusal> {
        let Some(text) = self.take(name) else {
            return Ok(None);
        };
        let plain = Some(text).filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
        let number = plain.and_then(|t| t.parse().ok());
        match number.filter(|n| (least..=most).contains(n)) {
            Some(number) => Ok(Some(number)),
            None => Err(Refusal::at(
                Kind::Malformed,
                name,
                format!("is no number from {least} to {most}"),
            )),
        }
    }

    /// A name.
    ///
    /// # Errors
    /// When it is none.
    pub fn parsed<T: TryFrom<String>>(&mut self, name: &str) -> Result<Option<T>, Refusal>
    where
        T::Error: std::fmt::Display,
    {
        let parse = |text| T::try_from(text).map_err(|e| Refusal::at(Kind::Malformed, name, e.to_string()));
        self.take(name).map(parse).transpose()
    }

    /// Nothing is left.
    ///
    /// # Errors
    /// When a parameter was not taken, because nobody knows it.
    pub fn end(self) -> Result<(), Refusal> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Refusal::at(Kind::Malformed, name, "is no parameter of this operation")),
        }
    }
}

impl FromRequestParts<State> for Parameters {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _state: &State) -> Result<Self, Refusal> {
        Self::read(parts)
    }
}

/// What the path names; a name that is none is a 400 that says why.
pub struct Named<T>(pub T);

impl<T: DeserializeOwned + Send> FromRequestParts<State> for Named<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &State) -> Result<Self, Refusal> {
        let path: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, state).await;
        path.map(|Path(named)| Self(named))
            .map_err(|e| Refusal::new(Kind::Malformed, e.body_text()))
    }
}
