//! A command that runs beside the test.

use std::process::Command;
use std::thread::JoinHandle;

use super::process::{Ran, finish};

/// A command under way.
#[derive(Debug)]
pub(crate) struct Background(JoinHandle<Ran>);

impl Background {
    pub(crate) fn start(command: Command) -> Self {
        Self(std::thread::spawn(move || finish(command, "")))
    }

    /// Waits for its end.
    pub(crate) fn end(self) -> Ran {
        self.0.join().unwrap()
    }
}
