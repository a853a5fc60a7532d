//! Printing. What could not be shown is never lost unseen: the first failure is kept, and counts in how the process ends.
//!
//! A reader that went away (`| head`) is not an error worth words: SIGPIPE is ignored, so that the work comes to an
//! orderly end, and the exit status is the one of a program that the signal has ended.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;

use crate::exit::Exit;
use crate::failure::Failure;
use crate::sys::poll;

/// How long to wait at a time for a stream that is full and that somebody has made nonblocking.
const FULL: Duration = Duration::from_mins(1);

static LOST: OnceLock<Lost> = OnceLock::new();

/// Output that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("the output could not be written")]
struct Lost(#[source] io::Error);

/// Writes text to standard output as it is.
pub fn text(text: &str) {
    bytes(text.as_bytes());
}

/// Writes a line to standard output.
pub fn line(text: impl AsRef<str>) {
    bytes(format!("{}\n", text.as_ref()).as_bytes());
}

/// Writes one line of JSON to standard output.
pub fn json(value: &Value) {
    line(value.to_string());
}

/// Writes a line to standard error. That is where failures are told, so there is nobody to tell of one here.
pub fn error(text: impl AsRef<str>) {
    let _ = io::stderr().lock().write_all(format!("{}\n", text.as_ref()).as_bytes());
}

/// Writes bytes to standard output as they are.
pub fn bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    keep(out.write_all(bytes).and_then(|()| out.flush()));
}

/// A standard stream past its buffer, for output that comes in pieces of its own. The buffer looks for the last line's
/// end in each of them, and is empty between two calls.
#[derive(Debug)]
pub struct Raw(File);

impl Raw {
    /// Another descriptor of a stream.
    ///
    /// # Errors
    /// There is no such stream, or no free descriptor.
    pub fn of(stream: &impl AsFd) -> io::Result<Self> {
        Ok(Self(File::from(stream.as_fd().try_clone_to_owned()?)))
    }

    /// Writes bytes as they are.
    pub fn bytes(&self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match (&self.0).write(bytes) {
                Ok(0) => return keep(Err(ErrorKind::WriteZero.into())),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Whoever shares the terminal or the pipe can make it so for all.
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if let Err(error) = poll::writable(self.0.as_fd(), FULL) {
                        return keep(Err(error));
                    }
                }
                Err(error) => return keep(Err(error)),
            }
        }
    }
}

/// Keeps what came of printing. The first failure counts.
pub fn keep(printed: io::Result<()>) {
    if let Err(error) = printed {
        // Another is kept already.
        let _ = LOST.set(Lost(error));
    }
}

/// Whether any output is lost. Nobody is there to read more.
#[must_use]
pub fn is_lost() -> bool {
    LOST.get().is_some()
}

/// How the process ends that would have ended with `exit`, had all its output been written. Says what was lost, and why.
#[must_use]
pub fn end(exit: Exit) -> Exit {
    keep(io::stdout().lock().flush());
    let Some(lost) = LOST.get() else { return exit };
    if lost.0.kind() == ErrorKind::BrokenPipe {
        return Exit::ReaderGone;
    }
    let hint = "see to the place that the output goes to, or send it elsewhere; what was done stays done";
    let failure = Failure::new(Exit::Output, lost).hint(hint);
    error(format!("Error: {failure}"));
    failure.exit()
}
