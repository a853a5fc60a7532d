//! The manual page names every key, and no other.

use super::{profile, read};

const PAGE: &str = include_str!("../../../assets/man/ctrl-exec-agent.conf.5");

/// The keys that a section of the page describes, sorted.
fn described(section: &str) -> Vec<&'static str> {
    let sections = PAGE.split("\n.Sh ").find(|text| text.starts_with(section)).unwrap();
    let items = sections.lines().filter_map(|line| line.strip_prefix(".It Ic "));
    sorted(items.filter_map(|item| item.split(' ').next()).collect())
}

fn sorted(mut keys: Vec<&'static str>) -> Vec<&'static str> {
    keys.sort_unstable();
    keys
}

#[test]
fn the_manual_describes_every_key_of_the_agent_and_no_other() {
    assert_eq!(described("SETTINGS OF THE AGENT\n"), sorted(read::keys()));
}

#[test]
fn the_manual_describes_every_key_of_a_profile_and_no_other() {
    assert_eq!(described("PROFILES\n"), sorted(profile::KEYS.to_vec()));
}
