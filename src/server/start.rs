//! How a start is asked for, and why there is none.

use std::net::SocketAddr;

use thiserror::Error;

use super::handover::HandoverError;
use super::pid_file::PidFileError;
use super::state::StateError;
use super::tls::TlsError;
use crate::admin;
use crate::control::LostUsers;
use crate::telemetry::access_log::OpenError;
use crate::upstream::BuildError;

/// How the command line wants it run.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// Detach from the terminal.
    pub daemon: bool,
    /// Take the listening sockets over from a running process.
    pub upgrade: bool,
    /// Serve by the copy of the store, for reading only: the way on when the store itself is damaged.
    pub from_snapshot: bool,
    /// Serve although the users of a segment cannot be read.
    pub without_lost_users: bool,
}

impl RunOptions {
    /// What becomes of segments whose users cannot be read.
    pub(super) fn lost(self) -> LostUsers {
        if self.without_lost_users {
            LostUsers::Missed
        } else {
            LostUsers::Refused
        }
    }
}

/// Why it does not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// An address cannot be had.
    #[error("cannot listen on {address}: {cause}: free the address, or write another")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        cause: std::io::Error,
    },
    /// The process that is to be replaced has a wider or narrower one.
    #[error(
        "cannot listen on {address}: the running process listens on {held}, and one cannot become the other while it \
         serves: take another port, or end it first"
    )]
    Held {
        /// The address.
        address: SocketAddr,
        /// The running process's.
        held: String,
    },
    /// A certificate or key.
    #[error(transparent)]
    Certificate(#[from] TlsError),
    /// The pools.
    #[error(transparent)]
    Pools(#[from] BuildError),
    /// The access log.
    #[error(transparent)]
    AccessLog(#[from] OpenError),
    /// The tokens of the admin side.
    #[error(transparent)]
    Tokens(#[from] admin::TokensError),
    /// The keys that tokens are checked with.
    #[error("{0}: {1}: no token can be checked without keys")]
    Keys(String, String),
    /// The store, or what is in it.
    #[error(transparent)]
    State(#[from] StateError),
    /// The running process.
    #[error("no hand-over: {0}")]
    Handover(#[from] HandoverError),
    /// The file with the daemon's process id.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// A daemon that nobody started as one.
    #[error("a daemon has whoever started it at its standard input: {0}")]
    Starter(std::io::Error),
    /// The limit of open files.
    #[error("no descriptor is left for the listeners: {0}: raise the limit of open files")]
    Descriptors(std::io::Error),
}
