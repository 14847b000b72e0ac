//! Connections that wait for their next request. Pingora's pool has a task of its own watch each of them: to start it, to
//! wake it with the next request and to end it costs a request more than all of the rollout does. Here nothing runs for
//! them: whether one was closed meanwhile is asked when it is taken, and now and then of all.

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, Waker};

use log::warn;
use parking_lot::Mutex;
use pingora::protocols::l4::stream::Stream;
use tokio::io::AsyncReadExt;
use tokio::task::unconstrained;

use crate::clock::Tick;
use crate::telemetry::targets;

/// So many other endpoints are looked at for one that gives a connection up, when there is no room for another.
const ASKED_FOR_ROOM: usize = 8;

/// The waiting connections of one endpoint, the one that has waited longest first.
pub struct Kept {
    waiting: Mutex<VecDeque<Waiting>>,
    room: Arc<Room>,
}

struct Waiting {
    stream: Stream,
    until: Tick,
}

/// How many may wait in the whole process.
pub struct Room {
    max: usize,
    taken: AtomicUsize,
    endpoints: Mutex<Endpoints>,
}

/// Who can be asked to give one up, and whose turn it is.
#[derive(Default)]
struct Endpoints {
    all: Vec<Weak<Kept>>,
    next: usize,
}

impl Kept {
    /// None yet.
    pub fn new(room: &Arc<Room>) -> Arc<Self> {
        let new = Arc::new(Self {
            waiting: Mutex::default(),
            room: Arc::clone(room),
        });
        let mut endpoints = room.endpoints.lock();
        if endpoints.all.len() == endpoints.all.capacity() {
            endpoints.all.retain(|kept| kept.strong_count() > 0);
        }
        endpoints.all.push(Arc::downgrade(&new));
        new
    }

    /// The open one that was used last.
    pub fn take(&self) -> Option<Stream> {
        loop {
            let mut stream = self.waiting.lock().pop_back()?.stream;
            self.room.leave(1);
            if is_silent(&mut stream) {
                return Some(stream);
            }
        }
    }

    /// Keeps a connection that nothing is due on, at most until then. Where there is no room, one that has waited for long
    /// is closed for it.
    pub fn put(&self, stream: Stream, until: Tick) {
        let entered = self.room.enter();
        let gives_up = if entered { None } else { self.give_up() };
        if entered || gives_up.is_some() || self.room.another_gives_up() {
            self.waiting.lock().push_back(Waiting { stream, until });
        }
    }

    /// The one that has waited longest; its place is not given back.
    fn give_up(&self) -> Option<Waiting> {
        self.waiting.lock().pop_front()
    }

    /// Closes those that waited for too long, and those that their other ends closed.
    pub fn sweep(&self, now: Tick) {
        let mut waiting = self.waiting.lock();
        let before = waiting.len();
        waiting.retain_mut(|one| one.until > now && is_silent(&mut one.stream));
        self.room.leave(before - waiting.len());
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.room.leave(self.waiting.get_mut().len());
    }
}

impl Room {
    /// For so many.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            taken: AtomicUsize::new(0),
            endpoints: Mutex::default(),
        })
    }

    fn enter(&self) -> bool {
        let more = |taken: usize| (taken < self.max).then_some(taken + 1);
        self.taken
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    fn leave(&self, places: usize) {
        self.taken.fetch_sub(places, Ordering::Relaxed);
    }

    /// Closes the longest waiting connection of an endpoint that has one. They take turns.
    fn another_gives_up(&self) -> bool {
        let asked = {
            let mut endpoints = self.endpoints.lock();
            let Endpoints { all, next } = &mut *endpoints;
            let asked = all.len().min(ASKED_FOR_ROOM);
            let turn: Vec<_> = (0..asked)
                .map(|place| all[(*next + place) % all.len()].clone())
                .collect();
            *next = next.wrapping_add(1);
            turn
        };
        asked
            .iter()
            .filter_map(Weak::upgrade)
            .any(|kept| kept.give_up().is_some())
    }
}

/// Whether nothing came on it, not even its end. Costs no system call: the runtime hears of what comes.
pub fn is_silent(stream: &mut Stream) -> bool {
    let mut byte = [0; 1];
    // The runtime's budget must not make it look silent.
    let read = pin!(unconstrained(stream.read(&mut byte)));
    match read.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Pending => true,
        Poll::Ready(read) => {
            if matches!(read, Ok(1..)) {
                warn!(
                    target: targets::UPSTREAM,
                    "a waiting connection was sent something that nobody asked for: it is closed"
                );
            }
            false
        }
    }
}
