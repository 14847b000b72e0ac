//! What the writer is told to do besides writing, and its answers.

use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Orders that wait for the writer's next round.
#[derive(Debug, Default)]
pub(super) struct Orders {
    state: Mutex<State>,
    finished: Condvar,
}

#[derive(Debug, Default)]
struct State {
    reopen: bool,
    stop: bool,
    rounds_asked: u64,
    rounds_done: u64,
}

/// The orders of one round, to be followed after all lines that waited when it began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Round {
    pub(super) reopen: bool,
    pub(super) stop: bool,
    number: u64,
}

impl Orders {
    pub(super) fn reopen(&self) {
        self.state.lock().reopen = true;
    }

    pub(super) fn stop(&self) {
        self.state.lock().stop = true;
    }

    /// Asks for a round that begins after this call; returns its number.
    pub(super) fn ask_round(&self) -> u64 {
        let mut state = self.state.lock();
        state.rounds_asked += 1;
        state.rounds_asked
    }

    /// Waits until a round is done, `patience` at most. Returns whether it is.
    pub(super) fn wait_for(&self, number: u64, patience: Duration) -> bool {
        let mut state = self.state.lock();
        self.finished
            .wait_while_for(&mut state, |state| state.rounds_done < number, patience);
        state.rounds_done >= number
    }

    /// The writer begins a round.
    pub(super) fn begin(&self) -> Round {
        let mut state = self.state.lock();
        Round {
            reopen: std::mem::take(&mut state.reopen),
            stop: state.stop,
            number: state.rounds_asked,
        }
    }

    /// The writer has finished a round.
    pub(super) fn finish(&self, round: Round) {
        self.state.lock().rounds_done = round.number;
        self.finished.notify_all();
    }

    /// Whether the next round has orders to follow.
    pub(super) fn are_waiting(&self) -> bool {
        let state = self.state.lock();
        state.reopen || state.stop || state.rounds_done < state.rounds_asked
    }
}
