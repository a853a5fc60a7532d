//! Ctrl-C: the demo tidies up before it ends.
//!
//! A signal only leaves a word. Whoever does the next step finds it, and fails; on the way out every process is ended and
//! the directory removed, as after any other failure.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};

use crate::exit::Exit;
use crate::failure::Failure;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP end nothing by themselves.
pub(super) fn watch() -> Result<(), Failure> {
    listen().map_err(|error| Failure::new(Exit::Unavailable, error))
}

/// Fails once a signal has come.
pub(super) fn check() -> Result<(), Failure> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        return Err(Failure::new(Exit::Failed, "interrupted; nothing was left behind"));
    }
    Ok(())
}

fn listen() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    drop(entered);
    // The thread ends with the process.
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        INTERRUPTED.store(true, Ordering::Relaxed);
    })?;
    Ok(())
}
