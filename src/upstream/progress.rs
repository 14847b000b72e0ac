//! How far a response is, and how much of it is read before its client takes what was read. Many clients that take nothing
//! must cost little, those that take all nothing: a few have more read for them, and more of those that have taken much.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::pace::Pace;
use crate::clock::{self, Tick};

/// What is read at once of a response that is waited for: small ones come whole.
pub(super) const FIRST_BYTES: usize = 12 * 1024;
/// So many responses at a time are read as Pingora reads them, as long as their clients' connections take something: some
/// 800 KiB wait for one that stops. Fast clients take turns at that within a millisecond.
const WIDE_MAX: usize = 6;
const WIDE_BYTES: usize = 64 * 1024;
/// So many more are read as their clients take them, two such pieces ahead: few clients that are read far ahead cost less than
/// many that are read half as far.
const MIDDLE_MAX: usize = 32;
const MIDDLE_BYTES: usize = 128 * 1024;
/// Before a response has a place of either kind, its client has taken so much. What the system takes for one that takes nothing
/// is `UNSENT_MAX` of the listeners, a piece beyond it, and what the client's own system does, 64 KiB at first.
const PROVEN_BYTES: usize = 256 * 1024;
/// So many are read one such piece ahead before that. Most clients take what they asked for, and are through it at once; of one
/// that does not some 200 KiB wait.
const UNPROVEN_MAX: usize = 24;
const UNPROVEN_BYTES: usize = 64 * 1024;
/// Who has had a place for so long, and nothing to read for it, gives it to another.
const PLACE_KEPT: Duration = Duration::from_secs(1);
/// What is read of the others before their clients take it. A thousand clients that take nothing make do with 61 KiB
/// each, the buffers of their requests included; one that takes all waits for more system calls.
const NARROW_BYTES: usize = 4 * 1024;
/// What is read where nobody can tell whether the client takes it: Pingora's queue has room for a few of these.
const SIP_BYTES: usize = 512;
/// So often is a reader put off for the writer, which shares its task, to take what is there.
const TURNS: u8 = 2;

/// How far a response is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Some of it was read.
    begun: bool,
    /// It came with its head, all of it or all that there was.
    small: bool,
    /// The head of a response that is not small is not taken yet.
    head_untaken: bool,
    /// There was much to read at last, so there may be more.
    large: bool,
    /// What was read since the client last took something.
    untaken: usize,
    /// How often the reader was put off since.
    turns: u8,
    /// What was read before that, and so was taken.
    taken: usize,
    place: Option<Place>,
}

impl Progress {
    /// Whether some of it was read.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// Whether it came with its head, all of it or all that there was.
    pub(super) fn is_small(&self) -> bool {
        self.small
    }

    /// So much was there at first, `head` of it the head's.
    pub(super) fn begins(&mut self, all: usize, head: usize) {
        self.small = head < all && all < FIRST_BYTES;
        self.head_untaken = !self.small;
        self.large = all == FIRST_BYTES;
    }

