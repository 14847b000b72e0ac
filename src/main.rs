//! The program: hands its arguments to [`switchyard::cli`] and ends with its exit code.

use std::process::ExitCode;

// The allocators stand side by side in `make bench-peers`; the default is the one that measures best.
#[cfg(all(feature = "mimalloc", not(feature = "jemalloc")))]
#[global_allocator]
static ALLOCATOR: switchyard::allocator::Mimalloc = switchyard::allocator::Mimalloc;

#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    switchyard::cli::main()
}
