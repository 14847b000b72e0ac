//! Idle connections of a process that leaves: each is closed at a moment of its own, so that its clients do not come
//! back all at once. One that has a request by then is told to close by the answer, and is left alone here.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::{Poll, Waker};
use std::time::Duration;

use tokio::sync::watch;

use super::wire::Wire;

/// The part of the time before the first of them goes: nearly all clients send a request before.
const AT_LEAST: f64 = 0.25;

/// Over how long idle connections are closed, once listeners are.
pub type Leaving = watch::Receiver<Option<Duration>>;

/// Serves a connection until it is over, or its moment has come and it is idle.
pub async fn unless_idle(serving: impl Future<Output = ()>, wire: &Wire, leaving: &Leaving) {
    let mut serving = pin!(serving);
    let mut moment = pin!(moment(leaving.clone()));
    let mut asked: Option<Waker> = None;
    let mut over = false;
    poll_fn(|context| {
        // First, so that a request that has just come is seen.
        if serving.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        // Asking takes a lock that all connections share: once is enough until the process leaves.
        let registered = asked.as_ref().is_some_and(|waker| waker.will_wake(context.waker()));
        let stays = registered && matches!(leaving.has_changed(), Ok(false));
        if over || stays {
            return Poll::Pending;
        }
        asked = Some(context.waker().clone());
        over = moment.as_mut().poll(context).is_ready();
        if over && wire.is_idle() {
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await
}

/// Some time after listeners have closed.
async fn moment(mut leaving: Leaving) {
    let Ok(Some(over)) = leaving.wait_for(Option::is_some).await.map(|over| *over) else {
        // The server is gone, and the process with it.
        return std::future::pending().await;
    };
    tokio::time::sleep(over.mul_f64(AT_LEAST + (1.0 - AT_LEAST) * fastrand::f64())).await;
}
