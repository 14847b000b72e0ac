//! Deals threads out over shards, so that processors do not fight over what every request touches.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The shard that is this thread's own, the same in every call. Threads are dealt out in turn. `shards` is a power of
/// two.
#[inline]
pub(super) fn home(shards: usize) -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static TURN: Cell<Option<usize>> = const { Cell::new(None) };
    }
    debug_assert!(shards.is_power_of_two());
    let turn = TURN.with(|turn| {
        let mine = turn.get().unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed));
        turn.set(Some(mine));
        mine
    });
    turn & (shards - 1)
}
