//! The older trust file, which held one serial and nothing else.

use std::path::{Path, PathBuf};

use crate::harness::{Agent, Site};

fn older(agent: &Agent, directory: &str) -> PathBuf {
    agent.root.join(directory).join("ctrl-exec-serial")
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// An agent with an older file and no map.
fn site(directory: &str) -> (Site, PathBuf) {
    let site = Site::builder().sh("ok", "echo ran").prepare();
    let path = older(site.agent(), directory);
    std::fs::write(&path, site.dispatcher().serial().to_uppercase() + "\n").unwrap();
    std::fs::remove_file(site.agent().trust()).unwrap();
    (site, path)
}

#[test]
fn it_becomes_a_line_of_the_map_at_the_start_and_only_once() {
    for directory in ["var/lib/ctrl-exec-agent", "etc/ctrl-exec-agent"] {
        let (mut site, path) = site(directory);
        site.start(0);
        assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
        let agent = site.agent();
        assert_eq!(agent.line("run").get("DISPATCHER"), Some("dispatcher"));
        let serial = site.dispatcher().serial();
        agent.line("trust-migrate").is(&[
            "ACTION=trust-migrate",
            "DISPATCHER=dispatcher",
            &format!("PATH={}", path.display()),
            &format!("SERIAL={serial}"),
            "STATUS=migrated",
        ]);
        assert!(read(&agent.trust()).ends_with(&format!("\n{serial} dispatcher\n")));
        assert!(!path.exists(), "or taking the map away would bring the trust back");
        std::fs::remove_file(agent.trust()).unwrap();
        site.agent_mut().stop();
        site.start(0);
        site.control(&["run", "agent1", "ok"]).exits(1);
        assert!(site.agent().lines("trust-migrate").is_empty());
    }
}

#[test]
fn a_byte_order_mark_does_not_end_the_trust_in_it() {
    let (mut site, path) = site("var/lib/ctrl-exec-agent");
    std::fs::write(&path, format!("\u{feff}{}\r\n", site.dispatcher().serial().to_uppercase())).unwrap();
    site.start(0);
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
}

#[test]
fn a_map_that_is_there_is_somebody_s_decision() {
    let (mut site, path) = site("var/lib/ctrl-exec-agent");
    std::fs::write(site.agent().trust(), "").unwrap();
    site.start(0);
    site.control(&["run", "agent1", "ok"]).exits(1);
    assert!(path.exists() && site.agent().lines("trust-migrate").is_empty());
}

#[test]
fn one_without_a_serial_trusts_nobody_and_is_reported() {
    for text in ["", "not a serial\n", "# nothing\n"] {
        let (mut site, path) = site("var/lib/ctrl-exec-agent");
        std::fs::write(&path, text).unwrap();
        site.start(0);
        site.agent().line("trust-migrate").is(&["ACTION=trust-migrate", "ERROR=*", "PATH=*"]);
        site.control(&["run", "agent1", "ok"]).exits(1);
        assert!(path.exists() && !site.agent().trust().exists());
    }
}

#[test]
fn an_agent_that_starts_without_root_has_it_done_by_promote_cert() {
    let (site, path) = site("etc/ctrl-exec-agent");
    let ran = site.agent().command(&["promote-cert"]).exits(0);
    assert_eq!(ran.lines("trust-migrate")[0].get("STATUS"), Some("migrated"), "{ran:?}");
    assert!(!path.exists() && read(&site.agent().trust()).contains(" dispatcher\n"));
}
