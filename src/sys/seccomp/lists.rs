//! Which system calls, and which of their arguments, a filter looks at.

use super::Values;

/// The families of sockets that are held by a network namespace, or that reach processes of this host alone (`AF_UNIX`,
/// `AF_INET`, `AF_NETLINK`, `AF_PACKET`, `AF_INET6`); others reach the host of a virtual machine (vsock(7)), a radio, or a
/// processor next to this one.
pub(super) const HELD: &[u32] = &[1, 2, 10, 16, 17];

/// Calls that leave the bounds of a run and are refused whatever their arguments are, by what they are for.
pub(super) const BOUNDS: &[libc::c_long] = &[
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
    // Keys of the kernel, which know no namespaces: they outlast a run, count against its account on the whole host, and can be
    // given to the parent of its first process.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
];

/// The rest of the list.
pub(super) const REFUSED: &[libc::c_long] = &[
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
pub(super) const RINGS: [libc::c_long; 3] =
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Calls that give a file its mode, with the place of the mode among their arguments (chmod(2), mknod(2), open(2)). A mode
/// that mkdir(2) is given has no such bits for the kernel.
pub(super) const MODES: &[(libc::c_long, u32)] = &[
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
pub(super) const FCHMODAT2: libc::c_long = 452;

/// Calls that make a file if their flags say so, with the place of the flags; the mode is next to them (open(2)).
pub(super) const OPENS: &[(libc::c_long, u32)] = &[
    (libc::SYS_openat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1),
];

/// `O_CREAT` and the bit that `O_TMPFILE` has alone, the same on both machines.
pub(super) const MAKES: u32 = 0o100 | 0o20_000_000;

/// `open_tree_attr(2)`, Linux 6.15, on every machine.
pub(super) const OPEN_TREE_ATTR: libc::c_long = 467;

/// `CLONE_NEW*`, which clone(2) and unshare(2) have in common.
pub(super) const NAMESPACES: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned();
/// `CLONE_PARENT`: a process whose parent is outside of the run.
pub(super) const SIBLING: u32 = libc::CLONE_PARENT.cast_unsigned();
/// `CLONE_NEWTIME`, which in clone(2) would be part of a signal's number.
pub(super) const TIME_NAMESPACE: u32 = 0x80;

/// `TIOCSTI` and `TIOCLINUX`, the same on both machines: typing into a terminal that somebody else reads.
const TIOCSTI: u32 = 0x5412;
const TIOCLINUX: u32 = 0x541c;
/// `PIDFD_GET_*_NAMESPACE` of `linux/pidfd.h`, which need no more than a descriptor of the process.
const NAMESPACES_OF: Values = (0xff01, 0xff0a);
/// A copy of a whole subvolume, of which a descriptor is enough: none of the mounts that hide or keep parts of it is in the copy.
/// `BTRFS_IOC_SNAP_CREATE` and `_V2` of `linux/btrfs.h`; `BCH_IOCTL_SUBVOLUME_CREATE` and `_v2` of bcachefs, which are also for
/// an empty one.
const SNAPSHOTS: [u32; 4] = [0x4020_bc10, 0x4030_bc1d, 0x5000_9401, 0x5000_9417];
const fn one(value: u32) -> Values {
    (value, value)
}
/// Those that leave the bounds of a run, sorted.
pub(super) const IOCTLS_OF_BOUNDS: &[Values] = &{
    let [a, b, c, d] = SNAPSHOTS;
    [NAMESPACES_OF, one(a), one(b), one(c), one(d)]
};
/// All of them, sorted.
pub(super) const IOCTLS: &[Values] = &{
    let [a, b, c, d] = SNAPSHOTS;
    [one(TIOCSTI), one(TIOCLINUX), NAMESPACES_OF, one(a), one(b), one(c), one(d)]
};
/// `F_SETLEASE` of fcntl(2), and `F_SETDELEG` of Linux 6.19, which is one on a directory too; the same on both machines.
pub(super) const HOLDS_UP: &[Values] = &[one(1024), one(1040)];
