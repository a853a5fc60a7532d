//! Places of the agent's own that no configuration names and nobody has made: a script must not make them, and no operator has to.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

use crate::harness::executor::Mode;
use crate::harness::{Site, audit};

/// Tries to make what decides about the agent, and to see what is there.
const FORGE: &str = "mkdir {root}/var/lib/ctrl-exec-agent {root}/etc/other 2>&1; ls {root}/var/lib/ctrl-exec-agent 2>&1
    echo forged > {root}/var/lib/ctrl-exec-agent/agent.crt.staged; rmdir {root}/etc/other; echo ran";

/// A site whose agent has its trust elsewhere, and no `/var/lib/ctrl-exec-agent`.
fn site(mode: Mode) -> (Site, PathBuf) {
    let site =
        Site::builder().executor(mode).sh("try", "true").allow("strong = {scripts}/try profile=strong").prepare();
    let agent = site.agent();
    let (root, state) = (agent.root.display().to_string(), agent.root.join("var/lib/ctrl-exec-agent"));
    agent.write_script("try", &format!("#!/bin/sh\n{}\n", FORGE.replace("{root}", &root)));
    std::fs::create_dir(agent.root.join("trust")).unwrap();
    std::fs::rename(agent.trust(), agent.root.join("trust/map")).unwrap();
    std::fs::remove_dir(&state).unwrap();
    let text = std::fs::read_to_string(agent.config()).unwrap();
    let trust = format!("trusted_dispatchers_path = {root}/trust/map\n");
    std::fs::write(agent.config(), format!("{trust}{text}[profile strong]\nrun_as = root\n")).unwrap();
    (site, state)
}

#[test]
fn a_place_that_no_configuration_names_is_there_before_a_script_could_make_it() {
    for mode in Mode::ROOT {
        let (mut site, state) = site(mode);
        // What is to be is no fault beforehand.
        let said = site.agent().command(&["self-check"]).stdout;
        assert!(!said.contains("every run is refused here"), "{mode:?}: {said}");
        let explained = site.agent().command(&["explain", "strong"]).exits(1).stdout;
        assert!(explained.contains("start the executor or reload the agent, which makes it"), "{mode:?}: {explained}");
        assert!(!state.exists(), "who only asks makes nothing");
        site.start(0);
        let facts = std::fs::symlink_metadata(&state).unwrap();
        assert_eq!((facts.mode() & 0o7777, facts.uid()), (0o750, 65_534), "{mode:?}");
        let stderr = if mode == Mode::Own { site.agent().stderr() } else { site.agent().service().stderr() };
        let made: Vec<_> = audit::lines(&stderr).into_iter().filter(|line| line.action() == "exec-made").collect();
        assert_eq!(made.iter().map(|line| line.get("PATH")).collect::<Vec<_>>(), [state.to_str()], "{mode:?}");
        let said = site.result("strong", &[]);
        let out = said["stdout"].as_str().unwrap();
        assert!(out.ends_with("ran\n") && out.contains("File exists") && !out.contains("runs"), "{mode:?}: {said}");
        assert!(!state.join("agent.crt.staged").exists(), "{mode:?}");
        site.agent().command(&["explain", "strong"]).exits(0);
        // Where it has gone meanwhile, a script makes none.
        std::fs::remove_dir_all(&state).unwrap();
        let said = site.result("strong", &[]);
        assert_eq!((&said["exit"], &said["reason"]), (&(-1).into(), &"own-missing".into()), "{mode:?}: {said}");
        assert!(!state.exists(), "{mode:?}");
        site.agent().reload();
        assert!(state.join("runs").is_dir(), "{mode:?}");
        assert_eq!(site.result("strong", &[])["exit"], 0, "{mode:?}");
    }
}

#[test]
fn a_configuration_that_names_all_of_its_places_needs_no_other() {
    for mode in Mode::ROOT {
        let (mut site, state) = site(mode);
        let (root, config) = (site.agent().root.display().to_string(), site.agent().config());
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::create_dir(site.agent().root.join("trust/runs")).unwrap();
        crate::harness::host::give_to_agent(&site.agent().root.join("trust/runs"));
        let named = format!("cert_staging_path = {root}/trust/staged\nasync_runs_dir = {root}/trust/runs\n");
        std::fs::write(&config, named + &text).unwrap();
        site.agent().command(&["explain", "strong"]).exits(0);
        site.start(0);
        assert!(!state.exists(), "{mode:?}");
        // It is the script's to make like any other directory: nothing is read there.
        let said = site.result("strong", &[]);
        assert_eq!(said["stdout"], "ran\n", "{mode:?}: {said}");
        assert_eq!(std::fs::read_to_string(state.join("agent.crt.staged")).unwrap(), "forged\n", "{mode:?}");
        std::fs::write(state.join("ctrl-exec-serial"), site.dispatcher().serial()).unwrap();
        std::fs::remove_file(site.agent().root.join("trust/map")).unwrap();
        site.agent_mut().stop();
        site.start(0);
        site.control(&["run", "agent1", "strong"]).exits(1);
        assert!(state.join("ctrl-exec-serial").exists() && site.agent().lines("trust-migrate").is_empty(), "{mode:?}");
    }
}
