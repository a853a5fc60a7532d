//! What `scripts.conf` pins of a script beside its path: its content (`sha256=`) and how many arguments it takes
//! (`args=`).
//!
//! The content is judged at each run, on an opened file, and exec then finds that very file (device and inode) at the
//! path or the run fails. What is judged is what is executed if nobody can write to the file in between: with trusted
//! paths under a root executor that is root alone. Without them remains somebody who may write *into* the file, in the
//! moment between the two; exchanging it for another is noticed.

use std::io;
use std::path::Path;

use crate::conf::scripts::ArgumentCount;
use crate::sys::file::{Identity, digest};
use crate::sys::process::Expected;
use crate::wire::refusal::Refusal;

/// What one script's line pins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pins {
    /// The digest that the file must have.
    pub sha256: Option<[u8; 32]>,
    /// How many arguments it takes.
    pub args: Option<ArgumentCount>,
}

/// The content of a file, and which file it was.
pub type Content = (Identity, [u8; 32]);

/// Reads what is in a file now.
pub(super) fn content(path: &Path) -> io::Result<Content> {
    digest(path).map(|(version, digest)| (version.identity(), digest))
}

/// Judges what is about to run against the script's pins. `expected` is what is known of the file so far; returned is
/// what exec must find.
///
/// # Errors
/// `arguments-count` and `script-changed`.
pub(super) fn judge(
    pins: Pins,
    args: &[String],
    expected: Expected,
    content: impl FnOnce() -> io::Result<Content>,
) -> Result<Expected, Refusal> {
    if let Some(count) = pins.args.filter(|count| !count.allows(args.len())) {
        let text = format!("the script takes {count}, and the call has {}", args.len());
        return Err(Refusal::new("arguments-count", text));
    }
    let Some(pinned) = pins.sha256 else { return Ok(expected) };
    let changed = |text: String| Refusal::new("script-changed", text);
    let (identity, found) = content().map_err(|error| {
        changed(format!("the script's file cannot be compared with the sha256 in scripts.conf: {error}"))
    })?;
    if found != pinned {
        let text = "the script's file is not the one that scripts.conf pins with sha256: if the change is meant, write \
                    the new digest there";
        return Err(changed(text.to_owned()));
    }
    match expected {
        Expected::Anything => Ok(Expected::File(identity)),
        Expected::File(judged) if judged == identity => Ok(expected),
        Expected::File(_) | Expected::Nothing => {
            Err(changed("the script's file was exchanged while it was judged".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conf::Source;
    use crate::conf::scripts::Allowlist;

    fn pins(line: &str) -> Pins {
        let (list, _) = Allowlist::parse(&Source::new("s.conf", format!("x = /bin/x {line}"))).unwrap();
        let entry = list.iter().next().unwrap();
        Pins { sha256: entry.sha256().copied(), args: entry.args() }
    }

    fn file(path: &str) -> Identity {
        Identity::of(Path::new(path)).unwrap()
    }

    fn code(outcome: Result<Expected, Refusal>) -> String {
        outcome.map_or_else(|refusal| refusal.code().to_owned(), |expected| format!("{expected:?}"))
    }

    #[test]
    fn more_or_fewer_arguments_than_a_script_takes_are_refused_with_both_numbers() {
        let judged = |line: &str, count: usize| {
            judge(pins(line), &vec![String::new(); count], Expected::Anything, || unreachable!())
        };
        assert!(judged("args=none", 0).is_ok() && judged("args=1..2", 2).is_ok() && judged("", 200).is_ok());
        let refusal = judged("args=1..2", 3).unwrap_err();
        assert_eq!(refusal.code(), "arguments-count");
        assert_eq!(refusal.text(), "the script takes 1 to 2 arguments, and the call has 3");
        assert!(judged("args=none", 1).is_err() && judged("args=2", 1).is_err());
    }

    #[test]
    fn a_script_without_a_digest_is_not_read() {
        let outcome = judge(pins(""), &[], Expected::Nothing, || unreachable!());
        assert_eq!(outcome, Ok(Expected::Nothing));
    }

    #[test]
    fn the_pinned_content_must_be_in_the_file_that_exec_will_find() {
        let pinned = pins(&format!("sha256={}", "11".repeat(32)));
        let (one, other) = (file("/"), file("/proc"));
        let judged = |expected, content| code(judge(pinned, &[], expected, || content));
        let right = format!("{:?}", Expected::File(one));
        assert_eq!(judged(Expected::Anything, Ok((one, [0x11; 32]))), right);
        assert_eq!(judged(Expected::File(one), Ok((one, [0x11; 32]))), right);
        assert_eq!(judged(Expected::File(other), Ok((one, [0x11; 32]))), "script-changed");
        assert_eq!(judged(Expected::Nothing, Ok((one, [0x11; 32]))), "script-changed");
        assert_eq!(judged(Expected::Anything, Ok((one, [0x12; 32]))), "script-changed");
        assert_eq!(judged(Expected::Anything, Err(io::ErrorKind::PermissionDenied.into())), "script-changed");
    }
}
