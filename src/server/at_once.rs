//! What the two halves of a connection's task tell each other is acted upon at once. Pingora reads a response in one half
//! and writes it in the other, and each wakes the task for the other's sake. The runtime puts a task that wakes itself behind
//! all that are ready: with many busy connections what was read has left the near caches by the time that it is written.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use parking_lot::Mutex;
use tokio::task::coop;

/// How often a task goes on by itself before the others have their turn. The runtime bounds what it does meanwhile.
const TIMES_MAX: usize = 8;

/// Nobody polls it.
const RESTING: u8 = 0;
/// It is polled.
const POLLED: u8 = 1;
/// It was woken since it was last polled.
const WOKEN: u8 = 2;

/// Polls a future again, eight times at most, while it is woken as it is polled. It must be all of its task.
pub(super) async fn at_once<F: Future>(work: F) -> F::Output {
    let mut work = std::pin::pin!(work);
    let turn = Arc::new(Turn::default());
    let inner = Waker::from(Arc::clone(&turn));
    std::future::poll_fn(move |cx| turn.poll(work.as_mut(), &inner, cx)).await
}

/// Whose turn it is; what the future takes for its task.
struct Turn {
    state: AtomicU8,
    /// Wakes the task.
    task: Mutex<Waker>,
}

impl Default for Turn {
    fn default() -> Self {
        Self {
            state: AtomicU8::new(RESTING),
            task: Mutex::new(Waker::noop().clone()),
        }
    }
}

impl Turn {
    fn poll<F: Future>(&self, mut work: Pin<&mut F>, inner: &Waker, cx: &Context<'_>) -> Poll<F::Output> {
        self.task.lock().clone_from(cx.waker());
        let mut inner = Context::from_waker(inner);
        for _ in 0..TIMES_MAX {
            self.state.store(POLLED, Ordering::Release);
            if let Poll::Ready(done) = work.as_mut().poll(&mut inner) {
                return Poll::Ready(done);
            }
            let rests = self
                .state
                .compare_exchange(POLLED, RESTING, Ordering::AcqRel, Ordering::Acquire);
            if rests.is_ok() {
                return Poll::Pending;
            }
            if !coop::has_budget_remaining() {
                break;
            }
        }
        self.state.store(RESTING, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for Turn {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.state.swap(WOKEN, Ordering::AcqRel) == RESTING {
            self.task.lock().wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use tokio::sync::mpsc;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Count {
        fn get(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    /// Wakes itself so often, then is ready; tells how often it was polled.
    async fn wakes_itself(times: usize, polled: &AtomicUsize) {
        poll_fn(|cx| {
            if polled.fetch_add(1, Ordering::Relaxed) == times {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    #[test]
    fn what_wakes_itself_goes_on_at_once() {
        let (polled, woken) = (AtomicUsize::new(0), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let work = pin!(at_once(wakes_itself(TIMES_MAX - 1, &polled)));
        assert!(work.poll(&mut Context::from_waker(&waker)).is_ready());
        assert_eq!((polled.load(Ordering::Relaxed), woken.get()), (TIMES_MAX, 0));
    }

    #[test]
    fn others_have_their_turn_in_between() {
        let (polled, woken) = (AtomicUsize::new(0), Arc::new(Count::default()));
        let waker = Waker::from(Arc::clone(&woken));
        let mut work = pin!(at_once(wakes_itself(2 * TIMES_MAX, &polled)));
        for turn in 1..=2 {
            assert!(work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            assert_eq!((polled.load(Ordering::Relaxed), woken.get()), (turn * TIMES_MAX, turn));
        }
        assert!(work.poll(&mut Context::from_waker(&waker)).is_ready());
    }

    #[test]
    fn what_rests_is_woken_once_and_by_the_waker_of_its_last_poll() {
        let mut inner = None;
        let work = poll_fn(|cx| {
            inner = Some(cx.waker().clone());
            Poll::<()>::Pending
        });
        let (former, latter) = (Arc::new(Count::default()), Arc::new(Count::default()));
        {
            let mut work = pin!(at_once(work));
            for woken in [&former, &latter] {
                let waker = Waker::from(Arc::clone(woken));
                assert!(work.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
            }
        }
        let inner = inner.expect("it was polled");
        inner.wake_by_ref();
        inner.wake();
        assert_eq!((former.get(), latter.get()), (0, 1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nothing_that_another_thread_sends_is_slept_through() {
        const SENT: usize = 100_000;
        let (send, mut receive) = mpsc::channel(1);
        let sender = thread::spawn(move || (0..SENT).for_each(|n| send.blocking_send(n).expect("it receives")));
        let received = tokio::spawn(at_once(async move {
            let mut received = 0;
            while let Some(n) = receive.recv().await {
                assert_eq!(n, received);
                received += 1;
            }
            received
        }));
        assert_eq!(received.await.expect("no panic"), SENT);
        sender.join().expect("no panic");
    }

    #[tokio::test(flavor = "current_thread")]
    async fn what_yields_lets_others_go_first() {
        let went = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&went);
        let yields = tokio::spawn(at_once(async move {
            tokio::task::yield_now().await;
            seen.load(Ordering::Relaxed)
        }));
        tokio::spawn(async move { went.store(1, Ordering::Relaxed) });
        assert_eq!(yields.await.expect("no panic"), 1);
    }
}
