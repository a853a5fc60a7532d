//! What is logged where. The fields of refusals are tested where the refusals are.

use crate::harness::audit::Line;
use crate::harness::executor::Mode;
use crate::harness::log::Log;
use crate::harness::{Site, tls};

#[test]
fn an_agent_s_lines_have_the_documented_fields_in_their_order() {
    let site = Site::builder().sh("ok", "exit 3").start();
    let agent = site.agent();
    agent.line("revoked-serials-absent").is(&["ACTION=revoked-serials-absent", "PATH=*", "REASON=*"]);
    agent.line("start").is(&["ACTION=start", &format!("PORT={}", agent.address().port())]);
    let result = site.result("ok", &[]);
    let reqid = format!("REQID={}", result["reqid"].as_str().unwrap());
    let run = ["ACTION=run", "DISPATCHER=control-1", "EXIT=3", "PEER=127.0.0.1", &reqid, "SCRIPT=ok"];
    agent.line("run").is(&run);
    let ping = site.control(&["--json", "ping", "agent1"]).exits(0).result();
    let reqid = format!("REQID={}", ping["reqid"].as_str().unwrap());
    agent.line("ping").is(&["ACTION=ping", "DISPATCHER=control-1", "PEER=127.0.0.1", &reqid]);
    tls::connect(agent.address(), &site.authority(), &site.dispatcher()).get("/capabilities");
    agent.line("capabilities").is(&["ACTION=capabilities", "DISPATCHER=control-1", "PEER=127.0.0.1", "SCRIPTS=1"]);
}

#[test]
fn the_executor_has_its_own_line_about_each_run() {
    for mode in Mode::ALL {
        has_its_own_line(mode);
    }
}

fn has_its_own_line(mode: Mode) {
    let site = Site::builder().executor(mode).sh("ok", "exit 3").start();
    let result = site.result("ok", &["--secret"]);
    let line = site.agent().line("exec");
    assert_eq!(line.ident, "ctrl-exec-exec");
    let reqid = format!("REQID={}", result["reqid"].as_str().unwrap());
    // Nobody is to read a confinement into the name of a profile.
    let confined = if mode == Mode::Private { &["CONFINED=no"][..] } else { &[] };
    let rest = ["EXIT=3", "OUTCOME=exited", "PID=*", "PROFILE=default", &reqid, "SCRIPT=ok"];
    line.is(&[&["ACTION=exec"], confined, &rest].concat());
    assert!(!site.agent().stderr().contains("--secret"), "arguments are in no log");
}

#[test]
fn a_dispatcher_s_lines_have_the_documented_fields_in_their_order() {
    let site = Site::builder().sh("ok", "true").start();
    let ran = site.control(&["run", "agent1", "ok"]).exits(0);
    let target = format!("TARGET={}", site.agent().address());
    ran.lines("run")[0].is(&["ACTION=run", "EXIT=0", "REQID=*", "RTT=*", "SCRIPT=ok", &target]);
    let auth = &ran.lines("auth")[0];
    assert_eq!((auth.get("REASON"), auth.get("RESULT")), (Some("no-hook-cli"), Some("pass")), "{auth:?}");
    assert_eq!(auth.ident, "ctrl-exec-dispatcher");
}

#[test]
fn syslog_s_socket_gets_the_lines_with_priority_name_and_process() {
    let mut site = Site::builder().sh("ok", "true").prepare();
    let log = Log::listen(&site.agent().root, "dev/log");
    site.start(0);
    let text = log.with("ACTION=start");
    let (pid, port) = (site.agent().pid(), site.agent().address().port());
    assert!(text.starts_with("<30>"), "{text}");
    assert!(text.ends_with(&format!(" ctrl-exec-agent[{pid}]: ACTION=start PORT={port}")), "{text}");
    site.result("ok", &[]);
    site.result("nope", &[]);
    let denied = log.with("ACTION=deny");
    assert!(denied.starts_with("<28>"), "{denied}");
    let (_, message) = denied.split_once(&format!(" ctrl-exec-agent[{pid}]: ")).unwrap();
    Line::of_message("ctrl-exec-agent", message).is(&["ACTION=deny", "PEER=127.0.0.1", "REQID=*", "SCRIPT=nope"]);
    assert!(!site.agent().stderr().contains("ACTION="), "{}", site.agent().stderr());
}

#[test]
fn the_journal_s_socket_gets_fields() {
    let mut site = Site::builder().sh("ok", "true").prepare();
    let log = Log::listen(&site.agent().root, "run/systemd/journal/socket");
    site.start(0);
    let result = site.result("ok", &[]);
    let text = log.with("\nACTION=run\n");
    let pid = site.agent().pid();
    for line in [
        "PRIORITY=6".to_owned(),
        "SYSLOG_FACILITY=3".to_owned(),
        "SYSLOG_IDENTIFIER=ctrl-exec-agent".to_owned(),
        format!("SYSLOG_PID={pid}"),
        "EXIT=0".to_owned(),
        format!("REQID={}", result["reqid"].as_str().unwrap()),
        "SCRIPT=ok".to_owned(),
    ] {
        assert!(text.lines().any(|known| known == line), "{line}: {text}");
    }
    assert!(text.starts_with("MESSAGE=ACTION=run DISPATCHER=control-1 EXIT=0 "), "{text}");
    let executor = log.with("\nACTION=exec\n");
    assert!(executor.contains("\nSYSLOG_IDENTIFIER=ctrl-exec-exec\n"), "{executor}");
}

#[test]
fn a_dispatcher_logs_to_its_own_socket() {
    let site = Site::builder().agents(0).prepare();
    let log = Log::listen(&site.control, "dev/log");
    site.register("web", 7443, &crate::harness::pki::issue(&site.authority(), "web"));
    let ran = site.control(&["unpair", "web"]).exits(0);
    let text = log.with("ACTION=unpair");
    assert!(text.contains(" ctrl-exec-dispatcher[") && text.contains("]: ACTION=unpair AGENT=web EXPIRY="), "{text}");
    assert_eq!(ran.stderr, "");
}
