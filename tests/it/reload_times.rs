//! SIGHUP: how long scripts and callers have.

use crate::harness::{Agent, Site, eventually, host, tls};

/// Puts this line above a configuration and reloads it.
fn with(agent: &Agent, config: &str, line: &str) {
    std::fs::write(agent.config(), format!("{line}\n{config}")).unwrap();
    agent.reload().is(&["ACTION=reload", "RESULT=ok"]);
}

#[test]
fn a_reload_takes_up_the_times_of_scripts_and_of_callers() {
    let site = Site::builder()
        .agent("stdin_timeout = 1")
        .sh("slow", "sleep 2; wc -c")
        .sh("endless", "echo $$ > {work}/pid; exec cat /dev/zero")
        .start();
    let agent = site.agent();
    let config = std::fs::read_to_string(agent.config()).unwrap().replace("stdin_timeout = 1\n", "");
    with(agent, &config, "stdin_timeout = 3600");
    let large = "x".repeat(100_000);
    let result = site.result("slow", &[&large, &large, &large]);
    assert!(result["stdout"].as_str().unwrap().trim().parse::<usize>().unwrap() > 300_000, "{result}");
    assert!(agent.lines("stdin-timeout").is_empty());
    with(agent, &config, "stall_timeout = 1");
    let mut http = tls::connect(agent.address(), &site.authority(), &site.dispatcher());
    let body = r#"{"script":"endless"}"#;
    let accept = format!("Accept: {}", ctrl_exec::wire::stream::MEDIA_TYPE);
    http.send(format!("POST /run HTTP/1.1\r\nHost: x\r\n{accept}\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let pid = agent.worked_pid("pid");
    eventually("the script's end", || (!host::alive(pid)).then_some(()));
    agent.line_where("run", |line| line.get("REASON") == Some("caller-stalled"));
}
