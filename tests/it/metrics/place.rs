//! Where the agent says what it counts, and to whom.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;

use super::{REQUESTS, ask, place, samples, scrape, site};
use crate::harness::executor::Mode;
use crate::harness::http::Http;
use crate::harness::{Agent, DEADLINE, Site, eventually, host, tls};

/// Exchanges the line about metrics.
fn set(agent: &Agent, line: &str) {
    let text = std::fs::read_to_string(agent.config()).unwrap();
    let (top, rest) = text.split_once('[').unwrap();
    let kept: Vec<&str> = top.lines().filter(|line| !line.starts_with("metrics")).collect();
    std::fs::write(agent.config(), format!("{}\n{line}\n[{rest}", kept.join("\n"))).unwrap();
}

/// A socket's place where the agent's account may make one.
fn socket(agent: &Agent) -> PathBuf {
    let directory = agent.root.join("run/metrics");
    std::fs::create_dir_all(&directory).unwrap();
    host::give_to_agent(&directory);
    directory.join("m.sock")
}

fn unix(path: &std::path::Path) -> UnixStream {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream
}

/// TCP ports that a process listens at.
fn listening(pid: u32) -> usize {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let names = links.filter_map(|link| std::fs::read_link(link.unwrap().path()).ok());
    let mine: Vec<String> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    let table =
        ["tcp", "tcp6"].map(|name| std::fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap()).concat();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.get(3) == Some(&"0A") && mine.contains(&format!("socket:[{}]", row[9]))).count()
}

#[test]
fn nothing_is_opened_unless_the_configuration_says_so() {
    let site = Site::builder().start();
    assert_eq!(listening(site.agent().pid()), 1);
    assert!(site.agent().lines("metrics-listen").is_empty());
    site.control(&["ping", "agent1"]).exits(0);
    // Turned on, it knows of the past.
    set(site.agent(), "metrics = 127.0.0.1:0");
    assert_eq!(site.agent().reload().get("RESULT"), Some("ok"));
    assert_eq!(listening(site.agent().pid()), 2);
    assert_eq!(scrape(&site).non_zero(REQUESTS), samples(&[("verb=ping,verdict=ok", 1.0)]));
}

