//! One failure printer: what went wrong, each cause on its own line, and last what to do about it.

use std::error::Error;
use std::fmt;

use crate::exit::Exit;

/// A verb that could not do its work: the exit status, the error with its causes, and what to type next.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    error: Box<dyn Error + Send + Sync>,
    hint: Option<String>,
}

impl Failure {
    /// A failure that ends the process with `exit`.
    pub fn new(exit: Exit, error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { exit, error: error.into(), hint: None }
    }

    /// Adds the line that says what to type next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The status the process ends with.
    #[must_use]
    pub const fn exit(&self) -> Exit {
        self.exit
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)?;
        let mut cause = self.error.source();
        while let Some(error) = cause {
            write!(f, "\n  because: {error}")?;
            cause = error.source();
        }
        if let Some(hint) = &self.hint {
            write!(f, "\nhint: {hint}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chain_is_shown_and_the_hint_comes_last() {
        let inner = std::io::Error::other("disk on fire");
        let outer = std::io::Error::other(inner);
        let failure = Failure::new(Exit::Unavailable, outer).hint("buy a new disk");
        let text = failure.to_string();
        assert!(text.starts_with("disk on fire"), "{text}");
        assert!(text.ends_with("hint: buy a new disk"), "{text}");
    }
}
