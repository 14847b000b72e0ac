//! Memory that will be read soon, asked for before it is needed. A request touches far more than the second cache holds
//! before the next request of the same user comes, so what is kept of a user is in memory by then; each of two or three
//! reads that depend on one another waits 100 ns and more for it.

/// Has the processor fetch the first line of this. Nothing waits for it.
#[inline]
pub fn prefetch<T>(soon: &T) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a hint, of an address that can be read; it changes nothing that a program can see.
        #[expect(unsafe_code, reason = "no safe form of the hint is stable")]
        unsafe {
            _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(soon).cast());
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = soon;
}
