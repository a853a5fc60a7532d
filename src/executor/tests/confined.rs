//! A root executor's runs: for each key of a profile, something forbidden that fails and something permitted that works.

use super::harness::Executor;
use crate::wire::outcome::Outcome;

#[test]
fn a_confined_script_runs_as_its_account_and_is_not_process_one() {
    let executor = Executor::root("run_as = nobody");
    let (outcome, out, errors) = executor.shell("id -un; echo $$ $PPID; exit 3", &[]).finish();
    assert_eq!((outcome, out.as_str(), errors.as_str()), (Outcome::Exited { code: 3 }, "nobody\n2 1\n", ""));
}

#[test]
fn everything_but_the_writable_paths_is_read_only() {
    let executor = Executor::root("run_as = root\nwritable = {}/open");
    let text = "cd $0; echo x > open/x && cat open/x; \
        for place in /etc /usr /root /var/tmp /sys /; do (echo x > $place/forbidden) 2>&1; done | grep -c 'Read-only'";
    let (outcome, out, errors) = executor.shell(text, &[executor.path("").to_str().unwrap()]).finish();
    assert_eq!((outcome, out.as_str(), errors.as_str()), (Outcome::Exited { code: 0 }, "x\n6\n", ""));
}
