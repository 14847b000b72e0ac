//! How long a message is after its head (RFC 9112, 6).

use http::header::CONTENT_LENGTH;
use pingora::http::RequestHeader;

use super::chunks::{Broken, Chunks};
use crate::proxy::fields::{Field, Fields};

/// How a body is framed, for the rest of a message after its head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// It has so many bytes.
    Length(u64),
    /// It comes in chunks.
    Chunked,
}

impl Framing {
    /// Of a request, `empty` if it has no body. A length that is no number is the guard's to refuse.
    pub fn of(head: &RequestHeader, fields: Fields, empty: bool) -> Self {
        if empty {
            Self::None
        } else if fields.has(Field::TransferEncoding) {
            Self::Chunked
        } else {
            let written = head.headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok());
            Self::Length(written.and_then(|v| v.parse().ok()).unwrap_or(0))
        }
    }
}

/// What is left of a body.
#[derive(Debug)]
pub(super) enum Body {
    Length(u64),
    Chunks(Chunks),
}

impl Body {
    pub(super) const fn of(framing: Framing) -> Self {
        match framing {
            Framing::None => Self::Length(0),
            Framing::Length(bytes) => Self::Length(bytes),
            Framing::Chunked => Self::Chunks(Chunks::new()),
        }
    }

    /// Takes what is the body's of `new`: so many bytes from its start.
    pub(super) fn read(&mut self, new: &[u8]) -> Result<usize, Broken> {
        match self {
            Self::Length(left) => {
                let own = usize::try_from(*left).unwrap_or(usize::MAX).min(new.len());
                *left -= own as u64;
                Ok(own)
            }
            Self::Chunks(chunks) => chunks.read(new),
        }
    }

    pub(super) fn is_over(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunks(chunks) => chunks.is_over(),
        }
    }
}
