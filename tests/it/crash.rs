//! Commands that are killed at any moment leave everything as it was or as it should be, and no later command is the
//! worse for it.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ctrl_exec::pki::ca::Ca;
use ctrl_exec::tls::identity::Identity;
use serde_json::Value;

use crate::harness::process::{finish, program};
use crate::harness::{Site, binary, pki};

const ROUNDS: u32 = 60;

/// Starts a command and kills it after a part of the time that it would take.
fn interrupt(mut command: Command, after: Duration) {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    std::thread::sleep(after);
    child.kill().unwrap();
    child.wait().unwrap();
}

/// Moments spread over the time that a whole command takes, and a little longer.
fn moments(whole: Duration) -> impl Iterator<Item = Duration> {
    (0..ROUNDS).map(move |round| whole * round / (ROUNDS - ROUNDS / 8))
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}

fn setup_ca(root: &Path) -> Command {
    let mut command = program(&binary());
    command.arg("--root").arg(root).arg("setup-ca");
    command
}

#[test]
fn a_ca_is_whole_or_not_there() {
    let dir = tempfile::tempdir().unwrap();
    let whole = timed(|| drop(finish(setup_ca(&dir.path().join("timed")), "").exits(0)));
    let mut made = 0;
    for (round, moment) in moments(whole).enumerate() {
        let root = dir.path().join(round.to_string());
        let etc = root.join("etc/ctrl-exec");
        interrupt(setup_ca(&root), moment);
        let was_made = etc.join("ca.key").exists();
        made += u32::from(was_made);
        finish(setup_ca(&root), "").exits(i32::from(was_made));
        let read = |name| std::fs::read_to_string(etc.join(name)).unwrap();
        assert!(Ca::load(&read("ca.key"), &read("ca.crt")).is_ok(), "round {round}");
    }
    assert!(made < ROUNDS, "no command was interrupted early");
}

#[test]
fn a_dispatcher_s_certificate_can_be_made_after_any_interruption() {
    let site = Site::builder().agents(0).prepare();
    let etc = site.control.join("etc/ctrl-exec");
    let setup = || site.control_command(&["setup-ctrl-exec"]);
    let whole = timed(|| drop(finish(setup(), "").exits(0)));
    for moment in moments(whole) {
        interrupt(setup(), moment);
        let read = |name| std::fs::read_to_string(etc.join(name)).unwrap();
        for (file, label) in [("dispatcher.key", "PRIVATE KEY"), ("dispatcher.crt", "CERTIFICATE")] {
            let text = read(file);
            assert!(text.trim_end().ends_with(&format!("-----END {label}-----")), "{file} is half written: {text}");
        }
    }
    finish(setup(), "").exits(0);
    let identity = site.dispatcher();
    assert!(Identity::load(&identity.cert, &identity.key).is_ok());
    site.control(&["check-config"]).exits(0);
}

#[test]
fn a_record_is_the_old_or_the_new_one() {
    let site = Site::builder().agents(0).prepare();
    site.register("web", 7443, &pki::issue(&site.authority(), "web"));
    let edit = |port: u32| site.control_command(&["edit-agent", "web", "--agent-port", &port.to_string()]);
    let whole = timed(|| drop(finish(edit(10_000), "").exits(0)));
    let mut last = 10_000;
    for (port, moment) in (10_001_u32..).zip(moments(whole)) {
        interrupt(edit(port), moment);
        let record: Value = serde_json::from_str(&std::fs::read_to_string(site.record("web")).unwrap()).unwrap();
        let now = u32::try_from(record["port"].as_u64().unwrap()).unwrap();
        assert!(now == last || now == port, "{now} is neither {last} nor {port}");
        last = now;
    }
    finish(edit(20_000), "").exits(0);
}

#[test]
fn a_renaming_loses_no_agent() {
    let site = Site::builder().agents(0).prepare();
    site.register("web", 7443, &pki::issue(&site.authority(), "web"));
    let (mut old, mut new) = ("web", "www");
    let rename = |old: &str, new: &str| site.control_command(&["edit-agent", old, "--rename", new]);
    let whole = timed(|| drop(finish(rename(old, new), "").exits(0)));
    std::mem::swap(&mut old, &mut new);
    for moment in moments(whole) {
        interrupt(rename(old, new), moment);
        assert!(site.record(old).exists() || site.record(new).exists());
        if site.record(old).exists() {
            finish(rename(old, new), "").exits(0);
        }
        let list = site.control(&["--json", "list-agents"]).exits(0).json();
        assert_eq!((list.as_array().unwrap().len(), &list[0]["hostname"]), (1, &new.into()), "{list}");
        std::mem::swap(&mut old, &mut new);
    }
}
