//! Every line that an agent writes, with its severity and its fields in their order: what alert patterns match.
//!
//! Not here: the lines of pairing, which `pairing::background` compares in the same way, that of what is no request, which
//! `malformed` does, and `accept-fatal`, which no
//! agent of this program can write, since neither a failed handshake nor a lack of descriptors ends it: `accept-error` tells
//! of the latter.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;

use ctrl_exec::sys::user::Account;
use serde_json::{Value, json};

use crate::harness::late::READS_LATE;
use crate::harness::log::Log;
use crate::harness::pki::Credentials;
use crate::harness::process::{finish, program};
use crate::harness::site::Builder;
use crate::harness::{Site, host, pki, tls};

const ERROR: u8 = 3;
const WARNING: u8 = 4;
const INFO: u8 = 6;

const PEER: &str = "PEER=127.0.0.1";
const DISPATCHER: &str = "DISPATCHER=control-1";
const NO_TLS: &str = "REASON=the peer does not speak TLS on this port";
const CLOSED: &str = "REASON=the peer closed the connection during the TLS handshake";

/// A started site and what its agent logs.
struct World {
    site: Site,
    log: Log,
}

impl World {
    fn new(builder: Builder) -> Self {
        Self::prepared(builder.prepare())
    }

    fn prepared(mut site: Site) -> Self {
        let log = Log::listen(&site.agent().root, "dev/log");
        site.start(0);
        Self { site, log }
    }

    /// A request of the trusted dispatcher.
    fn post(&self, path: &str, body: &Value) -> u16 {
        self.post_as(&self.site.dispatcher(), path, body)
    }

    fn post_as(&self, credentials: &Credentials, path: &str, body: &Value) -> u16 {
        tls::connect(self.site.agent().address(), &self.site.authority(), credentials)
            .post(path, &body.to_string())
            .status
    }

    fn get(&self, credentials: &Credentials, path: &str) -> u16 {
        tls::connect(self.site.agent().address(), &self.site.authority(), credentials).get(path).status
    }

    /// SIGHUP. The end of the reload is its line.
    fn reload(&self) {
        crate::harness::host::kill(self.site.agent().pid(), nix::sys::signal::Signal::SIGHUP);
    }

    /// A connection that is no handshake, from one of this host's own addresses.
    fn probe(&self, source: Ipv4Addr) {
        let mut tcp = tls::tcp_from(IpAddr::from(source), self.site.agent().address());
        drop(tcp.write_all(b"GET / HTTP/1.1\r\n\r\n"));
        drop(tcp.read_to_end(&mut Vec::new()));
    }

    #[track_caller]
    fn line(&self, severity: u8, want: &[&str]) {
        assert_eq!(self.log.line(severity, want).ident, "ctrl-exec-agent");
    }
}

