//! One source of tokens at work: where a token is found, and the keys of the moment.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::check::{self, Fault, Look};
use super::keys::KeySet;
use super::settings::{Place, Settings};
use crate::identity::Normalise;
use crate::identity::field::{self, Several};

/// The scheme that `Authorization` has before a token (RFC 6750, 2.1).
const BEARER: &[u8] = b"bearer";

/// A source of tokens.
pub struct TokenSource {
    rules: Arc<Rules>,
    keys: ArcSwapOption<KeySet>,
}

/// What every check of it goes by.
pub(super) struct Rules {
    pub(super) settings: Settings,
    /// What is done to the claim before it is an id, as to other ids.
    pub(super) normalise: Vec<Normalise>,
}

/// What a request's token comes to.
pub(in crate::identity) enum Found {
    /// There is none.
    Nothing,
    /// There is one, and no key to check any with.
    NoKeys,
    /// There is one.
    Token(Result<Look, Fault>),
}

impl TokenSource {
    /// Without keys at first.
    #[must_use]
    pub fn new(settings: Settings, normalise: Vec<Normalise>) -> Self {
        Self {
            rules: Arc::new(Rules { settings, normalise }),
            keys: ArcSwapOption::empty(),
        }
    }

    /// What it was told.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.rules.settings
    }

    /// Takes these keys from now on, unless they are the ones it has; whether they are others.
    pub fn take(&self, keys: KeySet) -> bool {
        let keys = match self.keys.load_full() {
            Some(before) if before.is_same(&keys) => return false,
            Some(before) => keys.after(&before),
            None => keys,
        };
        self.keys.store(Some(Arc::new(keys)));
        true
    }

    /// Whether there are keys.
    #[must_use]
    pub fn has_keys(&self) -> bool {
        self.keys.load().is_some()
    }

    pub(in crate::identity) fn find(&self, headers: &HeaderMap, now: fn() -> u64) -> Result<Found, Several> {
        let token = match &self.rules.settings.place {
            Place::Header(name) => {
                let value = field::header(headers, name)?;
                value.and_then(|value| bearer(value, *name == AUTHORIZATION))
            }
            Place::Cookie(name) => field::cookie(headers, name)?,
        };
        let Some(token) = token.filter(|token| !token.is_empty()) else {
            return Ok(Found::Nothing);
        };
        let keys = self.keys.load();
        let Some(keys) = keys.as_ref() else {
            return Ok(Found::NoKeys);
        };
        let look = check::look(token, &self.rules, keys, now() / 1000);
        Ok(Found::Token(look))
    }
}

/// The token behind `Bearer`. Where the scheme must be there, another one means that there is no token.
fn bearer(value: &[u8], must: bool) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at(BEARER.len().min(value.len()));
    if scheme.eq_ignore_ascii_case(BEARER) && matches!(rest.first(), None | Some(b' ')) {
        return Some(rest.trim_ascii());
    }
    (!must).then(|| value.trim_ascii())
}

impl std::fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenSource")
            .field("settings", &self.rules.settings)
            .finish_non_exhaustive()
    }
}
