//! Capabilities of this process: what there is, and having some of it for good (capabilities(7)).
#![expect(unsafe_code, reason = "capget and capset have no safe binding")]

use std::fmt;
use std::io;

use super::call::{Numbers, call};

/// A set of capabilities, each at the bit of its number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Set(u64);

impl Set {
    /// Every one that there can be.
    pub const ALL: Self = Self(u64::MAX);

    /// This capability and those of the set. Numbers of 64 and more do not exist.
    #[must_use]
    pub const fn with(self, number: u8) -> Self {
        Self(self.0 | if number < 64 { 1 << number } else { 0 })
    }

    /// Whether the set has this capability.
    #[must_use]
    pub const fn has(self, number: u8) -> bool {
        number < 64 && self.0 & (1 << number) != 0
    }

    /// Those that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether it is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The numbers, ascending.
    pub fn numbers(self) -> impl Iterator<Item = u8> {
        (0..64).filter(move |number| self.has(*number))
    }

    /// The halves that capset(2) takes.
    const fn halves(self) -> [u32; 2] {
        [(self.0 & 0xffff_ffff) as u32, (self.0 >> 32) as u32]
    }

    fn from_halves(low: u32, high: u32) -> Self {
        Self(u64::from(low) | u64::from(high) << 32)
    }
}

/// As in `/proc/PID/status`.
impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// What this process can give to a program: permitted, and not cut off by the bounding set.
///
/// # Errors
/// Not expected of the kernel.
pub fn available() -> io::Result<Set> {
    let [_, permitted, _] = sets()?;
    let bounded = |number: &u8| matches!(call(Numbers::BoundingHas(*number)), Ok(1));
    Ok(permitted.numbers().filter(bounded).fold(Set::default(), Set::with))
}

/// Whether this process may use a capability now.
///
/// # Errors
/// Not expected of the kernel.
pub fn is_in_force(number: u8) -> io::Result<bool> {
    Ok(held()?.has(number))
}

/// What this process may use now.
///
/// # Errors
/// Not expected of the kernel.
pub fn held() -> io::Result<Set> {
    let [effective, _, _] = sets()?;
    Ok(effective)
}

/// As [`available`], of another process.
///
/// # Errors
/// It has ended.
pub fn available_to(process: i32) -> io::Result<Set> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let set = |key: &str| {
        let digits = status.lines().find_map(|line| line.strip_prefix(key))?.trim();
        u64::from_str_radix(digits, 16).ok().map(Set)
    };
    let sets = set("CapPrm:").zip(set("CapBnd:"));
    let (permitted, bounding) = sets.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?;
    Ok(Set(permitted.0 & bounding.0))
}

/// From now on uid 0 is a user like any other: exec gives it no capability, and a change of user takes none away. Cannot
/// be undone.
///
/// # Errors
/// No `CAP_SETPCAP`.
pub fn make_root_ordinary() -> io::Result<()> {
    call(Numbers::SetSecureBits(ORDINARY)).map(drop)
}

/// `SECBIT_NOROOT`, `SECBIT_NO_SETUID_FIXUP`, both locked, and `SECBIT_KEEP_CAPS` locked as it is, off.
const ORDINARY: i32 = libc::SECBIT_NOROOT
    | libc::SECBIT_NOROOT_LOCKED
    | libc::SECBIT_NO_SETUID_FIXUP
    | libc::SECBIT_NO_SETUID_FIXUP_LOCKED
    | libc::SECBIT_KEEP_CAPS_LOCKED;

