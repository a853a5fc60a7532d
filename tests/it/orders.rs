//! Connections between an agent and the monitors of its executor that are kept from order to order.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

use ctrl_exec::sys::fdpass;
use ctrl_exec::wire::control::Reloaded;
use ctrl_exec::wire::frame;
use ctrl_exec::wire::order::{KEPT, Report, VERSION};
use ctrl_exec::wire::outcome::Outcome;
use ctrl_exec::wire::refusal::Refusal;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::executor::Mode;
use crate::harness::site::Builder;
use crate::harness::{Site, eventually, host};
use crate::jobs::Caller;

fn builder(mode: Mode) -> Builder {
    Site::builder().executor(mode).sh("ok", "echo x >> {work}/ran; echo ran")
}

fn run(caller: &Caller<'_>) -> Value {
    caller.post("/run", &json!({ "script": "ok", "reqid": "1" })).json()
}

fn runs(caller: &Caller<'_>) {
    let answer = run(caller);
    assert_eq!(answer["stdout"], "ran\n", "{answer}");
}

/// How often the script has run.
fn ran(site: &Site) -> usize {
    std::fs::read_to_string(site.agent().work("ran")).unwrap().lines().count()
}

/// Lets the process go on in any case.
struct Stopped(u32);

impl Stopped {
    fn new(pid: u32) -> Self {
        host::kill(pid, Signal::SIGSTOP);
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        host::kill(self.0, Signal::SIGCONT);
    }
}

#[test]
fn the_next_run_needs_no_executor_to_reach_its_monitor() {
    for mode in Mode::ALL {
        let site = builder(mode).start();
        let caller = Caller::of(&site);
        runs(&caller);
        let stopped = Stopped::new(site.agent().executor());
        (0..5).for_each(|_| runs(&caller));
        drop(stopped);
        assert_eq!(ran(&site), 6, "{mode:?}");
        eventually("no monitor", || host::children(site.agent().executor()).is_empty().then_some(()));
        runs(&caller);
    }
}

#[test]
fn a_monitor_that_is_killed_while_it_waits_costs_no_run() {
    for mode in Mode::ALL {
        let site = builder(mode).start();
        let caller = Caller::of(&site);
        for round in 1..=5 {
            runs(&caller);
            for monitor in host::children(site.agent().executor()) {
                host::kill(monitor, Signal::SIGKILL);
                eventually("its end", || (!host::alive(monitor)).then_some(()));
            }
            assert_eq!(ran(&site), round, "{mode:?}");
        }
    }
}

#[test]
fn an_executor_that_is_killed_takes_its_waiting_monitors_along_and_no_run() {
    for mode in [Mode::Private, Mode::Own] {
        let site = builder(mode).start();
        let caller = Caller::of(&site);
        for round in 1..=5 {
            runs(&caller);
            let killed = site.agent().executor();
            host::kill(killed, Signal::SIGKILL);
            eventually("its end", || (!host::alive(killed)).then_some(()));
            runs(&caller);
            assert_ne!(site.agent().executor(), killed);
            assert_eq!(ran(&site), 2 * round, "{mode:?}");
        }
    }
}

#[test]
fn an_executor_that_is_started_anew_has_the_next_order() {
    let mut site = builder(Mode::System).start();
    for round in 1..=3 {
        runs(&Caller::of(&site));
        assert_eq!(ran(&site), round);
        site.agent_mut().take_service().end(Signal::SIGTERM);
        site.agent_mut().start_service();
    }
}

#[test]
fn a_reload_that_the_agent_does_not_know_of_holds_for_the_next_run() {
    let site = builder(Mode::System).start();
    let (agent, caller) = (site.agent(), Caller::of(&site));
    runs(&caller);
    std::fs::write(agent.allowlist(), "").unwrap();
    host::kill(agent.service().pid(), Signal::SIGHUP);
    agent.service().line_where("exec-reload", |_| true);
    assert_eq!(run(&caller)["reason"], "script-not-permitted");
    assert_eq!(ran(&site), 1);
}

#[test]
fn a_reload_of_the_agent_holds_for_the_next_run() {
    for mode in Mode::ALL {
        let site = builder(mode).start();
        let (agent, caller) = (site.agent(), Caller::of(&site));
        let other = agent.write_script("other", "#!/bin/sh\necho other\n");
        runs(&caller);
        std::fs::write(agent.allowlist(), format!("ok = {}\n", other.display())).unwrap();
        agent.reload();
        assert_eq!(run(&caller)["stdout"], "other\n", "{mode:?}");
    }
}

#[test]
fn one_place_serves_runs_and_jobs_in_turn() {
    for mode in Mode::ALL {
        let site = builder(mode).agent("max_children = 1").start();
        let caller = Caller::of(&site);
        for round in 0..4 {
            runs(&caller);
            let id = format!("aaaa000{round}");
            caller.accepted("ok", &id);
            assert_eq!(caller.ended(&id)["exit"], 0, "{mode:?}");
        }
        assert_eq!(ran(&site), 8);
    }
}

/// An executor of an older program, as a thread: it knows no connections that are kept. Tells the versions that it was asked in.
fn older(listener: UnixListener) -> Arc<Mutex<Vec<u64>>> {
    let versions = Arc::default();
    let told = Arc::clone(&versions);
    std::thread::spawn(move || listener.incoming().for_each(|stream| serve_as_older(stream.unwrap(), &told)));
    versions
}

fn serve_as_older(mut stream: UnixStream, versions: &Mutex<Vec<u64>>) {
    let mut prefix = [0; frame::PREFIX];
    let Ok(message) = fdpass::receive(&stream, &mut prefix, 6) else { return };
    assert_eq!(message.size, prefix.len());
    let mut body = vec![0; frame::announced(prefix, 1 << 16).unwrap()];
    stream.read_exact(&mut body).unwrap();
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let mut say = |bytes: Vec<u8>| stream.write_all(&bytes).unwrap();
    let Some(version) = asked["version"].as_u64() else {
        return say(frame::encode(&Reloaded::Done, 1 << 16).unwrap());
    };
    versions.lock().unwrap().push(version);
    let mut tell = |report: &Report| say(frame::encode(report, 1 << 16).unwrap());
    if version != u64::from(VERSION) {
        return tell(&Report::Ended(Outcome::Refused(Refusal::new("order-version", "the executor speaks version 2"))));
    }
    tell(&Report::Started { pid: 1 });
    let mut output = File::from(message.descriptors[1].as_fd().try_clone_to_owned().unwrap());
    output.write_all(b"older\n").unwrap();
    tell(&Report::Ended(Outcome::Exited { code: 0 }));
}

#[test]
fn an_executor_of_an_older_program_is_asked_as_it_understands() {
    let mut site = builder(Mode::System).prepare();
    let socket = site.agent().socket();
    let listener = UnixListener::bind(&socket).unwrap();
    host::give_to_agent(&socket);
    let versions = older(listener);
    site.agent_mut().start_alone();
    site.register("agent1", site.agent().address().port(), &site.agent().credentials);
    let caller = Caller::of(&site);
    for _ in 0..3 {
        assert_eq!(run(&caller)["stdout"], "older\n");
    }
    assert_eq!(*versions.lock().unwrap(), [KEPT, VERSION, VERSION, VERSION].map(u64::from));
}
