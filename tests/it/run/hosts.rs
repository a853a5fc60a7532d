//! Several hosts at once, and which hosts a reference means.

use crate::harness::{Site, host, impostor::Impostor, pki};

fn names(results: &serde_json::Value) -> Vec<&str> {
    results["results"].as_array().unwrap().iter().map(|result| result["host"].as_str().unwrap()).collect()
}

#[test]
fn results_come_in_the_order_asked_and_text_as_it_completes() {
    let site = Site::builder().agents(3).sh("who", "cat {work}/who; > {work}/ran").start();
    for agent in &site.agents {
        std::fs::write(agent.work("who"), &agent.name).unwrap();
    }
    let first = &site.agents[0];
    // It waits until the others have run, and a moment longer for their answers.
    let [second, third] = [1, 2].map(|place: usize| site.agents[place].work("ran").display().to_string());
    let wait = format!("until [ -e {second} ] && [ -e {third} ]; do sleep 0.02; done; rm {second} {third}; sleep 1");
    let last = format!("#!/bin/sh\n{wait}; cat {}\n", first.work("who").display());
    first.write_script("who", &last);
    let json = site.control(&["--json", "run", "agent1", "agent3", "agent2", "who"]).exits(0).json();
    assert_eq!(names(&json), ["agent1", "agent3", "agent2"]);
    for result in json["results"].as_array().unwrap() {
        assert_eq!(result["stdout"], result["host"]);
    }
    let text = site.control(&["run", "agent1", "agent2", "agent3", "who"]).exits(0).stdout;
    let last = text.lines().rfind(|line| line.starts_with("==> ")).unwrap();
    assert!(last.starts_with("==> agent1"), "{text}");
}

#[test]
fn one_request_id_serves_all_hosts_of_a_run() {
    let site = Site::builder().agents(2).sh("ok", "true").start();
    let ran = site.control(&["--json", "run", "agent1", "agent2", "ok"]).exits(0);
    let json = ran.json();
    assert_eq!(json["results"][0]["reqid"], json["results"][1]["reqid"]);
    let lines = ran.lines("dispatch");
    lines[0].is(&["ACTION=dispatch", "HOSTS=agent1,agent2", "MODE=sync", "REQID=*", "SCRIPT=ok"]);
    for agent in &site.agents {
        agent.line_where("run", |line| line.get("REQID") == json["results"][0]["reqid"].as_str());
    }
}

#[test]
fn no_more_than_max_parallel_hosts_are_asked_at_once() {
    // Each stays until three have been in at once, and looks twice.
    let text = "count() { ls {work} | grep -c '^in[.]'; }; own=$(mktemp -d {work}/in.XXXXXX)
        until [ -e {work}/three ]; do [ $(count) -ge 3 ] && touch {work}/three; sleep 0.02; done
        count; sleep 0.1; count; rmdir $own";
    let site = Site::builder().dispatcher("max_parallel = 3").sh("count", text).start();
    let agent = site.agent();
    let hosts: Vec<String> = (1..=12).map(|number| format!("host{number}")).collect();
    for host in &hosts {
        site.register(host, agent.address().port(), &agent.credentials);
    }
    let mut words = vec!["--json", "run"];
    words.extend(hosts.iter().map(String::as_str));
    words.push("count");
    let json = site.control(&words).exits(0).json();
    assert_eq!(names(&json), hosts.iter().map(String::as_str).collect::<Vec<_>>());
    let counts = json["results"].as_array().unwrap().iter();
    let counts = counts.flat_map(|result| result["stdout"].as_str().unwrap().split_whitespace());
    let counts: Vec<u32> = counts.map(|count| count.parse().unwrap()).collect();
    assert!(counts.len() == 24 && counts.iter().all(|count| *count <= 3), "{counts:?}");
}

#[test]
fn a_host_that_fails_spoils_the_status_and_not_the_others() {
    let mut site = Site::builder().agents(2).sh("ok", "echo fine").start();
    site.agents[0].stop();
    let ran = site.control(&["--json", "run", "agent1", "agent2", "ok"]).exits(1);
    let json = ran.json();
    assert_eq!(json["ok"], 1);
    assert_eq!(json["results"][0]["exit"], -1);
    let error = json["results"][0]["error"].as_str().unwrap();
    assert!(error.contains("connection refused (agent not running, or wrong port?)"), "{error}");
    assert_eq!(json["results"][1]["stdout"], "fine\n");
    let text = site.control(&["run", "agent1", "ok"]).exits(1).stdout;
    assert!(
        text.contains("[FAIL  exit:-1  ") && text.contains("    ERROR: host '127.0.0.1' did not respond"),
        "{text}"
    );
}

#[test]
fn unknown_agents_are_all_named_and_nothing_is_dispatched() {
    let site = Site::builder().sh("ok", "touch {work}/ran").start();
    for (words, text) in [
        (&["run", "agent1", "nope1", "../agent1", "nope2:99", "ok"][..], "unknown agents: nope1, ../agent1, nope2:99"),
        (&["run", "nope", "ok"], "unknown agent: nope"),
        (&["run", "127.0.0.1", "ok"], "unknown agent: 127.0.0.1"),
        (&["ping", "agent1", "/etc/passwd"], "unknown agent: /etc/passwd"),
    ] {
        let ran = site.control(words).exits(1);
        assert!(ran.stderr.contains(&format!("Error: {text}\n")), "{ran:?}");
        assert!(ran.stderr.contains("hint: Only registered agents can be addressed"), "{ran:?}");
        assert!(ran.lines("dispatch").is_empty() && ran.lines("ping").is_empty());
    }
    assert!(!site.agent().work("ran").exists());
    assert!(site.agent().lines("ping").is_empty());
}

#[test]
fn a_port_in_the_reference_wins_over_the_record() {
    let site = Site::builder().sh("ok", "true").start();
    let port = site.agent().address().port();
    let nobody = Impostor::start(&site.authority(), &pki::issue(&site.authority(), "agent1"), "");
    site.register("agent1", nobody.address.port(), &site.agent().credentials);
    site.control(&["run", &format!("agent1:{port}"), "ok"]).exits(0);
    assert_eq!(nobody.connections(), 0);
    for bad in ["agent1:0", "agent1:65536", "agent1:", "agent1:x"] {
        let ran = site.control(&["run", bad, "ok"]).exits(1);
        assert!(ran.stderr.contains(&format!("unknown agent: {bad}")), "{ran:?}");
    }
}

#[test]
fn the_port_option_stands_in_for_the_default_port_alone() {
    let site = Site::builder().sh("ok", "true").start();
    let port = site.agent().address().port();
    site.register("standard", 7443, &site.agent().credentials);
    site.control(&["--port", &port.to_string(), "run", "standard", "ok"]).exits(0);
    site.control(&["--port", "1", "run", "agent1", "ok"]).exits(0);
}

#[test]
fn two_hundred_runs_at_once_on_one_agent_all_finish() {
    let site = Site::builder().sh("slow", "sleep 1; ulimit -n").dispatcher("max_parallel = 200").start();
    let hosts: Vec<String> = (1..=host::at_once(200)).map(|number| format!("host{number}")).collect();
    for host in &hosts {
        site.register(host, site.agent().address().port(), &site.agent().credentials);
    }
    let words: Vec<&str> =
        ["--json", "run"].into_iter().chain(hosts.iter().map(String::as_str)).chain(["slow"]).collect();
    let json = site.control(&words).exits(0).json();
    assert!(json["results"].as_array().unwrap().iter().all(|result| result["stdout"] == "1024\n"));
}