#[test]
fn the_start_and_the_files_it_reads() {
    let site = Site::builder().sh("broken", "true").sh("odd", "true").allow("odd = /bin/true").prepare();
    let sidecar = |name: &str, text: &str| {
        std::fs::write(site.agent().root.join("scripts").join(name), text).unwrap();
    };
    sidecar("broken.schema.json", "no json");
    sidecar("odd.schema.json", r#"{"version": "not one"}"#);
    let world = World::prepared(site);
    let agent = world.site.agent();
    let port = format!("PORT={}", agent.address().port());
    let entry = format!("ENTRY={}:3", agent.allowlist().display());
    world.line(WARNING, &["ACTION=config-warn", &entry, "MSG='odd' is set twice: line 3 replaces line 1"]);
    world.line(INFO, &["ACTION=start", &port]);
    let path = format!("PATH={}", agent.revoked().display());
    world.line(INFO, &["ACTION=revoked-serials-absent", &path, "REASON=no revocation list: nothing is revoked"]);
    let sidecar = agent.root.join("scripts/broken.schema.json");
    let reason = format!("REASON={} is no JSON: expected ident at line 1 column 2", sidecar.display());
    world.line(WARNING, &["ACTION=schema-skip", &reason, "SCRIPT=broken"]);
    let reason = "REASON='version' is not 1 to 64 letters, digits, '.', '_' and '-'";
    world.line(WARNING, &["ACTION=schema-version-derive", reason, "SCRIPT=odd"]);
    let text = std::fs::read_to_string(agent.config()).unwrap();
    std::fs::write(agent.config(), text.replace("port = 0", "port = 1")).unwrap();
    world.reload();
    world.line(WARNING, &["ACTION=config-warn", "KEY=port", "MSG=takes effect at the next restart"]);
    world.line(INFO, &["ACTION=reload", "RESULT=ok"]);
    std::fs::write(agent.config(), format!("metrics = 127.0.0.1:0\n{text}")).unwrap();
    world.reload();
    world.line(INFO, &["ACTION=metrics-listen", "ADDRESS=*"]);
    world.line(INFO, &["ACTION=reload", "RESULT=ok"]);
    std::fs::write(agent.config(), "nonsense\n").unwrap();
    world.reload();
    world.line(ERROR, &["ACTION=reload", "ERROR=*", "RESULT=kept the old configuration"]);
}

#[test]
fn doubts_about_the_files_stand_before_the_start_and_an_absent_revocation_list_with_every_load() {
    let site = Site::builder().sh("odd", "true").allow("odd = /bin/true").prepare();
    let trust = std::fs::read_to_string(site.agent().trust()).unwrap();
    std::fs::write(site.agent().trust(), trust + "nonsense\n").unwrap();
    let mut site = site;
    site.start(0);
    let agent = site.agent();
    agent.line("start");
    let lines = crate::harness::audit::lines(&agent.stderr());
    let of = |action: &str| lines.iter().position(|line| line.action() == action).unwrap();
    let warnings = lines.iter().filter(|line| line.action() == "config-warn").count();
    assert_eq!(warnings, lines[..of("start")].iter().filter(|line| line.action() == "config-warn").count());
    assert!(warnings >= 2 && of("revoked-serials-absent") < of("start"), "{lines:?}");
    let absent = || agent.lines("revoked-serials-absent").len();
    assert_eq!(absent(), 1);
    for loads in 2..4 {
        agent.reload().is(&["ACTION=reload", "RESULT=ok"]);
        assert_eq!(absent(), loads);
    }
    std::fs::write(agent.revoked(), "").unwrap();
    agent.reload().is(&["ACTION=reload", "RESULT=ok"]);
    assert_eq!(absent(), 3);
    std::fs::remove_file(agent.revoked()).unwrap();
    agent.reload();
    assert_eq!(absent(), 4);
}

#[test]
fn what_dispatchers_ask_and_get() {
    let world = World::new(Site::builder().sh("ok", "exit 3").agent("stdin_timeout = 1").sh("slow", READS_LATE));
    world.post("/ping", &json!({"reqid": "p1"}));
    world.line(INFO, &["ACTION=ping", DISPATCHER, PEER, "REQID=p1"]);
    world.get(&world.site.dispatcher(), "/capabilities");
    world.line(INFO, &["ACTION=capabilities", DISPATCHER, PEER, "SCRIPTS=2"]);
    world.post("/run", &json!({"script": "ok", "reqid": "r1"}));
    world.line(INFO, &["ACTION=run", DISPATCHER, "EXIT=3", PEER, "REQID=r1", "SCRIPT=ok"]);
    world.post("/run", &json!({"script": "nope", "reqid": "r2"}));
    world.line(WARNING, &["ACTION=deny", PEER, "REQID=r2", "SCRIPT=nope"]);
    let args = vec!["x".repeat(100_000); 3];
    std::thread::scope(|scope| {
        scope.spawn(|| world.site.agent().let_read_late());
        world.post("/run", &json!({"script": "slow", "args": args}));
    });
    let line = world.log.line(WARNING, &["ACTION=stdin-timeout", "BYTES=*"]);
    // All but what a pipe holds, which is whole pages and 64 KiB at most (pipe(7)).
    let context = json!({"script": "slow", "args": args, "reqid": "", "peer_ip": "127.0.0.1", "username": "",
        "token": "", "dispatcher": "control-1", "timestamp": "2026-11-22T00:00:00Z"});
    let held = context.to_string().len() - line.get("BYTES").unwrap().parse::<usize>().unwrap();
    assert!((4096..=65_536).contains(&held) && held.is_multiple_of(4096), "{held}");
}

#[test]
fn what_a_hook_decides() {
    let hook = "case $ENVEXEC_TOKEN in good) exit 0;; hang) sleep 300;; esac; exit 3";
    let world = World::new(Site::builder().sh("ok", "true").agent_hook(hook).agent("auth_hook_timeout = 5"));
    let reason = "REASON=insufficient privilege";
    let run = |token: &str, user: &str| {
        world.post("/run", &json!({"script": "ok", "reqid": "r", "token": token, "username": user}))
    };
    run("good", "ann");
    let auth = ["ACTION=auth", "AUTHACTION=run", "IP=127.0.0.1"];
    world.line(INFO, &[&auth[..], &["RESULT=pass", "USER=ann"]].concat());
    run("bad", "");
    world.line(WARNING, &[&auth[..], &[reason, "RESULT=deny", "USER=(none)"]].concat());
    world.line(WARNING, &["ACTION=deny", DISPATCHER, PEER, reason, "REQID=r", "SCRIPT=ok"]);
    run("hang", "");
    world.line(WARNING, &["ACTION=auth-hook-timeout", "TIMEOUT=5"]);
    world.get(&world.site.dispatcher(), "/capabilities");
    world.line(WARNING, &["ACTION=capabilities-deny", DISPATCHER, PEER, reason]);
    world.post("/rotate-serial", &json!({"serial": "abc"}));
    world.line(WARNING, &["ACTION=rotate-deny", DISPATCHER, reason]);
    let hook = world.site.agent().root.join("etc/ctrl-exec-agent/auth-hook");
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o644)).unwrap();
    run("good", "");
    let path = format!("HOOK={}", hook.display());
    world.line(ERROR, &["ACTION=auth", &path, "REASON=hook-not-executable", "RESULT=error"]);
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o775)).unwrap();
    run("good", "");
    let place = hook.display();
    let doubt = format!(
        "ERROR=auth hook {place} cannot be trusted: {place} has mode 0775, writable by others than root (chmod go-w)"
    );
    world.line(ERROR, &["ACTION=auth", &doubt, &path, "REASON=hook-not-trusted", "RESULT=error"]);
}

