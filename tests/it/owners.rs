//! Profiles whose scripts gain the host in the end, and that the agent says so of each.

use crate::harness::Site;
use crate::harness::executor::Mode;

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
