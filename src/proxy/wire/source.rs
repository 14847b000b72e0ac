//! Where the response on a downstream connection comes from, so that it is read as the client takes it.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::upstream::Connection;

/// The upstream connection of the request that is being answered, or was at last, and the response's number there. Holds none
/// of them open.
#[derive(Debug, Default)]
pub struct Source(Mutex<(Weak<Connection>, u64)>);

impl Source {
    /// The response comes from there, and is the one of that number.
    pub fn comes_from(&self, upstream: &Arc<Connection>, turn: u64) {
        *self.0.lock() = (Arc::downgrade(upstream), turn);
    }

    /// The client takes nothing for now, or something again.
    pub fn stands(&self, stands: bool) {
        let (upstream, turn) = self.0.lock().clone();
        match upstream.upgrade() {
            Some(upstream) if stands => upstream.pace().stands(turn),
            Some(upstream) => upstream.pace().moves(turn),
            None => {}
        }
    }
}
