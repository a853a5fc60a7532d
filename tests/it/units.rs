//! The units of service managers: what they accept, and what must stand in them.

use std::path::Path;
use std::process::Command;

use crate::harness::binary;
use crate::harness::process::finish;

const UNITS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/init/systemd");

#[test]
fn systemd_has_nothing_to_say_about_a_unit() {
    let dir = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(UNITS).unwrap() {
        let path = entry.unwrap().path();
        // The program is not installed where the units expect it, and systemd looks.
        let text = std::fs::read_to_string(&path).unwrap();
        let here = binary().display().to_string();
        let text =
            text.replace("/usr/local/sbin/ctrl-exec-exec", &here).replace("/usr/local/bin/ctrl-exec-agent", &here);
        std::fs::write(dir.path().join(path.file_name().unwrap()), text).unwrap();
    }
    let units = std::fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path());
    let mut command = Command::new("systemd-analyze");
    command.arg("verify").args(units);
    let ran = finish(command, "").exits(0);
    assert_eq!(ran.stderr, "");
}

#[test]
fn the_executor_s_unit_starts_what_is_documented() {
    let text = std::fs::read_to_string(Path::new(UNITS).join("ctrl-exec-exec.service")).unwrap();
    for line in [
        "ExecStart=/usr/local/sbin/ctrl-exec-exec serve /run/ctrl-exec-agent/exec.sock \
         /etc/ctrl-exec-agent/agent.conf /etc/ctrl-exec-agent/scripts.conf ctrl-exec-agent",
        "Restart=on-failure",
        "RestartSec=5",
        "RuntimeDirectory=ctrl-exec-agent",
        "RuntimeDirectoryMode=0755",
        "KillMode=process",
        "Delegate=yes",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    assert!(!text.contains("Protect") && !text.contains("Private"), "a sandbox here would be every script's");
    let text = std::fs::read_to_string(Path::new(UNITS).join("ctrl-exec-exec.socket")).unwrap();
    for line in ["ListenStream=/run/ctrl-exec-agent/exec.sock", "SocketMode=0600", "SocketUser=ctrl-exec-agent"] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}
