//! TLS sessions that one call of the command line leaves for the next: what they save, and what they never give.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};

use rustls::ClientConfig;
use rustls::client::Resumption;
use serde_json::json;
use time::{Duration, OffsetDateTime};

use crate::harness::http::Http;
use crate::harness::pki::Credentials;
use crate::harness::process::{finish, program};
use crate::harness::tls::Tls;
use crate::harness::{Agent, Site, binary, eventually, host, pki, tls};

/// Pings the only agent, which says how the connection's session began.
#[track_caller]
fn session(site: &Site) -> String {
    ping(site, &[])
}

#[track_caller]
fn ping(site: &Site, options: &[&str]) -> String {
    let ran = site.control(&[options, &["--json", "ping", "agent1"]].concat()).exits(0);
    assert_eq!(ran.messages(), "");
    ran.result()["session"].as_str().unwrap().to_owned()
}

/// What is kept.
fn kept(place: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(place).map(|entries| entries.map(|entry| entry.unwrap().path()).collect::<Vec<_>>());
    let mut files = entries.unwrap_or_default();
    files.retain(|path| path.file_name().unwrap() != ".swept");
    files
}

/// A site whose agent listens at the same port after a restart.
fn steady() -> Site {
    let mut site = Site::builder().prepare();
    let config = fs::read_to_string(site.agent().config()).unwrap();
    let port = format!("port = {}\n", host::own_port());
    fs::write(site.agent().config(), config.replace("port = 0\n", &port)).unwrap();
    site.start(0);
    site
}

/// Puts another certificate of the dispatcher in place.
fn show(site: &Site, credentials: &Credentials) {
    fs::write(site.control.join("etc/ctrl-exec/dispatcher.crt"), &credentials.cert).unwrap();
}

fn trust(agent: &Agent, serials: &[String]) {
    let lines: String = serials.iter().flat_map(|serial| [serial, " control-1\n"]).collect();
    fs::write(agent.trust(), lines).unwrap();
    agent.reload();
}

#[test]
fn the_second_call_resumes_the_session_of_the_first() {
    let site = Site::builder().agents(2).sh("ok", "echo ran").start();
    assert_eq!((session(&site), session(&site), session(&site)), ("full".into(), "resumed".into(), "resumed".into()));
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
    assert_eq!(session(&site), "resumed", "a run leaves one too");
    let both = site.control(&["--json", "ping", "agent1", "agent2"]).exits(0).json();
    assert_eq!((&both["results"][0]["session"], &both["results"][1]["session"]), (&json!("resumed"), &json!("full")));
}

#[test]
fn what_is_kept_is_for_this_user_alone_and_used_once() {
    let site = Site::builder().start();
    session(&site);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
    assert_eq!(mode(&site.sessions()), 0o700);
    let files = kept(&site.sessions());
    assert_eq!(files.len(), 1);
    assert_eq!(mode(&files[0]), 0o600);
    let used = fs::read(&files[0]).unwrap();
    session(&site);
    assert_ne!(fs::read(&files[0]).unwrap(), used);
}

#[test]
fn no_resume_neither_uses_nor_keeps_a_session() {
    let site = Site::builder().start();
    assert_eq!(ping(&site, &["--no-resume"]), "full");
    assert!(kept(&site.sessions()).is_empty());
    session(&site);
    let file = kept(&site.sessions()).remove(0);
    let before = fs::read(&file).unwrap();
    assert_eq!(ping(&site, &["--no-resume"]), "full");
    assert_eq!(fs::read(&file).unwrap(), before);
    assert_eq!(session(&site), "resumed");
}

#[test]
fn a_login_keeps_its_sessions_in_its_own_runtime_directory() {
    let site = Site::builder().start();
    let (login, config) = (site.dir().join("login"), site.control.join("etc/ctrl-exec/ctrl-exec.conf"));
    fs::create_dir(&login).unwrap();
    let registry = format!("registry_dir = {}\n", site.registry().display());
    fs::write(&config, fs::read_to_string(&config).unwrap() + &registry).unwrap();
    let ping = || {
        let mut command = program(&binary());
        command.args(["--json", "ping", "agent1", "--config"]).arg(&config).env("XDG_RUNTIME_DIR", &login);
        finish(command, "").exits(0).result()["session"].clone()
    };
    assert_eq!((ping(), ping()), (json!("full"), json!("resumed")));
    assert_eq!((kept(&login.join("ctrl-exec")).len(), kept(&site.sessions()).len()), (1, 0));
}

#[test]
fn a_retired_serial_gains_nothing_by_a_ticket() {
    let site = Site::builder().start();
    let (agent, old) = (site.agent(), site.dispatcher());
    let new = pki::issue(&site.authority(), "ctrl-exec-dispatcher");
    trust(agent, &[old.serial(), new.serial()]);
    assert_eq!((session(&site), session(&site)), ("full".into(), "resumed".into()));
    // Without a reload, so that the agent still knows the ticket.
    let change = |action| {
        let body = json!({"serial": old.serial(), "action": action}).to_string();
        let answer = tls::ask_1_0(agent.address(), &site.authority(), &new, "/rotate-serial", &body);
        assert_eq!(answer.json()["status"], "ok");
    };
    change("remove");
    let refused = site.control(&["--json", "ping", "agent1"]).exits(1).result();
    assert_eq!(refused["error"], "forbidden: serial mismatch");
    agent.line("serial-reject");
    change("add");
    assert_eq!(session(&site), "resumed");
}