#[test]
fn who_is_not_served() {
    let world = World::new(Site::builder().agents(2));
    let stranger = world.site.agents[1].credentials.clone();
    let serial = format!("PEER_SERIAL={}", stranger.serial());
    world.post_as(&stranger, "/run", &json!({}));
    world.line(WARNING, &["ACTION=serial-reject", PEER, &serial, "REQID=(none)"]);
    world.get(&stranger, "/capabilities");
    world.line(WARNING, &["ACTION=capabilities-deny", PEER, &serial, "REASON=serial-mismatch"]);
    world.get(&stranger, "/result/r9");
    world.line(WARNING, &["ACTION=serial-reject", PEER, &serial, "REQID=r9"]);
    std::fs::write(world.site.agent().revoked(), stranger.serial()).unwrap();
    let trust = std::fs::read_to_string(world.site.agent().trust()).unwrap();
    std::fs::write(world.site.agent().trust(), "").unwrap();
    world.reload();
    world.line(INFO, &["ACTION=reload", "RESULT=ok"]);
    world.get(&world.site.dispatcher(), "/capabilities");
    let own = format!("PEER_SERIAL={}", world.site.dispatcher().serial());
    world.line(WARNING, &["ACTION=capabilities-deny", PEER, &own, "REASON=no trusted dispatchers stored"]);
    std::fs::write(world.site.agent().trust(), trust).unwrap();
    world.post_as(&stranger, "/ping", &json!({}));
    world.line(WARNING, &["ACTION=revoked-cert", PEER, &format!("SERIAL={}", stranger.serial())]);
}

#[test]
fn who_gets_no_further_than_the_door() {
    let world = World::new(Site::builder());
    for _ in 0..3 {
        world.probe(Ipv4Addr::LOCALHOST);
    }
    world.line(WARNING, &["ACTION=tls-failure", PEER, NO_TLS]);
    world.line(WARNING, &["ACTION=rate-block", PEER, "REASON=probe"]);
    let world = World::new(Site::builder().agent("rate_limit_probe = 0/0/0"));
    for _ in 0..10 {
        world.probe(Ipv4Addr::LOCALHOST);
        world.line(WARNING, &["ACTION=tls-failure", PEER, NO_TLS]);
    }
    world.probe(Ipv4Addr::LOCALHOST);
    world.line(WARNING, &["ACTION=rate-block", PEER, "REASON=volume"]);
    let world = World::new(Site::builder().agent("allowed_ips = 192.0.2.1"));
    world.probe(Ipv4Addr::LOCALHOST);
    world.line(WARNING, &["ACTION=ip-block", PEER]);
}

#[test]
fn a_thousand_addresses_push_out_the_first() {
    let world = World::new(Site::builder());
    let address = world.site.agent().address();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 0..=1000_u16 {
                let [high, low] = number.to_be_bytes();
                drop(tls::tcp_from(IpAddr::from([127, 1, high, low]), address));
            }
        });
        world.line(WARNING, &["ACTION=rate-evict", "COUNT=1000"]);
        // Its other lines are read to the end, or the agent would wait for somebody to read them.
        world.line(WARNING, &["ACTION=tls-failure", "PEER=127.1.3.232", CLOSED]);
    });
}

