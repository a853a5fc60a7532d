//! Descriptors between processes, and what kind of thing a descriptor is.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat, major, minor};
use nix::sys::statfs::{FsType, fstatfs};
use nix::unistd::Uid;

/// A pipe, closed on exec at both ends: reader, writer.
///
/// # Errors
/// The process or the system is out of descriptors.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}

/// Gives a pipe room for so many bytes, rounded up to a power of two of pages.
///
/// # Errors
/// More than the system allows this process or its user (pipe(7)); the pipe is as it was.
pub fn resize(pipe: impl AsFd, bytes: usize) -> io::Result<()> {
    let bytes = i32::try_from(bytes).unwrap_or(i32::MAX);
    Ok(fcntl(pipe, FcntlArg::F_SETPIPE_SZ(bytes)).map(drop)?)
}

/// Lets standard input, output and error lead nowhere from now on, and so closes what they led to: whoever waits for
/// their end stops waiting.
///
/// # Errors
/// `/dev/null` cannot be opened.
pub fn silence_stdio() -> io::Result<()> {
    let null = std::fs::OpenOptions::new().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    Ok(())
}

/// Switches a descriptor between waiting and returning `WouldBlock`. The switch belongs to the open file, so every
/// process that shares it is affected: never use it on an end that a script holds.
///
/// # Errors
/// The descriptor does not allow it.
pub fn set_nonblocking(descriptor: impl AsFd, nonblocking: bool) -> io::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&descriptor, FcntlArg::F_GETFL)?);
    let mut wanted = flags;
    wanted.set(OFlag::O_NONBLOCK, nonblocking);
    if wanted != flags {
        fcntl(&descriptor, FcntlArg::F_SETFL(wanted))?;
    }
    Ok(())
}

/// Writes what there is room for, straight to the descriptor: how many bytes.
///
/// # Errors
/// `WouldBlock` where a descriptor that does not wait has no room now, and whatever else write(2) has to say.
pub fn write_some(descriptor: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(nix::unistd::write(descriptor, bytes)?)
}

/// Reads what is there, straight from the descriptor: 0 bytes is the end of the stream.
///
/// # Errors
/// `WouldBlock` where a descriptor that does not wait has nothing now, and whatever else read(2) has to say.
pub fn read(descriptor: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    Ok(nix::unistd::read(descriptor, buffer)?)
}

/// As [`read`], behind what `buffer` holds; at most `most` bytes.
///
/// # Errors
/// As [`read`]; the buffer is as it was.
pub fn append(descriptor: impl AsFd, buffer: &mut Vec<u8>, most: usize) -> io::Result<usize> {
    let held = buffer.len();
    buffer.resize(held + most, 0);
    let read = read(descriptor, buffer.get_mut(held..).unwrap_or_default());
    buffer.truncate(held + read.as_ref().map_or(0, |count| *count));
    read
}

/// Writes a few bytes, as one piece.
///
/// # Errors
/// Nobody reads any more.
pub fn write(descriptor: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    Ok(nix::unistd::write(descriptor, bytes).map(drop)?)
}

/// Whether a pipe to be written to has no reader any more.
///
/// # Errors
/// Out of memory.
pub fn is_deserted(writer: impl AsFd) -> io::Result<bool> {
    let [ready] = super::poll::readable([Some(writer.as_fd())], Some(std::time::Duration::ZERO))?;
    Ok(ready.closed)
}

/// What a descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Thing {
    /// A pipe or FIFO.
    Pipe,
    /// A regular file.
    File,
    /// A character device, such as `/dev/null` or a terminal.
    Device,
    /// A directory, socket, block device or anything else.
    Other,
}

/// A descriptor as its holder may use it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// What it refers to.
    pub thing: Thing,
    /// Open for reading.
    pub reads: bool,
    /// Open for writing.
    pub writes: bool,
}

/// Who could do to a thing what the holder of a descriptor of it can.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// A pipe without a name, which only those have who were given it.
    Nobodys,
    /// `/dev/null`.
    Null,
    /// Another device.
    Device,
    /// The owner of a file, a FIFO or anything else.
    Account(Uid),
}

