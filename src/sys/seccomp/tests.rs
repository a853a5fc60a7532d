//! What the filters answer, asked of the filters and of the kernel.

use super::*;

const TIOCSTI: u32 = 0x5412;

/// Runs the program as the kernel does; what it answers to a call with these arguments.
fn run(filter: &Filter, architecture: u32, number: u32, arguments: [u32; 4]) -> u32 {
    let word = |offset: u32| match offset {
        NUMBER => number,
        ARCHITECTURE => architecture,
        _ => arguments[usize::try_from((offset - 16) / 8).unwrap()],
    };
    let (mut at, mut accumulator) = (0, 0);
    loop {
        let step = filter.0[at];
        at += 1;
        let code = u32::from(step.code);
        let test = match code & !(libc::BPF_JMP | libc::BPF_K) {
            _ if code == libc::BPF_RET | libc::BPF_K => return step.k,
            _ if code == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                accumulator = word(step.k);
                continue;
            }
            libc::BPF_JEQ => accumulator == step.k,
            libc::BPF_JGE => accumulator >= step.k,
            libc::BPF_JGT => accumulator > step.k,
            libc::BPF_JSET => accumulator & step.k != 0,
            other => panic!("{other}"),
        };
        at += usize::from(if test { step.jt } else { step.jf });
    }
}

fn refusal(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).unwrap()
}

const ALLOWED: u32 = libc::SECCOMP_RET_ALLOW;
const LIST: Wanted = Wanted { list: List::Whole, no_network: false, set_ids: SetIds::Free };
const ALL: Wanted = Wanted { list: List::Whole, no_network: true, set_ids: SetIds::Neither };
const BOUND: Wanted = Wanted { list: List::Bounds, ..LIST };
const GUARDS: Wanted = Wanted { list: List::Nothing, ..ALL };

fn answer_to(wanted: Wanted, call: libc::c_long, arguments: [u32; 4]) -> u32 {
    run(&Filter::new(wanted).unwrap(), MACHINE.unwrap(), number(call), arguments)
}

#[test]
fn every_call_of_the_list_is_refused_and_every_other_is_allowed() {
    let whole = [BOUNDS, REFUSED].concat();
    for (wanted, listed) in [(LIST, &whole[..]), (ALL, &whole), (BOUND, BOUNDS), (GUARDS, &[])] {
        let filter = Filter::new(wanted).unwrap();
        let refused: Vec<u32> = listed.iter().chain(&RINGS).map(|call| number(*call)).collect();
        for call in 0..1000 {
            // No flags, no bits, and the first family of sockets.
            let found = run(&filter, MACHINE.unwrap(), call, [u32::from(call == number(libc::SYS_socket)), 0, 0, 0]);
            let expected = match call {
                _ if refused.contains(&call) => refusal(libc::EPERM),
                _ if wanted.list != List::Nothing && call == number(libc::SYS_clone3) => refusal(libc::ENOSYS),
                _ if wanted.set_ids != SetIds::Free && call == number(libc::SYS_openat2) => refusal(libc::ENOSYS),
                _ => ALLOWED,
            };
            assert_eq!(found, expected, "{wanted:?} {call}");
        }
    }
}

#[test]
fn arguments_are_judged_where_they_matter() {
    for bit in [0x2_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
        for call in [libc::SYS_clone, libc::SYS_unshare] {
            assert_eq!(answer_to(LIST, call, [bit | 0x100, 0, 0, 0]), refusal(libc::EPERM), "{bit:x}");
            assert_eq!(answer_to(BOUND, call, [bit | 0x100, 0, 0, 0]), refusal(libc::EPERM), "{bit:x}");
            assert_eq!(answer_to(GUARDS, call, [bit | 0x100, 0, 0, 0]), ALLOWED, "{bit:x}");
        }
    }
    // A thread; a fork whose signal is SIGCHLD; a process's own descriptors.
    for (call, flags) in [(libc::SYS_clone, 0x3d_0f00), (libc::SYS_clone, 17), (libc::SYS_unshare, 0x400)] {
        assert_eq!(answer_to(ALL, call, [flags, 0, 0, 0]), ALLOWED, "{flags:x}");
    }
    assert_eq!(answer_to(LIST, libc::SYS_ioctl, [0, TIOCSTI, 0, 0]), refusal(libc::EPERM));
    assert_eq!(answer_to(LIST, libc::SYS_ioctl, [0, 0x5413, 0, 0]), ALLOWED);
    assert_eq!(answer_to(BOUND, libc::SYS_ioctl, [0, TIOCSTI, 0, 0]), ALLOWED);
    for (wanted, refused) in [(LIST, true), (BOUND, true), (GUARDS, false)] {
        let expected = if refused { refusal(libc::EPERM) } else { ALLOWED };
        // The network of whoever is at the other end of a socket, and the last of its namespaces; not what it is.
        for (request, expected) in [(0xff04, expected), (0xff0a, expected), (0xff0b, ALLOWED), (0xff00, ALLOWED)] {
            assert_eq!(answer_to(wanted, libc::SYS_ioctl, [0, request, 0, 0]), expected, "{request:x}");
        }
        // A copy of a subvolume; an empty one, and a file's blocks shared with another, are everybody's, and their neighbours.
        for snapshot in [0x5000_9401, 0x5000_9417, 0x4020_bc10, 0x4030_bc1d] {
            assert_eq!(answer_to(wanted, libc::SYS_ioctl, [0, snapshot, 0, 0]), expected, "{snapshot:x}");
            for near in [snapshot - 1, snapshot + 1, snapshot & 0xffff] {
                assert_eq!(answer_to(wanted, libc::SYS_ioctl, [0, near, 0, 0]), ALLOWED, "{near:x}");
            }
        }
        for request in [0x5000_940e, 0x4004_9409, u32::MAX, 0] {
            assert_eq!(answer_to(wanted, libc::SYS_ioctl, [0, request, 0, 0]), ALLOWED, "{request:x}");
        }
        // A lease, and one on a directory; their reading and a lock are everybody's.
        for (command, expected) in [(1024, expected), (1040, expected), (1025, ALLOWED), (1039, ALLOWED), (6, ALLOWED)]
        {
            assert_eq!(answer_to(wanted, libc::SYS_fcntl, [0, command, 0, 0]), expected, "{command}");
        }
        assert_eq!(answer_to(wanted, libc::SYS_clone, [0x8011, 0, 0, 0]), expected, "a sibling");
    }
}

