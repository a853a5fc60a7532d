//! Calls that only somebody makes who wants out of a confinement: for tests of what keeps them in.
#![expect(unsafe_code, reason = "nobody else has a use for these calls, so that there is no safe binding")]

use std::cell::UnsafeCell;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::Mode;
use nix::sys::wait::{WaitStatus, waitpid};

use super::call::{Opening, open as open_by};
use super::process::{self, Fork, Signal};

/// Names for [`refused`].
pub(crate) const REFUSED: [&str; 7] =
    ["ptrace", "add_key", "keyctl", "bpf", "io_uring_setup", "userfaultfd", "unshare"];

/// Names of those that make a copy of a part of a file system, here of one that has none to give: `ENOTTY`.
pub(crate) const SNAPSHOTS: [&str; 4] =
    ["btrfs-snapshot", "btrfs-snapshot-v2", "bcachefs-snapshot", "bcachefs-snapshot-v2"];

/// Names of those that leave the bounds of a run, and what each answers where it is refused.
pub(crate) const BOUNDS: [(&str, &str); 9] = [
    ("unshare", "EPERM"),
    ("clone3", "ENOSYS"),
    ("setns", "EPERM"),
    ("pidfd_getfd", "EPERM"),
    ("namespace-of-pidfd", "EPERM"),
    ("lease", "EPERM"),
    ("add_key", "EPERM"),
    ("keyctl", "EPERM"),
    ("keyring-to-parent", "EPERM"),
];

/// Further names, of calls that leave a file `set-id` in the working directory behind that has the bits of set-user-ID and
/// set-group-ID. Those that do not make the file want it to be there.
pub(crate) const SET_ID: &[&str] = &[
    "mknodat",
    "openat",
    "fchmodat",
    "fchmodat2",
    #[cfg(target_arch = "x86_64")]
    "mknod",
    #[cfg(target_arch = "x86_64")]
    "open",
    #[cfg(target_arch = "x86_64")]
    "creat",
    #[cfg(target_arch = "x86_64")]
    "chmod",
];

const SET_ID_FILE: &CStr = c"set-id";
/// `AT_FDCWD`.
const HERE: i64 = -100;

/// `KEY_SPEC_PROCESS_KEYRING`, `linux/keyctl.h`.
const KEYS: i64 = -2;

