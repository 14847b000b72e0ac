//! What the admin listener is told at start.

use std::net::SocketAddr;
use std::path::PathBuf;

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where; loopback unless `tokens_file` is set.
    pub address: SocketAddr,
    /// Lines of `ROLE NAME TOKEN`.
    pub tokens_file: Option<PathBuf>,
}

impl AdminSettings {
    /// The default port of the admin listener.
    pub const PORT: u16 = 9180;
}

impl Default for AdminSettings {
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], Self::PORT)),
            tokens_file: None,
        }
    }
}
