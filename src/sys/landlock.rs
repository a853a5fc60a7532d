//! Landlock: rules that a process gives itself and its descendants, and that nobody can take back (landlock(7)).
//!
//! The calls are made directly: what is asked for here is either enforced or an error, so that a library's ways to do as
//! much as the kernel knows would be in the way.
#![expect(unsafe_code, reason = "the calls have no safe binding")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::sys::stat::{SFlag, fstat};

use super::call::{Numbers, call};

/// Rights over files, as the kernel's `LANDLOCK_ACCESS_FS_*` bits (`linux/landlock.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access(u64);

impl Access {
    /// To execute a file.
    pub const EXECUTE: Self = Self(1);
    /// To read files and list directories.
    pub const READ: Self = Self(1 << 2 | 1 << 3);
    /// To write files, and to make and remove files of every kind. Moving them between directories, and cutting them
    /// off, are rights of their own since Linux 5.19 and 6.2; before, the first is refused and the second is free.
    pub const WRITE: Self = Self(1 << 1 | ((1 << 13) - (1 << 4)) | REFER | TRUNCATE);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

const REFER: u64 = 1 << 13;
const TRUNCATE: u64 = 1 << 14;
/// Rights that make sense for a file that is not a directory.
const OF_FILES: u64 = 1 | 1 << 1 | 1 << 2 | TRUNCATE;
/// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET`.
const ABSTRACT_SOCKETS: u64 = 1;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct RulesetAttributes {
    files: u64,
    network: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
struct Beneath {
    allowed: u64,
    parent: i32,
}

/// `LANDLOCK_RULE_PATH_BENEATH`.
const PATH_BENEATH: i32 = 1;

/// The version of Landlock that this kernel has; `None` if it has none or does not use it.
#[must_use]
pub fn version() -> Option<u32> {
    call(Numbers::LandlockVersion).ok().and_then(|version| version.try_into().ok()).filter(|version| *version > 0)
}

/// Rules under construction.
#[derive(Debug)]
pub struct Ruleset {
    descriptor: OwnedFd,
    handled: u64,
}

impl Ruleset {
    /// Rules that refuse `handled` wherever none of them allows it. `scoped`, and from version 6 on, they also refuse
    /// connections to abstract unix sockets of processes outside.
    ///
    /// # Errors
    /// The kernel has no Landlock.
    pub fn new(handled: Access, scoped: bool, version: u32) -> io::Result<Self> {
        let known = match version {
            0 | 1 => !(REFER | TRUNCATE),
            2 => !TRUNCATE,
            _ => u64::MAX,
        };
        let handled = handled.0 & known;
        let scoped = if scoped && version >= 6 { ABSTRACT_SOCKETS } else { 0 };
        let attributes = RulesetAttributes { files: handled, network: 0, scoped };
        // SAFETY: the structure is live and has the size that is passed (older kernels know a shorter one, and take a
        // longer one whose rest is zero), and the kernel only reads it. What it returns is a descriptor that was made for
        // us, with no other owner.
        let descriptor = unsafe {
            let (size, none) = (size_of::<RulesetAttributes>(), 0);
            let number = libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size, none);
            let number =
                i32::try_from(number).ok().filter(|number| *number >= 0).ok_or_else(io::Error::last_os_error)?;
            OwnedFd::from_raw_fd(number)
        };
        Ok(Self { descriptor, handled })
    }

    /// Allows `access` to an opened file, or to everything below an opened directory.
    ///
    /// # Errors
    /// Not expected of the kernel.
    pub fn allow(&self, opened: impl AsFd, access: Access) -> io::Result<()> {
        let directory = fstat(&opened)?.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits();
        let sensible = if directory { u64::MAX } else { OF_FILES };
        let allowed = access.0 & self.handled & sensible;
        if allowed == 0 {
            return Ok(());
        }
        let rule = Beneath { allowed, parent: opened.as_fd().as_raw_fd() };
        // SAFETY: the structure has the layout that goes with the rule's type, and the kernel only reads it.
        let result = unsafe {
            let rules = self.descriptor.as_raw_fd();
            libc::syscall(libc::SYS_landlock_add_rule, rules, PATH_BENEATH, &raw const rule, 0)
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Puts the rules in force for this process and all that it starts.
    ///
    /// # Errors
    /// Neither `no_new_privs` nor `CAP_SYS_ADMIN`, or sixteen sets of rules are in force already.
    pub fn restrict(&self) -> io::Result<()> {
        call(Numbers::LandlockRestrict(self.descriptor.as_raw_fd())).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{process, user};

    #[test]
    fn rules_hold_for_whoever_made_them_as_far_as_they_say() {
        let Some(version) = version() else {
            let wanted = std::env::var("CTRL_EXEC_VM_LANDLOCK").unwrap_or_default();
            assert!(wanted.is_empty() || wanted == "none", "the kernel is to have version {wanted}");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let (open, closed) = (dir.path().join("open"), dir.path().join("closed"));
        let text = process::tests::in_a_process("landlock", || {
            for place in [&open, &closed] {
                std::fs::create_dir_all(place).unwrap();
                crate::sys::file::write_atomic(&place.join("held"), b"held", crate::sys::file::Access::public())
                    .unwrap();
            }
            let rules = Ruleset::new(Access::READ.and(Access::WRITE), true, version).unwrap();
            rules.allow(std::fs::File::open(&open).unwrap(), Access::READ).unwrap();
            user::renounce_privileges().unwrap();
            let read = |place: &std::path::Path| std::fs::read(place.join("held")).is_ok();
            let before = (read(&open), read(&closed));
            rules.restrict().unwrap();
            format!("{before:?} {:?} {}", (read(&open), read(&closed)), std::fs::create_dir(open.join("new")).is_ok())
        });
        assert_eq!(text, "(true, true) (true, false) false");
    }
}
