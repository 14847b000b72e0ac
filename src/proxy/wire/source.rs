//! Where the response on a downstream connection comes from, so that it is read as the client takes it.

use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::upstream::Connection;

/// The upstream connection of the request that is being answered. Holds none of them open.
#[derive(Debug, Default)]
pub struct Source(Mutex<Weak<Connection>>);

impl Source {
    /// The response comes from there.
    pub fn comes_from(&self, upstream: &Arc<Connection>) {
        upstream.pace().moves();
        *self.0.lock() = Arc::downgrade(upstream);
    }

    /// The client takes nothing for now, or something again.
    pub fn stands(&self, stands: bool) {
        let upstream = self.0.lock().upgrade();
        match upstream {
            Some(upstream) if stands => upstream.pace().stands(),
            Some(upstream) => upstream.pace().moves(),
            None => {}
        }
    }
}
