//! System calls that take numbers alone, or an empty path, and for which there is no safe binding.
#![expect(unsafe_code, reason = "these calls have no safe binding")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};

/// One such call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Numbers {
    /// `close_range(2)`. **Invariant:** nobody uses these descriptors any more.
    CloseRange {
        /// The first to close.
        first: u32,
        /// The last to close.
        last: u32,
    },
    /// `PR_CAPBSET_READ`: 1 if the bounding set has this capability, `EINVAL` if the kernel has no such one.
    BoundingHas(u8),
    /// `PR_CAPBSET_DROP`.
    BoundingDrop(u8),
    /// `PR_CAP_AMBIENT_RAISE`.
    AmbientRaise(u8),
    /// `PR_CAP_AMBIENT_IS_SET`.
    AmbientHas(u8),
    /// `PR_SET_SECUREBITS`.
    SetSecureBits(i32),
    /// `PR_GET_SECUREBITS`.
    SecureBits,
    /// `PR_GET_SECCOMP`.
    SeccompMode,
    /// `landlock_create_ruleset(2)` with the flag that asks for the version.
    LandlockVersion,
    /// `landlock_restrict_self(2)`, with a rule set's descriptor.
    LandlockRestrict(i32),
    /// `mount_setattr(2)` of nothing, which changes nothing: `EINVAL` where the kernel has the call.
    MountSetattrOfNothing,
    /// seccomp(2) with a null filter, which installs nothing: `EFAULT` where the kernel has filters.
    SeccompWithoutFilter,
    /// `madvise(2)` with `MADV_DONTNEED`. **Invariant:** every page there is an unchanged one of a file, which reads the
    /// same when it comes back.
    ForgetPages {
        /// Where they begin.
        start: usize,
        /// How many bytes.
        size: usize,
    },
    /// keyctl(2) with `KEYCTL_JOIN_SESSION_KEYRING` and no name.
    JoinNewSessionKeyring,
    /// keyctl(2) with `KEYCTL_READ` of the session keyring, without a buffer: how many bytes the list of its keys has.
    SizeOfSessionKeyring,
    /// setresgid(2) of the saved group alone: the library's own call makes some more.
    SavedGroup(u32),
    /// setpriority(2) of a process; 0 is this one.
    Niceness {
        /// Which.
        process: i32,
        /// From -20, which goes first, to 19.
        value: i32,
    },
    /// `sched_setscheduler(2)` of a process, to a policy without priorities; 0 is this one.
    Policy {
        /// Which.
        process: i32,
        /// `SCHED_*`.
        policy: i32,
    },
    /// `prlimit(2)` of a process's `RLIMIT_LOCKS`: the soft limit and the hard one.
    FileLocks {
        /// Which.
        process: i32,
        /// As `struct rlimit64` has them.
        limits: [u64; 2],
    },
    /// `pidfd_send_signal(2)`, as by kill(2).
    SignalOpened {
        /// What [`Opening::Process`] gave.
        process: i32,
        /// Its number; 0 only asks whether one could be sent.
        signal: i32,
    },
    /// `ioprio_set(2)` of this process, to that which its niceness gives.
    NoIoPriority,
    /// `set_mempolicy(2)`, to the default.
    AnyMemory,
    /// personality(2), to `PER_LINUX` without flags.
    PlainPersonality,
    /// `fsconfig(2)` with `FSCONFIG_CMD_CREATE`.
    CreateFileSystem(i32),
    /// `move_mount(2)` from one descriptor to another.
    MoveMount {
        /// The tree.
        from: i32,
        /// Its place.
        to: i32,
    },
}

/// A constant text, as a number.
fn text(constant: &'static CStr) -> i64 {
    i64::try_from(constant.as_ptr().expose_provenance()).unwrap_or_default()
}

/// Where something is that outlives the call, as a number.
fn address<T>(what: &T) -> i64 {
    i64::try_from((&raw const *what).expose_provenance()).unwrap_or_default()
}

/// `struct sched_param` with the priority 0, as a number.
fn nothing() -> i64 {
    static PRIORITY: libc::c_int = 0;
    address(&PRIORITY)
}

/// Of `ioprio_set(2)`, which no library exports.
const IOPRIO_WHO_PROCESS: i64 = 1;

/// `FSOPEN_CLOEXEC` and `FSMOUNT_CLOEXEC` of `linux/mount.h`, which no library exports.
const CLOSED_ON_EXEC: i64 = 1;
/// `FSCONFIG_CMD_CREATE`, likewise.
const FSCONFIG_CMD_CREATE: i64 = 6;

