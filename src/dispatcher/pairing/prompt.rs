//! What an operator types at a session's prompt.

/// A line at the prompt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Accept the n-th request, from 1, in the order received.
    Accept(usize),
    /// Deny the n-th.
    Deny(usize),
    /// Leave it for later.
    Skip,
    /// Show what waits.
    List,
    /// End the session.
    Quit,
    /// An empty line.
    Nothing,
    /// None of these.
    Unknown(String),
}

/// Reads a line. `a` and `d` without a number mean the only request that waits, and nothing where several do.
#[must_use]
pub fn parse(line: &str, waiting: usize) -> Command {
    let line = line.trim();
    let unknown = || Command::Unknown(line.chars().take(80).collect());
    match line {
        "" => Command::Nothing,
        "quit" | "q" => Command::Quit,
        "list" | "l" => Command::List,
        "skip" | "s" | "S" => Command::Skip,
        "a" | "A" if waiting == 1 => Command::Accept(1),
        "d" | "D" if waiting == 1 => Command::Deny(1),
        _ => {
            let mut rest = line.chars();
            let verb = rest.next();
            let digits = rest.as_str();
            // `parse` alone would take a sign.
            let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            match (verb, digits.parse::<usize>().ok().filter(|number| plain && *number > 0)) {
                (Some('a' | 'A'), Some(number)) => Command::Accept(number),
                (Some('d' | 'D'), Some(number)) => Command::Deny(number),
                _ => unknown(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documented_commands_are_understood() {
        for (line, waiting, command) in [
            ("a\n", 1, Command::Accept(1)),
            ("D", 1, Command::Deny(1)),
            (" a2 ", 3, Command::Accept(2)),
            ("d10", 12, Command::Deny(10)),
            ("s", 1, Command::Skip),
            ("skip", 2, Command::Skip),
            ("l", 0, Command::List),
            ("quit", 0, Command::Quit),
            ("", 1, Command::Nothing),
        ] {
            assert_eq!(parse(line, waiting), command, "{line:?}");
        }
    }

    #[test]
    fn nothing_is_accepted_by_accident() {
        for (line, waiting) in
            [("a", 2), ("a", 0), ("a0", 1), ("a+1", 1), ("all", 1), ("yes", 1), ("é1", 1), ("a 1 2", 2)]
        {
            assert!(matches!(parse(line, waiting), Command::Unknown(_)), "{line:?}");
        }
    }
}
