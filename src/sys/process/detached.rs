//! This program once more, in the background: started, waited for until it is ready, and then left alone.
//!
//! The new process reports one line through its standard output, which is a pipe of its parent's, and its errors where
//! its parent would. After the report all three standard descriptors lead nowhere, so that whoever captures the parent's
//! output is not kept waiting.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::sys::{pipe, poll};

/// Longest report, in bytes.
const REPORT: usize = 4096;

/// What became of a start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Launch {
    /// It is ready; its process id, and the line that it reported.
    Ready(u32, String),
    /// It ended without a report, with this status; a signal's end has none.
    Ended(Option<u8>),
    /// It did not report in time and was killed.
    Silent,
}

/// Starts this program's file under the name `name` with `words`, in the directory `/`, and waits for its report at most
/// for `patience`.
///
/// # Errors
/// It cannot be started.
#[expect(clippy::disallowed_methods, reason = "this room starts processes")]
pub fn launch(name: &str, words: &[OsString], patience: Duration) -> io::Result<Launch> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg0(name).args(words).current_dir("/");
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
    match report(&mut child, Instant::now() + patience)? {
        Some(line) if line.ends_with('\n') => Ok(Launch::Ready(child.id(), line.trim_end().to_owned())),
        Some(_) => Ok(Launch::Ended(child.wait()?.code().and_then(|code| u8::try_from(code).ok()))),
        None => {
            child.kill()?;
            child.wait()?;
            Ok(Launch::Silent)
        }
    }
}

/// What the child wrote up to its line's end or its own; `None` where neither came in time.
fn report(child: &mut Child, deadline: Instant) -> io::Result<Option<String>> {
    let Some(mut output) = child.stdout.take() else { return Ok(Some(String::new())) };
    let mut line = Vec::new();
    while !line.ends_with(b"\n") && line.len() < REPORT {
        let left = deadline.saturating_duration_since(Instant::now());
        let [ready] = poll::readable([Some(output.as_fd())], Some(left))?;
        if !ready.readable && left.is_zero() {
            return Ok(None);
        }
        let mut byte = [0];
        if ready.readable {
            if output.read(&mut byte)? == 0 {
                break;
            }
            line.extend_from_slice(&byte);
        }
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

/// Called by the new process once it is ready: reports one line, and lets go of its parent's descriptors.
///
/// # Errors
/// Nobody listens.
pub fn report_ready(line: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(format!("{line}\n").as_bytes())?;
    output.flush()?;
    pipe::silence_stdio()
}
