//! Which threads the scheduler lets go first where they share cores: those that serve requests, those that write the
//! access log, those that serve operators and keep the store, those that work at length on lists of users. Without it a
//! request that comes while a change is made waits for the rest of a slice of the scheduler's, some milliseconds
//! (`make bench-switching`). Where the kernel refuses or does not know it, nothing is lost but that.
//!
//! Not the idle class: it would give changes nothing at all for seconds while every core is busy with requests.

use std::cell::Cell;
use std::io;
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use rustix::process::{getpriority_process, setpriority_process};
use rustix::thread::gettid;
use tokio::task::spawn_blocking;

/// The shortest slice that the kernel takes (6.12 and later; others ignore it). A thread with a shorter slice than the
/// running one's does not wait for the end of that.
const REQUESTS_SLICE: Duration = Duration::from_micros(100);
/// About a quarter of a core's time where requests would take all of it: a line takes 0.3 µs, and what finds no room is
/// lost.
const LOGS_NICE: i32 = 5;
/// About a tenth. The more these threads have a right to, the more often a request that comes while they run waits until
/// they have had it; the less, the later a change that meets a burst of requests: `benches/README.md` has the figures.
const CHANGES_NICE: i32 = 10;
/// The least there is, about a seventieth: nobody waits for an import by the millisecond.
const LONG_WORK_NICE: i32 = 19;
/// Who gives way loses the rest of its slice: a short one, so that these shares stay about right.
const BEHIND_SLICE: Duration = Duration::from_micros(120);

thread_local! {
    static KNOWN: Cell<bool> = const { Cell::new(false) };
}

/// This thread serves requests. Costs nothing after the first time.
pub fn requests() {
    once(|| shorten_slice(REQUESTS_SLICE));
}

/// This thread serves operators, or the store; threads that it starts do, too. Costs nothing after the first time.
pub fn changes() {
    once(|| behind(CHANGES_NICE));
}

/// This thread writes what requests log: behind them, but before changes, for it must keep up. Costs nothing after the
/// first time.
pub fn logs() {
    once(|| behind(LOGS_NICE));
}

/// Begins what takes long on a thread of its own, behind those of changes, and yields what comes of it; none where the
/// program ends before it is begun. It is carried through, even if nobody waits for it any more. Nobody may wait for it
/// who holds what a change needs.
pub fn at_length<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> impl Future<Output = Option<T>> {
    let working = spawn_blocking(move || on_a_thread_of_its_own(work));
    async move {
        match working.await {
            Ok(done) => done,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_cancelled) => None,
            },
        }
    }
}

/// Those of the runtime serve changes, too, and a thread that went behind them may not come back. Where none is to be
/// had it is done here.
fn on_a_thread_of_its_own<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    let (mut work, mut done) = (Some(work), None);
    thread::scope(|scope| {
        let started = thread::Builder::new()
            .name("long-work".to_owned())
            .spawn_scoped(scope, || {
                once(|| behind(LONG_WORK_NICE));
                done = work.take().map(|work| work());
            });
        if let Ok(Err(panic)) = started.map(thread::ScopedJoinHandle::join) {
            resume_unwind(panic);
        }
    });
    done.or_else(|| work.map(|work| work()))
}

/// Lets a thread of requests go first that waits for this core. Long work calls it about every 15 µs. The scheduler
/// makes a thread wait that has just had more than its share, and looks again with its next tick only, up to 4 ms later;
/// or here.
pub fn give_way() {
    thread::yield_now();
}

/// [`give_way`] each so many items of long work.
#[derive(Debug, Default)]
pub struct GivingWay(usize);

impl GivingWay {
    /// Another one is done, of which `each` take about 15 µs.
    pub fn after(&mut self, each: usize) {
        self.0 += 1;
        if self.0 >= each {
            self.0 = 0;
            give_way();
        }
    }
}

/// Gives the calling thread that precedence at most: whoever started the program with less keeps that.
fn behind(nice: i32) -> io::Result<()> {
    let own = gettid();
    if getpriority_process(Some(own))? < nice {
        setpriority_process(Some(own), nice)?;
    }
    shorten_slice(BEHIND_SLICE)
}

fn once(set: impl FnOnce() -> io::Result<()>) {
    if !KNOWN.replace(true) {
        if let Err(e) = set() {
            log::debug!("the precedence of a thread was not set: {e}");
        }
    }
}

/// Asks for a slice of the time-sharing scheduler; under another policy the thread is left alone.
fn shorten_slice(slice: Duration) -> io::Result<()> {
    let mut attr = attributes()?;
    if attr.sched_policy != SCHED_OTHER || attr.sched_runtime == 0 {
        return Ok(());
    }
    attr.sched_runtime = u64::try_from(slice.as_nanos()).unwrap_or(u64::MAX);
    set_attributes(&attr)
}

