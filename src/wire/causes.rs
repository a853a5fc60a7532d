//! An error with its causes on one line, as it stands in messages and log fields.

use std::error::Error;

/// `what failed: why: why that`.
#[must_use]
pub fn on_one_line(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_follow_what_they_caused() {
        let error = super::super::frame::decode::<u8>(b"x").unwrap_err();
        let text = on_one_line(&error);
        assert!(text.starts_with("a message does not have the expected form: expected value"), "{text}");
    }
}
