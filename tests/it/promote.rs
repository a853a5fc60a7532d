//! `promote-cert`, `cert-staged` and `paired`; and the running agent that takes a promoted certificate up.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::harness::audit::Line;
use crate::harness::executor::Mode;
use crate::harness::pki::Credentials;
use crate::harness::{Agent, Site, audit, host, pki, tls};

fn etc(agent: &Agent, name: &str) -> PathBuf {
    agent.root.join("etc/ctrl-exec-agent").join(name)
}

fn staged(agent: &Agent) -> PathBuf {
    agent.root.join("var/lib/ctrl-exec-agent/agent.crt.staged")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// A renewed certificate, staged.
fn stage(site: &Site, days: u32) -> Credentials {
    let renewed = pki::reissue(&site.authority(), "agent1", &site.agent().credentials, days);
    std::fs::write(staged(site.agent()), &renewed.cert).unwrap();
    renewed
}

/// What `promote-cert` logs. It ends well and says nothing else, whatever comes of it.
#[track_caller]
fn promote(agent: &Agent) -> Vec<Line> {
    let ran = agent.command(&["promote-cert"]).exits(0);
    assert_eq!((ran.stdout.as_str(), ran.messages().as_str()), ("", ""), "{ran:?}");
    audit::lines(&ran.stderr)
}

/// Whom the agent shows to be in its next handshake.
fn shown(site: &Site) -> Vec<u8> {
    let tls = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    tls.stream.conn.peer_certificates().unwrap()[0].to_vec()
}

#[test]
fn a_staged_certificate_is_installed_for_the_owner_of_the_present_one() {
    let site = Site::builder().prepare();
    let agent = site.agent();
    let cert = etc(agent, "agent.crt");
    agent.command(&["cert-staged"]).exits(1);
    assert!(promote(agent).is_empty(), "nothing to do is nothing to say");
    let renewed = stage(&site, 365);
    let silent = agent.command(&["cert-staged"]).exits(0);
    assert_eq!((silent.stdout, silent.stderr), (String::new(), String::new()));
    std::fs::set_permissions(&cert, std::fs::Permissions::from_mode(0o640)).unwrap();
    if host::is_root() {
        chown(&cert, Some(0), Some(12_345)).unwrap();
    }
    let before = std::fs::metadata(&cert).unwrap();
    let said = promote(agent);
    assert_eq!(said.len(), 1, "{said:?}");
    assert_eq!(said[0].ident, "ctrl-exec-agent");
    said[0].is(&["ACTION=cert-promote", "STATUS=installed"]);
    assert_eq!(read(&cert), renewed.cert);
    let after = std::fs::metadata(&cert).unwrap();
    let facts = (after.uid(), after.gid(), after.permissions().mode() & 0o7777);
    assert_eq!(facts, (before.uid(), before.gid(), 0o640));
    assert!(!staged(agent).exists());
    agent.command(&["cert-staged"]).exits(1);
    agent.command(&["paired"]).exits(0);
    // Whoever could read the old one can read the new one: the agent perhaps by this bit alone.
    std::fs::set_permissions(&cert, std::fs::Permissions::from_mode(0o604)).unwrap();
    stage(&site, 400);
    promote(agent)[0].is(&["ACTION=cert-promote", "STATUS=installed"]);
    assert_eq!(std::fs::metadata(&cert).unwrap().permissions().mode() & 0o7777, 0o644);
}

#[test]
fn what_may_not_be_installed_is_removed_and_the_present_one_stays() {
    let site = Site::builder().prepare();
    let (agent, ca) = (site.agent(), site.authority());
    let own = &agent.credentials;
    for (text, error) in [
        (pki::reissue(&pki::foreign_authority(), "agent1", own, 365).cert, "does not verify against the agent CA"),
        (pki::issue(&ca, "agent1").cert, "does not match the agent key"),
        (pki::reissue(&ca, "agent2", own, 365).cert, "is for"),
        (pki::reissue(&ca, "agent1", own, 3).cert, "is not newer"),
        (own.cert.clone() + "more", "cannot be read"),
        ("x".repeat(100_000), "cannot be read"),
        (String::new(), "cannot be read"),
    ] {
        std::fs::write(staged(agent), text).unwrap();
        let said = promote(agent);
        said[0].is(&["ACTION=cert-promote", "ERROR=*"]);
        assert!(said[0].get("ERROR").unwrap().contains(error), "{error}: {said:?}");
        assert_eq!(read(&etc(agent, "agent.crt")), own.cert);
        assert!(!staged(agent).exists(), "{error}");
    }
    let target = site.dir().join("target");
    std::fs::write(&target, pki::reissue(&ca, "agent1", own, 365).cert).unwrap();
    std::os::unix::fs::symlink(&target, staged(agent)).unwrap();
    promote(agent)[0].is(&["ACTION=cert-promote", "ERROR=*"]);
    assert_eq!(read(&etc(agent, "agent.crt")), own.cert, "root follows no link out of the agent's directory");
    assert!(target.exists() && staged(agent).symlink_metadata().is_err());
}

#[test]
fn a_fault_that_is_not_the_certificate_s_own_leaves_it_for_the_next_time() {
    let site = Site::builder().prepare();
    let agent = site.agent();
    let soon = time::OffsetDateTime::now_utc() + time::Duration::days(1);
    let early = pki::reissue_at(&site.authority(), "agent1", &agent.credentials, 365, soon);
    std::fs::write(staged(agent), &early.cert).unwrap();
    let said = promote(agent);
    assert!(said[0].get("ERROR").unwrap().contains("compare the clocks"), "{said:?}");
    assert!(staged(agent).exists(), "a clock that is behind destroys nothing");
    let renewed = stage(&site, 365);
    for name in ["ca.crt", "agent.key", "agent.crt"] {
        let away = etc(agent, "away");
        std::fs::rename(etc(agent, name), &away).unwrap();
        promote(agent)[0].is(&["ACTION=cert-promote", "ERROR=*"]);
        assert!(staged(agent).exists(), "{name}");
        agent.command(&["paired"]).exits(1);
        std::fs::rename(away, etc(agent, name)).unwrap();
    }
    promote(agent)[0].is(&["ACTION=cert-promote", "STATUS=installed"]);
    assert_eq!(read(&etc(agent, "agent.crt")), renewed.cert);
    // Killed between its two steps.
    std::fs::write(staged(agent), &renewed.cert).unwrap();
    promote(agent)[0].is(&["ACTION=cert-promote", "STATUS=installed"]);
    assert!(!staged(agent).exists());
    assert_eq!(read(&etc(agent, "agent.crt")), renewed.cert);
}

#[test]
fn a_configuration_that_cannot_be_used_is_said_and_changes_nothing() {
    let site = Site::builder().prepare();
    let agent = site.agent();
    stage(&site, 365);
    std::fs::write(agent.allowlist(), "nonsense\n").unwrap();
    agent.command(&["cert-staged"]).exits(0);
    agent.command(&["paired"]).exits(0);
    for broken in [true, false] {
        if broken {
            std::fs::write(agent.config(), "nonsense\n").unwrap();
        } else {
            std::fs::remove_file(agent.config()).unwrap();
        }
        let ran = agent.command(&["promote-cert"]).exits(0);
        assert!(ran.stdout.is_empty() && ran.stderr.contains(&agent.config().display().to_string()), "{ran:?}");
        assert!(staged(agent).exists());
        for verb in ["cert-staged", "paired"] {
            let silent = agent.command(&[verb]).exits(1);
            assert_eq!((silent.stdout, silent.stderr), (String::new(), String::new()), "{verb}");
        }
    }
    assert_eq!(read(&etc(agent, "agent.crt")), agent.credentials.cert);
}

#[test]
fn a_running_agent_shows_what_root_has_promoted_after_a_reload() {
    let site = Site::builder().start();
    let agent = site.agent();
    let mut open = tls::connect(agent.address(), &site.authority(), &site.dispatcher());
    assert_eq!(open.post("/ping", "{}").json()["staged"], false);
    let renewed = stage(&site, 365);
    let waiting = open.post("/ping", "{}").json();
    assert_eq!(waiting["staged"], true);
    promote(agent);
    agent.reload().is(&["ACTION=reload", "RESULT=ok"]);
    assert_eq!(shown(&site), renewed.certificate().der().to_vec());
    let after = open.post("/ping", "{}").json();
    assert_eq!((&after["staged"], &after["expiry"]), (&json!(false), &json!(renewed.certificate().expiry_text())));
    site.control(&["ping", "agent1"]).exits(0);
}

#[test]
fn a_reload_promotes_only_where_the_agent_may_write() {
    // A root executor demands that nobody but root may.
    let site = Site::builder().executor(Mode::Private).start();
    let agent = site.agent();
    let renewed = stage(&site, 365);
    if host::is_root() {
        agent.reload().is(&["ACTION=reload", "RESULT=ok"]);
        assert!(staged(agent).exists() && agent.lines("cert-promote").is_empty());
        assert_eq!(shown(&site), agent.credentials.certificate().der().to_vec());
    }
    for path in [etc(agent, ""), etc(agent, "agent.crt"), staged(agent)] {
        host::give_to_agent(&path);
    }
    agent.reload().is(&["ACTION=reload", "RESULT=ok"]);
    agent.line("cert-promote").is(&["ACTION=cert-promote", "STATUS=installed"]);
    assert_eq!(shown(&site), renewed.certificate().der().to_vec());
    assert!(!staged(agent).exists());
    std::fs::write(staged(agent), "nonsense").unwrap();
    agent.reload().is(&["ACTION=reload", "RESULT=ok"]);
    agent.line_where("cert-promote", |line| line.get("ERROR").is_some());
    assert_eq!(shown(&site), renewed.certificate().der().to_vec());
}

#[test]
fn a_pairing_that_was_interrupted_is_completed_before_the_start() {
    let site = Site::builder().prepare();
    let agent = site.agent();
    stage(&site, 365);
    let fresh = pki::issue(&site.authority(), "agent1");
    let ca = site.authority().certificate().to_pem();
    let journal = json!({"cert": fresh.cert, "key": fresh.key, "ca": ca, "trusted": ["abc", "second"]});
    std::fs::write(etc(agent, "agent.key.pairing"), journal.to_string()).unwrap();
    let ran = agent.command(&["promote-cert"]).exits(0);
    assert!(ran.stderr.contains("it is complete now"), "{ran:?}");
    assert_eq!((read(&etc(agent, "agent.crt")), read(&etc(agent, "agent.key"))), (fresh.cert, fresh.key));
    assert!(!staged(agent).exists(), "it was the old key's");
    assert!(read(&agent.trust()).contains("abc second\n"));
}
