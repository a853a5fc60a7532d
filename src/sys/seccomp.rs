//! System calls that a program may not make (seccomp(2)): one small filter, which refuses what undoes a confinement or
//! attacks the kernel and allows everything else.
//!
//! The filter is written here and not by a library, for two reasons. One filter of a library's has one way to refuse, and
//! here there are two: clone3(2), whose flags a filter cannot see, must look unknown (`ENOSYS`), so that programs fall
//! back to clone(2), whose flags it can. And the kernel tries a new filter on every system call to learn which are
//! always allowed, so that a search by halves is installed in a fraction of the time that a list takes.
//!
//! The list has two parts: what leaves the bounds of a run, and what attacks the kernel or other processes of the run's own.
//!
//! Two guards may stand beside the list, or alone: that a program leaves no set-user-ID program behind, for which
//! `RestrictSUIDSGID=` of `systemd.exec(5)` is the model; and that it makes no socket that reaches past a network namespace.
//! Both would be passed by rings (`io_uring(7)`), which make calls without making them, so that there are none with either.
#![expect(unsafe_code, reason = "the call has no safe binding")]

use std::cell::OnceCell;
use std::io;

use libc::sock_filter;

use super::call::{Numbers, call};

/// What a filter does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What is refused of the list.
    pub list: List,
    /// Refuse sockets but of those families that a network namespace holds (`HELD`).
    pub no_network: bool,
    /// Which bits no file may be given.
    pub set_ids: SetIds,
}

/// A part of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    /// Nothing of it.
    Nothing,
    /// What leaves the bounds of a run: other mounts and namespaces, other processes' descriptors and groups, parents of another
    /// process, and leases, by which others' files are held up.
    Bounds,
    /// All of it.
    Whole,
}

/// Bits of a file's mode that hand on the rights of its owner or its group (chmod(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetIds {
    /// Both may be given.
    Free,
    /// Set-user-ID may not.
    NoUser,
    /// Neither may.
    Neither,
}

impl SetIds {
    const fn refused(self) -> u32 {
        match self {
            Self::Free => 0,
            Self::NoUser => libc::S_ISUID,
            Self::Neither => libc::S_ISUID | libc::S_ISGID,
        }
    }
}

impl Wanted {
    /// Whether nothing is refused, so that no filter is needed.
    #[must_use]
    pub const fn is_nothing(self) -> bool {
        matches!(self.list, List::Nothing) && !self.guards()
    }

    const fn guards(self) -> bool {
        self.no_network || self.set_ids.refused() != 0
    }

    /// How many different ones there are.
    const COUNT: usize = 18;

    const fn number(self) -> usize {
        self.list as usize * 6 + self.no_network as usize * 3 + self.set_ids as usize
    }
}

/// Every filter that was ever asked for, each built once.
#[derive(Debug, Default)]
pub struct Filters([OnceCell<io::Result<Filter>>; Wanted::COUNT]);

impl Filters {
    /// The filter that does this, or why there is none; nothing where none is needed.
    pub fn get(&self, wanted: Wanted) -> Option<&io::Result<Filter>> {
        let cell = self.0.get(wanted.number()).filter(|_| !wanted.is_nothing())?;
        Some(cell.get_or_init(|| Filter::new(wanted)))
    }
}

/// The families of sockets that are held by a network namespace, or that reach processes of this host alone (`AF_UNIX`,
/// `AF_INET`, `AF_NETLINK`, `AF_PACKET`, `AF_INET6`); others reach the host of a virtual machine (vsock(7)), a radio, or a
/// processor next to this one.
const HELD: &[u32] = &[1, 2, 10, 16, 17];

/// Calls that leave the bounds of a run and are refused whatever their arguments are, by what they are for.
const BOUNDS: &[libc::c_long] = &[
    // The tree of mounts.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    OPEN_TREE_ATTR,
    // Other namespaces; files by handle, which know no mounts.
    libc::SYS_setns,
    libc::SYS_open_by_handle_at,
    // Descriptors of whoever is at the other end of a socket (`SO_PEERPIDFD`, unix(7)), in whatever namespace.
    libc::SYS_pidfd_getfd,
];

