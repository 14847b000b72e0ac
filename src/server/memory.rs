//! How memory is had from the system.

use log::debug;
use rustix::thread::disable_transparent_huge_pages;

use crate::telemetry::targets;

/// Memory comes in pages of 4 KiB. The allocator asks for huge ones, with which a buffer of 64 KiB is resident in whole
/// for a client that has sent three bytes: 117 KiB for each slow upload in place of 56, and no less CPU for a request
/// (`make bench-peers`, 2026-11-26).
pub fn in_small_pages() {
    if let Err(e) = disable_transparent_huge_pages(true) {
        debug!(target: targets::SERVER, "huge pages stay in use: {e}");
    }
}
