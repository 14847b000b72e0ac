//! A user id: 1 to 1,024 bytes without control bytes, kept exactly as they came.

use smallvec::SmallVec;
use thiserror::Error;

/// A user id. Not shown by `Debug`, so that it gets into no log by accident.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct UserId(SmallVec<[u8; 40]>);

/// Why bytes are no user id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IdError {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// More than 1,024 bytes.
    #[error("is longer than {max} bytes", max = UserId::BYTES_MAX)]
    TooLong,
    /// A byte below 0x20, or 0x7f.
    #[error("holds a control byte")]
    Control,
}

impl UserId {
    /// The longest: longer ones are no ids but attacks or mistakes.
    pub const BYTES_MAX: usize = 1024;

    /// Takes an id; allocates nothing up to 40 bytes.
    ///
    /// # Errors
    /// When the bytes are none, too many, or control bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, IdError> {
        if bytes.is_empty() {
            return Err(IdError::Empty);
        }
        if bytes.len() > Self::BYTES_MAX {
            return Err(IdError::TooLong);
        }
        if bytes.iter().any(u8::is_ascii_control) {
            return Err(IdError::Control);
        }
        Ok(Self(SmallVec::from_slice(bytes)))
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for UserId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("UserId(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_bounded_and_hold_no_control_bytes() {
        assert_eq!(UserId::new(b""), Err(IdError::Empty));
        assert_eq!(UserId::new(&[b'a'; 1025]), Err(IdError::TooLong));
        assert_eq!(UserId::new(b"a\nb"), Err(IdError::Control));
        assert_eq!(UserId::new(b"a\x7f"), Err(IdError::Control));
        assert_eq!(UserId::new(&[b'a'; 1024]).map(|id| id.as_bytes().len()), Ok(1024));
        let id = UserId::new("zoë 42".as_bytes()).expect("id");
        assert_eq!(id.as_bytes(), "zoë 42".as_bytes());
        assert_eq!(format!("{id:?}"), "UserId(..)");
    }
}
