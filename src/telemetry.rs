//! What the program says about itself: the name of every metric, log target and access-log field, the access log, the
//! error log, and the text that Prometheus reads.
//!
//! It uses nothing of ours and reads no clock: times come in as arguments.

pub mod access_log;
pub mod error_log;
pub mod metrics;
pub mod settings;
mod shard;
pub mod targets;
mod timestamp;
