//! Connections that are kept: one process of the dispatcher, many calls, through the library.

use std::future::Future;
use std::sync::Arc;

use ctrl_exec::conf::Root;
use ctrl_exec::dispatcher::answer::HostResult;
use ctrl_exec::dispatcher::call::Fleet;
use ctrl_exec::dispatcher::live::Live;
use ctrl_exec::dispatcher::resolve::{Target, resolve};
use ctrl_exec::dispatcher::run::{run, run_live};
use ctrl_exec::dispatcher::{ping, site};
use ctrl_exec::wire::run::RunCall;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::harness::{DEADLINE, Site, eventually, host};

/// Every call of a test within one runtime, as one process makes them.
fn in_one_process<F: Future>(work: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(work)
}

fn fleet(at: &Site) -> Fleet {
    let root = Root::new(Some(at.control.clone()));
    let (loaded, _) = site::Site::load(&at.control.join("etc/ctrl-exec/ctrl-exec.conf"), &root).unwrap();
    Fleet { dialer: loaded.dialer(None).unwrap(), log: loaded.log, most: 100 }
}

/// As the registry has it now.
fn target(at: &Site) -> Target {
    let root = Root::new(Some(at.control.clone()));
    let (loaded, _) = site::Site::load(&at.control.join("etc/ctrl-exec/ctrl-exec.conf"), &root).unwrap();
    resolve(&loaded.registry, &["agent1".to_owned()], None).unwrap().remove(0)
}

fn order(script: &str) -> RunCall {
    let text = String::new;
    RunCall {
        script: script.to_owned(),
        args: vec![],
        reqid: "0badcafe".to_owned(),
        username: text(),
        token: text(),
        detached: false,
    }
}

async fn pinged(fleet: &Fleet, target: &Target) -> HostResult {
    ping::ping(fleet, vec![target.clone()], "1", |_| {}).await.remove(0)
}

/// Established connections to a port of loopback (state 01, `proc_net_tcp(5)`).
fn connections(port: u16) -> usize {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let remote = format!("0100007F:{port:04X}");
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(2) == Some(&remote.as_str()) && row.get(3) == Some(&"01")).count()
}

#[test]
fn many_calls_at_once_share_one_connection() {
    let at = Site::builder().sh("echo", "echo hello").start();
    let (fleet, target) = (fleet(&at), target(&at));
    in_one_process(async {
        let mut calls = JoinSet::new();
        for _ in 0..50 {
            let (fleet, target) = (fleet.clone(), target.clone());
            calls.spawn(async move { run(&fleet, vec![target], order("echo"), |_| {}).await.remove(0) });
        }
        while let Some(result) = calls.join_next().await {
            assert_eq!(result.unwrap().text("stdout"), "hello\n");
        }
        assert_eq!(connections(at.agent().address().port()), 1);
        assert_eq!(pinged(&fleet, &target).await.text("status"), "ok");
        assert_eq!(connections(at.agent().address().port()), 1);
    });
}

#[test]
fn a_retired_serial_loses_the_next_request_of_a_kept_connection() {
    let at = Site::builder().sh("echo", "echo hello").start();
    let (fleet, target) = (fleet(&at), target(&at));
    in_one_process(async {
        assert_eq!(pinged(&fleet, &target).await.text("status"), "ok");
        std::fs::write(at.agent().trust(), "").unwrap();
        at.agent().reload();
        assert_eq!(pinged(&fleet, &target).await.text("error"), "forbidden: serial mismatch");
        eventually("the end of the connection", || (connections(at.agent().address().port()) == 0).then_some(()));
    });
}

#[test]
fn a_kept_connection_is_held_against_the_pin_for_every_request() {
    let at = Site::builder().start();
    let fleet = fleet(&at);
    in_one_process(async {
        assert_eq!(pinged(&fleet, &target(&at)).await.text("status"), "ok");
        let record = std::fs::read_to_string(at.record("agent1")).unwrap();
        let mut record: serde_json::Value = serde_json::from_str(&record).unwrap();
        record["cert_key_sha256"] = "00".repeat(32).into();
        std::fs::write(at.record("agent1"), record.to_string()).unwrap();
        let result = pinged(&fleet, &target(&at)).await;
        assert!(result.text("error").contains("presented another key"), "{result:?}");
    });
}

#[test]
fn an_agent_that_was_restarted_is_reached_again_and_nothing_runs_twice() {
    let mut at = Site::builder().sh("count", "echo x >>{work}/ran; echo done").prepare();
    // It listens where it did before, so that the kept connection is the first thing that is tried.
    let config = std::fs::read_to_string(at.agent().config()).unwrap();
    let port = format!("port = {}\n", host::own_port());
    std::fs::write(at.agent().config(), config.replace("port = 0\n", &port)).unwrap();
    at.start(0);
    let fleet = fleet(&at);
    in_one_process(async {
        for round in 1..=5 {
            let result = run(&fleet, vec![target(&at)], order("count"), |_| {}).await.remove(0);
            assert_eq!(result.text("stdout"), "done\n", "{result:?}");
            assert_eq!(at.agent().worked("ran").lines().count(), round);
            at.agent_mut().stop();
            at.start(0);
        }
    });
}

