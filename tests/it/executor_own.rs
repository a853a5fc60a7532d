//! An agent that is started as root: its executor stays root, and it does not.

use std::os::unix::process::CommandExt as _;

use nix::sys::signal::Signal;

use crate::harness::background::Background;
use crate::harness::executor::Mode;
use crate::harness::process::{Ran, finish, program};
use crate::harness::site::Builder;
use crate::harness::{Site, binary, eventually, host, tls};

const WAIT: &str = "echo up > {work}/up; while [ ! -e {work}/go ]; do sleep 0.02; done; echo done";

fn builder() -> Builder {
    Site::builder().executor(Mode::Own).sh("ok", "echo ran as $(id -un)").sh("wait", WAIT)
}

/// The lines of `/proc/PID/status` by their keys.
fn status(pid: u32, key: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    value.unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_agent_gives_root_up_for_good_and_its_executor_keeps_it() {
    let site = builder().start();
    let agent = site.agent();
    assert_eq!(status(agent.pid(), "Uid"), "65534 65534 65534 65534");
    assert_eq!(status(agent.pid(), "Gid"), "65534 65534 65534 65534");
    assert_eq!(status(agent.pid(), "Groups"), "65534");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(status(agent.pid(), set), "0000000000000000", "{set}");
    }
    assert_eq!(status(agent.pid(), "NoNewPrivs"), "1");
    assert_eq!(status(agent.executor(), "Uid"), "0 0 0 0");
    assert_eq!(status(agent.executor(), "Threads"), "1");
    let network = |pid| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(network(agent.executor()), network(agent.pid()));
    assert_eq!(network(agent.executor()), network(agent.keeper()));
    assert_eq!(site.result("ok", &[])["stdout"], format!("ran as {}\n", Mode::SCRIPTS));
}

#[test]
fn a_script_with_network_has_the_host_s() {
    let own = std::fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
    for mode in Mode::ALL {
        let sections = "[profile alone]\nrun_as = daemon\nnetwork = no\n";
        let site = Site::builder().executor(mode).section(sections).sh("net", "readlink /proc/self/ns/net");
        let site = site.allow("alone = {scripts}/net profile=alone").start();
        assert_eq!(site.result("net", &[])["stdout"], format!("{own}\n"), "{mode:?}");
        let alone = site.result("alone", &[])["stdout"].as_str().unwrap().trim().to_owned();
        assert_eq!(alone != own, mode != Mode::Private, "{mode:?} {alone}");
    }
}

#[test]
fn an_executor_that_dies_is_replaced_and_runs_under_way_notice_nothing() {
    let site = builder().start();
    let agent = site.agent();
    let run = Background::start(site.control_command(&["--json", "run", "agent1", "wait"]));
    agent.worked("up");
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGABRT] {
        let killed = agent.executor();
        host::kill(killed, signal);
        eventually("its end", || (!host::alive(killed)).then_some(()));
        assert_ne!(agent.executor(), killed);
        assert!(site.result("ok", &[])["stdout"].as_str().unwrap().starts_with("ran as "));
    }
    agent.line_where("exec-restart", |line| line.get("SIGNAL") == Some("9"));
    agent.reload().is(&["ACTION=reload", "RESULT=ok"]);
    std::fs::write(agent.work("go"), "").unwrap();
    assert_eq!(run.end().exits(0).result()["stdout"], "done\n");
    eventually("no zombie of a monitor", || (host::zombies(agent.keeper()) == 0).then_some(()));
}

#[test]
fn an_executor_that_comes_back_to_a_broken_configuration_runs_nothing_until_it_is_mended() {
    let site = builder().start();
    let agent = site.agent();
    let good = std::fs::read_to_string(agent.allowlist()).unwrap();
    std::fs::write(agent.allowlist(), format!("{good}x = /x # why\n")).unwrap();
    host::kill(agent.executor(), Signal::SIGKILL);
    let refused = site.result("ok", &[]);
    assert_eq!((&refused["exit"], &refused["reason"]), (&(-1).into(), &"executor-configuration".into()), "{refused}");
    assert!(agent.line("exec-reload-fail").get("ERROR").unwrap().contains("scripts.conf:"));
    std::fs::write(agent.allowlist(), good).unwrap();
    assert!(site.result("ok", &[])["stdout"].as_str().unwrap().starts_with("ran as "));
}

