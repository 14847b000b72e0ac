//! Work with a store that goes together, on one thread that may block. From a thread that must not, each read and each
//! commit is handed to another one and back: two switches, which beside requests cost more than what is done.

use std::cell::Cell;
use std::future::Future;

use tokio::runtime::Handle;
use tokio::task::spawn_blocking;

use super::StoreError;
use crate::precedence;

thread_local! {
    /// Never taken back: a thread of that pool runs nothing that must not be blocked.
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

/// Blocks where that is allowed: here, or on another thread.
///
/// # Errors
/// When the program is ending; then it was not begun.
pub(super) async fn may_block<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    if MAY_BLOCK.get() {
        return Ok(work());
    }
    let one_of_many = move || {
        MAY_BLOCK.set(true);
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