#[test]
fn a_revoked_serial_gains_nothing_by_a_ticket() {
    let site = Site::builder().start();
    session(&site);
    fs::write(site.agent().revoked(), site.dispatcher().serial()).unwrap();
    site.agent().reload();
    let refused = site.control(&["--json", "ping", "agent1"]).exits(1).result();
    assert_eq!(refused["error"], "forbidden: certificate revoked");
}

#[test]
fn tickets_are_worthless_once_the_agent_trusts_another_ca() {
    let site = Site::builder().start();
    session(&site);
    let ca = site.agent().root.join("etc/ctrl-exec-agent/ca.crt");
    fs::write(ca, pki::foreign_authority().certificate().to_pem()).unwrap();
    site.agent().reload();
    site.control(&["ping", "agent1"]).exits(1);
    assert!(site.agent().line("tls-failure").get("REASON").unwrap().contains("not signed by this CA"));
}

/// A client as any TLS library makes one, which remembers sessions by itself.
fn remembering(site: &Site, credentials: &Credentials) -> ClientConfig {
    let mut config = tls::config(&site.authority(), Some(credentials));
    config.resumption = Resumption::in_memory_sessions(8);
    config
}

fn connect(site: &Site, config: &ClientConfig) -> Http<Tls> {
    Http::new(tls::handshake(config.clone(), tls::tcp(site.agent().address())).unwrap())
}

#[test]
fn a_certificate_that_expired_meanwhile_gains_nothing_by_a_ticket() {
    let site = Site::builder().start();
    let from = OffsetDateTime::now_utc() - Duration::days(1) + Duration::seconds(10);
    let short = pki::reissue_at(&site.authority(), "ctrl-exec-dispatcher", &site.dispatcher(), 1, from);
    trust(site.agent(), &[short.serial()]);
    let config = remembering(&site, &short);
    for expected in ["full", "resumed"] {
        assert_eq!(connect(&site, &config).post("/ping", "{}").json()["session"], expected);
    }
    let end = short.certificate().not_after() + Duration::SECOND;
    eventually("the end of the certificate", || (OffsetDateTime::now_utc() > end).then_some(()));
    let mut http = connect(&site, &config);
    http.send("POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}");
    assert_eq!(http.rest(), b"", "it was answered");
    assert!(site.agent().line("tls-failure").get("REASON").unwrap().contains("it expired on"));
}

#[test]
fn an_agent_that_was_restarted_or_reloaded_is_called_as_if_nothing_had_been_kept() {
    let mut site = steady();
    assert_eq!((session(&site), session(&site)), ("full".into(), "resumed".into()));
    site.agent_mut().stop();
    site.start(0);
    assert_eq!((session(&site), session(&site)), ("full".into(), "resumed".into()));
    site.agent().reload();
    assert_eq!((session(&site), session(&site)), ("full".into(), "resumed".into()));
}

#[test]
fn a_renewed_certificate_of_the_dispatcher_begins_anew() {
    let site = Site::builder().start();
    let (old, ca) = (site.dispatcher(), site.authority());
    let renewed = pki::reissue(&ca, "ctrl-exec-dispatcher", &old, 30);
    trust(site.agent(), &[old.serial(), renewed.serial()]);
    session(&site);
    show(&site, &renewed);
    assert_eq!((session(&site), session(&site)), ("full".into(), "resumed".into()));
}

#[test]
fn a_resumed_session_is_held_against_the_pin() {
    let site = Site::builder().start();
    session(&site);
    let mut record: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(site.record("agent1")).unwrap()).unwrap();
    record["cert_key_sha256"] = "00".repeat(32).into();
    fs::write(site.record("agent1"), record.to_string()).unwrap();
    let refused = site.control(&["--json", "ping", "agent1"]).exits(1).result();
    assert!(refused["error"].as_str().unwrap().contains("presented another key"), "{refused}");
    assert_eq!(site.agent().lines("ping").len(), 1);
    assert!(kept(&site.sessions()).is_empty(), "it is not tried again");
}

#[test]
fn a_damaged_or_foreign_file_is_never_an_error() {
    let site = Site::builder().start();
    let place = site.sessions();
    let harms: [fn(&Path); 7] = [
        |file| fs::write(file, b"").unwrap(),
        |file| fs::write(file, vec![7; 100_000]).unwrap(),
        |file| fs::write(file, fs::read(file).unwrap().split_off(1)).unwrap(),
        |file| fs::set_permissions(file, Permissions::from_mode(0o640)).unwrap(),
        |file| chown(file, Some(65_534), None).unwrap(),
        |file| {
            fs::rename(file, file.with_extension("away")).unwrap();
            symlink(file.with_extension("away"), file).unwrap();
        },
        |file| {
            fs::remove_file(file).unwrap();
            fs::create_dir(file).unwrap();
        },
    ];
    for harm in harms {
        session(&site);
        let file = kept(&place).into_iter().find(|file| file.is_file() && file.extension().is_none()).unwrap();
        harm(&file);
        assert_eq!(session(&site), "full");
    }
}

#[test]
fn a_directory_that_others_may_enter_is_not_used() {
    let site = Site::builder().start();
    session(&site);
    fs::set_permissions(site.sessions(), Permissions::from_mode(0o755)).unwrap();
    let before = fs::read(kept(&site.sessions()).remove(0)).unwrap();
    assert_eq!((session(&site), session(&site)), ("full".into(), "full".into()));
    assert_eq!(fs::read(kept(&site.sessions()).remove(0)).unwrap(), before);
}
