//! Lines that wait for the writer: bounded, and split so that request threads do not meet at one lock.

use parking_lot::{Mutex, MutexGuard};

use crate::telemetry::shard;
use crate::telemetry::timestamp::{DateForm, DateWriter};

/// A power of two; more than the threads of most edge machines, few enough to be visited every round.
pub(super) const SHARDS: usize = 8;

/// A shard that holds as much takes no further line, so about 4 MiB wait in all: some 80 ms of 100 000 requests a second.
pub(super) const SHARD_BYTES_MAX: usize = 512 * 1024;

const SHARD_BYTES_HALF: usize = SHARD_BYTES_MAX / 2;

/// What became of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Appended {
    /// It waits.
    Waiting,
    /// It waits, and made its shard half full: the writer should come now.
    HalfFull,
    /// There was no room.
    Refused,
}

/// All lines that wait.
#[derive(Debug)]
pub(super) struct Pending {
    shards: [Shard; SHARDS],
}

/// Alone on its cache lines.
#[derive(Debug)]
#[repr(align(128))]
struct Shard(Mutex<Lines>);

#[derive(Debug)]
struct Lines {
    text: Vec<u8>,
    dates: DateWriter,
}

impl Pending {
    pub(super) fn new(form: DateForm) -> Self {
        Self {
            shards: std::array::from_fn(|_| {
                Shard(Mutex::new(Lines {
                    text: Vec::new(),
                    dates: DateWriter::new(form),
                }))
            }),
        }
    }

    /// Lets `push` write one line into the first shard that is free and has room, the thread's own first.
    pub(super) fn append(&self, push: impl FnOnce(&mut Vec<u8>, &mut DateWriter)) -> Appended {
        let home = shard::home(SHARDS);
        for step in 0..SHARDS {
            let candidate = &self.shards[(home + step) % SHARDS];
            if let Some(lines) = candidate.0.try_lock().filter(has_room) {
                return lines_append(lines, push);
            }
        }
        // Every shard is full, or held for the moment that a line or the writer's exchange takes.
        let lines = self.shards[home].0.lock();
        if has_room(&lines) {
            lines_append(lines, push)
        } else {
            Appended::Refused
        }
    }

    /// Exchanges the lines of one shard for `spare`, which must be empty. Returns the second of the last line.
    pub(super) fn take(&self, shard: usize, spare: &mut Vec<u8>) -> Option<u64> {
        let mut lines = self.shards[shard].0.lock();
        if !lines.text.is_empty() {
            std::mem::swap(&mut lines.text, spare);
        }
        lines.dates.second()
    }

    /// Whether no line waits.
    pub(super) fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| shard.0.lock().text.is_empty())
    }
}

fn has_room(lines: &MutexGuard<'_, Lines>) -> bool {
    lines.text.len() < SHARD_BYTES_MAX
}

fn lines_append(mut lines: MutexGuard<'_, Lines>, push: impl FnOnce(&mut Vec<u8>, &mut DateWriter)) -> Appended {
    let before = lines.text.len();
    let Lines { text, dates } = &mut *lines;
    push(text, dates);
    if before < SHARD_BYTES_HALF && text.len() >= SHARD_BYTES_HALF {
        Appended::HalfFull
    } else {
        Appended::Waiting
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(pending: &Pending, bytes: usize) -> Appended {
        pending.append(|text, _| text.resize(text.len() + bytes, b'\n'))
    }

    #[test]
    fn one_thread_can_use_all_the_room_and_no_more() {
        let pending = Pending::new(DateForm::Rfc3339);
        for _ in 0..SHARDS {
            assert_eq!(append(&pending, SHARD_BYTES_HALF - 1), Appended::Waiting);
            assert_eq!(append(&pending, 1), Appended::HalfFull);
            assert_eq!(append(&pending, SHARD_BYTES_HALF), Appended::Waiting);
        }
        assert_eq!(append(&pending, 1), Appended::Refused);

        let mut taken = Vec::new();
        pending.take(3, &mut taken);
        assert_eq!(taken.len(), SHARD_BYTES_MAX);
        assert_eq!(append(&pending, 1), Appended::Waiting);
    }

    #[test]
    fn taking_empties_and_hands_buffers_round() {
        let pending = Pending::new(DateForm::Rfc3339);
        assert!(pending.is_empty());
        append(&pending, 10);
        assert!(!pending.is_empty());
        let mut taken = Vec::new();
        for shard in 0..SHARDS {
            pending.take(shard, &mut taken);
        }
        assert_eq!(taken.len(), 10);
        assert!(pending.is_empty());
    }
}
