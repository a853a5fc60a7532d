//! Scripts that are ended: their caller went away, or their time is up.

use std::process::{Child, Stdio};

use serde_json::json;

use crate::harness::site::Builder;
use crate::harness::{Agent, Site, eventually, host, tls};

/// Writes down who it is and who its child is, and then both wait, deaf to a polite request.
const TREE: &str = "trap '' TERM\nsetsid sleep 300 & echo $! > {work}/child\necho $$ > {work}/leader\nsleep 300";

fn site() -> Builder {
    Site::builder().script("tree", &format!("#!/bin/sh\n{TREE}\n")).section("kill_grace = 0")
}

fn tree(agent: &Agent) -> [u32; 2] {
    ["leader", "child"].map(|name| agent.worked_pid(name))
}

/// Whether a tree was up, now or before.
fn is_up(agent: &Agent) -> bool {
    ["leader", "child"]
        .iter()
        .all(|name| std::fs::read_to_string(agent.work(name)).is_ok_and(|text| text.ends_with('\n')))
}

fn all_end(pids: [u32; 2]) {
    eventually("the end of the whole tree", || pids.iter().all(|pid| !host::alive(*pid)).then_some(()));
}

fn nobody_is_left(agent: &Agent) -> bool {
    ["leader", "child"].iter().all(|name| agent.living(name).is_none())
}

fn start(site: &Site, words: &[&str]) -> Child {
    let mut command = site.control_command(words);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_caller_that_is_killed_takes_the_whole_tree_with_it() {
    let site = site().start();
    let mut caller = start(&site, &["run", "agent1", "tree"]);
    let pids = tree(site.agent());
    assert!(pids.iter().all(|pid| host::alive(*pid)));
    caller.kill().unwrap();
    caller.wait().unwrap();
    all_end(pids);
}

#[test]
fn a_connection_that_closes_takes_the_whole_tree_with_it() {
    let site = site().start();
    let agent = site.agent();
    let mut http = tls::connect(agent.address(), &site.authority(), &site.dispatcher());
    let body = r#"{"script":"tree"}"#;
    http.send(format!("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    let pids = tree(agent);
    drop(http);
    all_end(pids);
}

#[test]
fn the_time_limit_of_a_profile_kills_the_whole_tree() {
    let site = site()
        .section("[profile quick]\ntimeout = 1\nkill_grace = 0")
        .allow("limited = {scripts}/tree profile=quick")
        .start();
    // On a busy machine the tree may not be up by then.
    eventually("a tree that was up", || {
        let result = site.result("limited", &[]);
        let told = (&result["exit"], &result["reason"]);
        assert_eq!(told, (&json!(126), &json!("time limit of 1000 ms passed")), "{result}");
        is_up(site.agent()).then_some(())
    });
    assert!(nobody_is_left(site.agent()), "reported only when everyone is gone");
}

#[test]
fn a_time_limit_asks_before_it_kills() {
    let site = Site::builder()
        .section("[profile polite]\ntimeout = 1\nkill_grace = 60")
        .allow("polite = {scripts}/tidy profile=polite")
        .sh("tidy", "trap 'echo tidied; exit 0' TERM\nsleep 300 & wait")
        .start();
    // On a busy machine it may not have set its trap by then.
    eventually("a script that was ready to tidy up", || {
        let result = site.result("polite", &[]);
        assert_eq!(result["exit"], 126, "{result}");
        (result["stdout"] == "tidied\n").then_some(())
    });
}

#[test]
fn a_dispatcher_that_stops_waiting_ends_the_script() {
    let site = site().dispatcher("read_timeout = 1").start();
    // On a busy machine the tree may not be up by then.
    eventually("a tree that was up", || {
        let result = site.result("tree", &[]);
        assert_eq!((&result["exit"], &result["error"]), (&json!(-1), &json!("read timeout after 1s")), "{result}");
        is_up(site.agent()).then_some(())
    });
    eventually("the end of the whole tree", || nobody_is_left(site.agent()).then_some(()));
}
