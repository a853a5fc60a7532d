//! What depends on the kernel's Landlock, and that `cargo xtask vm` has the kernel that it is meant to have.

use super::harness::Executor;
use crate::sys::{kernel, landlock};
use crate::wire::outcome::Outcome;

/// What the virtual machine's first program says of the machine.
fn said(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

#[test]
fn a_machine_that_was_made_for_tests_has_the_kernel_that_they_are_meant_for() {
    let (release, version) = (nix::sys::utsname::uname().unwrap(), landlock::version());
    let release = release.release().to_string_lossy();
    assert!(kernel::probe().mount_setattr, "{release} has no mount_setattr");
    if let Some(wanted) = said("CTRL_EXEC_VM_RELEASE") {
        assert!(
            release.starts_with(&wanted),
            "this machine is to have Linux {wanted}*, and has {release}: Debian's package has moved on; say in \
             xtask/src/vm/kernel.rs which kernel is tested instead"
        );
    }
    match said("CTRL_EXEC_VM_LANDLOCK").as_deref() {
        None => {}
        Some("none") => assert_eq!(version, None, "this machine is to have no Landlock: is it still a name for lsm=?"),
        Some("some") => assert!(version.is_some(), "the kernel in CTRL_EXEC_VM_KERNEL has no Landlock"),
        Some(wanted) => assert_eq!(
            version.map(|version| version.to_string()).as_deref(),
            Some(wanted),
            "Linux {release} is to have this version of Landlock"
        ),
    }
}

#[test]
fn without_landlock_readable_is_refused_and_with_it_it_holds() {
    let readable = Executor::root("run_as = nobody\nreadable = /usr:/bin:/lib:/lib64:/etc");
    let outcome = readable.shell("true", &[]).finish().0;
    if landlock::version().is_some() {
        assert_eq!(outcome, Outcome::Exited { code: 0 });
        assert_ne!(readable.shell("cat {}/x /var", &[]).finish().0, Outcome::Exited { code: 0 });
    } else {
        let Outcome::NotConfined { step, reason } = outcome else { panic!("{outcome:?}") };
        assert!(step == "readable" && reason.contains("no Landlock") && reason.contains("lsm="), "{step}: {reason}");
    }
    // The twin that does not ask for it runs either way, confined by what the kernel has.
    let twin = Executor::root("run_as = nobody\nwritable = {}/open");
    assert_eq!(twin.shell("true", &[]).finish().0, Outcome::Exited { code: 0 });
    assert!(twin.says("echo x > /etc/forbidden").contains("Read-only"));
}
