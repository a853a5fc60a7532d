//! What a front-end may hand over as a script's standard streams.
//!
//! A script reaches what they lead to by their names, too (`/dev/stdin`), and with its own account's rights; behind that name
//! is the front-end's mount, which no confinement has hidden or made read-only. So nothing may be behind it that would not be
//! the front-end's to give away.

use std::cell::OnceCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
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

/// A `/dev/null` of which nobody can change mode or owner: the host's is not for a script of root's to change. Made for the first
/// order of a monitor that needs it, since to give up a mount has the kernel wait for all of its processors.
#[derive(Debug, Default)]
pub(super) struct Null(OnceCell<OwnedFd>);

impl Null {
    /// The streams, with this one instead of the host's.
    ///
    /// **Invariant:** called by root in the host's mount namespace.
    ///
    /// # Errors
    /// There is no `/dev/null` here, or no descriptor left.
    pub(super) fn instead_of_the_hosts(&self, streams: [OwnedFd; 3]) -> io::Result<[OwnedFd; 3]> {
        let [input, output, error] = streams.map(|stream| match pipe::whose(&stream) {
            Ok(Whose::Null) => self.open(pipe::kind(&stream)?),
            _ => Ok(stream),
        });
        Ok([input?, output?, error?])
    }

    /// Opened anew for each stream: who shares an open file shares what fcntl(2) sets of it.
    fn open(&self, kind: Kind) -> io::Result<OwnedFd> {
        if self.0.get().is_none() {
            drop(self.0.set(read_only_null()?));
        }
        let name = self.0.get().ok_or(io::ErrorKind::NotFound)?;
        Ok(File::options().read(kind.reads).write(kind.writes).open(path_of(name))?.into())
    }
}

/// Its name alone, in a read-only mount that nobody else has: it goes with the last who has opened something in it.
fn read_only_null() -> io::Result<OwnedFd> {
    let tree = Tree::copy_bare(mount::open(Path::new("/dev/null"))?)?;
    tree.restrict(Attributes::READ_ONLY)?;
    let name = mount::open(Path::new(&path_of(&tree)))?;
    if matches!(pipe::whose(&name)?, Whose::Null) { Ok(name) } else { Err(io::ErrorKind::NotFound.into()) }
}

fn path_of(opened: &impl AsFd) -> String {
    format!("/proc/self/fd/{}", opened.as_fd().as_raw_fd())
}
