//! Upgrades and restarts: no listening socket and no job is lost, and nobody who calls meanwhile is turned away.

mod given;

use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use nix::sys::signal::Signal;

use crate::harness::agent::write_executable;
use crate::harness::background::Background;
use crate::harness::executor::Mode;
use crate::harness::site::Builder;
use crate::harness::{Agent, Site, eventually, host, tls};

const WAIT: &str = "echo $$ > {work}/up; while [ ! -e {work}/go ]; do sleep 0.02; done; echo done";

fn builder(mode: Mode) -> Builder {
    Site::builder().executor(mode).sh("ok", "echo ran").sh("wait", WAIT)
}

/// With an agent whose file can be replaced.
fn started(builder: Builder) -> Site {
    let mut site = builder.prepare();
    site.agent_mut().install();
    site.start(0);
    site
}

/// Callers without a pause, each on a connection of its own, until told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    callers: Vec<JoinHandle<usize>>,
}

impl Load {
    fn start(site: &Site, address: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let caller = |_| {
            let (stop, ca, credentials) = (Arc::clone(&stop), site.authority(), site.dispatcher());
            std::thread::spawn(move || {
                let mut asked = 0;
                while !stop.load(Ordering::Relaxed) {
                    // Refused or reset, it panics.
                    assert_eq!(tls::connect(address, &ca, &credentials).post("/ping", "{}").status, 200);
                    asked += 1;
                }
                asked
            })
        };
        Self { callers: (0..3).map(caller).collect(), stop }
    }

    fn end(self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        self.callers.into_iter().map(|caller| caller.join().expect("a caller that was never turned away")).sum()
    }
}

/// Whether the agent runs what is at its path now, and not what was there before.
fn runs_its_file(agent: &Agent) -> bool {
    // A file that was replaced shows as one that was deleted (`proc_pid_exe(5)`).
    std::fs::read_link(format!("/proc/{}/exe", agent.pid())).ok() == agent.file
}

/// The request id of a job that runs.
fn submit(site: &Site) -> String {
    let ran = site.control(&["--json", "run", "--async", "agent1", "wait"]).exits(0);
    site.agent().worked("up");
    ran.json()["reqid"].as_str().unwrap_or_else(|| panic!("{ran:?}")).to_owned()
}

fn has_result(site: &Site, id: &str) {
    std::fs::write(site.agent().work("go"), "").unwrap();
    let ran = site.control(&["wait", id]).exits(0);
    let result = site.control(&["--json", "result", id]).exits(0);
    assert!(result.stdout.contains("done"), "{ran:?} {result:?}");
}

#[test]
fn an_agent_becomes_its_new_file_and_turns_nobody_away_meanwhile() {
    for mode in Mode::ALL {
        let mut site = started(builder(mode));
        let (pid, address) = (site.agent().pid(), site.agent().address());
        let id = submit(&site);
        let load = Load::start(&site, address);
        for _ in 0..4 {
            let runs: Vec<Background> =
                (0..3).map(|_| Background::start(site.control_command(&["--json", "run", "agent1", "ok"]))).collect();
            site.agent_mut().install();
            assert!(!runs_its_file(site.agent()));
            assert_eq!(site.agent().upgrade(), address);
            assert!(runs_its_file(site.agent()));
            for run in runs {
                assert_eq!(run.end().exits(0).result()["stdout"], "ran\n");
            }
        }
        assert!(load.end() > 4);
        let agent = site.agent();
        assert_eq!(agent.pid(), pid);
        assert!(host::alive(pid));
        let version = format!("VERSION={}", env!("CARGO_PKG_VERSION"));
        agent.line("upgrade").is(&["ACTION=upgrade", "FILE=*", "RESULT=ok", &version]);
        eventually("no zombie", || (host::zombies(pid) == 0).then_some(()));
        has_result(&site, &id);
        assert_eq!(site.agent().reload().get("RESULT"), Some("ok"), "signals are heard as before");
    }
}

