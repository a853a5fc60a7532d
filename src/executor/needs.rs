//! The capabilities that a root executor's own work takes, whatever a profile says. One that it lacks it never gets back, so that
//! it does not start without; and a run asks as well, before its first step.

use super::confinement::Confinement;
use super::limits::Unenforceable;
use crate::sys::capability::Set;

/// A capability (capabilities(7)), the step of a run that fails first without it, and what that is about.
#[derive(Clone, Copy)]
struct Need(u8, &'static str, &'static str, &'static str);

/// Each was taken away alone, and no run came to its script, or none that left somebody behind came to its end (`CAP_KILL`).
const NEEDS: [Need; 6] = [
    Need(21, "SYS_ADMIN", "namespaces", "make namespaces and mounts for a run"),
    Need(18, "SYS_CHROOT", "namespaces", "enter the root directory of a run"),
    Need(8, "SETPCAP", "bounding-set", "take rights away from a script"),
    Need(6, "SETGID", "groups", "set the groups of a script"),
    Need(7, "SETUID", "run_as", "set the account of a script"),
    Need(5, "KILL", "init", "end the processes of a script"),
];

/// With private places the run is not permitted to look into, which `CAP_DAC_READ_SEARCH` does for as well.
const LOOKING: Need = Need(1, "DAC_OVERRIDE", "hidden", "look for what a run is not to see below its private places");
const READ_SEARCH: u8 = 2;

/// Whether an executor with this set can do what it does for every run.
///
/// # Errors
/// The first step that it cannot do, and every capability that it needs and has not, with what to do about it.
pub(super) fn met(held: Set) -> Result<(), Unenforceable> {
    judged(held, &NEEDS)
}

/// The same, and what it does for a run in this confinement.
///
/// # Errors
/// As [`met`].
pub(super) fn met_for(confinement: &Confinement, held: Set) -> Result<(), Unenforceable> {
    met(held)?;
    if confinement.writable().is_none() || held.has(READ_SEARCH) { Ok(()) } else { judged(held, &[LOOKING]) }
}

fn judged(held: Set, needs: &[Need]) -> Result<(), Unenforceable> {
    let missing = || needs.iter().filter(|Need(number, ..)| !held.has(*number));
    let Some(Need(_, _, key, what)) = missing().next() else { return Ok(()) };
    let list = |prefix: &str, between: &str| {
        missing().map(|Need(_, name, ..)| format!("{prefix}{name}")).collect::<Vec<_>>().join(between)
    };
    let (names, words) = (list("CAP_", ", "), list("--cap-add ", " "));
    let why = format!(
        "the executor is not permitted to {what}: it has no {names} (whoever starts it withholds that: allow it in \
         CapabilityBoundingSet= of its service, or start its container with {words})"
    );
    Err(Unenforceable { key, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn with_private_places_one_of_two_more_is_needed() {
        use crate::executor::confinements::tests::confinement;
        let [plain, private] =
            ["", "writable = /srv"].map(|line| confinement(&format!("run_as = backup\n{line}")).unwrap());
        let six = NEEDS.iter().fold(Set::default(), |set, Need(number, ..)| set.with(*number));
        assert_eq!(met_for(&plain, six), Ok(()));
        assert!(met_for(&private, six).unwrap_err().why.contains("it has no CAP_DAC_OVERRIDE ("));
        assert_eq!((met_for(&private, six.with(1)), met_for(&private, six.with(2))), (Ok(()), Ok(())));
        assert_eq!(met_for(&private, Set::ALL.without(six)).unwrap_err().key, "namespaces");
    }

    #[test]
    fn each_capability_that_is_missing_is_named_with_its_remedy_and_nothing_else_is() {
        let all = NEEDS.iter().fold(Set::default(), |set, Need(number, ..)| set.with(*number));
        assert_eq!(met(all), Ok(()));
        assert_eq!(met(Set::ALL), Ok(()));
        for Need(number, name, key, _) in NEEDS {
            let lacking = met(all.without(Set::default().with(number))).unwrap_err();
            assert_eq!(lacking.key, key);
            let wanted = [format!(": it has no CAP_{name} ("), format!("with --cap-add {name})")];
            assert!(wanted.iter().all(|part| lacking.why.contains(part)), "{}", lacking.why);
            assert_eq!(lacking.why.matches("CAP_").count(), 1, "{}", lacking.why);
        }
        let two = met(all.without(Set::default().with(18).with(8))).unwrap_err().why;
        assert!(
            two.contains("it has no CAP_SYS_CHROOT, CAP_SETPCAP (")
                && two.ends_with("--cap-add SYS_CHROOT --cap-add SETPCAP)")
        );
    }
}