#[test]
fn an_agent_that_has_too_much_to_do() {
    let text = "echo > {work}/started; while [ ! -e {work}/go ]; do sleep 0.02; done";
    let world = World::new(Site::builder().agent("max_children = 1").sh("wait", text));
    let agent = world.site.agent();
    let mut held = tls::connect(agent.address(), &world.site.authority(), &world.site.dispatcher());
    held.send("POST /run HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n{\"script\":\"wait\"}");
    agent.worked("started");
    assert_eq!(world.post("/ping", &json!({})), 503);
    std::fs::write(agent.work("go"), "").unwrap();
    assert_eq!(held.answer().unwrap().status, 200);
    world.line(WARNING, &["ACTION=overload", "LIVE=1", PEER]);
}

#[test]
fn jobs_and_their_results() {
    let text = "echo > {work}/started; while [ ! -e {work}/go ]; do sleep 0.02; done";
    let site = Site::builder().agents(1).sh("wait", text).prepare();
    let other = pki::issue(&site.authority(), "ctrl-exec-dispatcher");
    let trust = std::fs::read_to_string(site.agent().trust()).unwrap();
    std::fs::write(site.agent().trust(), format!("{trust}{} control-2\n", other.serial())).unwrap();
    let world = World::prepared(site);
    let agent = world.site.agent();
    let submit = |id: &str| world.post("/run", &json!({"script": "wait", "reqid": id, "async": true}));
    assert_eq!(submit("j1"), 202);
    world.line(INFO, &["ACTION=run-async", DISPATCHER, PEER, "REQID=j1", "SCRIPT=wait"]);
    agent.worked("started");
    assert_eq!(submit("j2"), 409);
    world.line(WARNING, &["ACTION=run-async-busy", PEER, "REQID=j2", "SCRIPT=wait"]);
    assert_eq!(world.get(&world.site.dispatcher(), "/result/j1"), 200);
    world.line(INFO, &["ACTION=result", DISPATCHER, PEER, "REQID=j1", "STATUS=running"]);
    assert_eq!(world.get(&world.site.dispatcher(), "/result/none"), 404);
    world.line(INFO, &["ACTION=result-miss", DISPATCHER, PEER, "REQID=none"]);
    // A record of another's, put among this one's by hand.
    let runs = agent.root.join("var/lib/ctrl-exec-agent/runs");
    std::fs::create_dir_all(runs.join("control-2")).unwrap();
    let record = std::fs::read_to_string(runs.join("control-1/j1.json")).unwrap().replace("running", "done");
    std::fs::write(runs.join("control-2/m.json"), record).unwrap();
    assert_eq!(world.get(&other, "/result/m"), 404);
    let denied = ["ACTION=result-deny", "DISPATCHER=control-2", PEER, "REASON=not-owner", "REQID=m"];
    world.line(WARNING, &denied);
    assert_eq!(world.post_as(&other, "/cancel/m", &json!({})), 404);
    world.line(WARNING, &[&["ACTION=cancel-deny"], &denied[1..]].concat());
    std::fs::write(agent.work("go"), "").unwrap();
    crate::harness::eventually("the end of the job", || {
        let mut http = tls::connect(agent.address(), &world.site.authority(), &world.site.dispatcher());
        (http.get("/result/j1").json()["status"] == "done").then_some(())
    });
    world.line(INFO, &["ACTION=result", DISPATCHER, PEER, "REQID=j1", "STATUS=done"]);
    let world = World::new(Site::builder().sh("ok", "true").agent("async_runs_dir = /proc/none"));
    world.post("/run", &json!({"script": "ok", "reqid": "j3", "async": true}));
    let error =
        "ERROR=cannot use the store: cannot create directory /proc/none: No such file or directory (os error 2)";
    world.line(ERROR, &["ACTION=async-store-fail", error, "REQID=j3"]);
}

