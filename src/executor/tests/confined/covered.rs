//! What is replaced on the host while a script runs: an update renames a new file over an old one, and the kernel takes off what
//! covered that in the run.

use std::fs;
use std::path::PathBuf;

use super::super::harness::{Executor, Run};
use super::fenced::mounting;
use super::refused;
use crate::wire::control::Reloaded;
use crate::wire::outcome::{Outcome, UNCOVERED};

/// An executor with the script `{}/open/deep/strong` of another profile, and its contract.
fn beside(profile: &str) -> Executor {
    let scripts = "strong = {}/open/deep/strong profile=strong\n";
    let executor = Executor::spawn_listing(&[], scripts, &format!("{profile}\n[profile strong]\nrun_as = root"));
    assert_eq!(executor.answer(), Reloaded::Done);
    executor.script("open/deep/strong", "#!/bin/sh\n");
    executor.write("open/deep/strong.schema.json", "{}");
    executor
}

/// A script that says `ready`, waits for `{}/open/go`, and does the second of its words.
fn waiting(executor: &Executor, first: &str, then: &str) -> Run {
    let place = executor.path("");
    let text = format!("exec 2>&1; cd {{}}/open; {first}; echo ready; while [ ! -e go ]; do sleep 0.01; done; {then}");
    let mut run = executor.shell(&text.replace("{}/", place.to_str().unwrap()), &[]);
    loop {
        match run.line().as_str() {
            "ready" => return run,
            "" => panic!("{:?}", run.outcome()),
            _ => {}
        }
    }
}

#[test]
fn a_script_of_another_profile_that_is_replaced_meanwhile_is_kept_as_before() {
    let executor = beside("run_as = root\nwritable = {}/open");
    let forge = "echo forged >> deep/strong; rm -f deep/strong; mv deep/strong x; echo forged > deep/strong.schema.json
        echo forged > deep/more; mv deep y; echo mine > mine && cat mine";
    let run = waiting(&executor, ":", forge);
    for name in ["strong", "strong.schema.json"] {
        fs::copy(executor.path("open/deep").join(name), executor.path("open/deep/.new")).unwrap();
        fs::rename(executor.path("open/deep/.new"), executor.path("open/deep").join(name)).unwrap();
    }
    executor.write("open/go", "");
    let (outcome, said, _) = run.finish();
    assert_eq!(outcome, Outcome::Exited { code: 0 }, "{said}");
    assert!(said.matches("Read-only").count() == 5 && said.contains("busy") && said.ends_with("mine\n"), "{said}");
    assert_eq!(fs::read_to_string(executor.path("open/deep/strong")).unwrap(), "#!/bin/sh\n");
    assert_eq!(fs::read_to_string(executor.path("open/deep/strong.schema.json")).unwrap(), "{}");
}

#[test]
fn a_writable_path_with_a_script_of_another_profile_in_itself_is_refused_and_one_below_it_is_not() {
    for writable in ["{}/open/deep", "{}/open:{}/open/deep", "{}/open/deep:{}/open/deep/strong"] {
        for account in ["root", "bin"] {
            let executor = beside(&format!("run_as = {account}\nwritable = {writable}"));
            let Outcome::Refused(refusal) = executor.shell("echo ran", &[]).outcome() else {
                panic!("{writable} is not refused")
            };
            assert!(refusal.code() == "writable-script", "{refusal:?}");
            assert!(refusal.text().contains("keep scripts in a directory of their own"), "{refusal:?}");
        }
    }
    // The script's directory is read-only as a whole, and what is named below it is not.
    let executor = beside("run_as = root\nwritable = {}/open:{}/open/deep/data");
    fs::create_dir(executor.path("open/deep/data")).unwrap();
    let said = executor.says("cd {}/open/deep; echo x > data/x && cat data/x; echo x > x; echo x > ../x && cat ../x");
    assert!(said.starts_with("x\n") && said.contains("Read-only") && said.ends_with("x\n"), "{said}");
    let other = beside("run_as = root\nwritable = {}/other");
    assert_eq!(other.says("echo x > {}/other/x && cat {}/other/x"), "x\n");
    fs::remove_file(other.path("open/deep/strong")).unwrap();
    assert_eq!(other.says("echo ran"), "ran\n");
    // Where it is named, a script that is missing is refused as one that is there.
    let missing = beside("run_as = root\nwritable = {}/open/deep");
    fs::remove_file(missing.path("open/deep/strong")).unwrap();
    assert_eq!(refused(&missing), "writable-script");
}