#[test]
fn a_file_that_could_not_serve_leaves_the_old_one_running() {
    let mut site = started(builder(Mode::default()));
    let file = site.agent().file.clone().unwrap();
    let refused = |site: &Site, number: usize, reason: &str| {
        host::kill(site.agent().pid(), Signal::SIGUSR2);
        let line = eventually("a line about the upgrade", || site.agent().lines("upgrade").get(number).cloned());
        line.is(&["ACTION=upgrade", "FILE=*", "REASON=*", "RESULT=kept the old program"]);
        assert!(line.get("REASON").unwrap().contains(reason), "{line:?}");
        assert_eq!(line.get("FILE"), Some(&*file.display().to_string()));
        assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
        assert!(!runs_its_file(site.agent()));
    };
    std::fs::remove_file(&file).unwrap();
    refused(&site, 0, "No such file");
    std::fs::write(&file, "no program").unwrap();
    refused(&site, 1, "cannot be executed");
    for (number, text, reason) in [
        (2, "exit 0", "it is no agent"),
        (3, "echo broken >&2; exit 1", "could not serve: broken"),
        (4, "kill -SEGV $$", "could not serve: signal"),
        (5, "exec sleep 300", "did not say within 5 seconds"),
        (6, "exec yes", "did not say within 5 seconds"),
    ] {
        write_executable(&file, &format!("#!/bin/sh\n{text}\n"));
        refused(&site, number, reason);
    }
    site.agent_mut().install();
    let config = site.agent().config();
    let good = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("prot = 1\n{good}")).unwrap();
    refused(&site, 7, "agent.conf:1:1:");
    std::fs::write(&config, good).unwrap();
    site.agent().upgrade();
    assert!(runs_its_file(site.agent()));
}

#[test]
fn an_agent_that_tries_a_file_can_be_told_to_end() {
    let mut site = started(builder(Mode::Private));
    let text = format!("#!/bin/sh\necho $$ > {}\nexec sleep 300\n", site.agent().work("up").display());
    write_executable(&site.agent().file.clone().unwrap(), &text);
    host::kill(site.agent().pid(), Signal::SIGUSR2);
    let (tried, said) = (site.agent().worked_pid("up"), site.agent().stderr_path());
    assert_eq!(site.agent_mut().stop(), Some(0));
    assert!(!host::alive(tried));
    let said = std::fs::read_to_string(said).unwrap();
    assert!(!said.contains("ACTION=upgrade"), "it did not wait for the file first: {said}");
}

#[test]
fn a_run_under_way_holds_an_upgrade_up_and_is_finished() {
    let site = started(builder(Mode::default()));
    let address = site.agent().address();
    let run = Background::start(site.control_command(&["--json", "run", "agent1", "wait"]));
    site.agent().worked("up");
    host::kill(site.agent().pid(), Signal::SIGUSR2);
    let line = site.agent().line("upgrade");
    line.is(&["ACTION=upgrade", "FILE=*", "REQUESTS=1", "RESULT=waits for requests under way", "VERSION=*"]);
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n", "others are served meanwhile");
    assert_eq!(site.agent().reload().get("RESULT"), Some("ok"));
    std::fs::write(site.agent().work("go"), "").unwrap();
    assert_eq!(run.end().exits(0).result()["stdout"], "done\n");
    assert_eq!(site.agent().upgraded(), address);
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
}

#[test]
fn a_second_signal_does_not_wait_and_a_caller_learns_that_its_run_was_broken_off() {
    let site = started(builder(Mode::default()));
    let run = Background::start(site.control_command(&["--json", "run", "agent1", "wait"]));
    site.agent().worked("up");
    host::kill(site.agent().pid(), Signal::SIGUSR2);
    site.agent().line_where("upgrade", |line| line.get("REQUESTS") == Some("1"));
    let script = site.agent().worked_pid("up");
    site.agent().upgrade();
    let failed = run.end().exits(1).result();
    assert_eq!(failed["exit"], -1, "{failed}");
    eventually("the end of the script", || (!host::alive(script)).then_some(()));
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
}