#[test]
fn an_agent_that_has_no_descriptor_left_says_so_and_goes_on() {
    let world = World::new(Site::builder());
    let limit = |soft: &str| {
        let mut command = program("prlimit".as_ref());
        command.arg("--pid").arg(world.site.agent().pid().to_string()).arg(format!("--nofile={soft}:"));
        if host::is_root() {
            // Who has the agent's account may; root may only where it was left all of its capabilities.
            let nobody = Account::by_name("nobody").unwrap().unwrap();
            command.uid(nobody.uid().as_raw()).gid(nobody.gid().as_raw());
        }
        finish(command, "").exits(0);
    };
    limit("3");
    let waiting = tls::tcp(world.site.agent().address());
    world.line(ERROR, &["ACTION=accept-error", "REASON=*"]);
    limit("1024");
    drop(waiting);
    assert_eq!(world.post("/ping", &json!({"reqid": "p"})), 200);
    world.line(INFO, &["ACTION=ping", DISPATCHER, PEER, "REQID=p"]);
}

#[test]
fn certificates_and_trust() {
    let world = World::new(Site::builder());
    let agent = world.site.agent();
    world.post("/renew", &json!({"reqid": "n1"}));
    world.line(INFO, &["ACTION=renew", PEER, "REQID=n1", "STATUS=csr-generated"]);
    let cert = pki::reissue(&world.site.authority(), "agent1", &agent.credentials, 365).cert;
    world.post("/renew-complete", &json!({"cert": cert, "reqid": "n2"}));
    world.line(INFO, &["ACTION=renew-complete", PEER, "REQID=n2", "STATUS=cert-staged"]);
    world.post("/renew-complete", &json!({"reqid": "n3"}));
    world.line(ERROR, &["ACTION=renew-complete", "ERROR=cert required", PEER, "REQID=n3"]);
    agent.command(&["promote-cert"]).exits(0);
    world.line(INFO, &["ACTION=cert-promote", "STATUS=installed"]);
    std::fs::write(agent.root.join("var/lib/ctrl-exec-agent/agent.crt.staged"), "nonsense").unwrap();
    agent.command(&["promote-cert"]).exits(0);
    let error = "ERROR=renewed cert does not verify against the agent CA: the certificate cannot be read: there is no PEM \
                 block 'CERTIFICATE' in it";
    world.line(WARNING, &["ACTION=cert-promote", error]);
    let key = agent.root.join("etc/ctrl-exec-agent/agent.key");
    std::fs::remove_file(&key).unwrap();
    world.post("/renew", &json!({"reqid": "n4"}));
    let gone = format!("cannot open {}: No such file or directory (os error 2)", key.display());
    let error = format!("ERROR=agent key not available: {gone}");
    world.line(ERROR, &["ACTION=renew", &error, PEER, "REQID=n4"]);

    world.post("/rotate-serial", &json!({"serial": "0xAB"}));
    world.line(INFO, &["ACTION=rotate", DISPATCHER, PEER, "SERIAL=ab", "SERIAL_ACTION=add"]);
    world.post("/rotate-serial", &json!({"serial": "ab", "action": "remove"}));
    world.line(INFO, &["ACTION=rotate", DISPATCHER, PEER, "SERIAL=ab", "SERIAL_ACTION=remove"]);
    world.post("/rotate-serial", &json!({"serial": "ab", "action": "x"}));
    world.line(ERROR, &["ACTION=rotate-fail", DISPATCHER, "ERROR=invalid action 'x'"]);
}

#[test]
fn an_older_trust_file() {
    let site = Site::builder().prepare();
    let older = site.agent().root.join("var/lib/ctrl-exec-agent/ctrl-exec-serial");
    std::fs::remove_file(site.agent().trust()).unwrap();
    std::fs::write(&older, "AB\n").unwrap();
    let world = World::prepared(site);
    let path = format!("PATH={}", older.display());
    world.line(INFO, &["ACTION=trust-migrate", "DISPATCHER=dispatcher", &path, "SERIAL=ab", "STATUS=migrated"]);
}

#[test]
fn jobs_that_cannot_be_looked_through() {
    let site = Site::builder().prepare();
    let runs = site.agent().root.join("closed");
    std::fs::create_dir(&runs).unwrap();
    std::fs::set_permissions(&runs, std::fs::Permissions::from_mode(0o700)).unwrap();
    let config = std::fs::read_to_string(site.agent().config()).unwrap();
    std::fs::write(site.agent().config(), format!("async_runs_dir = {}\n{config}", runs.display())).unwrap();
    let world = World::prepared(site);
    let refused = format!("cannot list {}: Permission denied (os error 13)", runs.display());
    world.line(ERROR, &["ACTION=async-sweep-fail", &format!("ERROR=cannot use the store: {refused}")]);
    assert_eq!(world.post("/ping", &json!({})), 200);
}