/// Takes every capability but `kept` out of what any program started from here can ever have: as far as the kernel
/// counts, not as far as this program does. To look costs a tenth of what it costs to take one out.
///
/// # Errors
/// No `CAP_SETPCAP`.
pub fn bound(kept: Set) -> io::Result<()> {
    for number in 0..64 {
        match call(Numbers::BoundingHas(number)) {
            Ok(1) if !kept.has(number) => drop(call(Numbers::BoundingDrop(number))?),
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => break,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Keeps exactly `kept`, also through exec.
///
/// # Errors
/// One of them is not permitted.
pub fn keep_only(kept: Set) -> io::Result<()> {
    set(kept)?;
    kept.numbers().try_for_each(|number| call(Numbers::AmbientRaise(number)).map(drop))
}

/// Reads back what [`make_root_ordinary`], [`bound`] and [`keep_only`] have set; what differs, if anything does.
///
/// # Errors
/// Not expected of the kernel.
pub fn unproven(kept: Set) -> io::Result<Option<String>> {
    for (name, found) in ["effective", "permitted", "inheritable"].into_iter().zip(sets()?) {
        if found != kept {
            return Ok(Some(format!("the {name} set is {found} instead of {kept}")));
        }
    }
    if call(Numbers::SecureBits)? != i64::from(ORDINARY) {
        return Ok(Some("the secure bits are not the ones that were set".to_owned()));
    }
    for number in 0..64 {
        match call(Numbers::BoundingHas(number)) {
            Ok(found) if (found == 1) == kept.has(number) => {}
            Ok(_) => return Ok(Some(format!("the bounding set differs in capability {number}"))),
            // The kernel knows no more.
            Err(_) => break,
        }
    }
    // The kernel keeps it within the permitted set, which is `kept` by now.
    for number in kept.numbers() {
        if call(Numbers::AmbientHas(number))? != 1 {
            return Ok(Some(format!("the ambient set lacks capability {number}")));
        }
    }
    Ok(None)
}

/// `_LINUX_CAPABILITY_VERSION_3`, and 0 for this thread.
const HEADER: [u32; 2] = [0x2008_0522, 0];

/// Makes the effective, permitted and inheritable sets of this thread exactly `wanted`.
///
/// # Errors
/// One of them is not permitted.
pub(super) fn set(wanted: Set) -> io::Result<()> {
    let [low, high] = wanted.halves();
    let (mut header, sets) = (HEADER, [low, low, low, high, high, high]);
    // SAFETY: the arrays have the layout of `__user_cap_header_struct` and of two `__user_cap_data_struct`
    // (capset(2)), live through the call, and only the header may be written to.
    let result = unsafe { libc::syscall(libc::SYS_capset, header.as_mut_ptr(), sets.as_ptr()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// The effective, permitted and inheritable sets of this thread.
fn sets() -> io::Result<[Set; 3]> {
    let (mut header, mut sets) = (HEADER, [0_u32; 6]);
    // SAFETY: as above; the kernel writes to both arrays, which are live and writable.
    let result = unsafe { libc::syscall(libc::SYS_capget, header.as_mut_ptr(), sets.as_mut_ptr()) };
    let ([low @ .., _, _, _], [_, _, _, high @ ..]) = (sets, sets);
    let [effective, permitted, inheritable] = [0, 1, 2].map(|place| {
        let half = |halves: &[u32; 3]| halves.get(place).copied().unwrap_or_default();
        Set::from_halves(half(&low), half(&high))
    });
    if result == 0 { Ok([effective, permitted, inheritable]) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{process, user};

    #[test]
    fn what_is_kept_is_all_that_there_is_and_anything_else_is_told() {
        if !user::tests::has_root() {
            return;
        }
        let text = process::tests::in_a_process("capabilities", || {
            let kept = Set::default().with(0);
            make_root_ordinary().unwrap();
            bound(kept).unwrap();
            let early = unproven(kept).unwrap().unwrap_or_default();
            keep_only(kept).unwrap();
            let more = unproven(kept.with(5)).unwrap().is_some();
            format!(
                "{} {:?} {more} {}",
                early.starts_with("the effective set is"),
                unproven(kept).unwrap(),
                keep_only(kept.with(5)).is_err()
            )
        });
        assert_eq!(text, "true None true true");
    }
}