/// Makes a call that the filter of system calls refuses, in the way that it is of use to somebody.
///
/// # Errors
/// The call's own, which is `EPERM` where it is refused.
pub(crate) fn refused(name: &str) -> io::Result<()> {
    match name {
        "ptrace" => return take_over_a_child(),
        // Of nothing: `EFAULT`, or `EINVAL` where the kernel does not know it. `F_SETDELEG`, Linux 6.19.
        "delegation" => return of_a_directory("/", libc::SYS_fcntl, 1040),
        "btrfs-snapshot" => return of_a_directory("/dev/shm", libc::SYS_ioctl, 0x5000_9401),
        "btrfs-snapshot-v2" => return of_a_directory("/dev/shm", libc::SYS_ioctl, 0x5000_9417),
        "bcachefs-snapshot" => return of_a_directory("/dev/shm", libc::SYS_ioctl, 0x4020_bc10),
        "bcachefs-snapshot-v2" => return of_a_directory("/dev/shm", libc::SYS_ioctl, 0x4030_bc1d),
        "unshare" => return leave_the_users(),
        _ => {}
    }
    // `union bpf_attr` of a table with one entry of four bytes for keys of four; `struct io_uring_params`.
    let mut table = [0_u32; 18];
    table[..4].copy_from_slice(&[2, 4, 4, 1]);
    let mut ring = [0_u32; 30];
    let place = |buffer: &mut [u32]| i64::try_from(buffer.as_mut_ptr().expose_provenance()).unwrap();
    let (table, ring) = (place(&mut table), place(&mut ring));
    // `struct open_how`.
    let mut how = [0o101, 0, 0o6755, 0, 0, 0];
    let open_how = place(&mut how);
    let text = |text: &'static CStr| i64::try_from(text.as_ptr().expose_provenance()).unwrap();
    let own = |name: &str| File::open(format!("/proc/self/ns/{name}"));
    let kept;
    let (number, words) = match name {
        // Without anything to tell it: `EINVAL`.
        "clone3" => (libc::SYS_clone3, [0; 5]),
        "setns" => {
            kept = own("uts")?;
            (libc::SYS_setns, [kept.as_raw_fd().into(), 0, 0, 0, 0])
        }
        "pidfd_getfd" | "namespace-of-pidfd" => {
            let pid = i64::from(std::process::id());
            // It ends with this process, which makes one such call.
            let opened = ask(libc::SYS_pidfd_open, [pid, 0, 0, 0, 0])?;
            // `PIDFD_GET_NET_NAMESPACE`, Linux 6.11.
            let of_network = (libc::SYS_ioctl, [opened, 0xff04, 0, 0, 0]);
            if name == "pidfd_getfd" { (libc::SYS_pidfd_getfd, [opened, 0, 0, 0, 0]) } else { of_network }
        }
        "lease" => {
            kept = File::open("/proc/self/exe")?;
            (libc::SYS_fcntl, [kept.as_raw_fd().into(), 1024, libc::F_RDLCK.into(), 0, 0])
        }
        // `KEYCTL_SESSION_TO_PARENT`, whose parent is of another account or has the same one where it is a test's.
        "keyring-to-parent" => (libc::SYS_keyctl, [18, 0, 0, 0, 0]),
        "add_key" => (libc::SYS_add_key, [text(c"user"), text(c"name"), text(c"x"), 1, KEYS]),
        // `KEYCTL_GET_KEYRING_ID`, which makes it.
        "keyctl" => (libc::SYS_keyctl, [0, KEYS, 1, 0, 0]),
        // `BPF_MAP_CREATE`.
        "bpf" => (libc::SYS_bpf, [0, table, 72, 0, 0]),
        "io_uring_setup" => (libc::SYS_io_uring_setup, [1, ring, 0, 0, 0]),
        // `UFFD_USER_MODE_ONLY`.
        "userfaultfd" => (libc::SYS_userfaultfd, [1, 0, 0, 0, 0]),
        // `S_IFREG`, `O_CREAT | O_WRONLY`, `AT_FDCWD`.
        "mknodat" => (libc::SYS_mknodat, [HERE, text(SET_ID_FILE), 0o10_6755, 0, 0]),
        "openat" => (libc::SYS_openat, [HERE, text(SET_ID_FILE), 0o101, 0o6755, 0]),
        "openat2" => (libc::SYS_openat2, [HERE, text(SET_ID_FILE), open_how, 24, 0]),
        "fchmodat" => (libc::SYS_fchmodat, [HERE, text(SET_ID_FILE), 0o6755, 0, 0]),
        "fchmodat2" => (libc::SYS_fchmodat2, [HERE, text(SET_ID_FILE), 0o6755, 0, 0]),
        #[cfg(target_arch = "x86_64")]
        "mknod" => (libc::SYS_mknod, [text(SET_ID_FILE), 0o10_6755, 0, 0, 0]),
        #[cfg(target_arch = "x86_64")]
        "open" => (libc::SYS_open, [text(SET_ID_FILE), 0o101, 0o6755, 0, 0]),
        #[cfg(target_arch = "x86_64")]
        "creat" => (libc::SYS_creat, [text(SET_ID_FILE), 0o6755, 0, 0, 0]),
        #[cfg(target_arch = "x86_64")]
        "chmod" => (libc::SYS_chmod, [text(SET_ID_FILE), 0o6755, 0, 0, 0]),
        other => panic!("{other}"),
    };
    ask(number, words).map(drop)
}

/// A request of fcntl(2) or ioctl(2), without an argument.
fn of_a_directory(path: &str, call: libc::c_long, request: i64) -> io::Result<()> {
    ask(call, [File::open(path)?.as_raw_fd().into(), request, 0, 0, 0]).map(drop)
}

fn ask(number: libc::c_long, [first, second, third, fourth, fifth]: [i64; 5]) -> io::Result<i64> {
    // SAFETY: each text that `refused` passes ends with NUL and is only read, and each pointer among the words is to a buffer of
    // its own that is as large as the kernel is told or knows; a ring, which it writes to, is written by nobody else and never
    // read. No other memory is touched.
    let made = unsafe { libc::syscall(number, first, second, third, fourth, fifth) };
    answer(made).map(|()| made)
}

