//! Which executor `explain` and `self-check` speak of: the running agent's, whoever asks, and else one that somebody starts.

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;

use nix::sys::signal::Signal;

use crate::explain::{ended, said};
use crate::harness::executor::{Mode, Service};
use crate::harness::process::{Ran, finish, program};
use crate::harness::site::Builder;
use crate::harness::{Site, binary, eventually, host};

/// The agent's account.
const AGENT: u32 = 65_534;

const SECTION: &str = "[profile tight]\nrun_as = daemon\nwritable = {}\nnetwork = no";

fn builder(mode: Mode) -> Builder {
    let site = Site::builder().executor(mode).guarded().sh("ok", "id -u; ip link show lo >/dev/null && echo net");
    site.allow("tight = {scripts}/ok profile=tight").section(&SECTION.replace("{}", "/srv"))
}

/// The agent's command line without what says which executor is meant.
fn ask(site: &Site, words: &[&str]) -> Ran {
    let mut command = program(&binary());
    command.args(["agent", "--root"]).arg(&site.agent().root).args(words);
    finish(command, "")
}

fn ask_as(site: &Site, uid: u32, words: &[&str]) -> Ran {
    let mut command = program(&binary());
    command.args(["agent", "--root"]).arg(&site.agent().root).args(words);
    let mut command = host::unprivileged(&command, site.dir());
    command.uid(uid).gid(uid);
    finish(command, "")
}

/// That nothing in an explanation is of a root executor, and that its call runs.
#[track_caller]
fn is_private(ran: &Ran, agent: u32) {
    let json = ran.json();
    assert_eq!(said(ran), "runs", "{json}");
    let executor = json["executor"].as_str().unwrap();
    assert!(executor.starts_with(&format!("private, of the running agent (process {agent}, uid ")), "{executor}");
    assert!(json["surroundings"]["confinement"].is_null(), "{json}");
    assert!(!ran.stdout.contains("out of its reach") && !ran.stdout.contains("has what the profile needs"), "{json}");
}

#[test]
fn root_is_told_of_the_private_executor_that_the_running_agent_has() {
    let mut site = builder(Mode::Private).prepare();
    let as_its_account = format!("set -- setpriv --clear-groups --reuid {AGENT} --regid {AGENT} \"$@\"");
    for words in ["", &as_its_account] {
        site.agent_mut().start_with(words, [Stdio::null(), Stdio::null()]);
        let (name, port) = (site.agent().name.clone(), site.agent().address().port());
        site.register(&name, port, &site.agent().credentials);
        assert_eq!(site.result("tight", &[])["stdout"].as_str().unwrap().lines().next(), Some("65534"));
        let pid = site.agent().pid();
        is_private(&ask(&site, &["explain", "--json", "tight"]), pid);
        let told = ask(&site, &["explain", "tight"]).exits(0).stdout;
        assert!(told.contains("the agent's own account; nothing is confined"), "{told}");
        let checked = ask(&site, &["self-check"]).exits(0).stdout;
        assert!(!checked.contains("Profiles OK") && !checked.contains("as root"), "{checked}");
        let line = format!("  Executor: private, of the running agent (process {pid}); scripts run with its rights\n");
        assert!(checked.contains(&line) && checked.contains("  Warning: without a root executor "), "{checked}");
        // The agent's own account finds the same, and somebody else is told nothing.
        is_private(&ask_as(&site, AGENT, &["explain", "--json", "tight"]), pid);
        let ran = ask_as(&site, 1, &["explain", "tight"]).exits(77);
        assert!(ran.stderr.contains(&format!("process {pid}) was not started by this user")), "{ran:?}");
        assert_eq!(site.agent_mut().stop(), Some(0));
    }
    // One that root starts does not begin with this configuration.
    let told = ask(&site, &["explain", "--json", "tight"]).exits(78).stderr;
    assert!(told.contains("no run_as"), "{told}");
}

#[test]
fn an_agent_of_another_account_than_the_configured_one_is_looked_at_with_its_own_eyes() {
    let mut site = Site::builder().executor(Mode::Private).sh("closed", "id -u").prepare();
    let agent = site.agent();
    let bin = 2;
    for place in ["var/lib/ctrl-exec-agent", "var/lib/ctrl-exec-agent/ctrl-exec-dispatchers", "scripts/closed"] {
        chown(agent.root.join(place), Some(bin), Some(bin)).unwrap();
    }
    chown(agent.root.join("etc/ctrl-exec-agent/agent.key"), Some(bin), Some(bin)).unwrap();
    std::fs::set_permissions(agent.root.join("scripts/closed"), std::fs::Permissions::from_mode(0o700)).unwrap();
    let words = format!("set -- setpriv --init-groups --reuid {bin} --regid {bin} \"$@\"");
    site.agent_mut().start_with(&words, [Stdio::null(), Stdio::null()]);
    let (name, port) = (site.agent().name.clone(), site.agent().address().port());
    site.register(&name, port, &site.agent().credentials);
    let explained = ask(&site, &["explain", "--json", "closed"]);
    assert_eq!(said(&explained), ended(&site.result("closed", &[])));
    is_private(&explained, site.agent().pid());
    let checked = ask(&site, &["self-check"]).exits(0).stdout;
    assert!(checked.contains("  Account OK (checked as '2')\n"), "{checked}");
    // With the configured account's, it would not run.
    assert_eq!(said(&ask(&site, &["explain", "--json", "--unprivileged", "closed"])), "not-started exec");
}