#[test]
fn an_agent_that_has_lost_executor_and_keeper_ends_with_69_and_says_why() {
    let mut site = builder().start();
    let (keeper, executor) = (site.agent().keeper(), site.agent().executor());
    host::kill(keeper, Signal::SIGKILL);
    eventually("the end of the keeper", || (!host::alive(keeper)).then_some(()));
    assert!(site.result("ok", &[])["stdout"].as_str().unwrap().starts_with("ran as "), "the executor is still there");
    assert!(!site.agent_mut().has_ended());
    host::kill(executor, Signal::SIGKILL);
    // Nobody has to send an order for it.
    let stderr = site.agent().stderr_path();
    assert_eq!(site.agent_mut().wait(), Some(69));
    let said = std::fs::read_to_string(stderr).unwrap();
    assert!(said.contains("Error: the executor is gone, and an agent that has given up root cannot start"), "{said}");
    assert!(said.contains("\nhint: start the agent again"), "{said}");
}

#[test]
fn nothing_is_left_when_the_agent_ends() {
    for kill in [false, true] {
        let mut site = builder().start();
        let all = [site.agent().pid(), site.agent().keeper(), site.agent().executor()];
        if kill {
            site.agent_mut().kill();
        } else {
            assert_eq!(site.agent_mut().stop(), Some(0));
        }
        eventually("the end of all three", || all.iter().all(|pid| !host::alive(*pid)).then_some(()));
    }
}

#[test]
fn what_a_root_executor_refuses_keeps_the_agent_from_starting() {
    let site = builder().prepare();
    let text = std::fs::read_to_string(site.agent().config()).unwrap();
    std::fs::write(site.agent().config(), text + "[profile bare]\ntimeout = 1\n").unwrap();
    let ran = site.agent().command(&["serve"]).exits(78);
    assert!(ran.stderr.contains("no run_as: its scripts would run as root"), "{ran:?}");
    let site = builder().section("[profile own]\nrun_as = nobody\n").prepare();
    let ran = site.agent().command(&["serve"]).exits(78);
    assert!(ran.stderr.contains("Profile 'own': run_as 'nobody' is the agent's own account"), "{ran:?}");
    let site = builder().prepare();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o646);
    std::fs::set_permissions(site.agent().config(), mode).unwrap();
    let ran = site.agent().command(&["serve"]).exits(78);
    assert!(ran.stderr.contains("has mode 0646, writable by others than root"), "{ran:?}");
    let checked = site.agent().command(&["self-check"]).exits(1).stdout;
    assert!(checked.contains("  Executor: ") && checked.contains("has mode 0646"), "{checked}");
}

#[test]
fn a_script_that_another_could_have_written_does_not_run_unless_that_is_lifted() {
    for mode in Mode::ROOT {
        let mut site = Site::builder().executor(mode).sh("ok", "echo ran").start();
        let script = site.agent().root.join("scripts/ok");
        let set = |mode| std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        set(0o775);
        let refused = site.result("ok", &[]);
        assert_eq!(
            (&refused["error"], &refused["reason"]),
            (&"script not permitted".into(), &"script-not-trusted".into())
        );
        let checked = site.agent().command(&["self-check"]).exits(1).stdout;
        assert!(checked.contains("[NOT TRUSTED: ") && checked.contains("has mode 0775"), "{checked}");
        set(0o755);
        let scripts = site.agent().root.join("scripts");
        std::os::unix::fs::chown(&scripts, Some(1), None).unwrap();
        assert_eq!(site.result("ok", &[])["reason"], "script-not-trusted");
        let config = site.agent().config();
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, format!("trusted_paths = no\n{text}")).unwrap();
        site.agent().reload().is(&["ACTION=reload", "RESULT=ok"]);
        assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
        site.agent_mut().stop();
        site.start(0);
        assert!(site.agent().stderr().contains("agent.conf:1: trusted_paths is off: whoever may write"));
    }
}

