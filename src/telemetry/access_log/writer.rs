//! The thread that writes: everything that waits, in rounds, so that a line costs no wake-up.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use super::Shared;
use super::pending::SHARDS;
use super::sink::{Lost, Sink};
use crate::telemetry::targets;

/// How long a line may wait while traffic flows.
const ROUND: Duration = Duration::from_millis(20);

/// After a second without a line the writer sleeps until it is called, so that an idle proxy wakes for nothing.
const IDLE_ROUNDS_MAX: u32 = 50;

/// How often a failing log may say so.
const COMPLAINT_SECONDS: u64 = 60;

/// Writes until it is told to stop.
pub(super) fn run(shared: &Arc<Shared>, sink: Sink) {
    // Before any sleep: a request thread must be able to call.
    shared.writer.get_or_init(thread::current);
    let mut writer = Writer {
        shared,
        sink,
        batch: Vec::new(),
        last_second: 0,
        complaints: Complaints::default(),
    };
    let mut idle_rounds = 0;
    loop {
        let round = shared.orders.begin();
        let wrote = writer.write_waiting();
        if round.reopen {
            writer.reopen();
        }
        shared.orders.finish(round);
        if round.stop {
            return;
        }
        idle_rounds = if wrote { 0 } else { idle_rounds + 1 };
        if idle_rounds < IDLE_ROUNDS_MAX {
            thread::park_timeout(ROUND);
        } else {
            sleep_until_called(shared);
            idle_rounds = 0;
        }
    }
}

/// A request thread that appends after the look at the shards sees the flag, and calls.
fn sleep_until_called(shared: &Shared) {
    shared.asleep.store(true, Ordering::SeqCst);
    if shared.pending.is_empty() && !shared.orders.are_waiting() {
        thread::park();
    }
    shared.asleep.store(false, Ordering::SeqCst);
}

struct Writer<'a> {
    shared: &'a Shared,
    sink: Sink,
    /// Empty between writes; it changes places with the buffers of the shards.
    batch: Vec<u8>,
    /// Unix time of the newest line: the writer has no other clock.
    last_second: u64,
    complaints: Complaints,
}

impl Writer<'_> {
    /// Returns whether there was anything to write.
    fn write_waiting(&mut self) -> bool {
        let mut wrote = false;
        for shard in 0..SHARDS {
            if let Some(second) = self.shared.pending.take(shard, &mut self.batch) {
                self.last_second = self.last_second.max(second);
            }
            if self.batch.is_empty() {
                continue;
            }
            wrote = true;
            if let Err(lost) = self.sink.write_lines(&self.batch) {
                self.lose(&lost);
            }
            self.batch.clear();
        }
        wrote
    }

    fn lose(&mut self, lost: &Lost) {
        self.shared.lose_written(lost.lines);
        if let Some(lines) = self.complaints.count(lost.lines, self.last_second) {
            log::error!(
                target: targets::SERVER,
                "access log {}: {lines} lines lost: {}",
                self.sink.name(),
                lost.cause
            );
        }
    }

    fn reopen(&mut self) {
        match self.sink.reopen() {
            Ok(incomplete) => self.shared.lose_written(incomplete),
            Err(error) => log::error!(
                target: targets::SERVER,
                "access log {}: cannot be reopened, the old file stays in use: {error}",
                self.sink.name()
            ),
        }
    }
}

/// Says at most once a minute that lines are lost.
#[derive(Debug, Default)]
struct Complaints {
    last_second: Option<u64>,
    lines: u64,
}

impl Complaints {
    /// Counts lost lines. Returns all that were lost since the last complaint when it is time for the next.
    fn count(&mut self, lines: u64, unix_seconds: u64) -> Option<u64> {
        self.lines += lines;
        let due = self
            .last_second
            .is_none_or(|last| unix_seconds >= last + COMPLAINT_SECONDS);
        due.then(|| {
            self.last_second = Some(unix_seconds);
            std::mem::take(&mut self.lines)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_log_complains_once_a_minute_and_counts_what_it_kept_to_itself() {
        let mut complaints = Complaints::default();
        assert_eq!(complaints.count(3, 100), Some(3));
        assert_eq!(complaints.count(4, 100), None);
        assert_eq!(complaints.count(5, 159), None);
        assert_eq!(complaints.count(1, 160), Some(10));
        assert_eq!(complaints.count(1, 161), None);
    }
}