#[test]
fn root_is_told_whether_the_executor_is_the_running_agents_or_that_of_one_which_root_starts() {
    let mut site = builder(Mode::Own).prepare();
    let executor = |site: &Site| ask(site, &["explain", "--json", "ok"]).exits(0).json()["executor"].clone();
    let none = "the agent's own, as root, of an agent that root starts; none runs now ";
    assert!(executor(&site).as_str().unwrap().starts_with(none));
    let checked = ask(&site, &["self-check"]).exits(0).stdout;
    assert!(checked.contains("  Executor: the agent's own, as root, if root starts the agent; none runs now "));
    site.start(0);
    let running = format!("the running agent's own, as root (process {})", site.agent().pid());
    assert_eq!(executor(&site), running.as_str());
    // Another service takes the place of one that is killed, and the keeper stays.
    let before = site.agent().executor();
    host::kill(before, Signal::SIGKILL);
    assert_eq!(executor(&site), running.as_str());
    eventually("another executor", || (site.agent().executor() != before).then_some(()));
    assert_eq!(executor(&site), running.as_str());
    // What is asked for by name is answered.
    let json = ask(&site, &["explain", "--json", "--unprivileged", "ok"]).exits(0).json();
    assert_eq!(json["executor"], "private: scripts have the agent's own rights and no profile is applied");
}

#[test]
fn a_socket_that_the_running_agent_does_not_know_is_not_taken_for_its_executor() {
    for mode in [Mode::Private, Mode::Own] {
        let site = builder(mode).start();
        let text = std::fs::read_to_string(site.agent().config()).unwrap();
        std::fs::write(site.agent().config(), format!("executor_socket = /run/none.sock\n{text}")).unwrap();
        let json = ask(&site, &["explain", "--json", "ok"]).exits(0).json();
        let executor = json["executor"].as_str().unwrap();
        assert!(executor.ends_with("; it was started without the executor_socket of now"), "{executor}");
        assert_eq!(json["surroundings"]["confinement"].is_null(), mode == Mode::Private, "{json}");
    }
}

#[test]
fn relative_files_serve_with_either_root_executor_and_are_resolved_alike() {
    for mode in Mode::ROOT {
        let mut site = Site::builder().executor(mode).sh("ok", "echo ran").prepare();
        let etc = site.agent().root.join("etc/ctrl-exec-agent");
        let relative = ["--config", "agent.conf", "--allowlist", "scripts.conf"];
        if mode == Mode::System {
            let mut command = program(&binary());
            command.arg("serve-executor").arg(site.agent().socket()).args(["agent.conf", "scripts.conf", "nobody"]);
            command.current_dir(&etc).env("CTRL_EXEC_ROOT", &site.agent().root);
            let root = site.agent().root.clone();
            site.agent_mut().adopt_service(Service::of(command, &root, 1));
        }
        let words = format!("cd {}; set -- \"$@\" {}", etc.display(), relative.join(" "));
        site.agent_mut().start_with(&words, [Stdio::null(), Stdio::null()]);
        let (name, port) = (site.agent().name.clone(), site.agent().address().port());
        site.register(&name, port, &site.agent().credentials);
        assert_eq!(site.result("ok", &[])["stdout"], "ran\n", "{mode:?}");
        site.agent().reload().is(&["ACTION=reload", "RESULT=ok"]);
        assert_eq!(site.result("ok", &[])["stdout"], "ran\n", "{mode:?}");
        let here = |words: &[&str]| {
            let mut command = program(&binary());
            command.args(words).current_dir(&etc).env("CTRL_EXEC_ROOT", &site.agent().root);
            finish(command, "")
        };
        let [a, b, c, d] = relative;
        let checked = here(&["agent", a, b, c, d, "self-check"]).exits(0).stdout;
        assert!(!checked.contains("not absolute"), "{checked}");
        let json = here(&["agent", a, b, c, d, "explain", "--json", "ok"]).exits(0).json();
        assert!(
            mode == Mode::System || json["executor"].as_str().unwrap().starts_with("the running agent's"),
            "{json}"
        );
        let resolved = here(&["serve-executor", "resolve", "agent.conf", "scripts.conf", "ok"]).exits(0).stdout;
        assert!(resolved.starts_with("OK path="), "{resolved}");
    }
}

#[test]
fn somebody_else_is_not_advised_to_take_the_agents_files_from_it() {
    let mut site = builder(Mode::Private).prepare();
    let group = 60;
    let etc = site.agent().root.join("etc/ctrl-exec-agent");
    chown(etc.join("agent.key"), Some(AGENT), Some(group)).unwrap();
    std::fs::set_permissions(etc.join("agent.key"), std::fs::Permissions::from_mode(0o640)).unwrap();
    host::give_to_agent(&site.agent().trust());
    for running in [false, true] {
        if running {
            site.start(0);
        }
        for words in [&["self-check"][..], &["self-check", "--unprivileged"]] {
            let ran = ask_as(&site, 1, words);
            assert!(ran.code != 0, "{ran:?}");
            for cure in ["chmod ", "chown ", "chgrp "] {
                assert!(!ran.stdout.contains(cure) && !ran.stderr.contains(cure), "{cure}: {ran:?}");
            }
            assert!(ran.stdout.contains("or as 'nobody', the agent's account"), "{ran:?}");
        }
    }
    // A list that it may not read is the agent's all the same.
    std::fs::set_permissions(site.agent().trust(), std::fs::Permissions::from_mode(0o600)).unwrap();
    let said = ask_as(&site, 1, &["self-check"]).stdout;
    let trust = said.split("  Trust: cannot open ").nth(1).unwrap().split("  Revocation").next().unwrap().to_owned();
    assert!(trust.contains("hint: run it as root, with sudo, or as 'nobody'"), "{said}");
}
