//! System calls that take numbers alone, and for which there is no safe binding.
#![expect(unsafe_code, reason = "these calls have no safe binding")]

use std::io;

/// One such call.
#[derive(Clone, Copy, Debug)]
pub(super) enum Numbers {
    /// close_range(2). **Invariant:** nobody uses these descriptors any more.
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
    /// landlock_restrict_self(2), with a rule set's descriptor.
    LandlockRestrict(i32),
    /// `mount_setattr(2)` of nothing, which changes nothing: `EINVAL` where the kernel has the call.
    MountSetattrOfNothing,
    /// seccomp(2) with a null filter, which installs nothing: `EFAULT` where the kernel has filters.
    SeccompWithoutFilter,
}

/// Makes the call and gives back its number.
///
/// # Errors
/// As the call's page says.
pub(super) fn call(call: Numbers) -> io::Result<i64> {
    let prctl = |option: i32, argument: i64| (libc::SYS_prctl, [i64::from(option), argument, 0, 0, 0]);
    let ambient = |what: i32, cap: u8| (libc::SYS_prctl, [libc::PR_CAP_AMBIENT.into(), what.into(), cap.into(), 0, 0]);
    let (number, [a, b, c, d, e]) = match call {
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
        Numbers::LandlockRestrict(rules) => (libc::SYS_landlock_restrict_self, [rules.into(), 0, 0, 0, 0]),
    };
    // SAFETY: every call of the list above takes numbers and touches none of our memory; closing descriptors is sound
    // under that variant's invariant.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
