//! Waits for what happens in a folder, as the kernel tells it.

use std::mem::MaybeUninit;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::inotify;

const PATIENCE: Duration = Duration::from_secs(60);

/// Looks whether it is so, now and whenever a file comes to be or changes in the folder, which exists.
pub fn until_in(folder: &Path, mut is_so: impl FnMut() -> bool) {
    let watch = inotify::init(inotify::CreateFlags::CLOEXEC).expect("inotify");
    let events = inotify::WatchFlags::CREATE | inotify::WatchFlags::MOVED_TO | inotify::WatchFlags::CLOSE_WRITE;
    // Before the first look, so that nothing falls in between.
    inotify::add_watch(&watch, folder, events).expect("a folder");
    let begun = Instant::now();
    let mut space = [MaybeUninit::uninit(); 4096];
    while !is_so() {
        let left = PATIENCE.saturating_sub(begun.elapsed());
        let left = Timespec::try_from(left).expect("a minute");
        let told = poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&left)).expect("polled");
        assert!(told > 0, "it does not happen in {}", folder.display());
        inotify::Reader::new(&watch, &mut space).next().expect("an event");
    }
}
