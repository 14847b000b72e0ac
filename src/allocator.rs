//! The program's memory allocator: mimalloc, asked in the way that costs least.

use std::alloc::{GlobalAlloc, Layout};

use libmimalloc_sys::{
    mi_free, mi_malloc, mi_malloc_aligned, mi_realloc, mi_realloc_aligned, mi_zalloc, mi_zalloc_aligned,
};

/// What every block of at least as many bytes is aligned to (mimalloc's `MI_MAX_ALIGN_SIZE`).
const ALIGNED: usize = 16;

/// Asks for an alignment only where it matters. The crate `mimalloc` does so for every block, and mimalloc 3 then looks longer for one
/// that has more than 1 KiB, or whose size is not free at once, and mostly takes a larger one: 11 of the 68 blocks of a request,
/// which cost it 3,000 instructions.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(unsafe_code, reason = "blocks are asked for without a type")]
    fn blocks_are_as_large_and_as_aligned_as_asked() {
        for align in [1, 2, 4, 8, 16, 32, 64, 4096] {
            for size in (1..200).chain([
                1_000,
                1_024,
                1_025,
                4_096,
                5_000,
                65_536,
                70_000,
                1 << 20,
                (1 << 20) + 7,
            ]) {
                let layout = Layout::from_size_align(size, align).expect("a layout");
                let grown = 2 * size + 1;
                // SAFETY: each block is of this allocator, used within its size, and given back once.
                let (blocks, kept) = unsafe {
                    let first = Mimalloc.alloc(layout);
                    first.write_bytes(7, size);
                    let zeros = Mimalloc.alloc_zeroed(layout);
                    let zeroed = (0..size).all(|at| zeros.add(at).read() == 0);
                    let first = Mimalloc.realloc(first, layout, grown);
                    let same = (0..size).all(|at| first.add(at).read() == 7);
                    first.write_bytes(9, grown);
                    Mimalloc.dealloc(zeros, layout);
                    Mimalloc.dealloc(first, Layout::from_size_align(grown, align).expect("a layout"));
                    ([first, zeros], zeroed && same)
                };
                assert!(kept, "{size} {align}");
                assert!(blocks.iter().all(|block| block.addr() % align == 0), "{size} {align}");
            }
        }
    }
}
