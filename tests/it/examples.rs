//! What ships as examples is used as it ships: the hook and its rules by a real dispatcher and a real agent, the
//! demonstrator as a script, with the system's shell and with `BusyBox`.

use serde_json::json;

use crate::harness::agent::write_executable;
use crate::harness::executor::Mode;
use crate::harness::{Site, tls};

const HOOK: &str = include_str!("../../assets/auth-hook.example");
const DEMONSTRATOR: &str = include_str!("../../assets/ctrl-exec-demonstrator");
const SHELLS: [&str; 2] = ["/bin/sh", "/usr/bin/busybox sh"];

/// The same, for another shell.
fn by(shell: &str, text: &str) -> String {
    let rest = text.strip_prefix("#!/bin/sh\n").unwrap();
    format!("#!{shell}\n{rest}")
}

/// The example hook with one of its rules taken up.
fn with_rule(number: u32) -> String {
    let head = format!("# Example {number}: ");
    let mut here = false;
    let line = |line: &str| {
        let rule = line.strip_prefix('#').filter(|_| here);
        here = line.starts_with(&head) || here && !line.is_empty();
        rule.unwrap_or(line).to_owned() + "\n"
    };
    let text: String = HOOK.lines().map(line).collect();
    assert_ne!(text, HOOK, "example {number}");
    text
}

/// A site whose both ends ask this hook.
fn asking(hook: &str) -> Site {
    let site = Site::builder()
        .agent_hook("exit 1")
        .hook("exit 1")
        .sh("ok", "echo ran")
        .sh("restore-database", "echo restored")
        .sh("restart-service", "echo restarted");
    let mut site = site.prepare();
    let token = site.control.join("hook-token");
    std::fs::write(&token, "t0k\n").unwrap();
    let hook = hook.replace("/etc/ctrl-exec/hook-token", &token.display().to_string());
    write_executable(&site.control.join("etc/ctrl-exec/auth-hook"), &hook);
    write_executable(&site.agent().root.join("etc/ctrl-exec-agent/auth-hook"), &hook);
    site.start(0);
    site
}

/// The exit status of a run, as the dispatcher's hook has it; and what the agent's hook says of the same.
fn ask(site: &Site, globals: &[&str], script: &str, args: &[&str]) -> (i32, String) {
    let ran = site.control(&[globals, &["run", "agent1", script, "--"], args].concat());
    let value = |flag: &str| globals.iter().skip_while(|word| **word != flag).nth(1).copied().unwrap_or_default();
    let body = json!({"script": script, "args": args, "username": value("--username"), "token": value("--token")});
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    let answer = http.post("/run", &body.to_string()).json();
    (ran.code, answer["error"].as_str().unwrap_or_default().to_owned())
}

fn allowed() -> (i32, String) {
    (0, String::new())
}

fn denied(reason: &str) -> (i32, String) {
    (1, format!("not authorised: {reason}"))
}

#[test]
fn the_example_hook_allows_everything_as_it_ships() {
    for shell in SHELLS {
        let site = asking(&by(shell, HOOK));
        assert_eq!(ask(&site, &[], "ok", &[]), allowed(), "{shell}");
        site.control(&["ping", "agent1"]).exits(0);
        site.agent().line("auth").is(&["ACTION=auth", "AUTHACTION=run", "IP=127.0.0.1", "RESULT=pass", "USER=*"]);
    }
}

#[test]
fn each_rule_of_the_example_hook_says_what_it_promises() {
    let (low, bad) = (denied("insufficient privilege"), denied("bad credentials"));
    for shell in SHELLS {
        let site = |number| asking(&by(shell, &with_rule(number)));
        let none = site(1);
        assert_eq!(ask(&none, &[], "ok", &[]), denied("denied"));
        none.control(&["ping", "agent1"]).exits(1);
        assert_eq!(ask(&site(2), &[], "ok", &[]), allowed());

        let token = site(3);
        assert_eq!(ask(&token, &["--token", "t0k"], "ok", &[]), allowed());
        for wrong in ["t0", "t0k ", "*"] {
            assert_eq!(ask(&token, &["--token", wrong], "ok", &[]), bad, "{wrong}");
        }
        assert_eq!(ask(&token, &[], "ok", &[]), bad);
        std::fs::write(token.control.join("hook-token"), "").unwrap();
        assert_eq!(ask(&token, &[], "ok", &[]), denied("denied"), "no token is no token that all know");

        let people = site(4);
        for (who, verdict) in [("alice", allowed()), ("bob", allowed()), ("eve", low.clone()), ("alice ", low.clone())]
        {
            assert_eq!(ask(&people, &["--username", who], "restore-database", &[]), verdict, "{who}");
        }
        assert_eq!(ask(&people, &["--username", "eve"], "ok", &[]), allowed());

        let arguments = site(5);
        for (args, verdict) in [
            (&["nginx"][..], allowed()),
            (&["php-fpm"], allowed()),
            (&[], low.clone()),
            (&["nginx", "php-fpm"], low.clone()),
            (&["nginx\"]"], low.clone()),
            (&["sshd"], low.clone()),
        ] {
            assert_eq!(ask(&arguments, &[], "restart-service", args), verdict, "{args:?}");
        }
        assert_eq!(ask(&arguments, &[], "ok", &["x"]), allowed());
    }
}

#[test]
fn the_demonstrator_shows_what_a_script_is_given() {
    for shell in SHELLS {
        let text = by(shell, DEMONSTRATOR);
        let site = Site::builder().executor(Mode::Own).script("ctrl-exec-demonstrator", &text).start();
        let demonstrate = |args: &[&str]| site.result("ctrl-exec-demonstrator", args);
        let shown = demonstrate(&[]);
        assert_eq!(shown["exit"], 0, "{shown}");
        let lines = shown["stdout"].as_str().unwrap();
        for head in
            ["host ", "account ", "directory    /\n", "new rights   none can be gained", "context ", "environment "]
        {
            assert!(lines.contains(head), "{head}: {lines}");
        }
        assert!(!lines.contains(" 0 bytes on standard input") && lines.contains("PATH"), "{lines}");
        let words = demonstrate(&["args", "a b", "", "$(id)", "-n", "*"]);
        assert_eq!(words["stdout"], "[a b]\n[]\n[$(id)]\n[-n]\n[*]\n");
        let streams = demonstrate(&["streams"]);
        assert_eq!(streams["stdout"], "this is standard output\n");
        assert_eq!(streams["stderr"], "this is standard error\n");
        assert_eq!(demonstrate(&["wait", "1"])["stdout"], "1 of 1 seconds\n");
        for (args, status) in [
            (&["exit", "0"][..], 0),
            (&["exit", "255"], 255),
            (&["exit", "256"], 64),
            (&["exit", "x"], 64),
            (&["exit"], 64),
            (&["wait", "-1"], 64),
            (&["else"], 64),
        ] {
            assert_eq!(demonstrate(args)["exit"], status, "{args:?}");
        }
        // The token is the caller's secret, also towards a script that shows everything else.
        let ran = site.control(&["--json", "--token", "s3cret", "run", "agent1", "ctrl-exec-demonstrator"]);
        assert!(!ran.stdout.contains("s3cret"), "{ran:?}");
    }
}
