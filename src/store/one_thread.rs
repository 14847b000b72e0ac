//! Work with a store on a thread that may block, and what goes together on one of them. Where the runtime can go on with
//! its other work elsewhere, that is the thread that asks: handing a read to another one and back took a fifth of it.

use std::cell::Cell;
use std::future::Future;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::{block_in_place, spawn_blocking};

use super::StoreError;
use crate::precedence;

thread_local! {
    /// Whether this thread may be blocked now. Not for ever: one of those that may can become one that must not.
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
}

/// Drives a future on a thread that may block, and does there what the future asks of a store. Once begun it is carried
/// through, even if nobody waits for it any more. It may not wait for a time: the clocks of a runtime that ends refuse.
///
/// # Errors
/// When the program is ending; then it was not begun.
pub async fn on_one_thread<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T, StoreError> {
    may_block(move || Handle::current().block_on(work)).await
}

/// While it lives, this thread may be blocked.
struct MayBlock;

impl MayBlock {
    fn begin() -> Self {
        MAY_BLOCK.set(true);
        Self
    }
}

impl Drop for MayBlock {
    fn drop(&mut self) {
        MAY_BLOCK.set(false);
    }
}

/// Blocks where that is allowed: here, or on another thread. Not for what waits for the task that asks, or would hold up
/// what else that task does.
///
/// # Errors
/// When the program is ending; then it was not begun.
pub(super) async fn may_block<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    if MAY_BLOCK.get() {
        return Ok(work());
    }
    if Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread {
        // Its other tasks go on elsewhere, and this one need not wait for a thread to have its turn.
        return Ok(block_in_place(|| {
            let _may = MayBlock::begin();
            precedence::give_way();
            work()
        }));
    }
    elsewhere(work).await
}

/// Blocks another thread, while the task that asks may go on.
///
/// # Errors
/// When the program is ending; then it was not begun.
pub(super) async fn elsewhere<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    let one_of_many = move || {
        let _may = MayBlock::begin();
        precedence::give_way();
        work()
    };
    match spawn_blocking(one_of_many).await {
        Ok(done) => Ok(done),
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_cancelled) => Err(StoreError::Ending),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use tokio::sync::{Notify, oneshot};

    use super::*;

    async fn a_thread_that_may_block() -> thread::ThreadId {
        may_block(|| thread::current().id()).await.expect("not ending")
    }

    #[tokio::test]
    async fn what_goes_together_is_done_on_one_thread_that_is_not_the_async_one() {
        let of_both = async {
            (
                a_thread_that_may_block().await,
                thread::current().id(),
                a_thread_that_may_block().await,
            )
        };
        let (first, between, second) = on_one_thread(of_both).await.expect("not ending");
        assert_eq!((first, second), (between, between));
        assert_ne!(between, thread::current().id());
        assert_ne!(a_thread_that_may_block().await, thread::current().id());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn where_other_work_can_go_elsewhere_it_is_done_here() {
        let of_both = async {
            (
                a_thread_that_may_block().await,
                thread::current().id(),
                a_thread_that_may_block().await,
            )
        };
        tokio::spawn(async {
            let here = thread::current().id();
            let (first, between, second) = on_one_thread(of_both).await.expect("not ending");
            assert_eq!((first, between, second), (here, here, here));
            assert!(!MAY_BLOCK.get(), "that was for once");
        })
        .await
        .expect("no panic");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn what_is_done_elsewhere_may_wait_for_the_task_that_asks() {
        let (send, receive) = std::sync::mpsc::channel();
        let both = tokio::spawn(async move {
            let tell = async { send.send(thread::current().id()).expect("it waits") };
            tokio::join!(elsewhere(move || receive.recv().expect("told")), tell).0
        });
        assert!(both.await.expect("no panic").is_ok());
    }

    #[tokio::test]
    async fn what_is_begun_is_carried_through_though_nobody_waits() {
        let (begun, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (done, told) = oneshot::channel();
        let work = {
            let (begun, go_on) = (Arc::clone(&begun), Arc::clone(&go_on));
            async move {
                begun.notify_one();
                go_on.notified().await;
                let _sent = done.send(a_thread_that_may_block().await == thread::current().id());
            }
        };
        tokio::select! {
            biased;
            () = async { on_one_thread(work).await.expect("not ending") } => panic!("it goes on only when told"),
            () = begun.notified() => {}
        }
        go_on.notify_one();
        assert_eq!(told.await, Ok(true));
    }
}
