//! The bound on requests in flight to one endpoint (Go: `MaxConnsPerHost`) and the bounded queue in front of it.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

/// Places for requests in flight. A place is given back by [`Slots::leave`], which the lease calls when it is dropped.
#[derive(Debug)]
pub struct Slots {
    places: Semaphore,
    size: usize,
    waiting: AtomicUsize,
    queue_max: usize,
}

/// Why no place was had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// As many as may wait are waiting.
    QueueFull,
    /// None became free in time.
    TimedOut,
}

impl Slots {
    /// `size` places, and at most `queue_max` requests waiting for one.
    pub fn new(size: NonZeroUsize, queue_max: usize) -> Self {
        let size = size.get().min(Semaphore::MAX_PERMITS);
        Self {
            places: Semaphore::new(size),
            size,
            waiting: AtomicUsize::new(0),
            queue_max,
        }
    }

    /// Takes a place if one is free.
    pub fn try_enter(&self) -> bool {
        self.places.try_acquire().map(|p| p.forget()).is_ok()
    }

    /// Takes a place, waiting for at most `patience`.
    ///
    /// # Errors
    /// When the queue is full, or the time is over.
    pub async fn enter(&self, patience: Duration) -> Result<(), Refused> {
        let _turn = Turn::take(&self.waiting, self.queue_max).ok_or(Refused::QueueFull)?;
        match tokio::time::timeout(patience, self.places.acquire()).await {
            Ok(Ok(place)) => {
                place.forget();
                Ok(())
            }
            // The semaphore is never closed, so this arm is the timeout.
            Ok(Err(_)) | Err(_) => Err(Refused::TimedOut),
        }
    }

    /// Gives a place back.
    pub fn leave(&self) {
        self.places.add_permits(1);
    }

    /// Requests in flight.
    pub fn taken(&self) -> usize {
        self.size - self.places.available_permits().min(self.size)
    }
}

/// A turn in the queue, given up on drop, so that a cancelled request leaves no ghost in it.
struct Turn<'a>(&'a AtomicUsize);

impl<'a> Turn<'a> {
    fn take(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        let turn = Self(waiting);
        (waiting.fetch_add(1, Ordering::AcqRel) < most).then_some(turn)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(size: usize, queue: usize) -> Slots {
        Slots::new(NonZeroUsize::new(size).expect("not zero"), queue)
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_given_back_is_had_by_the_one_who_waits() {
        let slots = slots(1, 1);
        assert!(slots.try_enter());
        assert!(!slots.try_enter());
        let (entered, ()) = tokio::join!(slots.enter(Duration::from_secs(1)), async {
            tokio::task::yield_now().await;
            slots.leave();
        });
        assert_eq!(entered, Ok(()));
        assert_eq!(slots.taken(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_ends_with_the_patience_and_a_full_queue_refuses_at_once() {
        let slots = slots(1, 1);
        assert!(slots.try_enter());
        let (first, second) = tokio::join!(slots.enter(Duration::from_secs(5)), slots.enter(Duration::from_secs(5)));
        assert_eq!(first, Err(Refused::TimedOut));
        assert_eq!(second, Err(Refused::QueueFull));
        slots.leave();
        assert_eq!(slots.enter(Duration::from_secs(1)).await, Ok(()));
    }

    #[tokio::test]
    async fn a_cancelled_wait_leaves_no_ghost_in_the_queue() {
        let slots = slots(1, 1);
        assert!(slots.try_enter());
        for _ in 0..3 {
            let mut wait = Box::pin(slots.enter(Duration::from_secs(60)));
            assert!(poll_once(wait.as_mut()).await.is_none());
            assert_eq!(slots.waiting.load(Ordering::Acquire), 1);
        }
        assert_eq!(slots.waiting.load(Ordering::Acquire), 0);
    }

    async fn poll_once<F: Future>(mut f: std::pin::Pin<&mut F>) -> Option<F::Output> {
        std::future::poll_fn(|cx| match f.as_mut().poll(cx) {
            std::task::Poll::Ready(out) => std::task::Poll::Ready(Some(out)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }
}
