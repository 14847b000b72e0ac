//! How a response is taken by its client, told to whoever reads it from upstream.

use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// The pace of one connection's responses.
#[derive(Debug, Default)]
pub struct Pace {
    /// Its client's connection takes nothing now.
    stuck: AtomicBool,
    /// Something was taken since it was last asked.
    taken: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

impl Pace {
    /// What was read is being passed on.
    pub fn took(&self) {
        self.taken.store(true, Ordering::Relaxed);
    }

    /// The client's connection takes nothing; until [`Pace::moves`], nothing is read.
    pub fn stands(&self) {
        self.stuck.store(true, Ordering::Release);
    }

    /// The client's connection takes something again, or there is another client.
    pub fn moves(&self) {
        if self.stuck.swap(false, Ordering::AcqRel) {
            if let Some(reader) = self.reader.lock().take() {
                reader.wake();
            }
        }
    }

    /// Ready while the client's connection takes something.
    pub(super) fn poll_moving(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.stuck.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        *self.reader.lock() = Some(cx.waker().clone());
        // It may have moved meanwhile.
        if self.stuck.load(Ordering::Acquire) {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    /// Whether something was taken since the last time.
    pub(super) fn takes(&self) -> bool {
        self.taken.load(Ordering::Relaxed) && self.taken.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Waker;

    #[test]
    fn a_reader_waits_while_its_client_stands_and_is_woken_when_it_moves() {
        let pace = Pace::default();
        let mut moving = pin!(poll_fn(|cx| pace.poll_moving(cx)));
        let mut cx = Context::from_waker(Waker::noop());
        pace.stands();
        assert!(std::future::Future::poll(moving.as_mut(), &mut cx).is_pending());
        pace.moves();
        assert!(pace.reader.lock().is_none(), "it was woken");
        assert!(std::future::Future::poll(moving.as_mut(), &mut cx).is_ready());
    }

    #[test]
    fn what_was_taken_is_told_once() {
        let pace = Pace::default();
        assert!(!pace.takes());
        pace.took();
        assert!(pace.takes());
        assert!(!pace.takes());
    }
}