#[test]
fn only_get_metrics_is_answered() {
    let site = site().start();
    let says = |request: &str| {
        let mut http = Http::new(tls::tcp(place(site.agent())));
        http.send(request);
        http.answer().unwrap()
    };
    for path in ["/", "/metrics/", "/metric", "//metrics", "/ping"] {
        assert_eq!(says(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).status, 404, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let answer = says(&format!("{method} /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}"));
        assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")), "{method}");
    }
    for request in ["GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n", "GET /metrics HTTP/1.0\r\n\r\n"] {
        assert_eq!(says(request).status, 200);
    }
    let mut http = Http::new(tls::tcp(place(site.agent())));
    http.send("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    let whole = String::from_utf8(http.rest()).unwrap();
    assert!(whole.starts_with("HTTP/1.1 405 ") && whole.ends_with("\r\n\r\n"), "{whole}");
    // Also while the head still comes.
    for size in [64 << 10, 4 << 20] {
        let mut http = Http::new(tls::tcp(place(site.agent())));
        http.send(format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(size)));
        assert_eq!(http.answer().unwrap().status, 431, "{size}");
    }
    scrape(&site);
}

#[test]
fn peers_that_say_nothing_or_nonsense_keep_nobody_out() {
    let site = site().start();
    let address = place(site.agent());
    let silent: Vec<TcpStream> = (0..100).map(|_| tls::tcp(address)).collect();
    scrape(&site);
    let half: Vec<TcpStream> = (0..100)
        .map(|_| {
            let mut tcp = tls::tcp(address);
            tcp.write_all(b"GET /metrics HTTP/1.1\r\nHost:").unwrap();
            tcp
        })
        .collect();
    scrape(&site);
    for text in
        [&b"\0\x01\x02\xff"[..], b"\x16\x03\x01\x02\x00", b"\r\n\r\n\r\n", b"GET\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\n"]
    {
        let mut http = Http::new(tls::tcp(address));
        http.send(text);
        let _ = http.stream.shutdown(std::net::Shutdown::Write);
        assert!(!String::from_utf8_lossy(&http.rest()).contains("ctrl_exec_agent"));
    }
    scrape(&site);
    // The last of them are still there when their time is over.
    let mut last = Http::new(half.into_iter().next_back().unwrap());
    assert!(!String::from_utf8_lossy(&last.rest()).contains("200 OK"));
    drop(silent);
    site.control(&["ping", "agent1"]).exits(0);
}

#[test]
fn an_answer_that_nobody_reads_holds_up_nobody() {
    let site = site().start();
    let unread: Vec<TcpStream> = (0..50)
        .map(|_| {
            let mut tcp = tls::tcp(place(site.agent()));
            tcp.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
            tcp
        })
        .collect();
    for _ in 0..10 {
        scrape(&site);
    }
    drop(unread);
}

#[test]
fn a_unix_socket_is_for_owner_and_group() {
    let mut site = Site::builder().prepare();
    let path = socket(site.agent());
    // What a process left that has died.
    drop(UnixListener::bind(&path).unwrap());
    host::give_to_agent(&path);
    set(site.agent(), &format!("metrics = unix:{}", path.display()));
    site.start(0);
    site.agent().line("metrics-listen").is(&["ACTION=metrics-listen", &format!("ADDRESS=unix:{}", path.display())]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
    site.control(&["ping", "agent1"]).exits(0);
    assert_eq!(ask(unix(&path)).non_zero(REQUESTS), samples(&[("verb=ping,verdict=ok", 1.0)]));
    let silent: Vec<UnixStream> = (0..50).map(|_| unix(&path)).collect();
    ask(unix(&path));
    drop(silent);
    assert_eq!(site.agent_mut().stop(), Some(0));
    assert!(!path.exists());
}

#[test]
fn what_is_no_dead_socket_is_never_replaced() {
    let site = Site::builder().prepare();
    let agent = site.agent();
    let path = socket(agent);
    set(agent, &format!("metrics = {}", path.display()));
    std::fs::write(&path, "precious").unwrap();
    let said = agent.command(&["serve"]).exits(69).stderr;
    assert!(said.contains("is there and is no socket") && said.contains("'metrics' in agent.conf"), "{said}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    std::fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
    let said = agent.command(&["serve"]).exits(69).stderr;
    assert!(said.contains("another process answers there") && said.contains("hint: "), "{said}");
}

#[test]
fn a_value_that_others_could_reach_or_nobody_understands_is_refused_in_its_place() {
    let site = Site::builder().prepare();
    let agent = site.agent();
    for (value, said) in [
        ("0.0.0.0:9443", "loopback"),
        ("192.0.2.1:9443", "loopback"),
        ("[::]:9443", "loopback"),
        ("9443", "127.0.0.1:9443"),
        ("127.0.0.1", "port"),
        ("unix:m.sock", "absolute path"),
        ("yes", "unix:/PATH"),
    ] {
        set(agent, &format!("metrics = {value}"));
        let line =
            std::fs::read_to_string(agent.config()).unwrap().lines().position(|line| line.starts_with("metrics"));
        let at = format!("agent.conf:{}:11: metrics must be ", line.unwrap() + 1);
        for (verb, status) in [("serve", 78), ("self-check", 1)] {
            let ran = agent.command(&[verb]).exits(status);
            assert!(ran.stderr.contains(&at) && ran.stderr.contains(said), "{value}: {ran:?}");
        }
    }
}

#[test]
fn self_check_says_whether_metrics_could_be_served() {
    // Of the executor it says more than this is about.
    let site = Site::builder().executor(Mode::Private).sh("ok", "true").prepare();
    let agent = site.agent();
    let check = |status: i32, said: &str| {
        let ran = agent.command(&["self-check"]).exits(status);
        assert!(ran.stdout.contains(said), "{said}: {ran:?}");
    };
    set(agent, "metrics = 127.0.0.1:0");
    check(0, "  Metrics OK (127.0.0.1:0)\n");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    set(agent, &format!("metrics = {address}"));
    check(0, &format!("  Metrics: {address} is in use: by this agent, if it runs ("));
    let path = socket(agent);
    set(agent, &format!("metrics = unix:{}", path.display()));
    check(0, &format!("  Metrics OK (unix:{})\n", path.display()));
    assert!(!path.exists());
    set(agent, "metrics = unix:/no/such/directory/m.sock");
    check(1, "  Metrics: ");
    check(1, "/no/such/directory");
    std::fs::write(&path, "x").unwrap();
    set(agent, &format!("metrics = unix:{}", path.display()));
    check(1, "is there and is no socket");
}

#[test]
fn a_reload_moves_closes_and_opens_it_and_forgets_no_count() {
    let site = site().start();
    let agent = site.agent();
    site.control(&["ping", "agent1"]).exits(0);
    let first = place(agent);
    assert_eq!(agent.reload().get("RESULT"), Some("ok"));
    assert_eq!((agent.lines("metrics-listen").len(), listening(agent.pid())), (1, 2), "the same place stays open");
    ask(tls::tcp(first));
    let path = socket(agent);
    set(agent, &format!("metrics = {}", path.display()));
    assert_eq!(agent.reload().get("RESULT"), Some("ok"));
    assert_eq!(ask(unix(&path)).non_zero(REQUESTS), samples(&[("verb=ping,verdict=ok", 1.0)]));
    eventually("the end of the old one", || TcpStream::connect(first).is_err().then_some(()));
    std::fs::remove_file(&path).unwrap();
    assert_eq!(agent.reload().get("RESULT"), Some("ok"));
    ask(unix(&path));
    set(agent, "");
    assert_eq!(agent.reload().get("RESULT"), Some("ok"));
    eventually("the end of the socket", || (!path.exists()).then_some(()));
    assert_eq!(listening(agent.pid()), 1);
    set(agent, "metrics = [::1]:0");
    assert_eq!(agent.reload().get("RESULT"), Some("ok"));
    assert_eq!(scrape(&site).value("ctrl_exec_agent_reloads_total", &[("result", "ok")]), Some(5.0));
    site.control(&["ping", "agent1"]).exits(0);
}

#[test]
fn a_place_that_cannot_be_opened_keeps_all_of_the_old_state() {
    let site = site().sh("ok", "true").start();
    let agent = site.agent();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address: SocketAddr = taken.local_addr().unwrap();
    set(agent, &format!("metrics = {address}"));
    std::fs::write(agent.allowlist(), "").unwrap();
    let said = agent.reload();
    said.is(&["ACTION=reload", "ERROR=*", "RESULT=kept the old configuration"]);
    let error = said.get("ERROR").unwrap();
    assert!(error.contains(&format!("cannot listen on {address}")), "{error}");
    assert_eq!(site.result("ok", &[])["exit"], 0, "nothing of the new state holds");
    assert_eq!(scrape(&site).value("ctrl_exec_agent_reloads_total", &[("result", "failed")]), Some(1.0));
    let mut site = site;
    site.agent_mut().stop();
    let said = site.agent().command(&["serve"]).exits(69).stderr;
    assert!(
        said.contains(&format!("cannot listen on {address}")) && said.contains("is another agent running?"),
        "{said}"
    );
}