/// Makes the call and gives back its number.
///
/// # Errors
/// As the call's page says.
pub(super) fn call(call: Numbers) -> io::Result<i64> {
    let prctl = |option: i32, argument: i64| (libc::SYS_prctl, [i64::from(option), argument, 0, 0, 0]);
    let ambient = |what: i32, cap: u8| (libc::SYS_prctl, [libc::PR_CAP_AMBIENT.into(), what.into(), cap.into(), 0, 0]);
    let (number, words) = match call {
        Numbers::FileLocks { process, ref limits } => {
            let resource = i64::from(libc::RLIMIT_LOCKS);
            (libc::SYS_prlimit64, [process.into(), resource, address(limits), 0, 0])
        }
        Numbers::SignalOpened { process, signal } => {
            (libc::SYS_pidfd_send_signal, [process.into(), signal.into(), 0, 0, 0])
        }
        Numbers::CloseRange { first, last } => (libc::SYS_close_range, [first.into(), last.into(), 0, 0, 0]),
        Numbers::BoundingHas(cap) => prctl(libc::PR_CAPBSET_READ, cap.into()),
        Numbers::BoundingDrop(cap) => prctl(libc::PR_CAPBSET_DROP, cap.into()),
        Numbers::AmbientRaise(cap) => ambient(libc::PR_CAP_AMBIENT_RAISE, cap),
        Numbers::AmbientHas(cap) => ambient(libc::PR_CAP_AMBIENT_IS_SET, cap),
        Numbers::SetSecureBits(bits) => prctl(libc::PR_SET_SECUREBITS, bits.into()),
        Numbers::SecureBits => prctl(libc::PR_GET_SECUREBITS, 0),
        Numbers::SeccompMode => prctl(libc::PR_GET_SECCOMP, 0),
        Numbers::MountSetattrOfNothing => (libc::SYS_mount_setattr, [-1, 0, 0, 0, 0]),
        Numbers::SeccompWithoutFilter => (libc::SYS_seccomp, [libc::SECCOMP_SET_MODE_FILTER.into(), 0, 0, 0, 0]),
        Numbers::LandlockVersion => (libc::SYS_landlock_create_ruleset, [0, 0, 1, 0, 0]),
        Numbers::LandlockRestrict(rules) => (libc::SYS_landlock_restrict_self, [rules.into(), 0, 0, 0, 0]),
        Numbers::ForgetPages { start, size } => {
            let [start, size] = [start, size].map(|number| number.cast_signed() as i64);
            (libc::SYS_madvise, [start, size, libc::MADV_DONTNEED.into(), 0, 0])
        }
        Numbers::JoinNewSessionKeyring => (libc::SYS_keyctl, [libc::KEYCTL_JOIN_SESSION_KEYRING.into(), 0, 0, 0, 0]),
        Numbers::SizeOfSessionKeyring => {
            (libc::SYS_keyctl, [libc::KEYCTL_READ.into(), libc::KEY_SPEC_SESSION_KEYRING.into(), 0, 0, 0])
        }
        Numbers::SavedGroup(group) => (libc::SYS_setresgid, [u32::MAX.into(), u32::MAX.into(), group.into(), 0, 0]),
        Numbers::Niceness { process, value } => {
            (libc::SYS_setpriority, [libc::PRIO_PROCESS.into(), process.into(), value.into(), 0, 0])
        }
        Numbers::Policy { process, policy } => {
            (libc::SYS_sched_setscheduler, [process.into(), policy.into(), nothing(), 0, 0])
        }
        Numbers::NoIoPriority => (libc::SYS_ioprio_set, [IOPRIO_WHO_PROCESS, 0, 0, 0, 0]),
        Numbers::AnyMemory => (libc::SYS_set_mempolicy, [libc::MPOL_DEFAULT.into(), 0, 0, 0, 0]),
        Numbers::PlainPersonality => (libc::SYS_personality, [0; 5]),
        Numbers::CreateFileSystem(from) => (libc::SYS_fsconfig, [from.into(), FSCONFIG_CMD_CREATE, 0, 0, 0]),
        Numbers::MoveMount { from, to } => {
            let flags = libc::MOVE_MOUNT_F_EMPTY_PATH | libc::MOVE_MOUNT_T_EMPTY_PATH;
            (libc::SYS_move_mount, [from.into(), text(c""), to.into(), text(c""), flags.into()])
        }
    };
    let [first, second, third, fourth, fifth] = words;
    // SAFETY: every call of the list above takes numbers, or a pointer to a constant or to a part of `call` that it only reads,
    // and touches none of our memory; closing descriptors and forgetting pages is sound under
    // the invariants of those variants.
    let result = unsafe { libc::syscall(number, first, second, third, fourth, fifth) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// A call that opens something of the kind, closed on exec.
#[derive(Clone, Copy, Debug)]
pub(super) enum Opening {
    /// `open_tree(2)`: a copy of the mount at an opened file or directory.
    CopyOfTree {
        /// What is opened.
        from: i32,
        /// With the mounts below.
        below: bool,
    },
    /// `pidfd_open(2)`.
    Process(i32),
    /// `fsopen(2)` of `proc`.
    NewProcesses,
    /// `fsmount(2)`: a mount that is attached nowhere.
    Mount {
        /// What `fsopen(2)` gave, and was created.
        from: i32,
        /// `MOUNT_ATTR_*`.
        attributes: u64,
    },
}

/// Makes the call and gives back what it opened.
///
/// # Errors
/// As the call's page says.
pub(super) fn open(opening: Opening) -> io::Result<OwnedFd> {
    let (number, [first, second, third]) = match opening {
        Opening::CopyOfTree { from, below } => {
            let below = if below { libc::AT_RECURSIVE.cast_unsigned() } else { 0 };
            let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC | libc::AT_EMPTY_PATH.cast_unsigned() | below;
            (libc::SYS_open_tree, [from.into(), text(c""), i64::from(flags)])
        }
        Opening::Process(pid) => (libc::SYS_pidfd_open, [pid.into(), 0, 0]),
        Opening::NewProcesses => (libc::SYS_fsopen, [text(c"proc"), CLOSED_ON_EXEC, 0]),
        Opening::Mount { from, attributes } => {
            (libc::SYS_fsmount, [from.into(), CLOSED_ON_EXEC, attributes.cast_signed()])
        }
    };
    // SAFETY: a text is a constant that ends with NUL, and the kernel writes to none of our memory. What it returns is a
    // descriptor that was made for us, with no other owner.
    unsafe {
        let opened = libc::syscall(number, first, second, third);
        let opened = i32::try_from(opened).ok().filter(|opened| *opened >= 0).ok_or_else(io::Error::last_os_error)?;
        Ok(OwnedFd::from_raw_fd(opened))
    }
}
