//! What `scripts.conf` pins of a script beside its path: its content (`sha256=`) and how many arguments it takes
//! (`args=`).
//!
//! The content is judged at each run, on an opened file, and right before exec that very file, unchanged (device, inode, size
//! and the times of its last changes), is at the path or the run fails. That is not the last look at it: exec opens the path
//! once more, and a script's interpreter opens it again, by name. Nothing that is made for one run keeps somebody who may write
//! to the directory from exchanging the file just then; a mount over it goes when the file under it is replaced, and a
//! descriptor in place of the path would be the script's `$0`.
//!
//! **Invariant:** so the content is pinned only where nobody can: `Script::keepers` wants the file and every directory
//! above it in the hands of root alone, also where `trusted_paths` is off; under a private executor in those of root and of
//! its own account, whose rights the script has anyway.

use std::io;
use std::path::Path;

use crate::conf::scripts::ArgumentCount;
use crate::sys::file::{Version, digest};
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

/// The content of a file, and which state of which file it was.
pub type Content = (Version, [u8; 32]);

/// Reads what is in a file now.
pub(super) fn content(path: &Path) -> io::Result<Content> {
    digest(path)
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
    let (version, found) = content().map_err(|error| {
        changed(format!("the script's file cannot be compared with the sha256 in scripts.conf: {error}"))
    })?;
    if found != pinned {
        let text = "the script's file is not the one that scripts.conf pins with sha256: if the change is meant, write \
                    the new digest there";
        return Err(changed(text.to_owned()));
    }
    match expected {
        Expected::File(judged) if judged != version.identity() => {}
        Expected::Nothing => {}
        _ => return Ok(Expected::Unchanged(version)),
    }
    Err(changed("the script's file was exchanged while it was judged".to_owned()))
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

    fn file(path: &str) -> Version {
        Version::of(Path::new(path)).unwrap()
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
        let right = format!("{:?}", Expected::Unchanged(one));
        assert_eq!(judged(Expected::Anything, Ok((one, [0x11; 32]))), right);
        assert_eq!(judged(Expected::File(one.identity()), Ok((one, [0x11; 32]))), right);
        assert_eq!(judged(Expected::File(other.identity()), Ok((one, [0x11; 32]))), "script-changed");
        assert_eq!(judged(Expected::Nothing, Ok((one, [0x11; 32]))), "script-changed");
        assert_eq!(judged(Expected::Anything, Ok((one, [0x12; 32]))), "script-changed");
        assert_eq!(judged(Expected::Anything, Err(io::ErrorKind::PermissionDenied.into())), "script-changed");
    }
}