/// The rest of the list.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    // Other processes' memory.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // Keys of the kernel, which know no namespaces.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The kernel itself.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
    libc::SYS_vhangup,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
];

/// Other calls without making them, past this filter.
const RINGS: [libc::c_long; 3] = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Calls that give a file its mode, with the place of the mode among their arguments (chmod(2), mknod(2), open(2)). A mode
/// that mkdir(2) is given has no such bits for the kernel.
const MODES: &[(libc::c_long, u32)] = &[
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (FCHMODAT2, 2),
    (libc::SYS_mknodat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, 1),
];

/// `fchmodat2(2)`, Linux 6.6, on every machine.
const FCHMODAT2: libc::c_long = 452;

/// Calls that make a file if their flags say so, with the place of the flags; the mode is next to them (open(2)).
const OPENS: &[(libc::c_long, u32)] = &[
    (libc::SYS_openat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1),
];

/// `O_CREAT` and the bit that `O_TMPFILE` has alone, the same on both machines.
const MAKES: u32 = 0o100 | 0o20_000_000;

/// `open_tree_attr(2)`, Linux 6.15, on every machine.
const OPEN_TREE_ATTR: libc::c_long = 467;

/// `CLONE_NEW*`, which clone(2) and unshare(2) have in common.
const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned();
/// `CLONE_PARENT`: a process whose parent is outside of the run.
const SIBLING: u32 = libc::CLONE_PARENT.cast_unsigned();
/// `CLONE_NEWTIME`, which in clone(2) would be part of a signal's number.
const TIME_NAMESPACE: u32 = 0x80;

/// `AUDIT_ARCH_*` of this program, `linux/audit.h`; none for a machine whose filter nobody has tried.
const MACHINE: Option<u32> = if cfg!(target_arch = "x86_64") {
    Some(0xc000_003e)
} else if cfg!(target_arch = "aarch64") {
    Some(0xc000_00b7)
} else {
    None
};

/// Where `struct seccomp_data` has the call's number, the machine, and the low half of an argument.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const fn argument(place: u32) -> u32 {
    16 + 8 * place
}

