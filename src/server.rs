//! The composition root: puts the modules together into one Pingora server, with its listeners, signals and drain.

pub mod settings;

mod assemble;
mod drain;
mod listen;
mod signals;
mod state;
mod tls;

pub use assemble::{RunOptions, StartError, run};