/// Queues a signal to the first process of this process namespace (`rt_sigqueueinfo(2)`).
///
/// # Errors
/// The call's own: `EAGAIN` where no more may wait.
pub(crate) fn queue_to_init(number: i32) -> io::Result<()> {
    // `siginfo_t` with `SI_QUEUE`, its fields and 128 bytes in all.
    let mut words = [0_i32; 32];
    (words[0], words[2], words[4]) = (number, libc::SI_QUEUE, std::process::id().cast_signed());
    let place = i64::try_from(words.as_ptr().expose_provenance()).unwrap();
    ask(libc::SYS_rt_sigqueueinfo, [1, number.into(), place, 0, 0]).map(drop)
}

/// Puts a key of this name on the session keyring.
///
/// # Errors
/// The call's own.
pub(crate) fn hold_key(name: &str) -> io::Result<()> {
    // `KEY_SPEC_SESSION_KEYRING`.
    hold_key_on(-3, name)
}

/// Puts so many keys on the keyring of this process that its account may have no more.
///
/// # Errors
/// The call's own: `EDQUOT` at the end, or nothing if there seems to be none.
pub(crate) fn hold_keys_until_there_is_no_room() -> io::Result<()> {
    (0..100_000).try_for_each(|number| hold_key_on(KEYS, &format!("number-{number}")))
}

fn hold_key_on(ring: i64, name: &str) -> io::Result<()> {
    let (kind, name) = (c"user", CString::new(name)?);
    // SAFETY: type, name and content are constants or end with NUL, outlive the call, and the kernel only reads them.
    answer(unsafe { libc::syscall(libc::SYS_add_key, kind.as_ptr(), name.as_ptr(), c"x".as_ptr(), 1, ring) })
}

/// Finds a key of this name on a keyring of this process, and reads it.
///
/// # Errors
/// The calls' own: `ENOKEY` where there is none.
pub(crate) fn read_key(name: &str) -> io::Result<()> {
    let (kind, name) = (c"user", CString::new(name)?);
    // SAFETY: type and name end with NUL, outlive the call, and the kernel only reads them; nobody is called out to.
    let key = unsafe { libc::syscall(libc::SYS_request_key, kind.as_ptr(), name.as_ptr(), 0, 0) };
    answer(key)?;
    // SAFETY: `KEYCTL_READ` without a buffer tells the key's size, and touches no memory of ours.
    answer(unsafe { libc::syscall(libc::SYS_keyctl, 11, key, 0, 0, 0) })
}

/// Makes a child of this process's parent that never ends by itself.
///
/// # Errors
/// The call's own.
pub(crate) fn sibling() -> io::Result<()> {
    let flags = i64::from(libc::CLONE_PARENT | libc::SIGCHLD);
    // SAFETY: as fork(2): without a stack or memory of its own to share, the child goes on in a copy of this one's, and does
    // nothing but wait.
    let made = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if made == 0 {
        loop {
            nix::unistd::pause();
        }
    }
    answer(made)
}

/// So many processes make others that end at once, for this long. They are this one's children, or with `CLONE_PARENT` among
/// `how` its siblings, and so are those that they make; else what they make falls to whoever adopts them. Returns when
/// everyone is at it, in each of them when it is over.
///
/// # Errors
/// The call's own.
pub(crate) fn flood(how: i32, makers: usize, length: Duration) -> io::Result<bool> {
    let flags = i64::from(how | libc::SIGCHLD);
    let (mut start, starter) = io::pipe()?;
    for _ in 0..makers {
        // SAFETY: as fork(2): without a stack or memory of its own to share, the child goes on in a copy of this one's, and
        // does nothing but make the system calls below.
        let made = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
        answer(made)?;
        if made == 0 {
            drop(starter);
            start.read_exact(&mut [0]).ok();
            let until = Instant::now() + length;
            while Instant::now() < until {
                make(how);
            }
            return Ok(true);
        }
    }
    // Everyone is there, and finds nobody left to write.
    drop(starter);
    Ok(false)
}