/// What becomes of one system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It fails with this error.
    Fails(i32),
    /// It fails with `EPERM` if the argument at this place has one of these bits.
    FailsWithBits(u32, u32),
    /// It fails with `EPERM` if the argument at this place has one of the first bits and the next argument one of the second.
    FailsWithBoth(u32, u32, u32),
    /// It fails with the error if the argument at this place is one of these values.
    FailsWithValues(u32, &'static [u32], i32),
    /// It fails with the error unless the argument at this place is one of these values.
    FailsBut(u32, &'static [u32], i32),
}

/// Whether there are filters for this kind of machine.
#[must_use]
pub const fn is_for_this_machine() -> bool {
    MACHINE.is_some()
}

/// A filter, ready to be installed.
#[derive(Debug)]
pub struct Filter(Vec<sock_filter>);

impl Filter {
    /// Builds the filter, in a few microseconds.
    ///
    /// # Errors
    /// There is none for this kind of machine.
    fn new(wanted: Wanted) -> io::Result<Self> {
        let machine = MACHINE.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        let mut fates: Vec<(u32, Fate)> = fates(wanted).collect();
        fates.sort_unstable_by_key(|(number, _)| *number);
        let mut program = vec![
            load(ARCHITECTURE),
            jump(libc::BPF_JEQ, machine, 1, 0),
            answer(libc::SECCOMP_RET_KILL_PROCESS),
            load(NUMBER),
        ];
        if cfg!(target_arch = "x86_64") {
            // The numbers of the x32 interface, `__X32_SYSCALL_BIT`.
            program.extend([jump(libc::BPF_JGE, 0x4000_0000, 0, 1), fails(libc::ENOSYS)]);
        }
        program.extend(search(&fates, 0)?);
        program.push(answer(libc::SECCOMP_RET_ALLOW));
        program.extend(ANSWERS.map(fails));
        Ok(Self(program))
    }

    /// Puts the filter in force for this process and all that it starts, and sees that it is.
    ///
    /// # Errors
    /// Neither `no_new_privs` nor `CAP_SYS_ADMIN`, or the kernel has no filters.
    pub fn install(&self) -> io::Result<()> {
        let len = u16::try_from(self.0.len()).map_err(io::Error::other)?;
        let program = libc::sock_fprog { len, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: the structure describes the live vector with its true length, and the kernel only reads both.
        let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        match call(Numbers::SeccompMode)? {
            2 => Ok(()),
            mode => Err(io::Error::other(format!("the kernel says that its mode is {mode}"))),
        }
    }
}

fn fates(wanted: Wanted) -> impl Iterator<Item = (u32, Fate)> {
    let (bounds, rest, answers): (_, _, &[u32]) = match wanted.list {
        List::Nothing => (&[][..], &[][..], &[]),
        List::Bounds => (BOUNDS, &[][..], &NAMESPACES_OF),
        List::Whole => (BOUNDS, REFUSED, &IOCTLS),
    };
    let rings = if wanted.is_nothing() { &[][..] } else { &RINGS };
    let refused = bounds.iter().chain(rest).chain(rings).map(|number| (*number, Fate::Fails(libc::EPERM)));
    let judged = [
        (libc::SYS_clone3, Fate::Fails(libc::ENOSYS)),
        (libc::SYS_clone, Fate::FailsWithBits(0, NAMESPACES | SIBLING)),
        (libc::SYS_unshare, Fate::FailsWithBits(0, NAMESPACES | TIME_NAMESPACE)),
        (libc::SYS_fcntl, Fate::FailsWithValues(1, &[F_SETLEASE], libc::EPERM)),
        (libc::SYS_ioctl, Fate::FailsWithValues(1, answers, libc::EPERM)),
    ];
    let judged = judged.into_iter().filter(move |_| wanted.list != List::Nothing);
    let sockets = wanted.no_network.then_some((libc::SYS_socket, Fate::FailsBut(0, HELD, libc::EAFNOSUPPORT)));
    let bits = wanted.set_ids.refused();
    let modes = MODES.iter().map(move |(number, place)| (*number, Fate::FailsWithBits(*place, bits)));
    let opens = OPENS.iter().map(move |(number, place)| (*number, Fate::FailsWithBoth(*place, MAKES, bits)));
    // Its mode is behind a pointer, which a filter cannot follow: programs fall back to openat(2).
    let hidden = [(libc::SYS_openat2, Fate::Fails(libc::ENOSYS))];
    let set_ids = modes.chain(opens).chain(hidden).filter(move |_| bits != 0);
    refused
        .chain(judged)
        .chain(sockets)
        .chain(set_ids)
        .filter_map(|(number, fate)| Some((u32::try_from(number).ok()?, fate)))
}

/// `TIOCSTI` and `TIOCLINUX`, the same on both machines: typing into a terminal that somebody else reads.
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;
/// `PIDFD_GET_*_NAMESPACE` of `linux/pidfd.h`, which need no more than a descriptor of the process.
const NAMESPACES_OF: [u32; 10] = [0xff01, 0xff02, 0xff03, 0xff04, 0xff05, 0xff06, 0xff07, 0xff08, 0xff09, 0xff0a];
/// All of them.
const IOCTLS: [u32; 12] = {
    let [a, b, c, d, e, f, g, h, i, j] = NAMESPACES_OF;
    [TIOCSTI, TIOCLINUX, a, b, c, d, e, f, g, h, i, j]
};
/// `F_SETLEASE` of fcntl(2), the same on both machines.
const F_SETLEASE: u32 = 1024;

/// Code that finds the loaded number among `fates`, which are sorted, by halves.
///
/// Everything ends in one of the answers behind it; `after` is how many instructions follow this piece before those.
fn search(fates: &[(u32, Fate)], after: usize) -> io::Result<Vec<sock_filter>> {
    let (low, high) = fates.split_at(fates.len() / 2);
    match (low, high) {
        (_, []) => Ok(vec![jump(libc::BPF_JGE, 0, over(after + ALLOW)?, 0)]),
        ([], [(number, fate), ..]) => {
            let judged = judge(*fate, after)?;
            let rest = after + judged.len();
            let one = match fate {
                Fate::Fails(errno) => jump(libc::BPF_JEQ, *number, over(rest + fails_at(*errno))?, over(rest + ALLOW)?),
                _ => jump(libc::BPF_JEQ, *number, 0, over(rest + ALLOW)?),
            };
            Ok([&[one], judged.as_slice()].concat())
        }
        (_, [(least, _), ..]) => {
            let high = search(high, after)?;
            let low = search(low, after + high.len())?;
            Ok([&[jump(libc::BPF_JGE, *least, over(low.len())?, 0)], low.as_slice(), &high].concat())
        }
    }
}

/// What follows where the number alone does not decide.
fn judge(fate: Fate, after: usize) -> io::Result<Vec<sock_filter>> {
    let allow = over(after + ALLOW)?;
    Ok(match fate {
        Fate::Fails(_) => Vec::new(),
        Fate::FailsWithBits(place, bits) => {
            vec![load(argument(place)), jump(libc::BPF_JSET, bits, over(after + fails_at(libc::EPERM))?, allow)]
        }
        Fate::FailsWithBoth(place, first, second) => vec![
            load(argument(place)),
            jump(libc::BPF_JSET, first, 0, over(after + 2 + ALLOW)?),
            load(argument(place + 1)),
            jump(libc::BPF_JSET, second, over(after + fails_at(libc::EPERM))?, allow),
        ],
        Fate::FailsBut(place, values, errno) => {
            let (last, others) = values.split_last().ok_or(io::ErrorKind::InvalidInput)?;
            let mut judged = vec![load(argument(place))];
            for (number, value) in others.iter().enumerate() {
                let rest = others.len() - number;
                judged.push(jump(libc::BPF_JEQ, *value, over(after + rest + ALLOW)?, 0));
            }
            judged.push(jump(libc::BPF_JEQ, *last, allow, over(after + fails_at(errno))?));
            judged
        }
        Fate::FailsWithValues(place, values, errno) => {
            let (last, others) = values.split_last().ok_or(io::ErrorKind::InvalidInput)?;
            let mut judged = vec![load(argument(place))];
            for (number, value) in others.iter().enumerate() {
                let rest = others.len() - number;
                judged.push(jump(libc::BPF_JEQ, *value, over(after + rest + fails_at(errno))?, 0));
            }
            judged.push(jump(libc::BPF_JEQ, *last, over(after + fails_at(errno))?, allow));
            judged
        }
    })
}

/// The answers at the program's end, in this order; the first is to allow.
const ANSWERS: [i32; 3] = [libc::EPERM, libc::ENOSYS, libc::EAFNOSUPPORT];
/// Where among the answers it says to allow.
const ALLOW: usize = 0;

/// Where among the answers this error is; to be refused with another of them is still to be refused.
fn fails_at(errno: i32) -> usize {
    1 + ANSWERS.iter().position(|known| *known == errno).unwrap_or(0)
}

/// A jump's length.
fn over(instructions: usize) -> io::Result<u8> {
    u8::try_from(instructions).map_err(io::Error::other)
}

fn fails(errno: i32) -> sock_filter {
    answer(libc::SECCOMP_RET_ERRNO | errno.cast_unsigned() & libc::SECCOMP_RET_DATA)
}

fn answer(action: u32) -> sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, action, 0, 0)
}

fn load(offset: u32) -> sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn jump(test: u32, value: u32, over_if: u8, over_else: u8) -> sock_filter {
    instruction(libc::BPF_JMP | test | libc::BPF_K, value, over_if, over_else)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    // Every code is below 256.
    sock_filter { code: u16::try_from(code).unwrap_or_default(), jt, jf, k }
}

#[cfg(test)]
mod tests;
