//! What `explain` and `self-check` say of profiles that may undo themselves, and of calls that would not start: no more than
//! the run, and no less.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::explain::explain;
use crate::harness::Site;
use crate::harness::agent::write_executable;
use crate::harness::executor::Mode;

const PROFILES: &str = "[profile caps]\nrun_as = root\ncaps = CAP_SYS_ADMIN, CAP_MKNOD\nallow_dangerous_caps = yes
[profile off]\nrun_as = root\nsyscalls = off\nallow_dangerous_caps = yes
[profile off-writable]\nrun_as = root\nsyscalls = off\nallow_dangerous_caps = yes\nwritable = /srv
[profile net]\nrun_as = daemon\nnetwork = no\ncaps = CAP_NET_ADMIN\nallow_dangerous_caps = yes
[profile bounds]\nrun_as = root\nsyscalls = off
[profile allowed]\nrun_as = daemon\nallow_dangerous_caps = yes";

const OFF: &str =
    "'syscalls = off' beside 'allow_dangerous_caps = yes' undoes the confinement, also without a capability: ";
const REACH: &str = "the agent's own places are out of its reach";

fn gate<'a>(json: &'a Value, name: &str) -> &'a Value {
    json["gates"].as_array().unwrap().iter().find(|gate| gate["gate"] == name).unwrap()
}

#[test]
fn what_a_profile_may_undo_is_not_said_to_hold() {
    for mode in Mode::ROOT {
        let mut builder = Site::builder().executor(mode).section(PROFILES).sh("ok", "grep ^Seccomp: /proc/self/status");
        for name in ["caps", "off", "off-writable", "net", "bounds", "allowed"] {
            builder = builder.allow(&format!("{name} = {{scripts}}/ok profile={name}"));
        }
        let site = builder.start();
        for (name, filter, undone, holds) in [
            (
                "caps",
                "list",
                &["CAP_SYS_ADMIN undoes the confinement: ", "CAP_MKNOD undoes the confinement: "][..],
                false,
            ),
            ("off", "none", &[OFF], false),
            ("off-writable", "none", &[OFF], false),
            ("net", "list", &[], true),
            ("bounds", "bounds", &[], true),
            ("allowed", "list", &[], true),
        ] {
            let json = explain(site.agent(), &[], name, &[]).exits(0).json();
            let confined = &json["surroundings"]["confinement"];
            assert_eq!(confined["filter"], filter, "{name}: {confined}");
            let unfiltered = site.result(name, &[])["stdout"] == "Seccomp:\t0\n";
            assert_eq!(unfiltered, filter == "none", "{mode:?} {name}");
            let told = gate(&json, "confinement")["text"].as_str().unwrap();
            assert_eq!(told.contains(REACH), holds, "{name}: {told}");
            assert_eq!(told.contains("may undo what it is confined to: "), !holds, "{name}: {told}");
            let reasons = confined["undone"].as_array().unwrap();
            assert_eq!(reasons.len(), undone.len(), "{name}: {confined}");
            for (found, expected) in reasons.iter().zip(undone) {
                let found = found.as_str().unwrap();
                assert!(found.starts_with(expected) && told.contains(found), "{name}: {found}");
            }
            let text = site.agent().command(&["explain", name]).exits(0).stdout;
            assert_eq!(text.contains("what follows, which the script may undo:"), !holds, "{name}: {text}");
            assert_eq!(text.contains("all, also those that leave the run"), filter == "none", "{name}: {text}");
            let network = text.contains("none of its own; CAP_NET_ADMIN undoes 'network = no': ");
            assert_eq!(
                (network, !confined["network_undone"].is_null()),
                (name == "net", name == "net"),
                "{name}: {text}"
            );
        }
    }
}

#[test]
fn a_check_says_what_a_profile_costs_that_may_undo_itself() {
    let site = Site::builder().executor(Mode::Own).sh("ok", "true").section(PROFILES).prepare();
    let said = site.agent().command(&["self-check"]).exits(0).stdout;
    for (name, cost) in [
        ("caps", "CAP_SYS_ADMIN undoes the confinement: it can make"),
        ("off", OFF),
        ("off-writable", OFF),
        ("net", "CAP_NET_ADMIN undoes 'network = no': with a descriptor"),
        ("bounds", "the agent's own places are out of its scripts' reach, but the host is not"),
    ] {
        let lines: Vec<&str> = said.lines().filter(|line| line.contains(&format!("Profile '{name}': "))).collect();
        assert!(lines[0].starts_with(&format!("  Profile '{name}': {cost}")), "{name}: {said}");
        assert!(name == "bounds" || lines.iter().all(|line| !line.contains("scripts' reach")), "{name}: {said}");
    }
    assert!(!said.contains("Profile 'allowed'"), "{said}");
}

