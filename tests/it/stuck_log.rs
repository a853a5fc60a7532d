//! A log that is not read, or slowly: the agent goes on, and what it has to say is there when somebody reads it.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;

use crate::harness::executor::Mode as Executor;
use crate::harness::{DEADLINE, Site, eventually, host, tls};

/// More than a pipe or a socket's queue holds, and less than an agent keeps.
const MANY: usize = 1500;

fn ping(site: &Site, many: usize) {
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    for n in 0..many {
        let answer = http.post("/ping", &format!(r#"{{"reqid": "p{n}"}}"#));
        assert_eq!(answer.status, 200, "{n}: {answer:?}");
    }
}

/// A site whose agent has a FIFO for its standard error.
fn on_a_fifo(executor: Executor, mode: u32) -> (Site, PathBuf) {
    let mut site = Site::builder().executor(executor).sh("ok", "echo ran").prepare();
    let fifo = site.agent().root.join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    std::fs::set_permissions(&fifo, std::fs::Permissions::from_mode(mode)).unwrap();
    site.agent_mut().start_with(&format!("exec 2<>{}", fifo.display()), [Stdio::null(), Stdio::null()]);
    site.register("agent1", site.agent().address().port(), &site.agent().credentials);
    (site, fifo)
}

#[test]
fn a_standard_error_that_nobody_reads_stops_neither_agent_nor_executor_and_loses_no_line() {
    // One that the agent's account may open anew, and one that it may not.
    for (executor, mode) in [(Executor::Own, 0o666), (Executor::Own, 0o600), (Executor::Private, 0o600)] {
        let (mut site, fifo) = on_a_fifo(executor, mode);
        ping(&site, MANY);
        assert_eq!(site.result("ok", &[])["stdout"], "ran\n", "{executor:?} {mode:o}");
        ping(&site, 1);
        let mut seen = 0;
        for line in BufReader::new(File::open(&fifo).unwrap()).lines().map(Result::unwrap) {
            assert!(line.starts_with("ctrl-exec-") || !line.contains("ACTION="), "torn: {line}");
            if line.contains(" ACTION=run ") {
                break;
            }
            if line.contains(" ACTION=ping ") {
                assert!(line.ends_with(&format!(" REQID=p{seen}")), "{seen}: {line}");
                seen += 1;
            }
        }
        assert_eq!(seen, MANY, "{executor:?} {mode:o}");
        assert_eq!(site.agent_mut().stop(), Some(0));
    }
}

#[test]
fn an_agent_whose_log_nobody_reads_ends_when_it_is_told_to() {
    let (mut site, _fifo) = on_a_fifo(Executor::Private, 0o600);
    ping(&site, MANY);
    let start = Instant::now();
    assert_eq!(site.agent_mut().stop(), Some(0));
    // For ever, if it waited for a reader.
    assert!(start.elapsed() < DEADLINE / 2, "{:?}", start.elapsed());
}

#[test]
fn lines_that_wait_when_the_agent_becomes_its_new_file_are_counted_and_told_by_that() {
    let mut site = Site::builder().executor(Executor::Private).prepare();
    site.agent_mut().install();
    let fifo = site.agent().root.join("fifo");
    nix::unistd::mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    std::fs::set_permissions(&fifo, std::fs::Permissions::from_mode(0o600)).unwrap();
    site.agent_mut().start_with(&format!("exec 2<>{}", fifo.display()), [Stdio::null(), Stdio::null()]);
    ping(&site, MANY);
    site.agent().upgrade();
    let (mut seen, mut lost) = (0, None);
    for line in BufReader::new(File::open(&fifo).unwrap()).lines().map(Result::unwrap) {
        if line.contains(" ACTION=start ") && lost.is_some() {
            break;
        }
        if line.contains(" ACTION=ping ") {
            assert!(lost.is_none() && line.ends_with(&format!(" REQID=p{seen}")), "{seen}: {line}");
            seen += 1;
        }
        if let Some((_, told)) = line.split_once(" ACTION=log-lost COUNT=") {
            lost = told.split_once(' ').and_then(|(count, _)| count.parse::<usize>().ok());
        }
    }
    // Besides there is what the old program said of the upgrade.
    assert_eq!(seen + lost.unwrap(), MANY + 1);
}

#[test]
fn an_end_that_the_system_s_log_does_not_hear_of_is_told_on_standard_error_with_the_lines_that_it_costs() {
    let mut site = Site::builder().executor(Executor::Private).prepare();
    let path = site.agent().root.join("dev/log");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let log = UnixDatagram::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    site.start(0);
    ping(&site, MANY);
    assert_eq!(site.agent_mut().stop(), Some(0));
    let said = std::fs::read_to_string(site.agent().root.join("stderr.1")).unwrap();
    let lost: Vec<&str> = said.lines().filter(|line| line.contains(" ACTION=log-lost ")).collect();
    let [line] = lost[..] else { panic!("{said}") };
    let lost: usize = line.split_once("COUNT=").unwrap().1.split(' ').next().unwrap().parse().unwrap();
    log.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; 65_536];
    let mut heard = 0;
    while let Ok(size) = log.recv(&mut buffer) {
        heard += usize::from(String::from_utf8_lossy(&buffer[..size]).contains(" ACTION=ping "));
    }
    assert_eq!(heard + lost, MANY, "{line}");
}

#[test]
fn a_log_that_takes_two_lines_a_second_slows_down_nobody() {
    let mut site = Site::builder().sh("ok", "echo ran").prepare();
    let path = site.agent().root.join("dev/log");
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let log = UnixDatagram::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    log.set_read_timeout(Some(DEADLINE)).unwrap();
    site.start(0);
    let read = || {
        let mut buffer = vec![0; 65_536];
        let read = log.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..read]).into_owned()
    };
    let (mut lines, start) = (Vec::new(), Instant::now());
    std::thread::scope(|scope| {
        let pings = scope.spawn(|| ping(&site, MANY));
        let mut next = Instant::now();
        while !pings.is_finished() {
            if Instant::now() >= next {
                lines.push(read());
                next += Duration::from_millis(500);
            }
            std::thread::yield_now();
        }
    });
    // At the log's pace they would take twelve minutes.
    assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
    // Nothing is lost, also of what nobody has asked for meanwhile.
    while !lines.last().is_some_and(|line| line.contains("ACTION=run ")) {
        lines.push(read());
    }
    let pings: Vec<&String> = lines.iter().filter(|line| line.contains("ACTION=ping ")).collect();
    assert_eq!(pings.len(), MANY);
    assert!(pings.iter().enumerate().all(|(n, line)| line.ends_with(&format!(" REQID=p{n}"))));
    assert!(!lines.iter().any(|line| line.contains("ACTION=log-lost")));
}

