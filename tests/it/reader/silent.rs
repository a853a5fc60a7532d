//! Callers that are gone without a goodbye, and callers whose goodbye nobody reads.

use std::io::Read as _;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

use super::{ended, spawn};
use crate::harness::audit::Line;
use crate::harness::process::finish;
use crate::harness::{Site, eventually, host, tls};

/// Says who it is, and waits.
const WAITS: &str = "echo $$ > {work}/$1; echo started; exec sleep 300";
/// How long it may take until the ends have found out that nothing comes through any more.
const FOUND: Duration = Duration::from_secs(100);

fn run(reqid: &str, name: &str) -> String {
    let body = format!("{{\"script\":\"waits\",\"args\":[\"{name}\"],\"reqid\":\"{reqid}\"}}");
    format!("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_caller_who_says_more_than_he_waits_for_still_ends_his_script_when_he_goes() {
    let site = Site::builder().sh("waits", WAITS).start();
    let more = "GET /capabilities HTTP/1.1\r\nHost: x\r\n\r\n";
    let cases = [("a1", more, ""), ("a2", "", more), ("a3", "", "x")];
    for (name, at_once, later) in cases {
        let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
        http.send(run(&format!("{name:0>16}"), name) + at_once);
        let pid = site.agent().worked_pid(name);
        http.send(later);
        drop(http);
        eventually("the script's end", || (!host::alive(pid)).then_some(()));
        let of = |line: &Line| line.get("REQID").is_some_and(|id| id.ends_with(name));
        assert_eq!(site.agent().line_where("run", of).get("REASON"), Some("caller-gone"), "{name}");
    }
}

/// In a network of its own, whose only line is cut.
#[test]
fn a_caller_whose_line_is_cut_ends_his_script() {
    let cut = |line: &str| {
        let mut command = Command::new("ip");
        command.args(["link", "set", "lo", line]);
        finish(command, "").exits(0);
    };
    let test = move || {
        unshare(CloneFlags::CLONE_NEWNET).unwrap();
        cut("up");
        let site = Site::builder().sh("waits", WAITS).start();
        let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
        http.send(run("00000000000000aa", "original"));
        let calls = ["--stream", "--no-stream"];
        let mut calls = calls.map(|form| spawn(site.control_command(&["run", form, "agent1", "waits", "--", form])));
        calls[0].stdout.as_mut().unwrap().read_exact(&mut [0; 7]).unwrap();
        let pids = ["original", "--stream", "--no-stream"].map(|name| site.agent().worked_pid(name));
        cut("down");
        let begun = Instant::now();
        while pids.iter().any(|pid| host::alive(*pid)) {
            assert!(begun.elapsed() < FOUND, "a script still runs");
            thread::sleep(Duration::from_millis(100));
        }
        let reasons: Vec<_> =
            site.agent().lines("run").iter().map(|line| line.get("REASON").unwrap().to_owned()).collect();
        assert_eq!(reasons, ["caller-gone"; 3]);
        for (call, told) in calls.into_iter().zip(["outcome unknown", "the outcome is unknown"]) {
            let ran = ended(call).exits(1);
            let lost = ran.lines("run")[0].get("ERROR").unwrap().to_owned();
            assert!(lost.contains(told), "{lost}");
        }
        drop(http);
    };
    thread::spawn(test).join().unwrap();
}