/// Looks at whose a descriptor's thing is.
///
/// # Errors
/// The kernel does not say, which is not expected of an open descriptor.
pub fn whose(descriptor: impl AsFd) -> io::Result<Whose> {
    /// Its numbers (null(4)).
    const NULL: (u64, u64) = (1, 3);
    let found = fstat(&descriptor)?;
    Ok(match SFlag::from_bits_truncate(found.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFIFO if fstatfs(&descriptor)?.filesystem_type() == PIPES => Whose::Nobodys,
        SFlag::S_IFCHR if (major(found.st_rdev), minor(found.st_rdev)) == NULL => Whose::Null,
        SFlag::S_IFCHR | SFlag::S_IFBLK => Whose::Device,
        _ => Whose::Account(Uid::from_raw(found.st_uid)),
    })
}

/// The file system of pipes that have no name (`PIPEFS_MAGIC`, `linux/magic.h`).
const PIPES: FsType = FsType(0x5049_5045);

/// Looks at a descriptor.
///
/// # Errors
/// The kernel does not say, which is not expected of an open descriptor.
pub fn kind(descriptor: impl AsFd) -> io::Result<Kind> {
    let flags = OFlag::from_bits_retain(fcntl(&descriptor, FcntlArg::F_GETFL)?);
    let thing = match SFlag::from_bits_truncate(fstat(&descriptor)?.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFIFO => Thing::Pipe,
        SFlag::S_IFREG => Thing::File,
        SFlag::S_IFCHR => Thing::Device,
        _ => Thing::Other,
    };
    let usable = !flags.contains(OFlag::O_PATH);
    let access = flags & OFlag::O_ACCMODE;
    let (reads, writes) = (access != OFlag::O_WRONLY, access != OFlag::O_RDONLY);
    Ok(Kind { thing, reads: usable && reads, writes: usable && writes })
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    #[test]
    fn kinds_are_told_apart() {
        let (reader, writer) = pipe().unwrap();
        assert_eq!(kind(&reader).unwrap(), Kind { thing: Thing::Pipe, reads: true, writes: false });
        assert_eq!(kind(&writer).unwrap(), Kind { thing: Thing::Pipe, reads: false, writes: true });
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        assert_eq!(kind(&null).unwrap(), Kind { thing: Thing::Device, reads: true, writes: true });
        assert_eq!(kind(File::open("/").unwrap()).unwrap().thing, Thing::Other);
        let file = File::open("/etc/passwd").unwrap();
        assert_eq!(kind(&file).unwrap(), Kind { thing: Thing::File, reads: true, writes: false });
        let path = nix::fcntl::open("/etc/passwd", OFlag::O_PATH, nix::sys::stat::Mode::empty()).unwrap();
        assert_eq!(kind(&path).unwrap(), Kind { thing: Thing::File, reads: false, writes: false });
    }

    #[test]
    fn a_thing_is_an_accounts_unless_it_has_no_name_or_is_nothing() {
        let place = tempfile::tempdir().unwrap();
        let (own, fifo) = (Uid::effective(), place.path().join("fifo"));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let fifo = File::options().read(true).write(true).open(fifo).unwrap();
        assert_eq!(whose(&fifo).unwrap(), Whose::Account(own));
        assert_eq!(whose(tempfile::tempfile().unwrap()).unwrap(), Whose::Account(own));
        assert_eq!(whose(crate::sys::memory::sealed(b"x").unwrap()).unwrap(), Whose::Account(own));
        assert_eq!(whose(File::open("/etc/passwd").unwrap()).unwrap(), Whose::Account(Uid::from_raw(0)));
        let (reader, writer) = pipe().unwrap();
        assert_eq!([whose(reader).unwrap(), whose(writer).unwrap()], [Whose::Nobodys; 2]);
        assert_eq!(whose(File::open("/dev/null").unwrap()).unwrap(), Whose::Null);
        assert_eq!(whose(File::open("/dev/zero").unwrap()).unwrap(), Whose::Device);
    }

    #[test]
    fn a_nonblocking_pipe_does_not_wait() {
        let (reader, _writer) = pipe().unwrap();
        set_nonblocking(&reader, true).unwrap();
        assert_eq!(File::from(reader).read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
