//! The units of service managers: what they accept, and what must stand in them.

use std::path::Path;
use std::process::Command;

use crate::harness::agent::write_executable;
use crate::harness::executor::Mode;
use crate::harness::process::{finish, program};
use crate::harness::{Site, binary};

const INIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/init");
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
        "RuntimeDirectoryPreserve=yes",
        "KillMode=process",
        "Delegate=yes",
        "Wants=ctrl-exec-runs.service",
        "After=ctrl-exec-runs.service",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    let runs = std::fs::read_to_string(Path::new(UNITS).join("ctrl-exec-runs.service")).unwrap();
    for line in ["Type=exec", "Delegate=yes", "KillMode=process", "Restart=always"] {
        assert!(runs.lines().any(|found| found == line), "{line}: {runs}");
    }
    assert!(!text.contains("Protect") && !text.contains("Private"), "a sandbox here would be every script's");
    let text = std::fs::read_to_string(Path::new(UNITS).join("ctrl-exec-exec.socket")).unwrap();
    for line in ["ListenStream=/run/ctrl-exec-agent/exec.sock", "SocketMode=0600", "SocketUser=ctrl-exec-agent"] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}

#[test]
fn the_agent_s_unit_starts_what_is_documented_and_no_stop_ends_a_job() {
    let text = std::fs::read_to_string(Path::new(UNITS).join("ctrl-exec-agent.service")).unwrap();
    for line in [
        "Type=notify",
        "User=ctrl-exec-agent",
        "ExecStartPre=+/usr/local/bin/ctrl-exec-agent promote-cert",
        "ExecStart=/usr/local/bin/ctrl-exec-agent serve",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "Restart=on-failure",
        "RestartSec=5",
        "RestartPreventExitStatus=78",
        "TimeoutStopSec=10",
        "KillMode=process",
        "StateDirectory=ctrl-exec-agent",
        "StateDirectoryMode=0750",
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    let text = std::fs::read_to_string(Path::new(UNITS).join("ctrl-exec-agent.socket")).unwrap();
    assert!(text.lines().any(|line| line == "ListenStream=7443"), "{text}");
    let text = std::fs::read_to_string(Path::new(UNITS).join("ctrl-exec-agent-renew.timer")).unwrap();
    for line in ["OnBootSec=10min", "OnUnitActiveSec=1d", "Persistent=true"] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
}

/// `systemd-analyze security`: ten times the exposure, which is from 0 to 10.
#[test]
fn what_has_no_need_of_rights_has_few() {
    for unit in ["ctrl-exec-agent.service", "ctrl-exec-agent-renew.service"] {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", "--threshold=20", "--no-pager"]).arg(Path::new(UNITS).join(unit));
        finish(command, "").exits(0);
    }
}

/// What stands in for the init systems' own functions: each says its name and its words.
const STUB: &str = "\
for name in checkpath eerror ebegin eend procd_open_instance procd_set_param procd_close_instance; do
    eval \"$name() { echo $name \\\"\\$@\\\"; }\"
done
logger() { shift 4; echo logged \"$@\"; }
kill() { echo kill \"$@\"; }
";

/// Calls a function of another init system's script on a host, and returns its status and what was said.
fn call(site: &Site, script: &str, function: &str) -> (i32, String) {
    let agent = site.agent();
    let name = agent.root.join("bin/ctrl-exec-agent");
    std::fs::create_dir_all(agent.root.join("bin")).unwrap();
    drop(std::os::unix::fs::symlink(binary(), &name));
    write_executable(&agent.root.join("bin/supervise-daemon"), "#!/bin/sh\necho supervise-daemon \"$@\"\n");
    let place = |path: &Path| path.display().to_string();
    let text = std::fs::read_to_string(Path::new(INIT).join(script)).unwrap();
    let text = text.replace("/usr/local/bin/ctrl-exec-agent", &place(&name));
    let text = text.replace("/etc/ctrl-exec-agent", &place(&agent.root.join("etc/ctrl-exec-agent")));
    let text = text.replace("/var/run/", &place(&agent.root.join("run/")));
    let mut command = program(Path::new("/bin/sh"));
    command.args(["-uc", &format!("RC_SVCNAME=ctrl-exec-agent\n{STUB}{text}\n{function}")]);
    let path = std::env::var("PATH").unwrap();
    command.env("PATH", format!("{}:{path}", place(&agent.root.join("bin")))).env("CTRL_EXEC_ROOT", &agent.root);
    let ran = finish(command, "");
    (ran.code, ran.stdout + &ran.stderr)
}

#[test]
fn every_init_script_is_one_and_executable() {
    for init in ["openrc", "procd"] {
        for entry in std::fs::read_dir(Path::new(INIT).join(init)).unwrap() {
            let path = entry.unwrap().path();
            let mut command = Command::new("/bin/sh");
            command.arg("-n").arg(&path);
            assert_eq!(finish(command, "").exits(0).stderr, "");
            let mode = std::os::unix::fs::PermissionsExt::mode(&path.metadata().unwrap().permissions());
            assert_eq!(mode & 0o111, 0o111, "{}", path.display());
        }
    }
}

#[test]
fn procd_starts_an_agent_that_could_serve_and_no_other() {
    let site = Site::builder().executor(Mode::Private).prepare();
    let agent = site.agent();
    let (code, said) = call(&site, "procd/ctrl-exec-agent", "start_service");
    assert_eq!(code, 0, "{said}");
    for line in [
        &format!("procd_set_param command {}/bin/ctrl-exec-agent serve", agent.root.display()),
        "procd_set_param user ctrl-exec-agent",
        &format!("procd_set_param pidfile {}/run/ctrl-exec-agent.pid", agent.root.display()),
        "procd_set_param respawn 3600 5 0",
        "procd_set_param stdout 0",
        "procd_set_param stderr 1",
    ] {
        assert!(said.lines().any(|found| found == line), "{line}: {said}");
    }
    std::fs::write(agent.root.join("run/ctrl-exec-agent.pid"), "4711").unwrap();
    assert_eq!(call(&site, "procd/ctrl-exec-agent", "reload_service"), (0, "kill -HUP 4711\n".to_owned()));
    assert_eq!(call(&site, "procd/ctrl-exec-agent", "upgrade"), (0, "kill -USR2 4711\n".to_owned()));
    let good = std::fs::read_to_string(agent.config()).unwrap();
    std::fs::write(agent.config(), format!("prot = 1\n{good}")).unwrap();
    let (code, said) = call(&site, "procd/ctrl-exec-agent", "start_service");
    assert!(code == 1 && said.contains("logged not started: ") && said.contains("agent.conf:1:1:"), "{said}");
    assert!(!said.contains("procd_open_instance"), "{said}");
    std::fs::write(agent.config(), good).unwrap();
    std::fs::remove_file(agent.root.join("etc/ctrl-exec-agent/agent.crt")).unwrap();
    let (code, said) = call(&site, "procd/ctrl-exec-agent", "start_service");
    assert!(code == 1 && said.contains("logged not started: Error: not paired: missing file"), "{said}");
    assert!(!said.contains("procd_open_instance"), "{said}");
}

#[test]
fn openrc_starts_an_agent_that_could_serve_and_no_other() {
    let site = Site::builder().executor(Mode::Private).prepare();
    let agent = site.agent();
    let (code, said) = call(&site, "openrc/ctrl-exec-agent", "start_pre");
    assert!(code == 0 && said.contains("checkpath --directory --mode 0750"), "{said}");
    let (_, said) = call(&site, "openrc/ctrl-exec-agent", "upgrade");
    assert!(said.contains("supervise-daemon ctrl-exec-agent --signal USR2 --pidfile "), "{said}");
    let good = std::fs::read_to_string(agent.config()).unwrap();
    std::fs::write(agent.config(), format!("prot = 1\n{good}")).unwrap();
    let (code, said) = call(&site, "openrc/ctrl-exec-agent", "start_pre");
    assert!(code != 0 && said.contains("agent.conf:1:1:"), "{said}");
    std::fs::remove_file(agent.root.join("etc/ctrl-exec-agent/agent.crt")).unwrap();
    std::fs::write(agent.config(), good).unwrap();
    let (code, said) = call(&site, "openrc/ctrl-exec-agent", "start_pre");
    assert!(code != 0 && said.contains("Error: not paired: missing file"), "{said}");
}
