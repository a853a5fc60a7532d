//! `demo`: the README's first command, which shows the main job with nothing but this file.

use std::path::PathBuf;
use std::process::Command;

use crate::harness::process::{Ran, finish, program};
use crate::harness::{binary, eventually, host};

/// With a directory of its own for what it makes.
fn demo(dir: &tempfile::TempDir, words: &[&str]) -> Ran {
    let mut command = program(&binary());
    command.arg("demo").args(words).env("TMPDIR", dir.path());
    finish(command, "")
}

fn left_in(dir: &tempfile::TempDir) -> Vec<PathBuf> {
    std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn directory() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    // Started as root, the agent becomes another account, which has to get in.
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    dir
}

fn shows_the_main_job(said: &str) {
    for part in [
        "   $ ctrl-exec setup-ca\n",
        "   $ ctrl-exec-agent request-pairing --dispatcher HOST",
        "   $ ctrl-exec approve ",
        "   $ ctrl-exec-agent serve\n",
        " host-facts\n   ==> ",
        "  [OK  exit:0  ",
        "\n   load    ",
        "\n   memory  ",
        "\n   disk /  ",
        "       ERROR: script not permitted\n",
        "   ctrl-exec-dispatcher: ACTION=run EXIT=0 ",
        "   ctrl-exec-agent: ACTION=run ",
        "   control host:  ctrl-exec setup-ca; ",
    ] {
        assert!(said.contains(part), "{part:?} is missing in:\n{said}");
    }
}

#[test]
fn the_demo_shows_the_main_job_and_leaves_nothing() {
    let dir = directory();
    let ran = demo(&dir, &[]).exits(0);
    shows_the_main_job(&ran.stdout);
    assert_eq!(left_in(&dir), Vec::<PathBuf>::new());
}

#[test]
fn the_demo_needs_no_root() {
    if !host::is_root() {
        return;
    }
    let dir = directory();
    // Where this test's own binary lies, another user may have no way to it.
    let copy = dir.path().join("ctrl-exec");
    let mut cp = program("cp".as_ref());
    cp.arg(binary()).arg(&copy);
    finish(cp, "").exits(0);
    let mut command = program(&copy);
    std::os::unix::process::CommandExt::uid(&mut command, 65534).arg("demo").env("TMPDIR", dir.path());
    std::os::unix::process::CommandExt::gid(&mut command, 65534);
    shows_the_main_job(&finish(command, "").exits(0).stdout);
    assert_eq!(left_in(&dir), [copy]);
}

#[test]
fn what_the_demo_says_about_calling_and_stopping_works_as_typed() {
    let dir = directory();
    let ran = demo(&dir, &["--keep"]).exits(0);
    shows_the_main_job(&ran.stdout);
    let typed = |label: &str| {
        let line = ran.stdout.lines().find_map(|line| line.trim_start().strip_prefix(label));
        line.unwrap_or_else(|| panic!("no '{label}' in:\n{}", ran.stdout)).trim().to_owned()
    };
    let shell = |text: &str| {
        let mut command = Command::new("sh");
        command.args(["-c", text]);
        finish(command, "")
    };
    let called = shell(&typed("call it:")).exits(0);
    assert!(called.stdout.contains("[OK  exit:0  ") && called.stdout.contains("memory"), "{called:?}");
    let stop = typed("stop it:");
    let pid: u32 = stop.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(host::alive(pid), "{stop}");
    shell(&stop).exits(0);
    eventually("the end of the agent", || (!host::alive(pid)).then_some(()));
    assert_eq!(left_in(&dir), Vec::<PathBuf>::new());
}