#[test]
fn a_check_that_finds_nothing_passes_with_each_executor() {
    for (mode, text) in [
        (Mode::Private, "  Executor: private; scripts run with the agent's own rights\n"),
        (Mode::Own, "  Executor: the agent's own, as root; started with the agent\n"),
        (Mode::System, "  Executor OK ("),
    ] {
        let site = Site::builder().executor(mode).sh("ok", "true").start();
        let said = site.agent().command(&["self-check"]).exits(0).stdout;
        assert!(said.contains(text) && said.contains("(profile: default) [ok]\n"), "{said}");
    }
}

/// As an account that is neither root's nor, if it is not 65534, the agent's.
fn as_account(site: &Site, uid: u32, words: &[&str]) -> Ran {
    let mut command = program(&binary());
    command.args(["agent", "--root"]).arg(&site.agent().root).args(words);
    let mut command = host::unprivileged(&command, site.dir());
    command.uid(uid).gid(uid);
    finish(command, "")
}

#[test]
fn who_did_not_start_the_agent_is_not_told_of_an_executor_that_it_may_not_have() {
    let mut site = Site::builder().executor(Mode::Own).sh("ok", "true").prepare();
    let text = std::fs::read_to_string(site.agent().config()).unwrap();
    let port = format!("port = {}\n", host::own_port());
    std::fs::write(site.agent().config(), text.replace("port = 0\n", &port)).unwrap();
    site.start(0);
    for uid in [65_534, 1] {
        let ran = as_account(&site, uid, &["explain", "ok"]).exits(77);
        assert!(ran.stderr.contains("was not started by this user") && ran.stderr.contains("hint: run it as root"));
        assert!(ran.stdout.is_empty(), "{ran:?}");
        let ran = as_account(&site, uid, &["self-check"]);
        assert!(ran.code != 0 && !ran.stdout.contains("Executor: private"), "{ran:?}");
        assert!(ran.stdout.contains("  Executor: whoever listens on port "), "{ran:?}");
        // What is asked for by name is answered.
        let ran = as_account(&site, uid, &["explain", "--unprivileged", "ok"]).exits(0);
        assert!(ran.stdout.contains("private: scripts have the agent's own rights"), "{ran:?}");
    }
    site.agent().command(&["explain", "ok"]).exits(0);
    site.agent_mut().stop();
    let ran = as_account(&site, 65_534, &["explain", "ok"]).exits(0);
    assert!(ran.stdout.contains("private, of an agent that this user starts: "), "{ran:?}");
    let ran = as_account(&site, 65_534, &["self-check"]).exits(0);
    assert!(ran.stdout.contains("  Executor: private, if this user starts the agent and not root; "), "{ran:?}");
}

#[test]
fn without_the_system_s_executor_an_agent_serves_and_each_run_says_so() {
    let mut site = Site::builder().executor(Mode::System).sh("ok", "echo ran").start();
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
    assert_eq!(site.agent_mut().take_service().end(Signal::SIGTERM), Some(0));
    let failed = site.result("ok", &[]);
    assert_eq!((&failed["exit"], &failed["reason"]), (&(-1).into(), &"executor-failed".into()), "{failed}");
    assert!(
        failed["stderr"].as_str().unwrap().starts_with("executor unreachable: No such file or directory"),
        "{failed}"
    );
    // An executor that cannot be asked has found nothing broken: the front-end's part of the configuration is taken, and
    // the log says what is left to be done.
    assert_eq!(site.agent().reload().get("RESULT"), Some("ok"));
    let told = site.agent().line("executor-unreachable");
    assert!(told.get("REASON").unwrap().contains("no executor can be reached at "), "{told:?}");
    let checked = site.agent().command(&["self-check"]).exits(1).stdout;
    assert!(checked.contains("  Executor: no executor can be reached at "), "{checked}");
    // The agent itself starts without it, and uses it as soon as it is there.
    site.agent_mut().stop();
    site.agent_mut().start_alone();
    site.agent().line("executor-unreachable").is(&["ACTION=executor-unreachable", "REASON=*"]);
    site.agent_mut().start_service();
    site.register("agent1", site.agent().address().port(), &site.agent().credentials);
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
}

