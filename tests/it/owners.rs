//! What of a configuration lets scripts reach more than they seem to, and that the agent says so: profiles whose scripts gain
//! the host in the end, files of the agent's own that have another name, and directories that profiles share.

use crate::harness::Site;
use crate::harness::executor::Mode;
use crate::harness::process::{finish, program};

/// A profile, its lines, and whether its scripts gain the host.
const PROFILES: [(&str, &str, bool); 5] = [
    ("root", "run_as = root", true),
    ("wide", "run_as = 12345\ncaps = CAP_CHOWN", true),
    ("closed", "run_as = root\nwritable = /srv", false),
    ("plain", "run_as = 12345", false),
    ("kills", "run_as = 12345\ncaps = CAP_KILL", false),
];

#[test]
fn a_profile_whose_scripts_gain_the_host_is_named_by_check_and_explanation() {
    let words = "the agent's own places are out of its reach";
    for mode in Mode::ROOT {
        let mut site = Site::builder().executor(mode).sh("try", "true");
        for (name, ..) in PROFILES {
            site = site.allow(&format!("{name} = {{scripts}}/try profile={name}"));
        }
        let mut site = site.prepare();
        let sections = PROFILES.map(|(name, lines, _)| format!("[profile {name}]\n{lines}\n")).concat();
        let config = std::fs::read_to_string(site.agent().config()).unwrap();
        std::fs::write(site.agent().config(), config + &sections).unwrap();
        site.start(0);
        let checked = site.agent().command(&["self-check"]).stdout;
        for (name, _, owns) in PROFILES {
            let line =
                format!("  Profile '{name}': the agent's own places are out of its scripts' reach, but the host");
            assert_eq!(checked.contains(&line), owns, "{mode:?} {name}: {checked}");
            let explained = site.agent().command(&["explain", name]).exits(0).stdout;
            assert!(explained.contains(words), "{mode:?} {name}: {explained}");
            let but = format!("{words}, but the host is not: without 'writable'");
            assert_eq!(explained.contains(&but), owns, "{mode:?} {name}: {explained}");
        }
    }
}

/// A site with a script of a profile that runs as root, and one that may write to the scripts' directory.
fn neighbours(mode: Mode) -> Site {
    let site = Site::builder().executor(mode).sh("plain", "true").allow("strong = {scripts}/plain profile=strong");
    let site = site.allow("weak = {scripts}/plain profile=weak").prepare();
    let (config, scripts) = (site.agent().config(), site.agent().root.join("scripts"));
    let text = std::fs::read_to_string(&config).unwrap();
    let sections = "[profile strong]\nrun_as = root\n[profile weak]\nrun_as = 12345\nwritable = ";
    std::fs::write(&config, format!("{text}{sections}{}\n", scripts.display())).unwrap();
    site
}

#[test]
fn a_file_of_the_agents_own_with_another_name_is_named_and_refuses_who_could_come_to_it_there() {
    for mode in Mode::ROOT {
        let mut site = neighbours(mode);
        let own = site.agent().root.join("etc/ctrl-exec-agent/agent.key");
        let other = site.agent().work("saved.key");
        std::fs::hard_link(&own, &other).unwrap();
        site.start(0);
        let why = format!("{} has another name besides (a hard link)", own.display());
        let said = site.agent().command(&["self-check"]).exits(1).stdout;
        assert!(said.contains(&format!("  Warning: {why}")), "{mode:?}: {said}");
        assert!(said.contains(&format!("  Profile 'strong': every run is refused here: {why}")), "{mode:?}: {said}");
        assert!(!said.contains("'weak': every run") && !said.contains("'default': every run"), "{mode:?}: {said}");
        let explained = site.agent().command(&["explain", "strong"]);
        assert!(explained.code == 1 && explained.stdout.contains(&why), "{mode:?}: {explained:?}");
        let result = site.result("strong", &[]);
        assert_eq!((&result["exit"], &result["reason"]), (&(-1).into(), &"own-linked".into()), "{mode:?}: {result}");
        assert_eq!(site.result("plain", &[])["exit"], 0, "{mode:?}");
        // Without it there is nothing to say.
        std::fs::remove_file(&other).unwrap();
        let said = site.agent().command(&["self-check"]).exits(0).stdout;
        assert!(!said.contains("another name"), "{mode:?}: {said}");
        site.agent().command(&["explain", "strong"]).exits(0);
        site.agent().reload();
        assert_eq!(site.result("strong", &[])["exit"], 0, "{mode:?}");
    }
}

#[test]
fn a_directory_with_scripts_of_others_that_a_profile_may_write_to_is_named() {
    for mode in Mode::ROOT {
        let mut site = neighbours(mode);
        site.start(0);
        let scripts = site.agent().root.join("scripts").display().to_string();
        let said = site.agent().command(&["self-check"]).exits(0).stdout;
        let line =
            format!("  Profile 'weak': it may write to {scripts}, where script 'plain' of profile 'default' is: ");
        assert!(said.contains(&line), "{mode:?}: {said}");
        assert_eq!(said.matches("it may write to").count(), 1, "{mode:?}: {said}");
        // Its own scripts are no others.
        let text = std::fs::read_to_string(site.agent().allowlist()).unwrap();
        let own = text.lines().find(|line| line.starts_with("weak")).unwrap();
        std::fs::write(site.agent().allowlist(), own).unwrap();
        let said = site.agent().command(&["self-check"]).exits(0).stdout;
        assert!(!said.contains("it may write to"), "{mode:?}: {said}");
    }
}

#[test]
fn a_program_with_names_that_nobody_expects_is_warned_about() {
    for mode in Mode::ROOT {
        let mut site = neighbours(mode);
        site.agent_mut().install();
        let file = site.agent().file.clone().unwrap();
        let warned = |site: &Site| {
            let mut check = program(&file);
            check.args(["agent", "--root"]).arg(&site.agent().root).arg("self-check");
            let said = finish(check, "").exits(0).stdout;
            let line = format!("  Warning: {} has more names than it is known by (", file.display());
            said.split_once(&line).map(|(_, rest)| rest.lines().next().unwrap().to_owned())
        };
        site.start(0);
        assert_eq!(warned(&site), None, "{mode:?}");
        // As packages of one file for several roles have it.
        std::fs::hard_link(&file, file.with_file_name("ctrl-exec-agent")).unwrap();
        assert_eq!(warned(&site), None, "{mode:?}");
        std::fs::hard_link(&file, site.agent().work("name")).unwrap();
        let said = warned(&site).unwrap();
        assert!(
            said.starts_with("1 of them") && said.contains("a script of profile 'strong' could give"),
            "{mode:?}: {said}"
        );
        // It is no reason to refuse anything.
        assert_eq!(site.result("strong", &[])["exit"], 0, "{mode:?}");
        let config = std::fs::read_to_string(site.agent().config()).unwrap().replace("run_as = root", "run_as = 12345");
        std::fs::write(site.agent().config(), config).unwrap();
        assert_eq!(warned(&site), None, "{mode:?}: nobody could");
    }
}
