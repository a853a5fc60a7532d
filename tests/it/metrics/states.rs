//! What is looked up when somebody asks: executor, certificate, jobs, the process.

use nix::sys::signal::Signal;
use serde_json::json;

use super::{REQUESTS, RUNS, place, samples, scrape, site};
use crate::harness::executor::Mode;
use crate::harness::{Site, eventually, host, tls};

const UP: &str = "ctrl_exec_agent_executor_up";

fn becomes(site: &Site, name: &str, labels: &[(&str, &str)], value: f64) {
    eventually(&format!("{name} {value}"), || (scrape(site).value(name, labels) == Some(value)).then_some(()));
}

fn submit(site: &Site, script: &str, reqid: &str) {
    let body = json!({"script": script, "reqid": reqid, "async": true}).to_string();
    assert_eq!(
        tls::connect(site.agent().address(), &site.authority(), &site.dispatcher()).post("/run", &body).status,
        202
    );
}

#[test]
fn an_agent_says_who_it_is_and_what_it_uses() {
    let site = site().start();
    let _open = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher()).post("/ping", "{}");
    let seen = scrape(&site);
    assert_eq!(seen.value("ctrl_exec_agent_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
    let value = |name: &str| seen.value(name, &[]).unwrap_or_else(|| panic!("{name}: {:?}", seen.names()));
    let day = 86_400.0;
    let left = value("ctrl_exec_agent_certificate_left_seconds");
    assert!((day..4000.0 * day).contains(&left), "{left}");
    assert_eq!(seen.unit("ctrl_exec_agent_certificate_left_seconds"), Some("seconds"));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let started = value("process_start_time_seconds");
    assert!((now - 300.0..=now).contains(&started), "{started}");
    assert!(value("process_resident_memory_bytes") > 1e6 && value("process_cpu_seconds_total") > 0.0);
    let (open, most) = (value("process_open_fds"), value("process_max_fds"));
    assert!(open > 5.0 && open < most, "{open} {most}");
    let names = |name: &&str| name.starts_with("ctrl_exec_agent_") || name.starts_with("process_");
    assert!(seen.names().iter().all(names), "{:?}", seen.names());
}

#[test]
fn open_connections_are_counted_by_whether_they_have_proven_anything() {
    let site = site().start();
    let of = |state| [("state", state)];
    let mut open = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    assert_eq!(open.post("/ping", "{}").status, 200);
    let silent = tls::tcp(site.agent().address());
    becomes(&site, "ctrl_exec_agent_connections", &of("open"), 1.0);
    becomes(&site, "ctrl_exec_agent_connections", &of("handshake"), 1.0);
    drop((open, silent));
    becomes(&site, "ctrl_exec_agent_connections", &of("open"), 0.0);
    becomes(&site, "ctrl_exec_agent_connections", &of("handshake"), 0.0);
}

#[test]
fn a_private_executor_that_ended_is_down_until_the_next_run() {
    let site = site().executor(Mode::Private).sh("ok", "true").start();
    becomes(&site, UP, &[], 1.0);
    host::kill(site.agent().executor(), Signal::SIGKILL);
    becomes(&site, UP, &[], 0.0);
    site.control(&["run", "agent1", "ok"]).exits(0);
    becomes(&site, UP, &[], 1.0);
}

#[test]
fn a_root_executor_is_up_before_and_after_an_upgrade() {
    let mut site = site().executor(Mode::Own).sh("ok", "true").prepare();
    site.agent_mut().install();
    site.start(0);
    becomes(&site, UP, &[], 1.0);
    site.agent().upgrade();
    becomes(&site, UP, &[], 1.0);
}

#[test]
fn the_executor_of_the_system_is_asked() {
    let mut site = site().executor(Mode::System).sh("ok", "true").start();
    becomes(&site, UP, &[], 1.0);
    drop(site.agent_mut().take_service());
    becomes(&site, UP, &[], 0.0);
    let body = r#"{"script":"ok"}"#;
    tls::connect(site.agent().address(), &site.authority(), &site.dispatcher()).post("/run", body);
    let seen = scrape(&site);
    assert_eq!(seen.non_zero(RUNS), samples(&[("outcome=executor-failed,script=ok", 1.0)]));
    assert_eq!(seen.non_zero(REQUESTS), samples(&[("verb=run,verdict=failed", 1.0)]));
    site.agent_mut().start_service();
    becomes(&site, UP, &[], 1.0);
}

#[test]
fn an_agents_own_root_executor_is_up_while_its_keeper_lives() {
    let mut site = site().executor(Mode::Own).sh("ok", "true").start();
    becomes(&site, UP, &[], 1.0);
    site.control(&["run", "agent1", "ok"]).exits(0);
    let keeper = site.agent().keeper();
    let executor = site.agent().executor();
    host::kill(keeper, Signal::SIGKILL);
    becomes(&site, UP, &[], 0.0);
    assert!(!site.agent_mut().has_ended(), "the executor is still there");
    host::kill(executor, Signal::SIGKILL);
    assert_eq!(site.agent_mut().wait(), Some(69));
}

#[test]
fn jobs_are_counted_by_whether_they_run_and_their_ends_once() {
    let site = site().sh("ok", "sleep 1").sh("fails", "exit 1").sh("wait", "exec sleep 300").start();
    for (script, reqid) in [("ok", "r1"), ("fails", "r2"), ("wait", "r3")] {
        submit(&site, script, reqid);
    }
    becomes(&site, "ctrl_exec_agent_jobs", &[("state", "running")], 1.0);
    becomes(&site, "ctrl_exec_agent_jobs", &[("state", "done")], 2.0);
    assert_eq!(scrape(&site).value("ctrl_exec_agent_jobs", &[("state", "lost")]), Some(0.0));
    let busy = json!({"script": "wait", "reqid": "r4", "async": true}).to_string();
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    assert_eq!(http.post("/run", &busy).status, 409);
    assert_eq!(http.post("/cancel/r3", "{}").status, 200);
    assert_eq!(http.get("/result/r1").status, 200);
    let seen = scrape(&site);
    let wanted = [
        ("outcome=cancelled,script=wait", 1.0),
        ("outcome=failure,script=fails", 1.0),
        ("outcome=success,script=ok", 1.0),
    ];
    assert_eq!(seen.non_zero(RUNS), samples(&wanted));
    let time = seen.value("ctrl_exec_agent_run_seconds_sum", &[("script", "ok")]).unwrap();
    assert!((1.0..120.0).contains(&time), "{time}");
    let wanted = [
        ("verb=cancel,verdict=ok", 1.0),
        ("verb=result,verdict=ok", 1.0),
        ("verb=run,verdict=busy", 1.0),
        ("verb=run,verdict=ok", 3.0),
    ];
    assert_eq!(seen.non_zero(REQUESTS), samples(&wanted));
}

#[test]
fn a_job_whose_supervisor_was_killed_is_counted_as_lost() {
    let mut site = site().sh("wait", "echo $$ > {work}/pid; exec sleep 300").start();
    submit(&site, "wait", "r1");
    let script = site.agent().worked_pid("pid");
    host::kill(host::parent(script), Signal::SIGKILL);
    becomes(&site, RUNS, &[("script", "wait"), ("outcome", "lost")], 1.0);
    becomes(&site, "ctrl_exec_agent_jobs", &[("state", "lost")], 1.0);
    assert_eq!(scrape(&site).value("ctrl_exec_agent_jobs", &[("state", "done")]), Some(0.0));
    assert_eq!(scrape(&site).value("ctrl_exec_agent_run_seconds_count", &[("script", "wait")]), None);
    // A script that is listed no more lends nobody its name; and what was counted stays.
    submit(&site, "wait", "r2");
    std::fs::write(site.agent().allowlist(), "").unwrap();
    site.agent().reload();
    tls::connect(site.agent().address(), &site.authority(), &site.dispatcher()).post("/cancel/r2", "{}");
    let wanted = [("outcome=cancelled,script=(unlisted)", 1.0), ("outcome=lost,script=wait", 1.0)];
    assert_eq!(scrape(&site).non_zero(RUNS), samples(&wanted));
    let before = place(site.agent());
    site.agent_mut().stop();
    assert!(std::net::TcpStream::connect(before).is_err());
}
