//! Lists of users that are sent in pieces: what was read of them waits in memory until their clients take it, so that
//! pieces are small, and few lists are sent at a time.

use std::sync::Arc;

use axum::body::Body;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::OwnedSemaphorePermit;

use super::answer::etag;
use super::refusal::{Kind, Refusal};
use super::state::State;
use crate::control::StoreError;
use crate::rollout::Revision;

/// Lists that are sent at a time; each takes about three pieces of memory.
pub const EXPORTS_MAX: usize = 4;
/// Ids in a piece, in bytes, about. Who came into a segment since its file was written is looked at once a piece, up to
/// 65,536 users, so that a quarter of it would cost four times as much.
pub const PIECE_BYTES: usize = 256 * 1024;

/// A piece, and where the next one begins, if there is one.
pub type Piece = (Bytes, Option<Box<str>>);

/// Held until a list is sent, or its client is gone.
pub struct Turn {
    _held: OwnedSemaphorePermit,
}

impl Turn {
    /// Takes one, if there is one.
    ///
    /// # Errors
    /// When as many lists are sent as may be.
    pub fn take(state: &State) -> Result<Self, Refusal> {
        let turn = Arc::clone(&state.exports).try_acquire_owned();
        turn.map(|held| Self { _held: held })
            .map_err(|_| Refusal::new(Kind::Busy, "other lists are being sent: try again"))
    }

    /// The list, as it is read piece by piece, each from where the one before says.
    pub fn send<F>(
        self,
        media: &'static str,
        revision: Revision,
        read: impl Fn(Option<Box<str>>) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = Result<Piece, StoreError>> + Send,
    {
        let from = Some(None::<Box<str>>);
        let pieces = stream::unfold((from, read, self), |(from, read, turn)| async move {
            Some(match read(from?).await {
                Ok((bytes, next)) => (Ok(bytes), (next.map(Some), read, turn)),
                // The connection ends in the middle of the body, so that nobody takes a part for the whole.
                Err(e) => (Err(e), (None, read, turn)),
            })
        });
        let fields = [
            (header::CONTENT_TYPE, HeaderValue::from_static(media)),
            (header::ETAG, etag(revision)),
        ];
        (fields, Body::from_stream(pieces)).into_response()
    }
}