const SCHED_OTHER: u32 = 0;
const THIS_THREAD: libc::pid_t = 0;
const NO_FLAGS: libc::c_uint = 0;

/// sched_getattr(2).
fn attributes() -> io::Result<libc::sched_attr> {
    let mut attr = libc::sched_attr {
        size: 0,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    let size = size_of::<libc::sched_attr>() as libc::c_uint;
    // SAFETY: the kernel writes at most `size` bytes, and `attr` has as many.
    #[expect(unsafe_code, reason = "no safe form of the call is at hand")]
    let done = unsafe { libc::syscall(libc::SYS_sched_getattr, THIS_THREAD, &raw mut attr, size, NO_FLAGS) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(attr)
    }
}

/// sched_setattr(2).
fn set_attributes(attr: &libc::sched_attr) -> io::Result<()> {
    // SAFETY: the kernel reads `attr.size` bytes, which `attributes` has set to at most the size of it.
    #[expect(unsafe_code, reason = "no safe form of the call is at hand")]
    let done = unsafe { libc::syscall(libc::SYS_sched_setattr, THIS_THREAD, &raw const *attr, NO_FLAGS) };
    if done < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread's attributes before and after it takes its place.
    fn around(place: fn()) -> (libc::sched_attr, libc::sched_attr) {
        let thread = std::thread::spawn(move || {
            let before = attributes().expect("attributes");
            place();
            (before, attributes().expect("attributes"))
        });
        thread.join().expect("no panic")
    }

    fn nice() -> i32 {
        getpriority_process(Some(gettid())).expect("priority")
    }

    /// The slice after, in nanoseconds, where the kernel has slices.
    fn slice_or_none(before: &libc::sched_attr, wanted: u64) -> u64 {
        if before.sched_runtime == 0 || before.sched_policy != SCHED_OTHER {
            before.sched_runtime
        } else {
            wanted
        }
    }

    #[test]
    fn a_thread_of_requests_has_a_short_slice_where_the_kernel_has_slices() {
        let (before, after) = around(requests);
        assert_eq!(before.sched_policy, after.sched_policy);
        assert_eq!(before.sched_nice, after.sched_nice);
        assert_eq!(after.sched_runtime, slice_or_none(&before, 100_000));
    }

    #[test]
    fn a_thread_of_changes_has_a_short_slice_but_a_longer_one_than_one_of_requests() {
        let (before, after) = around(changes);
        assert_eq!(after.sched_runtime, slice_or_none(&before, 120_000));
        assert!(BEHIND_SLICE > REQUESTS_SLICE, "or requests would not interrupt changes");
    }

    #[test]
    fn a_thread_of_changes_is_nicer_and_so_is_what_it_starts() {
        let before = nice();
        let (own, started) = std::thread::spawn(move || {
            changes();
            (nice(), std::thread::spawn(nice).join().expect("no panic"))
        })
        .join()
        .expect("no panic");
        assert_eq!(own, before.max(CHANGES_NICE));
        assert_eq!(started, own);
        assert_eq!(nice(), before, "no other thread changes");
    }

    #[tokio::test]
    async fn long_work_goes_behind_changes_and_threads_of_the_runtime_do_not() {
        let before = nice();
        assert_eq!(at_length(nice).await, Some(before.max(LONG_WORK_NICE)));
        assert_eq!(spawn_blocking(nice).await.expect("no panic"), before);
        const { assert!(LONG_WORK_NICE > CHANGES_NICE, "nobody waits for it by the millisecond") }
    }

    #[tokio::test]
    async fn long_work_is_carried_through_though_nobody_waits() {
        let (done, told) = tokio::sync::oneshot::channel();
        drop(at_length(|| done.send(())));
        assert_eq!(told.await, Ok(()));
    }

    #[tokio::test]
    async fn a_panic_of_long_work_is_that_of_who_waits_for_it() {
        let waiting = tokio::spawn(at_length(|| -> u8 { panic!("of long work") }));
        let panic = waiting.await.expect_err("a panic").into_panic();
        assert_eq!(panic.downcast_ref::<&str>(), Some(&"of long work"));
    }

    #[test]
    fn a_thread_that_logs_goes_before_changes_and_behind_requests() {
        let before = nice();
        let logs = std::thread::spawn(|| {
            logs();
            nice()
        });
        assert_eq!(logs.join().expect("no panic"), before.max(LOGS_NICE));
        const { assert!(LOGS_NICE < CHANGES_NICE, "it must keep up") }
    }
}