#[test]
fn without_a_network_there_are_sockets_of_the_namespace_alone() {
    for family in 0..64 {
        let held = if HELD.contains(&family) { ALLOWED } else { refusal(libc::EAFNOSUPPORT) };
        for wanted in [ALL, GUARDS, Wanted { set_ids: SetIds::Free, ..GUARDS }] {
            assert_eq!(answer_to(wanted, libc::SYS_socket, [family, 0, 0, 0]), held, "{family}");
        }
        assert_eq!(answer_to(LIST, libc::SYS_socket, [family, 0, 0, 0]), ALLOWED, "{family}");
    }
}

#[test]
fn bits_that_hand_rights_on_are_refused_in_every_call_that_could_give_them() {
    let no_user = Wanted { set_ids: SetIds::NoUser, ..LIST };
    let with = |place: u32, value: u32, next: u32| {
        let mut arguments = [0; 4];
        let place = usize::try_from(place).unwrap();
        (arguments[place], arguments[place + 1]) = (value, next);
        arguments
    };
    for (mode, of_all, of_users) in [
        (0o4755, true, true),
        (0o10_6755, true, true),
        (0o2755, true, false),
        (0o1777, false, false),
        (0o644, false, false),
    ] {
        let expected = |refused: bool| if refused { refusal(libc::EPERM) } else { ALLOWED };
        for (call, place) in MODES {
            let arguments = with(*place, mode, 0);
            assert_eq!(answer_to(ALL, *call, arguments), expected(of_all), "{call} {mode:o}");
            assert_eq!(answer_to(GUARDS, *call, arguments), expected(of_all), "{call} {mode:o}");
            assert_eq!(answer_to(no_user, *call, arguments), expected(of_users), "{call} {mode:o}");
            assert_eq!(answer_to(LIST, *call, arguments), ALLOWED, "{call} {mode:o}");
        }
        for (call, place) in OPENS {
            for (flags, makes) in [(0o100, true), (0o20_200_000, true), (0o2, false), (0o1000, false)] {
                let arguments = with(*place, flags, mode);
                assert_eq!(answer_to(ALL, *call, arguments), expected(of_all && makes), "{call} {mode:o} {flags:o}");
            }
        }
    }
}

#[test]
fn each_filter_is_built_once_and_where_nothing_is_refused_there_is_none() {
    let filters = Filters::default();
    let mut numbers = Vec::new();
    for list in [List::Nothing, List::Bounds, List::Whole] {
        for no_network in [false, true] {
            for set_ids in [SetIds::Free, SetIds::NoUser, SetIds::Neither] {
                let wanted = Wanted { list, no_network, set_ids };
                numbers.push(wanted.number());
                let found = filters.get(wanted);
                assert_eq!(found.is_none(), wanted == Wanted { list: List::Nothing, ..LIST });
                assert!(found.is_none_or(Result::is_ok), "{wanted:?}");
            }
        }
    }
    assert_eq!(numbers, (0..Wanted::COUNT).collect::<Vec<_>>());
}

#[test]
fn calls_in_another_machines_numbers_are_not_let_through() {
    for wanted in [LIST, GUARDS] {
        let filter = Filter::new(wanted).unwrap();
        assert_eq!(run(&filter, 0x4000_0003, 20, [0; 4]), libc::SECCOMP_RET_KILL_PROCESS);
        if cfg!(target_arch = "x86_64") {
            for call in [0x4000_0000, 0x4000_0001, u32::MAX] {
                assert_eq!(run(&filter, MACHINE.unwrap(), call, [0; 4]), refusal(libc::ENOSYS));
            }
            assert_eq!(run(&filter, MACHINE.unwrap(), 0x3fff_ffff, [0; 4]), ALLOWED);
        }
    }
}