#[test]
fn what_changed_in_the_configuration_counts_after_an_upgrade() {
    let site = started(builder(Mode::default()).sh("limit", "ulimit -n"));
    assert_eq!(site.result("limit", &[])["stdout"], "1024\n");
    let (config, before) = (site.agent().config(), site.agent().address());
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("bind = 127.0.0.1", "bind = 127.0.0.2")).unwrap();
    let address = site.agent().upgrade();
    assert_eq!(address.ip().to_string(), "127.0.0.2");
    assert_eq!(TcpStream::connect(before).unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
    std::fs::write(&config, text).unwrap();
    site.register("agent1", site.agent().upgrade().port(), &site.agent().credentials);
    assert_eq!(site.result("limit", &[])["stdout"], "1024\n", "not the agent's own");
}

#[test]
fn a_key_that_only_the_new_file_knows_may_be_there_before_the_upgrade() {
    let site = started(builder(Mode::Private));
    let (config, file) = (site.agent().config(), site.agent().file.clone().unwrap());
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("novelty = yes\n{text}")).unwrap();
    assert_eq!(site.agent().reload().get("RESULT"), Some("kept the old configuration"));
    // Stands for a version that knows it.
    let real = file.with_extension("real");
    std::fs::rename(&file, &real).unwrap();
    let (from, to) = (config.display(), site.agent().work("agent.conf").display().to_string());
    let knows = format!("sed /^novelty/d {from} > {to}; shift; exec {} agent --config {to} \"$@\"", real.display());
    write_executable(&file, &format!("#!/bin/sh\n{knows}\n"));
    site.agent().upgrade();
    site.agent().line("upgrade").is(&["ACTION=upgrade", "FILE=*", "RESULT=ok", "VERSION=*"]);
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
}

#[test]
fn a_root_executor_takes_up_no_file_that_another_could_have_written() {
    let mut site = started(builder(Mode::Own));
    site.agent_mut().install();
    let file = site.agent().file.clone().unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o775)).unwrap();
    let (keeper, executor) = (site.agent().keeper(), site.agent().executor());
    host::kill(site.agent().pid(), Signal::SIGUSR2);
    let kept = |line: &crate::harness::audit::Line| line.get("RESULT") == Some("kept the old program");
    for action in ["exec-upgrade", "upgrade"] {
        let line = site.agent().line_where(action, kept);
        assert!(line.get("REASON").unwrap().contains("has mode 0775"), "{line:?}");
    }
    assert!(!runs_its_file(site.agent()));
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
    assert_eq!(site.agent().keeper(), keeper);
    assert_ne!(site.agent().executor(), executor, "its keeper has started another");
    let network = |pid| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
    assert_ne!(network(keeper), network(site.agent().pid()), "it has left the host's network again");
}

#[test]
fn a_file_that_could_serve_and_be_no_executor_leaves_both_as_they_were() {
    let mut site = started(builder(Mode::Own));
    let file = site.agent().file.clone().unwrap();
    let good = file.with_file_name("good");
    std::fs::rename(&file, &good).unwrap();
    let keeper = site.agent().keeper();
    for (number, (text, reason)) in [
        ("echo broken >&2; exit 3", "could not serve: broken"),
        ("exit 0", "it is no executor"),
        ("kill -SEGV $$", "could not serve: signal"),
        ("exec sleep 300", "did not say within 3 seconds"),
    ]
    .into_iter()
    .enumerate()
    {
        let rest = format!("exec {} \"$@\"", good.display());
        write_executable(&file, &format!("#!/bin/sh\n[ \"$1\" != serve-own ] || {{ {text}; }}\n{rest}\n"));
        host::kill(site.agent().pid(), Signal::SIGUSR2);
        for action in ["exec-upgrade", "upgrade"] {
            let line = eventually("a line about it", || site.agent().lines(action).get(number).cloned());
            assert_eq!(line.get("RESULT"), Some("kept the old program"), "{line:?}");
            assert!(line.get("REASON").unwrap().contains(reason), "{line:?}");
        }
        assert_eq!(site.agent().keeper(), keeper);
        assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
    }
    site.agent_mut().install();
    site.agent().upgrade();
    assert!(runs_its_file(site.agent()));
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
}

