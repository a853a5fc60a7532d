//! Which scripts run: those that the allowlist names, from where they may lie.

use std::os::unix::fs::symlink;

use serde_json::json;

use crate::harness::Site;

#[test]
fn names_that_are_not_listed_run_nothing_and_are_logged() {
    let site = Site::builder().sh("ok", "echo ran >> {work}/ran").start();
    let path = site.agent().root.join("scripts/ok").display().to_string();
    for name in ["nope", "../ok", "../scripts/ok", "./ok", "ok ", "OK", path.as_str(), "ok;ok", "*"] {
        let result = site.result(name, &[]);
        assert_eq!((&result["exit"], &result["error"]), (&json!(-1), &json!("script not permitted")), "{name}");
        let reqid = result["reqid"].as_str().unwrap().to_owned();
        let line = site.agent().line_where("deny", |line| line.get("REQID") == Some(&reqid));
        line.is(&["ACTION=deny", "PEER=127.0.0.1", "REQID=*", &format!("SCRIPT={name}")]);
    }
    assert!(!site.agent().work("ran").exists());
}

#[test]
fn scripts_outside_of_script_dirs_run_nothing_wherever_their_links_lie() {
    let site = Site::builder()
        .agent("script_dirs = {scripts}")
        .sh("inside", "echo inside")
        .allow("by-link = {scripts}/link-in")
        .allow("out = /bin/echo")
        .allow("link-out = {scripts}/link-out")
        .allow("climbs-in = {scripts}/../scripts/inside")
        .allow("climbs-out = {scripts}/../scripts-evil/x")
        .allow("sibling = {scripts}-evil/x")
        .start();
    let scripts = site.agent().root.join("scripts");
    symlink(scripts.join("inside"), scripts.join("link-in")).unwrap();
    symlink("/bin/echo", scripts.join("link-out")).unwrap();
    std::fs::create_dir(site.agent().root.join("scripts-evil")).unwrap();
    crate::harness::agent::write_executable(&site.agent().root.join("scripts-evil/x"), "#!/bin/sh\necho evil\n");
    for name in ["inside", "by-link", "climbs-in"] {
        assert_eq!(site.result(name, &[])["stdout"], "inside\n", "{name}");
    }
    for name in ["out", "link-out", "climbs-out", "sibling"] {
        let result = site.result(name, &["evil"]);
        assert_eq!((&result["exit"], &result["error"]), (&json!(-1), &json!("script not permitted")), "{name}");
        assert_eq!(result["reason"], "script-not-in-script-dirs", "{result}");
    }
    assert_eq!(site.agent().lines("deny").len(), 4);
}

#[test]
fn script_dirs_that_are_links_count_as_what_they_mean() {
    let mut site = Site::builder().agent("script_dirs = {scripts}-alias").sh("inside", "echo inside").prepare();
    let scripts = site.agent().root.join("scripts");
    symlink(&scripts, site.agent().root.join("scripts-alias")).unwrap();
    site.start(0);
    assert_eq!(site.result("inside", &[])["stdout"], "inside\n");
}