#[test]
fn a_run_whose_connection_is_lost_is_never_repeated() {
    let mut at = Site::builder().sh("hold", "echo x >>{work}/ran; exec sleep 1000").start();
    let (fleet, target) = (fleet(&at), target(&at));
    in_one_process(async {
        assert_eq!(pinged(&fleet, &target).await.text("status"), "ok");
        let calling = {
            let (fleet, target) = (fleet.clone(), target.clone());
            tokio::spawn(async move { run(&fleet, vec![target], order("hold"), |_| {}).await.remove(0) })
        };
        let ran = at.agent().work("ran");
        eventually("the script", || (std::fs::read_to_string(&ran).ok()? == "x\n").then_some(()));
        at.agent_mut().kill();
        let result = calling.await.unwrap();
        assert!(result.text("error").contains("the outcome is unknown"), "{result:?}");
        assert_eq!(at.agent().worked("ran"), "x");
    });
}

#[test]
fn a_caller_who_does_not_read_holds_up_nobody_else_on_the_connection() {
    let at = Site::builder().sh("flood", "exec cat /dev/zero").sh("echo", "echo hello").start();
    let (fleet, target) = (fleet(&at), target(&at));
    in_one_process(async {
        let (sink, mut unread) = mpsc::channel(1);
        let flooded = {
            let (fleet, target) = (fleet.clone(), target.clone());
            tokio::spawn(async move { run_live(&fleet, vec![target], order("flood"), sink).await })
        };
        assert!(matches!(unread.recv().await, Some(Live::Output { .. })));
        // Everything on the way to the one who does not read is full by now, or fills while these are answered.
        for _ in 0..50 {
            let result = run(&fleet, vec![target.clone()], order("echo"), |_| {}).await.remove(0);
            assert_eq!(result.text("stdout"), "hello\n", "{result:?}");
        }
        assert_eq!(connections(at.agent().address().port()), 1);
        flooded.abort();
        let line = eventually("the end of the flood", || {
            at.agent().lines("run").into_iter().find(|line| line.get("SCRIPT") == Some("flood"))
        });
        assert_eq!(line.get("REASON"), Some("caller-gone"));
        assert_eq!(pinged(&fleet, &target).await.text("status"), "ok");
    });
}

#[test]
fn a_caller_who_does_not_read_for_too_long_loses_his_run_and_no_connection() {
    let at =
        Site::builder().agent("stall_timeout = 1").sh("flood", "exec cat /dev/zero").sh("echo", "echo hello").start();
    let (fleet, target) = (fleet(&at), target(&at));
    in_one_process(async {
        let (sink, mut unread) = mpsc::channel(1);
        let flooded = {
            let (fleet, target) = (fleet.clone(), target.clone());
            tokio::spawn(async move { run_live(&fleet, vec![target], order("flood"), sink).await.remove(0) })
        };
        let line = eventually("the end of the flood", || at.agent().lines("run").pop());
        assert_eq!(line.get("REASON"), Some("caller-stalled"));
        let result = run(&fleet, vec![target.clone()], order("echo"), |_| {}).await.remove(0);
        assert_eq!(result.text("stdout"), "hello\n", "{result:?}");
        assert_eq!(connections(at.agent().address().port()), 1);
        // What was on its way is read; then comes the end, which is no result.
        let result = loop {
            match unread.recv().await.unwrap() {
                Live::Output { .. } => {}
                Live::Ended(result) => break result,
            }
        };
        assert!(result.text("error").contains("outcome unknown"), "{result:?}");
        assert_eq!(flooded.await.unwrap(), result);
    });
}

#[test]
fn a_call_that_is_given_up_ends_its_script_and_no_other() {
    let at =
        Site::builder().sh("hold", "echo $$ >{work}/pid; exec sleep 1000").sh("other", "read x <{work}/go").start();
    assert!(std::process::Command::new("mkfifo").arg(at.agent().work("go")).status().unwrap().success());
    let (fleet, target) = (Arc::new(fleet(&at)), target(&at));
    in_one_process(async {
        let spawn = |script: &'static str| {
            let (fleet, target) = (Arc::clone(&fleet), target.clone());
            tokio::spawn(async move { run(&fleet, vec![target], order(script), |_| {}).await.remove(0) })
        };
        let (held, other) = (spawn("hold"), spawn("other"));
        let pid = eventually("the script", || {
            std::fs::read_to_string(at.agent().work("pid")).ok()?.trim().parse::<u32>().ok()
        });
        held.abort();
        eventually("its end", || (!host::alive(pid)).then_some(()));
        std::fs::write(at.agent().work("go"), "x\n").unwrap();
        let result = tokio::time::timeout(DEADLINE, other).await.unwrap().unwrap();
        assert_eq!(result.exit(), 0, "{result:?}");
    });
}
