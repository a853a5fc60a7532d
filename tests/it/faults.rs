//! Faults of the original that no other file pins, each named after what must not happen. `SECURITY.md` has the list.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ctrl_exec::pki::csr::{self, ExpectedName};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;

use crate::harness::executor::Mode;
use crate::harness::http::Http;
use crate::harness::site::Builder;
use crate::harness::tls::Tls;
use crate::harness::{Agent, Site, eventually, host, pki, tls};

fn site() -> Builder {
    Site::builder().agent("rate_limit_disable = 1").sh("ok", "echo ran")
}

fn trusted(site: &Site) -> Http<Tls> {
    tls::connect(site.agent().address(), &site.authority(), &site.dispatcher())
}

/// A hello that offers TLS 1.1 at most (RFC 4346 7.4.1.2): one suite, no extensions.
fn hello_of_tls_1_1() -> Vec<u8> {
    let body = [&[3, 2][..], &[7; 32], &[0, 0, 2, 0xc0, 0x14, 1, 0]].concat();
    let size = u8::try_from(body.len()).unwrap();
    [&[22, 3, 1, 0, size + 4, 1, 0, 0, size], &body[..]].concat()
}

/// Sends these bytes and returns what comes until the agent closes.
fn told(address: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut tcp = tls::tcp(address);
    drop(tcp.write_all(bytes));
    let mut seen = Vec::new();
    drop(tcp.read_to_end(&mut seen));
    seen
}

#[test]
fn a_client_without_a_certificate_never_reaches_an_endpoint() {
    let site = site().start();
    let agent = site.agent();
    let endpoints = [
        ("POST", "/ping"),
        ("POST", "/run"),
        ("GET", "/capabilities"),
        ("POST", "/renew"),
        ("POST", "/renew-complete"),
        ("POST", "/rotate-serial"),
        ("GET", "/no/such/thing"),
    ];
    for (method, path) in endpoints {
        let config = tls::config(&site.authority(), None);
        // In TLS 1.3 a client may send before it learns that it is refused.
        let Ok(tls) = tls::handshake(config, tls::tcp(agent.address())) else { continue };
        let mut http = Http::new(tls);
        http.send(format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}"));
        assert_eq!(http.rest(), b"", "{method} {path} was answered");
    }
    let failures = || (agent.lines("tls-failure").len() == endpoints.len()).then_some(());
    eventually("a line about each", failures);
    for action in ["ping", "run", "serial-reject", "capabilities", "capabilities-deny"] {
        assert!(agent.lines(action).is_empty(), "{action} was logged");
    }
}

#[test]
fn a_failed_handshake_never_ends_the_agent() {
    let site = site().start();
    let (agent, ca) = (site.agent(), site.authority());
    let pid = agent.pid();
    // An alert and the end: 21 is its record's type.
    assert_eq!(told(agent.address(), &hello_of_tls_1_1()).first(), Some(&21));
    let foreign = pki::issue(&pki::foreign_authority(), "ctrl-exec-dispatcher");
    for shown in [None, Some(&foreign), Some(&pki::issue_expired(&ca, "ctrl-exec-dispatcher"))] {
        if let Ok(mut tls) = tls::handshake(tls::config(&ca, shown), tls::tcp(agent.address())) {
            assert!(tls.read(&mut [0]).is_err());
        }
    }
    // Somebody else's server, as this client sees it: the client ends the handshake.
    let elsewhere = tls::config(&pki::foreign_authority(), Some(&foreign));
    assert!(tls::handshake(elsewhere, tls::tcp(agent.address())).is_err());
    eventually("a line about each", || (agent.lines("tls-failure").len() == 5).then_some(()));
    assert!(host::alive(pid));
    site.control(&["ping", "agent1"]).exits(0);
}

#[test]
fn a_reload_never_ends_the_agent() {
    let site = site().start();
    let agent = site.agent();
    let mut kept = trusted(&site);
    let mut half = tls::tcp(agent.address());
    half.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
    for _ in 0..10 {
        assert_eq!(agent.reload().get("RESULT"), Some("ok"));
        assert_eq!(kept.post("/ping", "{}").status, 200, "an open connection outlives the reload");
    }
    std::fs::write(agent.config(), "port = nonsense\n").unwrap();
    assert_ne!(agent.reload().get("RESULT"), Some("ok"));
    assert!(host::alive(agent.pid()));
    site.control(&["ping", "agent1"]).exits(0);
}

