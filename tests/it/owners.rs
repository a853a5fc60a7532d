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

/// A site with a script of a profile that runs as root, and one that may write to this directory of the agent's.
fn neighbours(mode: Mode, writable: &str) -> Site {
    let site = Site::builder().executor(mode).sh("plain", "true").allow("strong = {scripts}/plain profile=strong");
    let site = site.allow("weak = {scripts}/plain profile=weak").prepare();
    let (config, writable) = (site.agent().config(), site.agent().root.join(writable));
    let text = std::fs::read_to_string(&config).unwrap();
    let sections = "[profile strong]\nrun_as = root\n[profile weak]\nrun_as = 12345\nwritable = ";
    std::fs::write(&config, format!("{text}{sections}{}\n", writable.display())).unwrap();
    site
}

#[test]
fn a_file_of_the_agents_own_with_another_name_is_named_and_refuses_who_could_come_to_it_there() {
    for mode in Mode::ROOT {
        let mut site = neighbours(mode, "work");
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
fn a_directory_with_scripts_of_others_that_a_profile_may_write_around_is_named_and_read_only() {
    for mode in Mode::ROOT {
        let mut site = neighbours(mode, "area");
        let (area, listed) = (site.agent().root.join("area"), site.agent().allowlist());
        std::fs::create_dir_all(area.join("in")).unwrap();
        std::fs::copy(site.agent().root.join("scripts/plain"), area.join("in/other")).unwrap();
        let text = std::fs::read_to_string(&listed).unwrap();
        let line = format!("other = {}/in/other profile=strong\n", area.display());
        std::fs::write(&listed, format!("{text}{line}")).unwrap();
        site.start(0);
        let said = site.agent().command(&["self-check"]).exits(0).stdout;
        let words =
            "in is in what it may write to, and read-only for it, as script 'other' of profile 'strong' is there";
        assert!(said.contains(&format!("  Profile 'weak': {}/{words}", area.display())), "{mode:?}: {said}");
        assert_eq!(said.matches("read-only for it").count(), 1, "{mode:?}: {said}");
        let explained = site.agent().command(&["explain", "weak"]).exits(0).stdout;
        let kept = format!("but not, as scripts of other profiles lie there: {}/in", area.display());
        assert!(explained.contains(&kept), "{mode:?}: {explained}");
        assert_eq!(site.result("weak", &[])["exit"], 0, "{mode:?}");
        // Its own scripts are no others.
        std::fs::write(&listed, format!("{text}{}", line.replace("=strong", "=weak"))).unwrap();
        let said = site.agent().command(&["self-check"]).exits(0).stdout;
        assert!(!said.contains("read-only for it"), "{mode:?}: {said}");
        let explained = site.agent().command(&["explain", "weak"]).exits(0).stdout;
        assert!(!explained.contains("other profiles"), "{mode:?}: {explained}");
    }
}

#[test]
fn a_writable_path_that_is_a_directory_of_other_profiles_scripts_is_no_ok_and_refused() {
    for mode in Mode::ROOT {
        let mut site = neighbours(mode, "scripts");
        site.start(0);
        let said = site.agent().command(&["self-check"]).exits(1).stdout;
        let why = "it may write where the script 'plain' of profile 'default' lies";
        assert!(said.contains(&format!("  Profile 'weak': every run is refused here: {why}")), "{mode:?}: {said}");
        assert!(said.contains("keep scripts in a directory of their own"), "{mode:?}: {said}");
        let explained = site.agent().command(&["explain", "weak"]);
        assert!(explained.code == 1 && explained.stdout.contains("writable-script"), "{mode:?}: {explained:?}");
        let result = site.result("weak", &[]);
        assert_eq!(
            (&result["exit"], &result["reason"]),
            (&(-1).into(), &"writable-script".into()),
            "{mode:?}: {result}"
        );
        assert_eq!(site.result("strong", &[])["exit"], 0, "{mode:?}");
    }
}

#[test]
fn a_secret_that_lies_among_files_of_others_is_named_where_a_script_could_read_it() {
    for mode in Mode::ROOT {
        let mut site = neighbours(mode, "work");
        let map = tempfile::Builder::new().prefix("map").tempfile_in("/var/tmp").unwrap();
        std::fs::copy(site.agent().trust(), map.path()).unwrap();
        let config = site.agent().config();
        let text = std::fs::read_to_string(&config).unwrap();
        let line = format!("trusted_dispatchers_path = {}\n", map.path().display());
        let others = text.lines().filter(|line| !line.starts_with("trusted_dispatchers_path"));
        let text = others.flat_map(|line| [line, "\n"]).collect::<String>();
        std::fs::write(&config, format!("{line}{text}")).unwrap();
        site.start(0);
        let said = site.agent().command(&["self-check"]).stdout;
        let warning = format!("  Warning: {} is the agent's and hidden alone", map.path().display());
        assert!(said.contains(&warning), "{mode:?}: {said}");
        // Where no profile has such rights, and where it has a directory of its own.
        std::fs::write(&config, format!("{line}{}", text.replace("run_as = root", "run_as = 12346"))).unwrap();
        let said = site.agent().command(&["self-check"]).stdout;
        assert!(!said.contains("hidden alone"), "{mode:?}: {said}");
        std::fs::write(&config, &text).unwrap();
        let said = site.agent().command(&["self-check"]).stdout;
        assert!(!said.contains("hidden alone"), "{mode:?}: {said}");
    }
}

#[test]
fn a_program_with_names_that_nobody_expects_is_warned_about() {
    for mode in Mode::ROOT {
        let mut site = neighbours(mode, "work");
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
