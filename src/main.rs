//! The one binary. Everything is in the library.

use ctrl_exec::{role, sys};

/// musl's allocator costs five times the CPU of this one per request on two threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ! {
    let exit = role::start(&std::env::args_os().collect::<Vec<_>>());
    // The kernel takes back all memory at once, where the allocator would give it back piece by piece.
    sys::process::end(exit.code().into())
}