    /// How much may be read now.
    pub(super) fn poll_room(&mut self, pace: &Pace, cx: &mut Context<'_>) -> Poll<usize> {
        if !self.begun {
            return Poll::Ready(FIRST_BYTES);
        }
        if self.large {
            self.find_place();
        }
        ready!(pace.poll_moving(cx));
        let room = match self.size() {
            Some(Size::Wide) => return Poll::Ready(WIDE_BYTES),
            Some(Size::Middle) => MIDDLE_BYTES,
            Some(Size::Unproven) => UNPROVEN_BYTES,
            None => NARROW_BYTES,
        };
        if pace.takes() {
            self.taken += self.untaken;
            self.untaken = 0;
            self.turns = 0;
            self.head_untaken = false;
        }
        if !self.head_untaken && self.untaken < room {
            return Poll::Ready(room - self.untaken);
        }
        if self.turns == TURNS {
            return Poll::Ready(SIP_BYTES);
        }
        self.turns += 1;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn size(&self) -> Option<Size> {
        self.place.as_ref().map(|place| place.size)
    }

    /// The widest place that is free. A client that stands keeps it: so all that waits for them is bounded.
    fn find_place(&mut self) {
        let proven = self.taken >= PROVEN_BYTES;
        let since = self.place.as_ref().map_or_else(clock::tick, |place| place.since);
        let take = |size| Place::take(size, since);
        match self.size() {
            Some(Size::Wide) => {}
            Some(Size::Unproven) if !proven => {}
            None if !proven => self.place = take(Size::Unproven),
            Some(Size::Middle) => self.place = take(Size::Wide).or_else(|| self.place.take()),
            Some(Size::Unproven) | None => self.place = take(Size::Wide).or_else(|| take(Size::Middle)),
        }
    }

    /// So much was read.
    pub(super) fn read(&mut self, bytes: usize) {
        // The first of it was judged with its head.
        if self.begun {
            self.large = bytes >= NARROW_BYTES;
        }
        self.begun = true;
        self.untaken += bytes;
    }

    /// There is nothing to read for now. Where all was taken, and for long, the place is another's: streams last, and send little.
    /// What is read as it comes may still be on its way, so its place is not. Nor is that of a response that has just begun: a
    /// thousand clients that take nothing would have it one after the other, and Pingora's buffer of each has been filled.
    pub(super) fn waits(&mut self, now: Tick) {
        let given_back = |place: &mut Place| place.size != Size::Wide && place.since.after(PLACE_KEPT) <= now;
        if self.untaken == 0 {
            self.place.take_if(given_back);
        }
    }
}

/// A response's place among those of which more is read at once.
#[derive(Debug)]
struct Place {
    size: Size,
    /// Since when the response has had one.
    since: Tick,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Size {
    Wide,
    Middle,
    Unproven,
}

impl Size {
    /// How many have a place of it, and how many may.
    fn places(self) -> (&'static AtomicUsize, usize) {
        static WIDE: AtomicUsize = AtomicUsize::new(0);
        static MIDDLE: AtomicUsize = AtomicUsize::new(0);
        static UNPROVEN: AtomicUsize = AtomicUsize::new(0);
        match self {
            Self::Wide => (&WIDE, WIDE_MAX),
            Self::Middle => (&MIDDLE, MIDDLE_MAX),
            Self::Unproven => (&UNPROVEN, UNPROVEN_MAX),
        }
    }
}

impl Place {
    /// None if all are taken.
    fn take(size: Size, since: Tick) -> Option<Self> {
        let (taken, max) = size.places();
        let more = |taken: usize| (taken < max).then_some(taken + 1);
        taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        Some(Self { size, since })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.size.places().0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::task::Waker;

    /// How much may be read now, after being put off as often as may be.
    fn room(progress: &mut Progress, pace: &Pace) -> usize {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..=TURNS {
            if let Poll::Ready(room) = progress.poll_room(pace, &mut cx) {
                return room;
            }
        }
        panic!("a reader is put off for good");
    }

    /// A response whose first read had so many bytes, `head` of them its head's, which was passed on.
    fn begun(pace: &Pace, all: usize, head: usize) -> Progress {
        let mut progress = Progress::default();
        assert_eq!(room(&mut progress, pace), FIRST_BYTES);
        progress.begins(all, head);
        progress.read(head);
        pace.took();
        progress
    }

    /// In one test: the places are the process's.
    #[test]
    fn few_are_read_widely_and_who_waits_with_nothing_left_gives_the_place_back() {
        let pace = Pace::default();
        let later = clock::tick().after(2 * PLACE_KEPT);
        let mut stream = begun(&pace, 200, 200);
        for _ in 0..3 {
            assert_eq!(room(&mut stream, &pace), NARROW_BYTES, "a head alone tells nothing");
            stream.waits(later);
            stream.read(100);
            pace.took();
        }
        let mut head = begun(&pace, 200, 200);
        assert!(pace.takes());
        assert_eq!(room(&mut head, &pace), SIP_BYTES, "its head is not taken");
        pace.took();
        assert_eq!(room(&mut head, &pace), NARROW_BYTES);
        head.read(NARROW_BYTES);
        assert_eq!(room(&mut head, &pace), UNPROVEN_BYTES - NARROW_BYTES, "there is more");

        let mut others: Vec<_> = (1..UNPROVEN_MAX).map(|_| begun(&pace, FIRST_BYTES, 200)).collect();
        for other in &mut others {
            pace.took();
            assert_eq!(room(other, &pace), UNPROVEN_BYTES);
        }
        let mut late = begun(&pace, FIRST_BYTES, 200);
        assert_eq!(room(&mut late, &pace), NARROW_BYTES, "all places are taken");
        head.waits(later);
        assert_eq!(room(&mut late, &pace), NARROW_BYTES, "who waits has some left");
        pace.took();
        assert_eq!(room(&mut head, &pace), UNPROVEN_BYTES);
        head.waits(clock::tick());
        assert_eq!(room(&mut late, &pace), NARROW_BYTES, "who waits has just begun");
        head.waits(later);
        assert_eq!(room(&mut late, &pace), UNPROVEN_BYTES, "who waits has none left");

        while late.taken < PROVEN_BYTES {
            late.read(UNPROVEN_BYTES);
            pace.took();
            room(&mut late, &pace);
        }
        late.read(UNPROVEN_BYTES);
        pace.took();
        let wide = late.poll_room(&pace, &mut Context::from_waker(Waker::noop()));
        assert!(matches!(wide, Poll::Ready(WIDE_BYTES)) && late.size() == Some(Size::Wide));
        late.waits(later);
        assert!(late.place.is_some(), "what is on its way is not known");
        drop((late, others, head));
        for size in [Size::Wide, Size::Middle, Size::Unproven] {
            assert_eq!(size.places().0.load(Ordering::Relaxed), 0, "{size:?}");
        }
    }
}
