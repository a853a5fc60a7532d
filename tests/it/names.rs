//! The names under which the program is started, and what it says when it is asked or not understood.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::harness::process::{Ran, finish, program};
use crate::harness::{binary, run};

fn call(path: &Path, words: &[&str]) -> Ran {
    let mut command = program(path);
    command.args(words);
    finish(command, "")
}

#[test]
fn every_name_has_its_role_its_version_and_its_help() {
    let dir = tempfile::tempdir().unwrap();
    let cases = [
        ("ctrl-exec", "ctrl-exec"),
        ("ctrl-exec-dispatcher", "ctrl-exec-dispatcher"),
        ("ced", "ctrl-exec-dispatcher"),
        ("ctrl-exec-agent", "ctrl-exec-agent"),
        ("cea", "ctrl-exec-agent"),
    ];
    for (name, role) in cases {
        let path = dir.path().join(name);
        symlink(binary(), &path).unwrap();
        for asked in ["--version", "-V"] {
            let said = call(&path, &[asked]).exits(0).stdout;
            assert_eq!(said, format!("{role} {}\n", env!("CARGO_PKG_VERSION")), "{name}");
        }
        for asked in ["--help", "-h"] {
            assert!(call(&path, &[asked]).exits(0).stdout.contains(&format!("Usage: {role} ")), "{name}");
        }
    }
}

#[test]
fn a_copy_under_any_name_works_by_its_first_word() {
    let dir = tempfile::tempdir().unwrap();
    let copy = dir.path().join("release-x86_64");
    // Copied by another process: a file that this one has open for writing could not be executed.
    let mut cp = std::process::Command::new("cp");
    cp.arg(binary()).arg(&copy);
    finish(cp, "").exits(0);
    assert!(call(&copy, &["--version"]).exits(0).stdout.starts_with("ctrl-exec "));
    assert!(call(&copy, &["agent", "--version"]).exits(0).stdout.starts_with("ctrl-exec-agent "));
    assert!(call(&copy, &["dispatcher", "--version"]).exits(0).stdout.starts_with("ctrl-exec "));
    let agent = dir.path().join("cea");
    symlink(binary(), &agent).unwrap();
    assert!(call(&agent, &["dispatcher", "--help"]).exits(0).stdout.contains("list-agents"));
}

#[test]
fn no_verb_is_a_question_and_starts_nothing() {
    let dispatcher = run(&[]).exits(64);
    assert!(dispatcher.stdout.is_empty() && dispatcher.stderr.contains("Usage: ctrl-exec "), "{dispatcher:?}");
    let agent = run(&["agent"]).exits(0);
    assert!(agent.stdout.contains("Usage: ctrl-exec-agent ") && agent.stderr.is_empty(), "{agent:?}");
}

#[test]
fn what_is_not_understood_is_a_usage_error() {
    for words in [
        &["--nonsense"][..],
        &["ping", "--nonsense"],
        &["nonsense"],
        &["ping"],
        &["--port", "70000", "ping", "x"],
        &["agent", "--nonsense"],
        &["agent", "nonsense"],
        &["agent", "serve", "extra"],
    ] {
        let ran = run(words).exits(64);
        assert!(ran.stdout.is_empty() && ran.stderr.starts_with("error: "), "{words:?}: {ran:?}");
    }
}

#[test]
fn the_executor_is_not_started_by_hand() {
    let ran = run(&["serve-private", "/a", "/b", "/", "1024"]).exits(64);
    assert!(ran.stderr.contains("started by 'ctrl-exec-agent serve'"), "{ran:?}");
}

#[test]
fn a_missing_configuration_is_named_with_the_way_out() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    for verb in [&["ping", "x"][..], &["check-config"], &["setup-ctrl-exec"]] {
        let ran = run(&[&["--root", root], verb].concat()).exits(78);
        assert!(ran.stderr.contains("etc/ctrl-exec/ctrl-exec.conf"), "{ran:?}");
        assert!(ran.stderr.contains(&format!("\n    ca = {root}/etc/ctrl-exec/ca.crt\n")), "{ran:?}");
    }
    for (verb, status) in [("serve", 78), ("self-check", 1), ("self-ping", 1)] {
        let agent = run(&["agent", "--root", root, verb]).exits(status);
        assert!(agent.stderr.contains("etc/ctrl-exec-agent/agent.conf\n  because: No such file"), "{agent:?}");
        assert!(
            agent.stderr.contains("\nhint: write it ") && agent.stderr.contains("\n    port = 7443\n"),
            "{agent:?}"
        );
    }
    let status = run(&["agent", "--root", root, "pairing-status"]).exits(1).stdout;
    assert!(status.contains("agent.conf: No such file"), "{status}");
}

#[test]
fn options_of_a_verb_stand_before_it_too() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    let cases: [(&[&str], &str); 4] = [
        (&["--tags", "env", "--root", root, "list-agents"], "invalid tag filter 'env'"),
        (&["--lookup-by", "luck", "edit-agent", "web"], "--lookup-by must be 'ip' or 'hostname'"),
        (&["--agent-p", "0", "approve", "0123456789abcdef"], "--agent-port must be a port number (1-65535)"),
        (
            &["agent", "--background", "--timeout", "601", "request-pairing", "--dispatcher", "x"],
            "--timeout must be between 1 and 600",
        ),
    ];
    for (words, text) in cases {
        let ran = run(words).exits(64);
        assert!(ran.stderr.contains(text), "{words:?}: {ran:?}");
    }
}