#[test]
fn lines_that_the_log_had_no_room_for_are_counted_and_told() {
    let (site, fifo) = on_a_fifo(Executor::Private, 0o600);
    let long = "x".repeat(100_000);
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    for _ in 0..200 {
        assert_eq!(http.post("/ping", &format!(r#"{{"reqid": "{long}"}}"#)).status, 200);
    }
    let mut lines = BufReader::new(File::open(&fifo).unwrap()).lines().map(Result::unwrap);
    let told = lines.find(|line| line.contains(" ACTION=log-lost ")).unwrap();
    assert!(told.starts_with("ctrl-exec-agent: ACTION=log-lost COUNT="), "{told}");
}

#[test]
fn a_stranger_s_address_has_one_line_however_often_it_comes() {
    let site = Site::builder().agent("allowed_ips = 192.0.2.1").start();
    for _ in 0..100 {
        let mut refused = tls::tcp(site.agent().address());
        assert!(std::io::Read::read(&mut refused, &mut [0]).map_or(true, |size| size == 0));
    }
    host::kill(site.agent().pid(), Signal::SIGHUP);
    eventually("the reload", || site.agent().lines("reload").pop());
    site.agent().line("ip-block").is(&["ACTION=ip-block", "PEER=127.0.0.1"]);
    assert_eq!(site.agent().lines("ip-block").len(), 1);
}