/// Makes some children, or siblings, that end at once.
fn make(how: i32) {
    const SIZE: usize = 16 * 1024;
    /// Neither child has the other's.
    static STACKS: [Stack; 2] = [const { Stack(UnsafeCell::new([0; SIZE])) }; 2];
    #[repr(align(16))]
    struct Stack(UnsafeCell<[u8; SIZE]>);
    // SAFETY: nobody but the kernel looks at them, and the children that it gives them to.
    unsafe impl Sync for Stack {}
    extern "C" fn nothing(_: *mut libc::c_void) -> i32 {
        0
    }
    extern "C" fn hundred(_: *mut libc::c_void) -> i32 {
        for _ in 0..100 {
            start(1, nothing, 0);
        }
        0
    }
    fn start(stack: usize, what: extern "C" fn(*mut libc::c_void) -> i32, flags: i32) -> i32 {
        // SAFETY: the stack is large enough for either function, and its end is aligned. Several children that do nothing have
        // the same one at the same time: each writes the same to it. Of the others, each has ended before its maker goes on.
        unsafe {
            let top = STACKS[stack].0.get().cast::<u8>().add(SIZE).cast();
            // Whatever is shared need not be copied.
            let shared = libc::CLONE_VM | libc::CLONE_FS | libc::CLONE_FILES | libc::CLONE_SIGHAND;
            libc::clone(what, top, flags | shared | libc::SIGCHLD, std::ptr::null_mut())
        }
    }
    if how & libc::CLONE_PARENT != 0 {
        start(1, nothing, libc::CLONE_PARENT);
        return;
    }
    // It leaves a hundred behind.
    let child = start(0, hundred, libc::CLONE_VFORK);
    if child > 0 {
        let _ = waitpid(nix::unistd::Pid::from_raw(child), None);
    }
}

/// Asks to be traced by its parent, and stops.
///
/// # Errors
/// The call's own.
pub(crate) fn stop_as_traced() -> io::Result<()> {
    // SAFETY: this request uses none of the other words, and no memory of ours is touched.
    answer(unsafe { libc::syscall(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0, 0) })?;
    nix::sys::signal::raise(Signal::SIGSTOP).map_err(io::Error::from)
}

/// Attaches to a process of the same user (`PTRACE_SEIZE`).
fn take_over_a_child() -> io::Result<()> {
    let Fork::Parent(child) = process::fork()? else {
        loop {
            nix::unistd::pause();
        }
    };
    // SAFETY: neither address nor data are used by this request, and no memory of ours is touched.
    let taken = answer(unsafe { libc::syscall(libc::SYS_ptrace, libc::PTRACE_SEIZE, child.as_raw(), 0, 0) });
    process::signal(child, Signal::SIGKILL);
    waitpid(child, None)?;
    taken
}

/// Becomes the root of a user namespace, in a process with one thread, which it takes.
fn leave_the_users() -> io::Result<()> {
    let Fork::Parent(child) = process::fork()? else {
        process::end(unshare(CloneFlags::CLONE_NEWUSER).map_or_else(|errno| errno as i32, |()| 0));
    };
    match waitpid(child, None)? {
        WaitStatus::Exited(_, 0) => Ok(()),
        WaitStatus::Exited(_, errno) => Err(io::Error::from_raw_os_error(errno)),
        other => panic!("{other:?}"),
    }
}

/// Makes the mounts at and below `path` writable, by `mount_setattr(2)`.
///
/// # Errors
/// The call's own.
pub(crate) fn loosen(path: &Path) -> io::Result<()> {
    clear_read_only(AT_FDCWD.as_raw_fd(), path, libc::AT_RECURSIVE)
}

/// Makes a copy of them writable, which is attached nowhere.
///
/// # Errors
/// That of `open_tree(2)` or of `mount_setattr(2)`.
pub(crate) fn loosen_a_copy(path: &Path) -> io::Result<OwnedFd> {
    let opened = open(path, OFlag::O_PATH, Mode::empty())?;
    let copy = open_by(Opening::CopyOfTree { from: opened.as_raw_fd(), below: true })?;
    clear_read_only(copy.as_raw_fd(), Path::new(""), libc::AT_RECURSIVE | libc::AT_EMPTY_PATH)?;
    Ok(copy)
}

fn clear_read_only(from: i32, path: &Path, flags: i32) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let change = libc::mount_attr { attr_set: 0, attr_clr: libc::MOUNT_ATTR_RDONLY, propagation: 0, userns_fd: 0 };
    // SAFETY: the path ends with NUL, the structure has the size that is passed, both outlive the call, and the kernel
    // only reads them.
    answer(unsafe {
        let size = size_of::<libc::mount_attr>();
        libc::syscall(libc::SYS_mount_setattr, from, path.as_ptr(), flags, &raw const change, size)
    })
}

fn answer(result: libc::c_long) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
