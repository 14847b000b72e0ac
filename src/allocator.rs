//! The program's memory allocator: mimalloc, asked in the way that costs least.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};

/// What every block of at least as many bytes is aligned to (mimalloc's `MI_MAX_ALIGN_SIZE`).
const ALIGNED: usize = 16;

/// Asks for an alignment only where it matters. The crate `mimalloc` does so for every block, and mimalloc 3 answers each that
/// is larger than 1 KiB with a larger one, and an eighth of all others after a search of its own.
#[derive(Debug)]
pub struct Mimalloc;

fn is_aligned_anyway(size: usize, align: usize) -> bool {
    align <= ALIGNED && align <= size
}

#[expect(unsafe_code, reason = "what allocates is the program's to promise")]
// SAFETY: mimalloc allocates, and its blocks are as large and as aligned as asked, or null. A block of at least `align` bytes is
// aligned to it if it is at most 16. Any block may be given back or resized without a word of its alignment.
unsafe impl GlobalAlloc for Mimalloc {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: the layout is sound, which the caller has to see to.
        unsafe {
            if is_aligned_anyway(size, align) {
                mi_malloc(size).cast()
            } else {
                mi_malloc_aligned(size, align).cast()
            }
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let (size, align) = (layout.size(), layout.align());
        // SAFETY: the layout is sound, which the caller has to see to.
        unsafe {
            if is_aligned_anyway(size, align) {
                mi_zalloc(size).cast()
            } else {
                mi_zalloc_aligned(size, align).cast()
            }
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, _layout: Layout) {
        // SAFETY: it is a block of this allocator, which the caller has to see to.
        unsafe { mi_free(block.cast()) }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let align = layout.align();
        // SAFETY: it is a block of this allocator, and the size is sound, which the caller has to see to.
        unsafe {
            if is_aligned_anyway(size, align) {
                mi_realloc(block.cast(), size).cast()
            } else {
                mi_realloc_aligned(block.cast(), size, align).cast()
            }
        }
    }
}
