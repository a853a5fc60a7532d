//! `vm`: the tests of confinement on another kernel, in a virtual machine.
//!
//! What a host's own kernel decides for all its tests is here chosen: Debian's 6.1 with Landlock's second ABI, and
//! cgroup v2 with all its controllers, so that limits are seen to hold and not only to be asked for; and then the same
//! kernel without Landlock. The machine is emulated (QEMU's TCG), needs neither rights nor `/dev/kvm`, and has a `BusyBox`
//! to get up with.

mod cpio;
mod image;
mod kernel;
mod machine;
mod programs;

use std::path::{Path, PathBuf};

use self::image::Program;
use self::kernel::Kernel;
use crate::run::Run;
use crate::{Outcome, dist};

/// The library's tests that run where nothing else is said.
///
/// Not those of the private executor: they race the scheduler, which an emulated machine on a busy host may lose.
const TESTS: [&str; 10] = [
    "executor::tests::confined",
    "executor::tests::keys",
    "executor::tests::limits",
    "executor::tests::machine",
    "executor::tests::persons",
    "sys::capability",
    "sys::landlock",
    "sys::mount",
    "sys::seccomp",
    "sys::cgroup",
];
/// Those that drive the binary.
const PROCESSES: [&str; 3] = ["memory::", "closed::", "jobs::killed::whoever_is_killed_no_control_group"];
/// The first word where others are to choose among those instead.
const DRIVING: &str = "it";
/// How long and how large the test is that kills everybody while jobs run. Emulated, it takes some minutes.
const KILLED: &str = "CTRL_EXEC_JOB_ROUNDS=10\nCTRL_EXEC_JOBS=20\n";
/// `fs.suid_dumpable`, as the machine's first program sets it: a host of tests mostly has 0.
const DUMPABLE: &str = "CTRL_EXEC_VM_DUMPABLE=1\n";
/// Those that run without Landlock.
const WITHOUT_LANDLOCK: [&str; 1] = ["executor::tests::machine"];
/// Linux's security modules without it, as the kernel's parameter lists them.
const NO_LANDLOCK: &str = " lsm=yama,apparmor";

/// Builds the tests, boots them, and says how they ended. Words choose among those of the library; behind `it`, among those
/// that drive the binary.
pub(crate) fn task(words: &[String]) -> Outcome {
    let (kernel, busybox) = (kernel::find()?, busybox()?);
    let unit = || dist::quick_tests(&["--lib"]);
    let driving = || Ok::<_, String>((dist::quick_tests(&["--test", "it"])?, dist::quick()?));
    let with = |file, name, filters| chosen(Program { name, file, filters });
    let program = |file| Program { name: "ctrl-exec", file, filters: &[] };
    let mine: Vec<&str> = words.iter().map(String::as_str).collect();
    match mine[..] {
        [] => {}
        [DRIVING, ..] => {
            let ((it, binary), filters) = (driving()?, mine.get(1..).unwrap_or_default());
            return boot(&kernel, &busybox, Landlock::Used, &[with(&it, "it", filters)?, program(&binary)]);
        }
        [..] => return boot(&kernel, &busybox, Landlock::Used, &[with(&unit()?, "unit", &mine)?]),
    }
    let (unit, (it, binary)) = (unit()?, driving()?);
    let all = [with(&unit, "unit", &TESTS)?, with(&it, "it", &PROCESSES)?, program(&binary)];
    boot(&kernel, &busybox, Landlock::Used, &all)?;
    boot(&kernel, &busybox, Landlock::Unused, &[with(&unit, "unit", &WITHOUT_LANDLOCK)?])
}

/// Whether the kernel is to use it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Landlock {
    Used,
    Unused,
}

fn boot(kernel: &Kernel, busybox: &Path, landlock: Landlock, programs: &[Program<'_>]) -> Outcome {
    let used = landlock == Landlock::Used;
    let image = image::write(busybox, &kernel.modules, programs, &(kernel.machine(used) + KILLED + DUMPABLE))?;
    println!("booting {} with {}{}", kernel.image.display(), image.display(), if used { "" } else { NO_LANDLOCK });
    let status = machine::run(&kernel.image, &image, if used { "" } else { NO_LANDLOCK })?;
    if status == "0" { Ok(()) } else { Err(format!("the tests in the virtual machine ended with {status}: see above")) }
}

/// Refuses filters that choose nothing: a test that was renamed would be missed by nobody.
fn chosen(program: Program<'_>) -> Outcome<Program<'_>> {
    for filter in program.filters {
        let said = Run::new(program.file).args(["--list", filter]).text()?;
        if !has_test(&said) {
            return Err(format!("no test of {} matches `{filter}`: name one that `cargo test` lists", program.name));
        }
    }
    Ok(program)
}

/// Whether a list as tests give it names any.
fn has_test(list: &str) -> bool {
    list.lines().any(|line| line.ends_with(": test"))
}

fn busybox() -> Outcome<PathBuf> {
    let places = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from);
    let found = places.into_iter().find(|path| path.is_file());
    let found = found.ok_or("there is no busybox: apt-get install busybox-static")?;
    dist::is_static(&found)
        .map_err(|why| format!("{why}\nthe machine has no libraries: apt-get install busybox-static"))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_matches_nothing_is_refused() {
        let own = std::env::current_exe().unwrap();
        let asked = |filters| chosen(Program { name: "unit", file: &own, filters }).map(drop);
        assert_eq!(asked(&["vm::tests::a_filter_that"]), Ok(()));
        let why = asked(&["vm::tests", "no::such::test"]).unwrap_err();
        assert!(why.contains("`no::such::test`"), "{why}");
        assert!(!has_test("0 tests, 0 benchmarks\n"));
    }
}
