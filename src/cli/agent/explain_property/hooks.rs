//! Of a hook an explanation says that it would be asked, and asks it nothing: what it would say stays open.

use super::*;
use crate::hook::{Context, Decision};
use crate::wire::explanation::{Line, Verdict};

/// No hook, or one of each kind.
pub(super) const LINES: [&str; 6] = [
    "",
    "",
    "auth_hook = {}/etc/hook-0",
    "auth_hook = {}/etc/hook-1",
    "auth_hook = {}/etc/hook-77\nauth_hook_timeout = 3",
    "auth_hook = {}/etc/hook-killed",
];

pub(super) fn put(site: &Site) {
    for (name, end) in [("0", "exit 0"), ("1", "exit 1"), ("77", "exit 77"), ("killed", "kill -9 $$")] {
        let text = format!("#!/bin/sh\n: > {}\n{end}\n", site.at("asked").display());
        site.put(&format!("etc/hook-{name}"), &text, 0o755);
    }
}

/// The gate passes where there is none, leaves the decision open where there is one that a run asks, and the hook was not
/// asked.
pub(super) fn judge(site: &Site, case: &Case, gates: &[Line], snapshot: &Snapshot) {
    assert!(!site.at("asked").exists(), "{case:?}");
    let line = gates.iter().find(|line| line.gate == "hook").unwrap();
    let Some(hook) = &snapshot.hook else {
        assert_eq!(line.verdict, Verdict::Passes, "{case:?}");
        return;
    };
    let configured = std::fs::read_to_string(site.places().config).unwrap();
    let number = configured.lines().position(|line| line.starts_with("auth_hook = ")).unwrap() + 1;
    assert_eq!(line.place, Some(format!("{}:{number}", site.places().config.display())), "{case:?}");
    assert_eq!(line.verdict, Verdict::NotJudged, "{case:?}");
    assert!(line.text.starts_with(&format!("{} would be asked", hook.path().display())), "{case:?}: {}", line.text);
}

#[test]
fn what_an_explanation_leaves_open_is_what_the_hook_of_a_run_decides() {
    let site = Site::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (line, allows) in LINES[2..].iter().zip([true, false, false, false]) {
        let settings = vec![*line];
        site.configure(&Case { settings, profile: vec!["run_as = daemon"], ..lacking::plain() });
        let log = Logger::to_writer(Ident::Agent, Box::new(std::io::sink()));
        let (snapshot, _) = Snapshot::load(&site.places(), "here", &log).unwrap();
        let hook = snapshot.hook.unwrap();
        // A process that another test has just started may still have the hook open, as this one wrote it.
        let is_busy =
            |said: &Decision| matches!(said, Decision::Denied { reason, .. } if reason.contains("Text file busy"));
        let mut answers = std::iter::repeat_with(|| runtime.block_on(hook.ask(&Context::default())));
        let decision = answers.find(|said| !is_busy(said)).unwrap();
        assert_eq!(decision == Decision::Allowed, allows, "{line}: {decision:?}");
        assert!(site.at("asked").exists(), "{line}");
        std::fs::remove_file(site.at("asked")).unwrap();
    }
}
