//! Bodies: JSON within bounds, or none; and a digest of the request, by which a repeated one is known.

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use bytes::Bytes;
use futures_util::StreamExt;
use ring::digest::{Context, SHA256};
use serde::de::DeserializeOwned;

use super::decode;
use super::refusal::{Kind, Refusal};
use super::state::State;

/// The largest JSON body: a rollout with a hundred thousand single users has room in it.
const JSON_BYTES_MAX: usize = 16 * 1024 * 1024;
/// A larger body than this is not read to its end.
const DISCARDED_MAX: usize = 64 * 1024 * 1024;

/// A JSON body, and the request's digest.
pub struct Sent<T>(pub T, pub [u8; 32]);

/// No body, and the request's digest.
pub struct Nothing(pub [u8; 32]);

impl<T: DeserializeOwned> FromRequest<State> for Sent<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &State) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        if !is_json(&parts.headers) {
            return Err(Refusal::new(Kind::MediaType, "send Content-Type: application/json"));
        }
        let bytes = whole(body).await?;
        let digest = digest(&parts, &bytes);
        Ok(Self(decode::json(&bytes)?, digest))
    }
}

/// JSON, or nothing for the default.
pub struct Optional<T>(pub T, pub [u8; 32]);

impl<T: DeserializeOwned + Default> FromRequest<State> for Optional<T> {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &State) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let is_named = parts.headers.contains_key(header::CONTENT_TYPE);
        if is_named && !is_json(&parts.headers) {
            return Err(Refusal::new(Kind::MediaType, "send Content-Type: application/json"));
        }
        let bytes = whole(body).await?;
        let digest = digest(&parts, &bytes);
        // Many clients name the type of every body, also of one that they do not send.
        match bytes.trim_ascii() {
            b"" | b"{}" => Ok(Self(T::default(), digest)),
            _ if is_named => Ok(Self(decode::json(&bytes)?, digest)),
            _ => {
                let text = "a body needs Content-Type: application/json; or send none";
                Err(Refusal::new(Kind::MediaType, text))
            }
        }
    }
}

impl FromRequest<State> for Nothing {
    type Rejection = Refusal;

    async fn from_request(request: Request, _state: &State) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        if parts.headers.contains_key(header::CONTENT_TYPE) && !is_json(&parts.headers) {
            return Err(Refusal::new(
                Kind::MediaType,
                "this takes no body: send none, or {} as application/json",
            ));
        }
        let bytes = whole(body).await?;
        let trimmed = bytes.trim_ascii();
        if !trimmed.is_empty() && trimmed != b"{}" {
            return Err(Refusal::new(Kind::Malformed, "this takes no body: send none, or {}"));
        }
        Ok(Self(digest(&parts, &bytes)))
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    let Ok(text) = value.to_str() else {
        return false;
    };
    let kind = text.split(';').next().unwrap_or_default().trim();
    kind.eq_ignore_ascii_case("application/json") || kind.eq_ignore_ascii_case("application/merge-patch+json")
}

/// Reads a body. What is too large is read to its end, if that is not far, because a client that is cut off while it writes
/// may never see why.
async fn whole(body: Body) -> Result<Bytes, Refusal> {
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut total) = (Vec::new(), 0_usize);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Refusal::new(Kind::Malformed, "the body did not arrive whole"))?;
        total = total.saturating_add(chunk.len());
        if total > DISCARDED_MAX {
            break;
        }
        if total <= JSON_BYTES_MAX {
            bytes.extend_from_slice(&chunk);
        } else {
            bytes = Vec::new();
        }
    }
    if total > JSON_BYTES_MAX {
        let text = format!("the body is larger than {JSON_BYTES_MAX} bytes: import lists of users instead");
        return Err(Refusal::new(Kind::TooLarge, text));
    }
    Ok(bytes.into())
}

/// Of the method, path and query; the body follows.
pub fn begun(parts: &Parts) -> Context {
    let mut context = Context::new(&SHA256);
    context.update(parts.method.as_str().as_bytes());
    context.update(b" ");
    context.update(parts.uri.path().as_bytes());
    context.update(b"?");
    context.update(parts.uri.query().unwrap_or_default().as_bytes());
    context.update(b"\n");
    context
}

/// The digest's bytes.
pub fn finished(context: Context) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    bytes
}

fn digest(parts: &Parts, body: &[u8]) -> [u8; 32] {
    let mut context = begun(parts);
    context.update(body);
    finished(context)
}