#[test]
fn a_revoked_dispatcher_is_not_served_because_the_executor_is_down() {
    let mut site = Site::builder().executor(Mode::System).sh("ok", "echo ran").start();
    assert_eq!(site.agent_mut().take_service().end(Signal::SIGTERM), Some(0));
    std::fs::write(site.agent().revoked(), format!("{}\n", site.dispatcher().serial())).unwrap();
    assert_eq!(site.agent().reload().get("RESULT"), Some("ok"));
    let refused = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher()).post("/ping", "{}");
    assert_eq!(refused.status, 403, "{refused:?}");
}

#[test]
fn an_executor_that_was_not_told_of_a_reload_never_gets_an_order_before_it_is() {
    let site = Site::builder().executor(Mode::System).sh("ok", "echo ran").start();
    let executor = site.agent().executor();
    host::kill(executor, Signal::SIGSTOP);
    let text = std::fs::read_to_string(site.agent().config()).unwrap();
    std::fs::write(site.agent().config(), text.replace("run_as = ", "timeout = 60\nrun_as = ")).unwrap();
    assert_eq!(site.agent().reload().get("RESULT"), Some("ok"));
    host::kill(executor, Signal::SIGCONT);
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
    // The word that it could not hear then, and the one before the order.
    eventually("both reloads", || (site.agent().lines("exec-reload").len() == 2).then_some(()));
}

#[test]
fn a_socket_that_is_not_root_s_gets_no_orders() {
    let mut site = Site::builder().executor(Mode::System).sh("ok", "echo ran").prepare();
    let socket = site.agent().socket();
    let _impostor = host::listen_as_agent(&socket);
    site.agent_mut().start_alone();
    site.register("agent1", site.agent().address().port(), &site.agent().credentials);
    let failed = site.result("ok", &[]);
    assert!(failed["stderr"].as_str().unwrap().contains("is served by uid 65534, and not by root"), "{failed}");
}

#[test]
fn runs_with_different_capabilities_take_turns_and_each_has_its_own() {
    const SETS: [(&str, &str); 3] = [("none", "0"), ("bind", "400"), ("own", "1")];
    for mode in Mode::ROOT {
        let mut builder = Site::builder().executor(mode).sh("none", "grep ^Cap /proc/self/status");
        for (name, caps) in [("bind", "CAP_NET_BIND_SERVICE"), ("own", "CAP_CHOWN")] {
            builder = builder.allow(&format!("{name} = {{scripts}}/none profile={name}"));
            builder = builder.section(&format!("[profile {name}]\ncaps = {caps}"));
        }
        let site = builder.start();
        // The second time, it is a monitor's that has served the others.
        for (script, set) in [SETS, SETS].concat() {
            let said = site.result(script, &[])["stdout"].as_str().unwrap().to_owned();
            assert_eq!(said.lines().count(), 5, "{said}");
            assert!(said.lines().all(|line| line.ends_with(&format!("\t{set:0>16}"))), "{mode:?} {script}: {said}");
        }
        let agent = site.agent();
        eventually("no monitor", || host::children(agent.executor()).is_empty().then_some(()));
        eventually("no zombie", || (host::zombies(agent.executor()) == 0).then_some(()));
    }
}