#[test]
fn idle_connections_never_use_up_the_places_for_requests() {
    let site = site().agent("max_children = 2").start();
    let silent: Vec<Http<Tls>> = (0..20).map(|_| trusted(&site)).collect();
    let half_a_head = || {
        let mut http = trusted(&site);
        http.send("POST /run HTTP/1.1\r\nHost: x\r\n");
        http
    };
    let waiting: Vec<Http<Tls>> = (0..20).map(|_| half_a_head()).collect();
    let before = Instant::now();
    assert_eq!(trusted(&site).post("/run", r#"{"script":"ok"}"#).json()["stdout"], "ran\n");
    // Less than the agent has patience with any of them: half a minute.
    assert!(before.elapsed() < Duration::from_secs(25), "{:?}", before.elapsed());
    assert!(site.agent().lines("overload").is_empty());
    drop((silent, waiting));
}

#[test]
fn a_script_never_sees_the_executors_socket() {
    let forge = "for fd in 3 4 5 6 7 8 9; do printf '{\"exit\":0}' >&$fd; done 2> /dev/null\nexit 7";
    let site = site().allow("ls = /bin/ls").sh("forge", forge).start();
    let result = site.result("ls", &["-l", "/proc/self/fd"]);
    let text = result["stdout"].as_str().unwrap();
    let links: Vec<(&str, &str)> =
        text.lines().filter_map(|line| line.rsplit_once(" -> ")).map(|(left, to)| (last_word(left), to)).collect();
    let own = links.iter().filter(|(_, to)| to.starts_with("/proc/")).count();
    assert_eq!((links.len(), own), (4, 1), "its three streams and the directory that it lists: {text}");
    assert!(links.iter().all(|(_, to)| !to.starts_with("socket:")), "{text}");
    assert_eq!(site.result("forge", &[])["exit"], 7);
}

fn last_word(text: &str) -> &str {
    text.rsplit(' ').next().unwrap()
}

#[test]
fn a_user_name_or_a_script_name_never_forges_a_log_line() {
    let site = site().agent_hook("exit 0").hook("exit 0").start();
    let evil = "ann\"\nctrl-exec-agent: ACTION=run DISPATCHER=evil EXIT=0\r\u{1b}[2K\u{2028}RESULT=pass";
    for body in [json!({"script": "ok", "username": evil}), json!({"script": evil, "username": "ann"})] {
        trusted(&site).post("/run", &body.to_string());
    }
    site.agent().line_where("deny", |line| line.get("SCRIPT").is_some_and(|name| name.starts_with("ann\"\n")));
    site.agent().line_where("auth", |line| line.get("USER").is_some_and(|name| name.starts_with("ann\"\n")));
    nothing_is_forged(&site.agent().stderr());
    let ran = site.control(&["--username", evil, "run", "agent1", "ok"]);
    nothing_is_forged(&ran.stderr);
}

#[track_caller]
fn nothing_is_forged(log: &str) {
    let forged = log.lines().any(|line| line.starts_with("ctrl-exec-agent: ACTION=run DISPATCHER=evil"));
    assert!(!forged && !log.contains(['\u{1b}', '\r', '\u{2028}']), "{log}");
}

#[test]
fn results_larger_than_a_pipe_never_hang_the_fan_out() {
    let text = "head -c 70000 /dev/zero | tr '\\0' o; head -c 200000 /dev/zero | tr '\\0' e >&2";
    let site = site().agents(3).sh("much", text).start();
    let ran = site.control(&["--json", "run", "agent1", "agent2", "agent3", "much"]).exits(0).json();
    for result in ran["results"].as_array().unwrap() {
        let length = |stream: &str| result[stream].as_str().unwrap().len();
        assert_eq!((length("stdout"), length("stderr")), (70_000, 200_000), "{}", result["host"]);
    }
    assert_eq!(ran["results"].as_array().unwrap().len(), 3);
}

#[test]
fn connections_never_leave_memory_or_descriptors_behind() {
    let site = site().start();
    let agent = site.agent();
    let config = tls::config(&site.authority(), Some(&site.dispatcher()));
    let connect = |count: u32| {
        for _ in 0..count {
            let mut http = Http::new(tls::handshake(config.clone(), tls::tcp(agent.address())).unwrap());
            assert_eq!(http.post("/ping", "{}").status, 200);
        }
    };
    connect(300);
    let (before, descriptors) = (resident(agent), open_files(agent));
    connect(1500);
    let grown = resident(agent).saturating_sub(before);
    // The original's 4.4 KB a connection would be 6.6 MB.
    assert!(grown < 2048, "{grown} KiB more after 1500 connections");
    eventually("as many descriptors as before", || (open_files(agent) <= descriptors).then_some(()));
}

/// Resident memory in KiB.
fn resident(agent: &Agent) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn open_files(agent: &Agent) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", agent.pid())).unwrap().count()
}

#[test]
fn an_early_refusal_is_never_lost_in_a_reset() {
    let site = site().agents(2).start();
    let (ca, other, own) = (site.authority(), &site.agents[1].credentials, site.dispatcher());
    let many = "X: y\r\n".repeat(40);
    let body = vec![b' '; 1_000_000];
    for (who, status, path, headers) in [
        (other, 403, "/run", ""),
        (&own, 431, "/run", many.as_str()),
        (&own, 404, "/no/such/thing", ""),
        (&own, 200, "/run", ""),
    ] {
        for _ in 0..10 {
            let mut http = tls::connect(site.agents[0].address(), &ca, who);
            let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{headers}Content-Length: {}\r\n\r\n", body.len());
            http.send([head.as_bytes(), &body].concat());
            let answer = http.answer().unwrap_or_else(|error| panic!("{status} was lost: {error}"));
            assert_eq!(answer.status, status, "{path}");
        }
    }
}

/// What its ended children have cost a process in page faults (`proc_pid_stat(5)`, cminflt): more for each one.
fn faults_of_children(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = text.rsplit_once(')').unwrap();
    fields.split_whitespace().nth(8).unwrap().parse().unwrap()
}

#[test]
fn a_ping_or_a_renewal_never_costs_a_process() {
    let site = site().start();
    let agent = site.agent();
    let look = || (faults_of_children(agent.pid()), host::children(agent.pid()));
    let mut http = trusted(&site);
    assert_eq!(http.post("/ping", "{}").status, 200);
    let before = look();
    for _ in 0..20 {
        assert_eq!(http.post("/ping", "{}").status, 200);
    }
    assert_eq!(http.post("/renew", "{}").json()["status"], "ok");
    assert_eq!(look(), before);
}

#[test]
fn a_reload_never_leaves_the_old_addresses_allowed() {
    let site = site().start();
    let agent = site.agent();
    let config = std::fs::read_to_string(agent.config()).unwrap();
    let mut kept = trusted(&site);
    assert_eq!(kept.post("/ping", "{}").status, 200);
    std::fs::write(agent.config(), format!("allowed_ips = 10.0.0.0/8\n{config}")).unwrap();
    assert_eq!(agent.reload().get("RESULT"), Some("ok"));
    assert_eq!(told(agent.address(), &hello_of_tls_1_1()), b"", "no handshake, not even its refusal");
    agent.line("ip-block").is(&["ACTION=ip-block", "PEER=127.0.0.1"]);
    std::fs::write(agent.config(), config).unwrap();
    agent.reload();
    site.control(&["ping", "agent1"]).exits(0);
}

#[test]
fn the_agent_and_its_executor_never_read_a_file_differently() {
    for mode in Mode::ROOT {
        let odd = "run_as = daemon\n[Profile Odd]\nrun_as = daemon\n";
        let site = Site::builder().executor(mode).section(odd).agent("script_dirs = /");
        let site = site.sh("first", "echo first").sh("second", "echo second");
        let site = site.allow("twice = {scripts}/first").allow("twice = {scripts}/second profile=Odd").start();
        let agent = site.agent();
        let said = || site.result("twice", &[])["stdout"].as_str().unwrap().to_owned();
        assert_eq!(said(), "second\n", "{mode:?}: the last line counts");
        let list = std::fs::read_to_string(agent.allowlist()).unwrap();
        std::fs::write(agent.allowlist(), list.replace("/scripts/second", "/scripts/first")).unwrap();
        assert_eq!(said(), "second\n", "{mode:?}: neither follows an edit before the reload");
        agent.reload();
        assert_eq!(said(), "first\n", "{mode:?}: both follow the reload");
        std::fs::write(agent.allowlist(), format!("twice = /opt/twice profil=Odd\n{list}")).unwrap();
        assert_ne!(agent.reload().get("RESULT"), Some("ok"));
        assert_eq!(said(), "first\n", "{mode:?}: a line that is wrong changes nothing for either");
    }
}

#[test]
fn a_full_disk_never_leaves_an_empty_trust_map_or_certificate() {
    let mut site = site().prepare();
    let state = site.agent().trust().parent().unwrap().to_owned();
    let text = std::fs::read(site.agent().trust()).unwrap();
    let disk = Mounted::new(&state, "size=128k");
    std::fs::write(site.agent().trust(), &text).unwrap();
    host::give_to_agent(&state);
    site.start(0);
    let (agent, ca, own) = (site.agent(), site.authority(), site.dispatcher());
    let renewal = trusted(&site).post("/renew", "{}").json();
    let request = csr::check(renewal["csr"].as_str().unwrap(), ExpectedName::Any).unwrap();
    let now = time::OffsetDateTime::now_utc();
    let renewed = ca.sign_agent(&request, &ctrl_exec::pki::serial::fresh().unwrap(), 365, now).unwrap();
    disk.fill();
    let mut http = tls::connect(agent.address(), &ca, &own);
    let added = http.post("/rotate-serial", r#"{"action":"add","serial":"1f"}"#).json();
    assert_eq!(added["status"], "error", "{added}");
    let staged = http.post("/renew-complete", &json!({"cert": renewed.to_pem()}).to_string()).json();
    assert_ne!(staged["staged"], true, "{staged}");
    assert_eq!(std::fs::read(agent.trust()).unwrap(), text);
    assert!(!state.join("agent.crt.staged").exists());
    assert_eq!(agent.reload().get("RESULT"), Some("ok"));
    assert_eq!(http.post("/ping", "{}").status, 200, "still trusted");
    disk.free();
    let added = http.post("/rotate-serial", r#"{"action":"add","serial":"1f"}"#).json();
    assert_eq!(added["status"], "ok", "{added}");
}

/// A small file system in memory, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    fn new(place: &Path, size: &str) -> Self {
        mount(Some("none"), place, Some("tmpfs"), MsFlags::empty(), Some(size)).unwrap();
        Self(place.to_owned())
    }

    /// Takes all there is.
    fn fill(&self) {
        let mut file = std::fs::File::create(self.0.join("filler")).unwrap();
        while file.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
