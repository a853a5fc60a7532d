//! The script's own process, whose parent is outside of its namespaces.

use std::fs;

use super::super::attempts::{become_one, tries};
use super::super::ends::delay;
use super::super::harness::{Executor, until};
use crate::wire::outcome::Outcome;

/// Processes of the host whose command line says this.
fn living(words: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    entries.filter(|entry| fs::read(entry.path().join("environ")).is_ok_and(|text| has(&text, words))).count()
}

fn has(text: &[u8], words: &str) -> bool {
    text.windows(words.len()).any(|window| window == words.as_bytes())
}

#[test]
fn a_sibling_of_the_script_is_gone_when_its_outcome_is_told() {
    let filtered = Executor::root("run_as = nobody\nsyscalls = off");
    assert_eq!(tries(&filtered, &["sibling"]), ["EPERM"]);
    let executor = Executor::root("run_as = nobody\nsyscalls = off\nallow_dangerous_caps = yes");
    for turn in 0..10 {
        let mark = format!("MARK=sibling-{}-{turn}", std::process::id());
        let run = executor.shell(&format!("export {mark}; {}", become_one(&["sibling"])), &[]);
        assert_eq!(run.outcome(), Outcome::Exited { code: 0 });
        assert_eq!(living(&mark), 0);
    }
}

#[test]
fn whoever_makes_orphans_faster_than_they_are_buried_is_gone_when_the_outcome_is_told() {
    let executor = Executor::root("run_as = 61238");
    let mut run = executor.shell(&format!("({}); exit 7", become_one(&["flood orphans 60"])), &[]);
    assert_eq!(run.outcome(), Outcome::Exited { code: 7 });
    let mut said = Vec::new();
    assert!(run.everyone_is_gone_but_for(&mut said));
    let said = String::from_utf8(said).unwrap();
    assert!(said.contains("ANSWER done") && !said.contains("OUTRUN"), "{said}");
}

/// Where the profile may undo itself, nothing refuses siblings. They give a script no more time and no other outcome.
#[test]
fn siblings_that_come_and_go_outlast_neither_their_script_nor_its_time() {
    let profile = "run_as = 61239\nsyscalls = off\nallow_dangerous_caps = yes\ntimeout = 2\nkill_grace = 0";
    let executor = Executor::root(profile);
    let limit = Outcome::TimedOut { limit_ms: 2000 };
    for (attempts, wanted) in
        [(&["flood siblings 60"][..], Outcome::Exited { code: 0 }), (&["flood siblings 60", "wait"], limit)]
    {
        let mut run = executor.shell(&become_one(attempts), &[]);
        // The other one may be over.
        if matches!(wanted, Outcome::TimedOut { .. }) {
            delay(&run);
        }
        let outcome = run.outcome();
        // A busy machine may have no time left for the first.
        assert!(outcome == wanted || matches!(outcome, Outcome::TimedOut { .. }), "{outcome:?}");
        let mut said = Vec::new();
        assert!(run.everyone_is_gone_but_for(&mut said));
        assert!(!String::from_utf8_lossy(&said).contains("OUTRUN"));
    }
}

#[test]
fn a_script_that_stops_as_one_that_is_traced_has_not_ended() {
    for filter in ["default", "off"] {
        let executor = Executor::root(&format!("run_as = nobody\nsyscalls = {filter}"));
        let mark = format!("MARK=stopped-{}-{filter}", std::process::id());
        let run = executor.shell(&format!("export {mark}; {}", become_one(&["stop"])), &[]);
        run.started();
        if filter == "off" {
            until("the stop", || living(&mark) == 1);
            run.cancel();
            assert_eq!(run.outcome(), Outcome::Cancelled);
        } else {
            assert_eq!(run.outcome(), Outcome::Exited { code: 0 });
        }
        assert_eq!(living(&mark), 0);
    }
}

/// A signal that is queued to somebody counts against the account that receives it, and init is root's.
#[test]
fn a_script_fills_no_init_with_signals_that_others_would_want() {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let now = status.lines().find_map(|line| line.strip_prefix("SigQ:")).and_then(|text| text.trim().split('/').next());
    // So few that the host's own are not touched, and the script comes to the end of them.
    let most = now.unwrap().parse::<usize>().unwrap() + 2000;
    let limit = format!("--sigpending={most}:{most}");
    for profile in ["run_as = root", "run_as = root\nwritable = {}/open", "run_as = nobody\ncaps = CAP_KILL"] {
        let executor = Executor::root_under(&["prlimit", &limit], profile);
        let words = ["queue-to-init 37 5000", "queue-to-init 10 5000", "queue-to-init 15 100", "queue-to-init 17 5000"];
        let tried = format!("trap '' TERM; {}", become_one(&[&words[..], &["wait"]].concat()));
        let mut run = executor.shell(&tried, &[]);
        for _ in words {
            std::iter::repeat_with(|| run.line()).find(|line| line == "QUEUED").unwrap();
        }
        // Nothing of it waits: real-time signals are not held up, and the two that init reads need no place.
        assert_eq!(executor.says("echo ran"), "ran\n", "{profile}");
        run.cancel();
        assert_eq!(run.outcome(), Outcome::Cancelled, "{profile}");
        // `SIGTERM` and `SIGCHLD`.
        let said = executor.says("sed -n 's/^SigBlk:[^0]*//p' /proc/1/status; grep pending /proc/1/limits");
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!([words[0], words[4], words[5]], ["0000000000014000", "0", "0"], "{said}");
        // The twin: a script has signals of its own, and init still passes on and buries.
        assert_eq!(executor.says("trap 'echo heard' USR1; kill -USR1 $$"), "heard\n");
    }
}

