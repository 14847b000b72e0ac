//! Phases that never wait. `#[async_trait]` allocates a future for every phase of every request; these are plain
//! functions whose outcome is a future of no size, which costs nothing to box.

use std::future::{Future, poll_fn, ready};
use std::pin::Pin;
use std::task::Poll;

use pingora::{Error, Result};

/// What Pingora waits for.
pub type Phase<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The next phase may begin, or the request has failed.
pub fn go_on<'a>(outcome: Result<()>) -> Phase<'a, Result<()>> {
    match outcome {
        Ok(()) => Box::pin(poll_fn(|_| Poll::Ready(Ok(())))),
        Err(error) => failed(error),
    }
}

/// The request is not answered yet, or has failed.
pub fn unanswered<'a>(outcome: Result<()>) -> Phase<'a, Result<bool>> {
    match outcome {
        Ok(()) => Box::pin(poll_fn(|_| Poll::Ready(Ok(false)))),
        Err(error) => failed(error),
    }
}

/// The request goes to an upstream.
pub fn wanted<'a>() -> Phase<'a, Result<bool>> {
    Box::pin(poll_fn(|_| Poll::Ready(Ok(true))))
}

/// The last phase is over.
pub fn over<'a>() -> Phase<'a, ()> {
    Box::pin(poll_fn(|_| Poll::Ready(())))
}

fn failed<'a, T: Send + 'a>(error: Box<Error>) -> Phase<'a, Result<T>> {
    Box::pin(ready(Err(error)))
}

/// A phase of `ProxyHttp` that never waits. The lifetimes are those that `#[async_trait]` gives the method in the trait;
/// what the trait passes between the session and the context stands behind a semicolon.
macro_rules! at_once {
    ($name:ident($gateway:ident, $session:ident, $ctx:ident) -> $outcome:ty: $work:expr) => {
        fn $name<'life0, 'life1, 'life2, 'async_trait>(
            &'life0 self,
            $session: &'life1 mut Session,
            $ctx: &'life2 mut Box<Context>,
        ) -> Phase<'async_trait, $outcome>
        where
            'life0: 'async_trait,
            'life1: 'async_trait,
            'life2: 'async_trait,
            Self: 'async_trait,
        {
            let $gateway = self;
            $work
        }
    };
    ($name:ident(
        $gateway:ident, $session:ident, $ctx:ident; $part:ident: &mut $of:ty $(, $plain:ident: $kind:ty)?
    ) -> $outcome:ty: $work:expr) => {
        fn $name<'life0, 'life1, 'life2, 'life3, 'async_trait>(
            &'life0 self,
            $session: &'life1 mut Session,
            $part: &'life2 mut $of,
            $($plain: $kind,)?
            $ctx: &'life3 mut Box<Context>,
        ) -> Phase<'async_trait, $outcome>
        where
            'life0: 'async_trait,
            'life1: 'async_trait,
            'life2: 'async_trait,
            'life3: 'async_trait,
            Self: 'async_trait,
        {
            let $gateway = self;
            $work
        }
    };
}

pub(super) use at_once;
