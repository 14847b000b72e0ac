//! Until the process serves, a panic in any thread or task ends it: Pingora and tokio would go on without the part that
//! panicked, and a process that only half started would take over from one that works.

use std::panic;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::daemon::Starter;

/// Exit code of a process that panicked before it served.
const FAILED: i32 = 1;

/// From now on, until the flag that is yielded turns true, a panic ends the process; whoever started it is told why.
pub fn end_the_start(starter: Option<Arc<Starter>>) -> Arc<AtomicBool> {
    let serves = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&serves);
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |panicked| {
        before(panicked);
        if !flag.load(Ordering::Acquire) {
            if let Some(starter) = &starter {
                starter.failed(&panicked.to_string());
            }
            std::process::exit(FAILED);
        }
    }));
    serves
}
