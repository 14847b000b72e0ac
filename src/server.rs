//! The composition root: puts the modules together into one Pingora server, with its listeners, signals and drain.

pub mod settings;

mod accept;
mod assemble;
mod at_once;
mod daemon;
mod descriptors;
mod drain;
mod duty;
mod handover;
mod keys;
mod listen;
mod memory;
mod panics;
mod pid_file;
mod signals;
mod slots;
mod stamp;
mod start;
mod state;
mod supervisor;
mod takeover;
mod tls;
mod upgrade;

pub use assemble::run;
pub use daemon::{DaemonError, Stage, is_child, start as start_daemon};
pub use start::{RunOptions, StartError};
pub use tls::{TlsError, check as check_tls};
pub use upgrade::{Running, replace};
