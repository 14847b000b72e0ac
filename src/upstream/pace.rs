//! How a response is taken by its client, told to whoever reads it from upstream.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;

/// The pace of one connection's responses, which come one after the other, each for a client of its own.
#[derive(Debug, Default)]
pub struct Pace {
    /// The number of the response that is read or will be; the first is 1.
    turn: AtomicU64,
    /// The number of a response whose client's connection takes nothing now, or [`MOVING`].
    stuck: AtomicU64,
    /// Something was taken since it was last asked.
    taken: AtomicBool,
    reader: Mutex<Option<Waker>>,
}

const MOVING: u64 = 0;

impl Pace {
    /// Another response is waited for. Yields its number.
    pub fn begins(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// What was read is being passed on.
    pub fn took(&self) {
        self.taken.store(true, Ordering::Relaxed);
    }

    /// The connection of that response's client takes nothing; until [`Pace::moves`], nothing is read. Clients of former
    /// responses may still take their time over something else: nobody waits for them.
    pub fn stands(&self, turn: u64) {
        if self.is_current(turn) {
            self.stuck.store(turn, Ordering::Release);
        }
    }

    /// The connection of that response's client takes something again.
    pub fn moves(&self, turn: u64) {
        // A former one that came between may stand there in its place.
        if self.is_current(turn) && self.stuck.swap(MOVING, Ordering::AcqRel) != MOVING {
            if let Some(reader) = self.reader.lock().take() {
                reader.wake();
            }
        }
    }

    /// Ready while the client's connection takes something.
    pub(super) fn poll_moving(&self, cx: &Context<'_>) -> Poll<()> {
        if !self.is_stuck() {
            return Poll::Ready(());
        }
        *self.reader.lock() = Some(cx.waker().clone());
        // It may have moved meanwhile.
        if self.is_stuck() {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    }

    fn is_stuck(&self) -> bool {
        let stuck = self.stuck.load(Ordering::Acquire);
        stuck != MOVING && self.is_current(stuck)
    }

    fn is_current(&self, turn: u64) -> bool {
        turn == self.turn.load(Ordering::Acquire)
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
        let turn = pace.begins();
        pace.stands(turn);
        assert!(std::future::Future::poll(moving.as_mut(), &mut cx).is_pending());
        pace.moves(turn);
        assert!(pace.reader.lock().is_none(), "it was woken");
        assert!(std::future::Future::poll(moving.as_mut(), &mut cx).is_ready());
    }

    #[test]
    fn a_former_client_neither_stops_a_reader_nor_sets_it_going() {
        let pace = Pace::default();
        let cx = Context::from_waker(Waker::noop());
        let former = pace.begins();
        pace.stands(former);
        let turn = pace.begins();
        assert!(pace.poll_moving(&cx).is_ready(), "stood before");
        pace.stands(former);
        assert!(pace.poll_moving(&cx).is_ready(), "stands behind its response");
        pace.stands(turn);
        pace.moves(former);
        assert!(pace.poll_moving(&cx).is_pending());
        pace.moves(turn);
        assert!(pace.poll_moving(&cx).is_ready());
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
