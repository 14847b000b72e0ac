//! What goes wrong with a file, and what the operator is told to do about it.

use rusqlite::ErrorCode;
use thiserror::Error;

use crate::rollout::Revision;
use crate::store::{CommitError, StoreError};

/// What went wrong, before it is known which file it was.
#[derive(Debug, Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Database(#[from] rusqlite::Error),
    #[error("what is stored is not readable: {0}")]
    Unreadable(String),
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("schema {found}, known {known}")]
    Newer { found: u32, known: u32 },
    #[error("is missing or empty, but {0} beside it is not: the file was lost or cut off")]
    Lost(String),
    #[error("there is no such copy: the first is written when a store has run for a second")]
    NoCopy,
    #[error("history begins after {}", .0.0)]
    Forgotten(Revision),
    #[error("at revision {}", .0.0)]
    Moved(Revision),
    #[error(transparent)]
    Told(#[from] StoreError),
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::Unreadable(error.to_string())
    }
}

impl Fault {
    /// The error for a caller, with the file's name.
    pub(super) fn told(self, place: &str) -> StoreError {
        let remedy = self.remedy();
        let place = place.to_owned();
        match self {
            Self::Newer { found, known } => StoreError::Newer { place, found, known },
            Self::Forgotten(begins_after) => StoreError::Forgotten(begins_after),
            Self::Told(error) => error,
            Self::Database(_) | Self::Unreadable(_) | Self::Io(_) | Self::Lost(_) | Self::NoCopy | Self::Moved(_) => {
                StoreError::Failed {
                    place,
                    cause: self.to_string(),
                    remedy,
                }
            }
        }
    }

    /// The error for who wanted to commit.
    pub(super) fn refused(self, place: &str) -> CommitError {
        match self {
            Self::Moved(revision) => CommitError::Moved(revision),
            Self::Database(_)
            | Self::Unreadable(_)
            | Self::Io(_)
            | Self::Lost(_)
            | Self::NoCopy
            | Self::Newer { .. }
            | Self::Forgotten(_)
            | Self::Told(_) => CommitError::Store(self.told(place)),
        }
    }

    fn remedy(&self) -> &'static str {
        const DAMAGED: &str = "the file is damaged: stop the program and put a backup in its place, or its copy, which \
            has the same name and ends in .snapshot; the program can start read-only from that copy";
        const DISK: &str = "check the disk and the system's log; nothing of the change is kept";
        const ACCESS: &str = "check that the file and its folder can be read and written by the program's user";
        match self {
            Self::Unreadable(_) => DAMAGED,
            Self::Lost(_) => {
                "put a backup in its place, or its copy, which has the same name and ends in .snapshot; to begin anew, \
                 remove what is beside it, too"
            }
            Self::NoCopy => "put a backup in the store's place, and leave --from-snapshot out",
            Self::Io(_) => "check that the folder exists, is writable and has room",
            Self::Newer { .. } | Self::Forgotten(_) | Self::Moved(_) | Self::Told(_) => "see the cause",
            Self::Database(error) => match error.sqlite_error_code() {
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::SchemaChanged) => DAMAGED,
                Some(ErrorCode::DiskFull | ErrorCode::TooBig) => "make room on the disk; nothing of the change is kept",
                Some(ErrorCode::SystemIoFailure) => DISK,
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::FileLockingProtocolFailed) => {
                    "another program holds the file: wait until it is done, or end it; the file must be on a local disk"
                }
                Some(ErrorCode::CannotOpen | ErrorCode::PermissionDenied | ErrorCode::ReadOnly) => ACCESS,
                Some(_) | None => DAMAGED,
            },
        }
    }
}
