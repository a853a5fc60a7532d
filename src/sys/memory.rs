//! Memory: bytes that travel to another process as a file that is on no disk (`memfd_create(2)`), and pages of this
//! program that it needs no longer (`madvise(2)`).

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::prctl;

use super::call::{Numbers, call};

/// A file that holds `bytes`, at its beginning, and that nobody can change any more.
///
/// # Errors
/// Out of memory or descriptors.
pub fn sealed(bytes: &[u8]) -> io::Result<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut file = File::from(memfd_create("input", flags)?);
    file.write_all(bytes)?;
    file.rewind()?;
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// An empty file that this process and those that it forks can read and write.
///
/// # Errors
/// Out of memory or descriptors.
pub fn shared() -> io::Result<File> {
    Ok(memfd_create("shared", MFdFlags::MFD_CLOEXEC)?.into())
}

/// Whether from now on this process, and whoever it starts, may get huge pages from a kernel that gives them to everyone
/// (`PR_SET_THP_DISABLE`, prctl(2)): 2 MiB where a few KiB are used. One without them does not know the word, and gives none.
pub fn allow_huge_pages(allowed: bool) {
    let _ = prctl::set_thp_disable(!allowed);
}

/// Lets go of the pages of files that this process has mapped and never changed, which is its program's code and
/// constants: what a process needs at its start alone is most of it. What is touched again comes back from the file.
///
/// # Errors
/// There is no `/proc`, or the kernel refuses.
pub fn forget_unchanged() -> io::Result<()> {
    let maps = std::fs::read_to_string("/proc/self/smaps")?;
    for (start, size) in unchanged(&maps) {
        // **Invariant** of the call: the range is a mapping of a file that cannot be written to and of which no page has
        // been changed.
        call(Numbers::ForgetPages { start, size })?;
    }
    Ok(())
}

/// Address and size of every mapping of a file that is not writable and has no page of its own: pages that were changed
/// before they were write-protected, such as relocated ones, are `Anonymous` (`proc_pid_smaps(5)`).
fn unchanged(maps: &str) -> impl Iterator<Item = (usize, usize)> {
    maps.split_inclusive("VmFlags:").filter_map(|entry| {
        let mut lines = entry.lines().skip_while(|line| !line.contains(" /"));
        let (range, rest) = lines.next()?.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        let [start, end] = [start, end].map(|text| usize::from_str_radix(text, 16).ok());
        let clean = lines.any(|line| line.split_whitespace().eq(["Anonymous:", "0", "kB"]));
        let fixed = rest.starts_with("r-xp ") || rest.starts_with("r--p ");
        (clean && fixed).then_some((start?, end?.checked_sub(start?)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_and_constants_that_were_let_go_come_back() {
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
        assert!(unchanged(&text).count() > 1, "{text}");
        forget_unchanged().unwrap();
        assert_eq!(format!("{}", 1.5), "1.5");
    }

    #[test]
    fn what_was_changed_or_may_be_is_never_let_go() {
        let entry = |head: &str, own: u32| format!("{head}\nRss: 4 kB\nAnonymous:   {own} kB\nVmFlags: rd\n");
        let text = [
            entry("1000-3000 r-xp 00000000 fe:00 7   /bin/x", 0),
            entry("3000-4000 r--p 00002000 fe:00 7   /bin/x", 4),
            entry("4000-5000 rw-p 00003000 fe:00 7   /bin/x", 0),
            entry("5000-6000 r--p 00000000 00:00 0   [vvar]", 0),
            entry("6000-8000 r--p 00005000 fe:00 7   /bin/x", 0),
        ];
        assert_eq!(unchanged(&text.concat()).collect::<Vec<_>>(), [(0x1000, 0x2000), (0x6000, 0x2000)]);
    }

    #[test]
    fn what_was_sealed_is_read_from_its_beginning_and_cannot_be_changed() {
        let mut file = File::from(sealed(b"context").unwrap());
        assert_eq!(io::read_to_string(&file).unwrap(), "context");
        assert!(file.write_all(b"x").is_err() && file.set_len(0).is_err());
    }
}
