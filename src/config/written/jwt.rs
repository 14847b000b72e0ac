//! Sources of tokens as people write them.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::super::value::Span;
use super::{Algorithm, OnInvalid};

/// A JSON Web Token: where it is, and which are believed.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Jwt {
    /// The header field with the token, after `Bearer`; Authorization by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// The cookie with the token, in place of `header`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cookie: Option<String>,
    /// The claim that holds the user id.
    pub claim: String,
    /// A file with the JSON Web Key Set; read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_file: Option<PathBuf>,
    /// Where the JSON Web Key Set is fetched, in place of `jwks_file`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// How often `jwks_url` is fetched.
    pub refresh: Span,
    /// How long a fetch may take.
    pub timeout: Span,
    /// What iss must be; anything by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// One of these must be in aud; anything by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audience: Option<Audience>,
    /// Which algorithms are taken; a key is good for the one of its kind only.
    pub algorithms: Vec<Algorithm>,
    /// How far the issuer's clock may be off.
    pub leeway: Span,
    /// What happens to a request with a bad token: reject (401), or anonymous.
    pub on_invalid: OnInvalid,
}

/// One audience, or several.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum Audience {
    /// `shop`
    One(String),
    /// `[shop, shop-beta]`
    Several(Vec<String>),
}