#[test]
fn a_script_of_inits_account_changes_nothing_about_it() {
    let text = "for one in nofile=0 cpu=1 as=1 data=1 fsize=0 memlock=0 stack=1 nproc=0 sigpending=9 nice=1; do \
        prlimit --pid 1 --$one && echo changed; done; renice -n 5 -p 1 && echo changed; \
        echo 999 > /proc/1/oom_score_adj && echo changed; kill -9 1; kill -STOP 1; \
        (sleep 0 &); sleep 0; prlimit --pid $$ --nofile=100:100 && ulimit -n";
    for profile in ["run_as = root", "run_as = root\nwritable = {}/open\nsyscalls = off"] {
        let executor = Executor::root(profile);
        let (outcome, out, errors) = executor.shell(text, &[]).finish();
        assert_eq!((outcome, out.as_str()), (Outcome::Exited { code: 0 }, "100\n"), "{errors}");
    }
    // One that has a capability for it takes its own run along, and holds up nobody.
    let text = "prlimit --pid 1 --nofile=0 || exit 9; (sleep 0 &); while :; do sleep 1; done";
    let executor = Executor::root("run_as = root\ncaps = CAP_SYS_RESOURCE\ntimeout = 600");
    match executor.shell(text, &[]).outcome() {
        // Where the executor itself lacks it.
        Outcome::NotConfined { step, .. } => assert_eq!(step, "caps"),
        outcome => assert_eq!(outcome, Outcome::Signalled { signal: 9 }),
    }
}

#[test]
fn few_descriptors_are_enough_for_a_script_with_rules() {
    let executor = Executor::root("run_as = nobody\nfiles_max = 16\nwritable = {}/open\nreadable = /");
    assert_eq!(executor.says("ulimit -n"), "16\n");
}

#[test]
fn an_executor_in_a_part_of_the_tree_confines_in_that_part_alone() {
    let jail = tempfile::tempdir_in("/var/tmp").unwrap();
    let place = jail.path().display();
    let words = format!("mount --rbind / {place} && mount --make-rshared / && exec chroot {place} \"$@\"");
    let starter = ["unshare", "--mount", "sh", "-c", &words, "sh"];
    for writable in ["", "writable = {}/open\n"] {
        let executor = Executor::root_under(&starter, &format!("run_as = nobody\n{writable}"));
        let mounts = || fs::read_to_string(format!("/proc/{}/mountinfo", executor.pid())).unwrap().lines().count();
        let before = mounts();
        for _ in 0..3 {
            assert_eq!(executor.says("cd /; pwd; ls -d var"), "/\nvar\n");
        }
        assert_eq!(mounts(), before);
    }
}

#[test]
fn a_script_that_could_leave_the_executors_own_chroot_is_refused_unless_the_profile_may_undo_itself() {
    let jail = tempfile::tempdir_in("/var/tmp").unwrap();
    let place = jail.path().display();
    let words = format!("mount --rbind / {place} && mount --make-rslave {place} && exec chroot {place} \"$@\"");
    let starter = ["unshare", "--mount", "sh", "-c", &words, "sh"];
    let profile = "run_as = nobody\ncaps = CAP_SYS_CHROOT\nwritable = {}/open";
    let outside = format!("leave-root /proc .{place}/etc/passwd");
    match Executor::root_under(&starter, profile).shell("echo ran", &[]).outcome() {
        Outcome::NotConfined { step, reason } => {
            assert!(step == "caps" && reason.contains("allow_dangerous_caps") && reason.contains("chroot"), "{reason}");
        }
        other => panic!("{other:?}"),
    }
    // Without the capability nobody leaves, and with that line it is what the profile wants.
    let none = Executor::root_under(&starter, "run_as = nobody\nwritable = {}/open");
    assert_eq!(tries(&none, &[&outside]), ["EPERM"]);
    let may = Executor::root_under(&starter, &format!("{profile}\nallow_dangerous_caps = yes"));
    assert_eq!(tries(&may, &[&outside]), ["done"]);
    // The twin: an executor that sees all that there is gives it, and nothing is behind its root directory.
    let twin = Executor::root(profile);
    assert_eq!(tries(&twin, &["leave-root /proc ./etc/passwd", &outside]), ["done", "ENOENT"]);
}
