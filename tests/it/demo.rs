//! `demo`: the whole product on one machine, and nothing left of it.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::harness::process::{Ran, finish, program};
use crate::harness::{binary, eventually, host};

/// A temporary directory for the demo that everybody may use.
fn place() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    dir
}

fn demo(dir: &Path, words: &[&str]) -> Command {
    let mut command = program(&binary());
    command.arg("demo").args(words).env("TMPDIR", dir);
    command
}

/// Living processes that have this directory on their command line.
fn processes(dir: &Path) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let names = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(dir.to_str().unwrap())
    };
    pids.filter(|pid| names(pid) && host::alive(*pid)).collect()
}

#[track_caller]
fn nothing_is_left(dir: &Path) {
    // A monitor ends with its executor, which it sees a moment after everybody else.
    eventually("the end of every process", || processes(dir).is_empty().then_some(()));
    let left: Vec<_> = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[track_caller]
fn shows_everything(ran: &Ran) {
    let code = ran.stdout.split("   the managed host shows code ").nth(1).expect("a code").lines().next().unwrap();
    for part in [
        "   $ ctrl-exec setup-ca\n",
        "   $ ctrl-exec setup-ctrl-exec\n",
        &format!("   the control host shows code {code}, request "),
        "     Certificate delivered.\n",
        "   Pairing complete. Certificates stored.\n",
        "   listening on 127.0.0.1:",
        " host-facts\n   ==> ",
        "[OK  exit:0 ",
        "   ran as  ",
        "       ERROR: script not permitted\n",
        "   ctrl-exec-dispatcher: ACTION=pair-approve ",
        "   ctrl-exec-agent: ACTION=pair-confirmation CONFIRMED=ca ",
        "   ctrl-exec-agent: ACTION=pair-complete DISPATCHER=",
        "   ctrl-exec-agent: ACTION=run ",
        "   ctrl-exec-agent: ACTION=deny ",
        "== The same between two hosts",
    ] {
        assert!(ran.stdout.contains(part), "{part}\n{}", ran.stdout);
    }
    assert_eq!(ran.stderr, "");
}

#[test]
fn the_demo_pairs_runs_and_leaves_nothing() {
    let dir = place();
    let ran = finish(demo(dir.path(), &[]), "").exits(0);
    shows_everything(&ran);
    if host::is_root() {
        assert!(
            ran.stdout.contains("   ran as  nobody\n"),
            "an agent started as root gives its rights up: {}",
            ran.stdout
        );
    }
    nothing_is_left(dir.path());
}

#[test]
fn the_demo_needs_no_rights() {
    let (dir, copy) = (place(), place());
    let ran = finish(host::unprivileged(&demo(dir.path(), &[]), copy.path()), "").exits(0);
    shows_everything(&ran);
    nothing_is_left(dir.path());
}

#[test]
fn what_the_demo_keeps_can_be_called_and_stopped_as_it_says() {
    let dir = place();
    let ran = finish(demo(dir.path(), &["--keep"]), "").exits(0);
    let command = |what: &str| {
        let line = ran.stdout.lines().find_map(|line| line.strip_prefix(what)).expect("a command");
        let mut command = program(Path::new("sh"));
        command.args(["-c", line.trim()]);
        finish(command, "")
    };
    // And for a moment a monitor that waits for another order.
    eventually("an agent and its executor", || (processes(dir.path()).len() == 2).then_some(()));
    let called = command("   call it:").exits(0);
    assert!(called.stdout.starts_with("==> ") && called.stdout.contains("ran as"), "{called:?}");
    command("   stop it:").exits(0);
    eventually("the end of the agent", || processes(dir.path()).is_empty().then_some(()));
    nothing_is_left(dir.path());
}

#[test]
fn a_directory_that_will_not_do_is_named() {
    let (dir, copy) = (place(), place());
    let refused = |dir: &Path| {
        let ran = finish(host::unprivileged(&demo(dir, &[]), copy.path()), "").exits(69);
        let text = format!("Error: the demo cannot use the temporary directory {}", dir.display());
        assert!(ran.stderr.starts_with(&text) && ran.stderr.contains("\nhint: name another one: TMPDIR="), "{ran:?}");
    };
    refused(Path::new("/proc"));
    refused(&dir.path().join("missing"));
    let long = dir.path().join("x".repeat(100));
    std::fs::create_dir(&long).unwrap();
    std::fs::set_permissions(&long, std::fs::Permissions::from_mode(0o777)).unwrap();
    refused(&long);
    nothing_is_left(&long);
}

#[test]
fn a_demo_whose_agent_cannot_reach_its_files_says_why_at_once() {
    if !host::has_root() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let ran = finish(demo(dir.path(), &[]), "").exits(69);
    assert!(ran.stderr.starts_with("Error: 'ctrl-exec-agent serve --unprivileged' did not start:\n"), "{ran:?}");
    assert!(ran.stderr.contains("because: Permission denied") && ran.stderr.contains("hint: TMPDIR="), "{ran:?}");
    nothing_is_left(dir.path());
}

#[test]
fn a_relative_directory_is_as_good_as_any() {
    let dir = place();
    let mut command = demo(Path::new("below"), &[]);
    std::fs::create_dir(dir.path().join("below")).unwrap();
    command.current_dir(dir.path());
    finish(command, "").exits(0);
    nothing_is_left(&dir.path().join("below"));
}

#[test]
fn an_interrupted_demo_tidies_up() {
    for (signal, wait) in [(Signal::SIGTERM, "the managed host shows code"), (Signal::SIGINT, "listening on")] {
        let dir = place();
        let mut child = demo(dir.path(), &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        lines.find(|line| line.as_ref().unwrap().contains(wait)).unwrap().unwrap();
        host::kill(child.id(), signal);
        lines.for_each(drop);
        let ended = eventually("its end", || child.try_wait().unwrap());
        assert_eq!(ended.code(), Some(1), "{signal}");
        nothing_is_left(dir.path());
    }
}