/// The step and reason of a run that was ended.
fn ended(run: &Run) -> String {
    match run.outcome() {
        Outcome::NotConfined { step, reason } if step == UNCOVERED => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_run_that_could_change_a_script_of_another_profile_from_now_on_is_ended() {
    let executor = beside("run_as = root\nwritable = {}/open");
    let mut run = waiting(&executor, ":", "echo went on");
    fs::remove_dir_all(executor.path("open/deep")).unwrap();
    fs::create_dir(executor.path("open/deep")).unwrap();
    executor.script("open/deep/strong", "#!/bin/sh\n");
    let reason = ended(&run);
    assert!(reason.contains("open/deep was removed or replaced while the script ran"), "{reason}");
    assert_eq!(run.rest(), "");
    // And the next one is not.
    executor.write("open/deep/strong.schema.json", "{}");
    executor.write("open/go", "");
    assert_eq!(waiting(&executor, ":", "echo went on").finish().1, "went on\n");
}

/// An agent whose key lies among files of others.
fn with_a_key_among_others(profile: &str) -> (Executor, PathBuf) {
    let starter = mounting(
        "mount -t tmpfs -o mode=755 x /mnt; echo secret > /mnt/key; echo other > /mnt/other; touch /mnt/key.pairing; chmod 600 /mnt/*
         sed -i 's,^key =.*,key = /mnt/key,' $D/conf/agent.conf",
    );
    let executor = Executor::root_under(&starter.each_ref().map(String::as_str), profile);
    let place = PathBuf::from(format!("/proc/{}/root/mnt", executor.pid()));
    (executor, place)
}

fn replace(place: &std::path::Path, name: &str) {
    fs::copy(place.join(name), place.join(".new")).unwrap();
    fs::rename(place.join(".new"), place.join(name)).unwrap();
}

#[test]
fn a_secret_among_files_of_others_that_is_replaced_ends_who_could_read_it_from_now_on() {
    let wide = "run_as = bin\ncaps = CAP_DAC_OVERRIDE";
    for profile in ["run_as = root", "run_as = root\nwritable = {}/open", wide] {
        let (executor, place) = with_a_key_among_others(profile);
        let mut run = waiting(&executor, "cat /mnt/key; cat /mnt/other", "cat /mnt/key");
        replace(&place, "key");
        let reason = ended(&run);
        assert!(reason.starts_with("/mnt/key was removed or replaced"), "{profile}: {reason}");
        assert_eq!(run.rest(), "", "{profile}");
        let said = executor.says("cat /mnt/key; cat /mnt/other");
        assert!(!said.contains("secret") && said.ends_with("other\n"), "{profile}: {said}");
    }
}

#[test]
fn who_could_not_read_it_anyway_goes_on_and_so_does_everybody_where_another_file_is_replaced() {
    let all =
        ["run_as = root", "run_as = root\nwritable = {}/open", "run_as = bin", "run_as = bin\nwritable = {}/open"];
    for profile in all {
        let (executor, place) = with_a_key_among_others(profile);
        let run = waiting(&executor, ":", "cat /mnt/key; echo went on");
        replace(&place, "other");
        if profile.contains("bin") {
            replace(&place, "key");
        }
        executor.write("open/go", "");
        let (outcome, said, _) = run.finish();
        assert_eq!(outcome, Outcome::Exited { code: 0 }, "{profile}: {said}");
        assert!(said.contains("denied") && said.ends_with("went on\n"), "{profile}: {said}");
    }
}
