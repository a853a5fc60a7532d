//! System calls that a program may not make (seccomp(2)): one small filter, which refuses what undoes a confinement or
//! attacks the kernel and allows everything else.
//!
//! The filter is written here and not by a library, for two reasons. One filter of a library's has one way to refuse, and
//! here there are two: clone3(2), whose flags a filter cannot see, must look unknown (`ENOSYS`), so that programs fall
//! back to clone(2), whose flags it can. And the kernel tries a new filter on every system call to learn which are
//! always allowed, so that a search by halves is installed in a fraction of the time that a list takes. Numbers that lie next to
//! each other and end alike are looked for as one.
//!
//! The list has two parts: what leaves the bounds of a run, and what attacks the kernel or other processes of the run's own.
//!
//! Two guards may stand beside the list, or alone: that a program leaves no set-user-ID program behind, for which
//! `RestrictSUIDSGID=` of `systemd.exec(5)` is the model; and that it makes no socket that reaches past a network namespace.
//! Both would be passed by rings (`io_uring(7)`), which make calls without making them, so that there are none with either.
#![expect(unsafe_code, reason = "the call has no safe binding")]

mod lists;

use std::cell::OnceCell;
use std::io;

use libc::sock_filter;

use self::lists::{
    BOUNDS, HELD, HOLDS_UP, IOCTLS, IOCTLS_OF_BOUNDS, MAKES, MODES, NAMESPACES, OPENS, REFUSED, RINGS, SIBLING,
    TIME_NAMESPACE,
};
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
    /// What leaves the bounds of a run: other mounts and namespaces, copies of a file system, other processes' descriptors and
    /// groups, parents of another process, keys, and leases, by which others' files are held up.
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

    /// Whether every call that uses keys is refused (keyrings(7)).
    #[must_use]
    pub const fn keeps_from_keys(self) -> bool {
        !matches!(self.list, List::Nothing)
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
    /// It fails with `EPERM` if the argument at this place is in one of these ranges, which are sorted.
    FailsWithValues(u32, &'static [Values]),
    /// It fails with the error unless the argument at this place is one of these values.
    FailsBut(u32, &'static [u32], i32),
}

/// The first and the last of values that lie next to each other.
type Values = (u32, u32);

/// What becomes of whatever lies in a range.
#[derive(Clone, Copy, Debug)]
struct Piece {
    first: u32,
    last: u32,
    fate: Fate,
}

impl Piece {
    /// Each value's fate, which are sorted, with those in one that lie next to each other and end alike.
    fn all(fates: &[(u32, Fate)]) -> Vec<Self> {
        let mut pieces: Vec<Self> = Vec::with_capacity(fates.len());
        for (value, fate) in fates {
            match pieces.last_mut() {
                Some(piece) if piece.fate == *fate && piece.last.checked_add(1) == Some(*value) => piece.last = *value,
                _ => pieces.push(Self { first: *value, last: *value, fate: *fate }),
            }
        }
        pieces
    }
}

/// The numbers of the x32 interface, from `__X32_SYSCALL_BIT` on.
const X32: Option<Piece> = if cfg!(target_arch = "x86_64") {
    Some(Piece { first: 0x4000_0000, last: u32::MAX, fate: Fate::Fails(libc::ENOSYS) })
} else {
    None
};

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
        let pieces: Vec<Piece> = Piece::all(&fates).into_iter().chain(X32).collect();
        program.extend(search(&pieces, false, 0)?);
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
    let (bounds, rest, answers): (_, _, &[Values]) = match wanted.list {
        List::Nothing => (&[][..], &[][..], &[]),
        List::Bounds => (BOUNDS, &[][..], IOCTLS_OF_BOUNDS),
        List::Whole => (BOUNDS, REFUSED, IOCTLS),
    };
    let rings = if wanted.is_nothing() { &[][..] } else { &RINGS };
    let refused = bounds.iter().chain(rest).chain(rings).map(|number| (*number, Fate::Fails(libc::EPERM)));
    let judged = [
        (libc::SYS_clone3, Fate::Fails(libc::ENOSYS)),
        (libc::SYS_clone, Fate::FailsWithBits(0, NAMESPACES | SIBLING)),
        (libc::SYS_unshare, Fate::FailsWithBits(0, NAMESPACES | TIME_NAMESPACE)),
        (libc::SYS_fcntl, Fate::FailsWithValues(1, HOLDS_UP)),
        (libc::SYS_ioctl, Fate::FailsWithValues(1, answers)),
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

/// Code that finds the loaded value among `pieces`, which are sorted, by halves. `reached` is when it is known to be no less than
/// the first of them.
///
/// Everything ends in one of the answers behind it; `after` is how many instructions follow this piece before those.
fn search(pieces: &[Piece], reached: bool, after: usize) -> io::Result<Vec<sock_filter>> {
    let (low, high) = pieces.split_at(pieces.len() / 2);
    match (low, high) {
        (_, []) => Ok(vec![jump(libc::BPF_JGE, 0, over(after + ALLOW)?, 0)]),
        ([], [piece, ..]) => found(*piece, reached, after),
        (_, [least, ..]) => {
            let high = search(high, true, after)?;
            let low = search(low, reached, after + high.len())?;
            Ok([&[jump(libc::BPF_JGE, least.first, over(low.len())?, 0)], low.as_slice(), &high].concat())
        }
    }
}

/// Code that tells whether the loaded value is in this piece, and what becomes of it then.
fn found(piece: Piece, reached: bool, after: usize) -> io::Result<Vec<sock_filter>> {
    let Piece { first, last, fate } = piece;
    let judged = judge(fate, after)?;
    let rest = after + judged.len();
    let inside = match fate {
        Fate::Fails(errno) => over(rest + fails_at(errno))?,
        _ => 0,
    };
    let outside = over(rest + ALLOW)?;
    let tests = match (first == last, last == u32::MAX, reached) {
        (true, ..) => vec![jump(libc::BPF_JEQ, first, inside, outside)],
        (_, true, _) => vec![jump(libc::BPF_JGE, first, inside, outside)],
        (_, _, true) => vec![jump(libc::BPF_JGT, last, outside, inside)],
        _ => vec![jump(libc::BPF_JGE, first, 0, over(rest + 1 + ALLOW)?), jump(libc::BPF_JGT, last, outside, inside)],
    };
    Ok([tests, judged].concat())
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
        Fate::FailsWithValues(place, values) => {
            let piece = |(first, last): &Values| Piece { first: *first, last: *last, fate: Fate::Fails(libc::EPERM) };
            let pieces: Vec<Piece> = values.iter().map(piece).collect();
            [vec![load(argument(place))], search(&pieces, false, after)?].concat()
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
