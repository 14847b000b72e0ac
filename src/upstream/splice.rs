//! Heads that are written here and not by Pingora. It writes one of its own all the same, which has the first line and little
//! else: that line is replaced by all that is to be there, and what Pingora has added stays behind it. A head of its own
//! costs Pingora a map of its fields, with a copy and a dozen searches for names that are seldom there.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;

/// What is written in place of the first line of the next head, and what follows that head at once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Splice {
    /// A first line and fields, each with its end.
    pub head: Vec<u8>,
    /// The body, if there is one.
    pub body: Bytes,
}

/// Where one connection has the next of them.
#[derive(Debug, Default)]
pub struct NextHead {
    /// Whether what writes to the connection looks here.
    watched: AtomicBool,
    splice: Mutex<Option<Splice>>,
}

impl NextHead {
    /// A writer looks here from now on.
    pub(super) fn watch(&self) {
        self.watched.store(true, Ordering::Relaxed);
    }

    /// Whether a writer looks here.
    pub fn is_watched(&self) -> bool {
        self.watched.load(Ordering::Relaxed)
    }

    /// The next head that is written is this one; that which was to be, if any, is not written any more.
    pub fn set(&self, splice: Option<Splice>) {
        *self.splice.lock() = splice;
    }

    /// The head that is written now, if it is not Pingora's.
    pub fn take(&self) -> Option<Splice> {
        self.splice.lock().take()
    }
}
