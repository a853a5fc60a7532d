//! Printing. A reader that went away (`| head`) is not an error worth words.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;

use serde_json::Value;

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

/// Writes a line to standard error.
pub fn error(text: impl AsRef<str>) {
    let _ = std::io::stderr().lock().write_all(format!("{}\n", text.as_ref()).as_bytes());
}

/// Standard output past the buffer of [`bytes()`], for output that comes in pieces of its own. That buffer looks for the
/// last line's end in each of them, and is empty between two calls.
///
/// # Errors
/// There is no standard output.
pub fn raw() -> std::io::Result<File> {
    Ok(File::from(std::io::stdout().as_fd().try_clone_to_owned()?))
}

/// Writes bytes to standard error as they are.
pub fn error_bytes(bytes: &[u8]) {
    let _ = std::io::stderr().lock().write_all(bytes);
}

/// Writes bytes to standard output as they are.
pub fn bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(bytes).and_then(|()| out.flush());
}
