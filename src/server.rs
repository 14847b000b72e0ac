//! The composition root: puts the modules together into one Pingora server, with its listeners, signals and drain.

pub mod settings;

mod assemble;
mod daemon;
mod descriptors;
mod drain;
mod handover;
mod keys;
mod listen;
mod pid_file;
mod signals;
mod stamp;
mod start;
mod state;
mod takeover;
mod tls;

pub use assemble::run;
pub use daemon::{DaemonError, is_child as is_daemon, start as start_daemon};
pub use start::{RunOptions, StartError};
