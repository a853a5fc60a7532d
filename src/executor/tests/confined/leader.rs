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
