//! What a front-end may hand over as a script's standard streams.
//!
//! A script reaches what they lead to by their names, too (`/dev/stdin`), and with its own account's rights; behind that name
//! is the front-end's mount, which no confinement has hidden or made read-only. So nothing may be behind it that would not be
//! the front-end's to give away.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use crate::sys::mount::{self, Attributes, Tree};
use crate::sys::pipe::{self, Kind, Whose};
use crate::sys::user::Uid;
use crate::wire::refusal::Refusal;

/// The code of the refusal of what is somebody else's.
const FOREIGN: &str = "order-foreign-file";

/// The three streams, by their names.
const NAMES: [&str; 3] = ["input", "output", "error"];

/// Judges them, for a front-end of this account: pipes, files and FIFOs of that account, and `/dev/null`. Of its own files it
/// could do itself what a script does to them; of another's that it may read, or hold open, it could not.
///
/// # Errors
/// The refusal, which names the stream.
pub(super) fn judge(streams: &[OwnedFd; 3], front_end: Uid) -> Result<(), Refusal> {
    for (stream, name) in streams.iter().zip(NAMES) {
        let what = match pipe::whose(stream) {
            Ok(Whose::Nobodys | Whose::Null) => continue,
            Ok(Whose::Account(owner)) if owner == front_end => continue,
            Ok(Whose::Account(owner)) => format!("a file of uid {owner}, and its front-end is uid {front_end}"),
            Ok(Whose::Device) => "a device other than /dev/null".to_owned(),
            Err(error) => format!("nothing that can be looked at: {error}"),
        };
        let text = format!("standard {name} is {what}: hand over a pipe, or a file of that account's own");
        return Err(Refusal::new(FOREIGN, text));
    }
    Ok(())
}

/// The same, with a `/dev/null` of which nobody can change mode or owner: the host's is not for a script of root's to change.
///
/// **Invariant:** called by root in the host's mount namespace.
///
/// # Errors
/// There is no `/dev/null` here, or no descriptor left.
pub(super) fn kept_from_changes(streams: [OwnedFd; 3]) -> io::Result<[OwnedFd; 3]> {
    let [input, output, error] = streams.map(|stream| match pipe::whose(&stream) {
        Ok(Whose::Null) => read_only_null(pipe::kind(&stream)?),
        _ => Ok(stream),
    });
    Ok([input?, output?, error?])
}

fn read_only_null(kind: Kind) -> io::Result<OwnedFd> {
    let tree = Tree::copy_bare(mount::open(Path::new("/dev/null"))?)?;
    tree.restrict(Attributes::READ_ONLY)?;
    let place = format!("/proc/self/fd/{}", tree.as_fd().as_raw_fd());
    let opened = OwnedFd::from(File::options().read(kind.reads).write(kind.writes).open(place)?);
    if matches!(pipe::whose(&opened)?, Whose::Null) { Ok(opened) } else { Err(io::ErrorKind::NotFound.into()) }
}