#[test]
fn a_root_executor_becomes_the_new_file_and_stays_what_it_is() {
    let mut site = started(builder(Mode::Own).sh("net", "readlink /proc/self/ns/net; id -un"));
    let before = site.result("net", &[])["stdout"].clone();
    let keeper = site.agent().keeper();
    let may_be_looked_into = |pid| std::fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid() != 0;
    for _ in 0..3 {
        site.agent_mut().install();
        site.agent().upgrade();
        assert!(!may_be_looked_into(site.agent().pid()), "by others of its account");
        assert_eq!(site.agent().keeper(), keeper);
        for pid in [keeper, site.agent().executor()] {
            let file = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
            assert_eq!(Some(file), site.agent().file, "{pid}");
        }
        assert_eq!(site.result("net", &[])["stdout"], before);
        assert_eq!(site.agent().reload().get("RESULT"), Some("ok"));
    }
    site.agent().line("exec-upgrade").is(&["ACTION=exec-upgrade", "RESULT=ok", "VERSION=*"]);
    // It dies and is replaced as ever.
    let killed = site.agent().executor();
    host::kill(killed, Signal::SIGKILL);
    eventually("its end", || (!host::alive(killed)).then_some(()));
    assert_eq!(site.result("net", &[])["stdout"], before);
    assert_eq!(site.agent_mut().stop(), Some(0));
    eventually("the end of the keeper", || (!host::alive(keeper)).then_some(()));
}

#[test]
fn jobs_from_before_an_upgrade_or_a_crash_still_count_as_running() {
    let site = started(builder(Mode::Own).agent("max_children = 1"));
    let id = submit(&site);
    let busy = || {
        let ran = site.control(&["--json", "run", "agent1", "ok"]).exits(1);
        assert!(ran.stdout.contains("as many as max_children allows"), "{ran:?}");
    };
    busy();
    site.agent().upgrade();
    busy();
    let executor = site.agent().executor();
    host::kill(executor, Signal::SIGKILL);
    eventually("its end", || (!host::alive(executor)).then_some(()));
    busy();
    has_result(&site, &id);
    eventually("room for a run", || site.control(&["run", "agent1", "ok"]).stdout.contains("ran").then_some(()));
}

#[test]
fn a_place_for_metrics_that_is_taken_by_then_costs_the_metrics_and_not_the_agent() {
    let site = started(builder(Mode::default()));
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let config = site.agent().config();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, format!("metrics = {}\n{text}", taken.local_addr().unwrap())).unwrap();
    site.agent().upgrade();
    site.agent().line("metrics-listen").is(&["ACTION=metrics-listen", "REASON=*"]);
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
    drop(taken);
    // A process that another test has just started may have the place a moment longer.
    eventually("the place", || (site.agent().reload().get("RESULT") == Some("ok")).then_some(()));
    site.agent().line_where("metrics-listen", |line| line.get("ADDRESS").is_some());
}

#[test]
fn an_upgrade_that_would_change_whose_rights_scripts_have_is_refused() {
    let site = started(builder(Mode::System));
    let config = site.agent().config();
    let text = std::fs::read_to_string(&config).unwrap();
    let text: String =
        text.lines().filter(|line| !line.starts_with("executor_socket")).flat_map(|line| [line, "\n"]).collect();
    std::fs::write(&config, text).unwrap();
    host::kill(site.agent().pid(), Signal::SIGUSR2);
    let line = site.agent().line("upgrade");
    assert!(line.get("REASON").unwrap().contains("'executor_socket' was set or removed"), "{line:?}");
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
}

#[test]
fn an_agent_that_is_told_to_end_finishes_what_it_has_begun() {
    let mut site = builder(Mode::default()).start();
    let run = Background::start(site.control_command(&["--json", "run", "agent1", "wait"]));
    site.agent().worked("up");
    let pid = site.agent().pid();
    host::kill(pid, Signal::SIGTERM);
    std::fs::write(site.agent().work("go"), "").unwrap();
    assert_eq!(run.end().exits(0).result()["stdout"], "done\n");
    assert_eq!(site.agent_mut().wait(), Some(0));
}