/// A script, what is written into its line of the allowlist besides, and the key that decides; with none, that line does.
const STARTS: [(&str, &str, &str); 7] = [
    ("ok", "", ""),
    ("missing", "", ""),
    ("plain", "", ""),
    ("roots", "", ""),
    ("nowhere", "profile=nowhere", "writable = /no/such"),
    ("lost", "profile=lost", "working_directory = /no/such/directory"),
    ("shut-out", "profile=shut-out", "working_directory = /root"),
];

#[test]
fn why_a_call_would_not_start_is_told_as_the_run_tells_it_and_with_its_line() {
    for mode in Mode::ROOT {
        let mut builder = Site::builder().executor(mode).sh("plain", "true").sh("roots", "true");
        for (name, words, key) in STARTS {
            let file = if words.is_empty() { name } else { "plain" };
            builder = builder.allow(&format!("the-{name} = {{scripts}}/{file} {words}"));
            if !key.is_empty() {
                builder = builder.section(&format!("[profile {name}]\nrun_as = daemon\n{key}"));
            }
        }
        let site = builder.start();
        let scripts = site.agent().root.join("scripts");
        write_executable(&scripts.join("ok"), "#!/bin/sh\n");
        for (file, mode) in [("plain", 0o644), ("roots", 0o700)] {
            std::fs::set_permissions(scripts.join(file), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        for (name, _, key) in STARTS {
            let script = format!("the-{name}");
            let json = explain(site.agent(), &[], &script, &[]).json();
            let start = gate(&json, "start");
            let (file, line) = if key.is_empty() {
                (site.agent().allowlist(), format!("{script} = "))
            } else {
                (site.agent().config(), key.to_owned())
            };
            let text = std::fs::read_to_string(&file).unwrap();
            let number = text.lines().position(|found| found.starts_with(&line)).unwrap() + 1;
            assert_eq!(start["place"], json!(format!("{}:{number}", file.display())), "{start}");
            let result = site.result(&script, &[]);
            let told = start["text"].as_str().unwrap();
            match start["code"].as_str() {
                None => assert_eq!((result["exit"].as_i64(), name), (Some(0), "ok"), "{result}"),
                Some("not-started") => assert_eq!(result["reason"], format!("could not start: {told}"), "{mode:?}"),
                Some(_) => assert_eq!(result["reason"], format!("could not confine: {told}"), "{mode:?}"),
            }
            assert!(name != "missing" || told.contains(&scripts.join("missing").display().to_string()), "{told}");
        }
    }
}

#[test]
fn one_cause_is_told_once() {
    let site = Site::builder()
        .executor(Mode::Own)
        .sh("one", "true")
        .allow("two = {scripts}/one profile=x\nthree = {scripts}/one profile=x\nnone = {scripts}/none profile=x")
        .section("[profile x]\nrun_as = daemon\nreadable = /no/such")
        .prepare();
    let said = site.agent().command(&["self-check"]).exits(1).stdout;
    assert_eq!(said.matches("/no/such").count(), 1, "{said}");
    assert_eq!(said.matches("[CANNOT START: its profile is refused here, as told above]").count(), 2, "{said}");
    assert!(said.contains("(profile: x) [NOT EXECUTABLE]\n") && said.contains("(profile: default) [ok]\n"), "{said}");
    // Nothing starts with what the executor refuses.
    let text = std::fs::read_to_string(site.agent().config()).unwrap();
    std::fs::write(site.agent().config(), text.replace("readable = /no/such", "writable = /etc")).unwrap();
    let refused = site.agent().root.join("etc").display().to_string();
    let text = std::fs::read_to_string(site.agent().config()).unwrap();
    std::fs::write(site.agent().config(), text.replace("writable = /etc", &format!("writable = {refused}"))).unwrap();
    let said = site.agent().command(&["self-check"]).exits(1).stdout;
    assert!(said.contains("  Profiles: the executor refuses them\n") && !said.contains("[ok]"), "{said}");
    assert_eq!(said.matches("[REFUSED: with this configuration the executor runs none, as told above]").count(), 3);
}
