//! The one binary. Everything is in the library.

use std::process::ExitCode;

/// musl's allocator costs five times the CPU of this one per request on two threads; `no_thp` keeps an idle
/// agent at a few MiB.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    ctrl_exec::role::start(&std::env::args_os().collect::<Vec<_>>())
}
