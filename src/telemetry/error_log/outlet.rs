//! Standard error, as long as somebody takes what is written there. One who does not (a full pipe) must not hold up the
//! threads that serve: the line is lost then, and counted.

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// What a pipe that has room at all takes at once (PIPE_BUF of Linux), less the line's end.
pub const LINE_BYTES_MAX: usize = 4095;

/// Lets one line at a time out.
#[derive(Debug, Default)]
pub struct Outlet {
    turn: Mutex<()>,
}

impl Outlet {
    /// Writes a line of at most `LINE_BYTES_MAX` bytes and its end, if there is room. Yields whether there was.
    pub fn write(&self, line: impl FnOnce()) -> bool {
        // Held throughout: two that see the same room would need it twice.
        let _turn = self.turn.lock();
        let has_room = has_room();
        if has_room {
            line();
        }
        has_room
    }
}

fn has_room() -> bool {
    let stderr = std::io::stderr();
    let mut asked = [PollFd::new(&stderr, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    // What cannot be asked is written to: so it was always done. A closed pipe fails at once.
    poll(&mut asked, Some(&at_once)).map_or(true, |ready| ready > 0)
}
