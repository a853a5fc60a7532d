//! A root executor that lacks a capability for its own work, and an agent that does not start: one cause, told once.

use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::executor::{Mode, Service};
use crate::harness::process::{Ran, finish, program};
use crate::harness::{Agent, Site, binary};

/// This program without a capability.
fn without(missing: &str, words: &[&str]) -> Command {
    let mut command = program(Path::new("setpriv"));
    command.arg(format!("--bounding-set=-{missing}")).arg(binary()).args(words);
    command
}

fn agent(site: &Site, missing: &str, words: &[&str]) -> Ran {
    let root = site.agent().root.to_str().unwrap();
    finish(without(missing, &[&["agent", "--root", root], words].concat()), "")
}

/// That the capability, and what to do about it, is told once.
#[track_caller]
fn is_named(text: &str, missing: &str) {
    let name = missing.to_uppercase();
    assert_eq!(text.matches("the executor is not permitted to ").count(), 1, "{text}");
    assert!(text.contains(&format!(": it has no CAP_{name} (")) && text.contains("CapabilityBoundingSet="), "{text}");
    assert!(text.contains(&format!("--cap-add {name})")), "{text}");
}

#[test]
fn an_executor_without_a_capability_for_its_own_work_does_not_start_and_every_forecast_says_so() {
    for missing in ["sys_admin", "sys_chroot", "setpcap", "setgid", "setuid", "kill"] {
        let site = Site::builder().executor(Mode::Own).sh("ok", "true").prepare();
        let ran = agent(&site, missing, &["serve"]).exits(78);
        assert!(ran.stderr.contains("Error: the executor cannot serve: the executor is not permitted to "), "{ran:?}");
        assert_eq!(ran.stderr.matches("Error: ").count(), 1, "{ran:?}");
        assert!(ran.stderr.contains("\nhint: or do without profiles: 'serve --unprivileged'"), "{ran:?}");
        is_named(&ran.stderr, missing);

        let ran = agent(&site, missing, &["self-check"]).exits(1);
        let line = ran.stdout.lines().find(|line| line.starts_with("  Executor: every run is refused here: "));
        is_named(line.unwrap_or_default(), missing);
        assert!(!ran.stdout.contains("Profiles OK") && !ran.stdout.contains("[ok]"), "{ran:?}");

        let ran = agent(&site, missing, &["explain", "ok"]);
        is_named(&format!("{}{}", ran.stdout, ran.stderr), missing);
        // Without some it does not even get to see what the agent would.
        let blind = ["setgid", "setuid"].contains(&missing);
        assert!(ran.code == if blind { 78 } else { 1 } && (blind || ran.stdout.contains("not-confined")), "{ran:?}");

        let etc = site.agent().root.join("etc/ctrl-exec-agent");
        let [config, scripts] = ["agent.conf", "scripts.conf"].map(|name| etc.join(name).display().to_string());
        let words = ["serve-executor", "resolve", &config, &scripts, "ok"];
        let mut command = without(missing, &words);
        command.env("CTRL_EXEC_ROOT", &site.agent().root);
        let ran = finish(command, "").exits(0);
        assert_eq!(ran.stdout, "DENY not-confined\n", "{ran:?}");
        is_named(&ran.stderr, missing);

        // As a service of the system it says the same.
        let words = format!("set -- setpriv --bounding-set=-{missing} \"$@\"");
        let command = Service::command_after(&words, &site.agent().root, &site.agent().root.join("x.sock"));
        let ran = finish(command, "").exits(78);
        assert!(ran.stderr.starts_with("Error: the executor is not permitted to "), "{ran:?}");
        is_named(&ran.stderr, missing);
    }
}

#[test]
fn an_executor_that_can_do_its_work_starts_without_any_other_capability() {
    let mut site = Site::builder().executor(Mode::Own).sh("ok", "true").prepare();
    let few = "all,+sys_admin,+sys_chroot,+setpcap,+setgid,+setuid,+kill";
    let said = agent(&site, few, &["explain", "ok"]).exits(0).stdout;
    assert!(!said.contains("not permitted"), "{said}");
    let words = format!("set -- setpriv --bounding-set=-{few} \"$@\"");
    site.agent_mut().start_with(&words, [Stdio::null(), Stdio::null()]);
    site.register("agent1", site.agent().address().port(), &site.agent().credentials);
    assert_eq!(site.result("ok", &[])["exit"], 0);
}

/// That this start fails with this status, and says why once.
#[track_caller]
fn told_once(agent: &Agent, status: i32, cause: &str) {
    // The executor's process writes there too: all of it is read when both are gone.
    let ran = agent.command(&["serve"]).exits(status);
    assert_eq!(ran.stderr.matches("Error: ").count(), 1, "{ran:?}");
    assert_eq!(ran.stderr.matches(cause).count(), 1, "{cause}: {ran:?}");
    assert!(!ran.stderr.contains("lost its socket") && !ran.stderr.contains("Broken pipe"), "{ran:?}");
}

fn rewritten(from: &str, to: &str) -> Site {
    let site = Site::builder().executor(Mode::Own).sh("ok", "true").prepare();
    let text = std::fs::read_to_string(site.agent().config()).unwrap();
    assert!(text.contains(from), "{from}: {text}");
    std::fs::write(site.agent().config(), text.replace(from, to)).unwrap();
    site
}

#[test]
fn a_start_that_fails_tells_its_one_cause_once() {
    // The executor does not take the configuration, of which the agent sees nothing wrong.
    let bare = Site::builder().executor(Mode::Own).section("[profile bare]\nrun_as = nobody\n").prepare();
    told_once(bare.agent(), 78, "Profile 'bare': run_as 'nobody' is the agent's own account");
    // The agent itself cannot go on, while its executor starts or after that.
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    for _ in 0..3 {
        told_once(rewritten("port = 0\n", &format!("port = {port}\n")).agent(), 69, &format!("127.0.0.1:{port}"));
        told_once(
            rewritten("user = nobody\n", "user = no-such-account\n").agent(),
            78,
            "the account 'no-such-account'",
        );
    }
}
