//! What `scripts.conf` pins of a script: the content of its file (`sha256=`) and the number of its arguments (`args=`).

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::process::{finish, program};
use crate::harness::{Agent, Site, tls};

/// As the operator takes it.
fn sha256sum(path: &Path) -> String {
    let mut command = program("sha256sum".as_ref());
    command.arg(path);
    finish(command, "").exits(0).stdout.split(' ').next().unwrap().to_owned()
}

/// Allows `script` in the agent's list, pinned.
fn pin(agent: &Agent, script: &Path, pins: &str) {
    std::fs::write(agent.allowlist(), format!("x = {} {pins}\n", script.display())).unwrap();
}

fn scripts(site: &Site) -> Value {
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    http.get("/capabilities").json()["scripts"].clone()
}

/// A site whose one script is pinned to what it says now.
fn pinned(settings: &str) -> (Site, PathBuf) {
    let mut site = Site::builder().agent(settings).prepare();
    let script = site.agent().write_script("x", "#!/bin/sh\necho ran\n");
    pin(site.agent(), &script, &format!("sha256={}", sha256sum(&script)));
    site.start(0);
    (site, script)
}

#[test]
fn a_pinned_script_runs_until_its_file_changes() {
    for settings in ["max_children = 9", "script_dirs = {scripts}"] {
        let (site, script) = pinned(settings);
        assert_eq!(site.result("x", &[])["stdout"], "ran\n");
        // In place, of the same size: neither name nor inode nor length tells.
        std::fs::write(&script, "#!/bin/sh\necho run\n").unwrap();
        let refused = site.result("x", &[]);
        assert_eq!((&refused["exit"], &refused["reason"]), (&json!(-1), &json!("script-changed")), "{refused}");
        assert!(refused["error"].as_str().unwrap().contains("write the new digest"), "{refused}");
        site.agent().line("deny").is(&[
            "ACTION=deny",
            "DISPATCHER=control-1",
            "PEER=127.0.0.1",
            "REASON=script-changed",
            "REQID=*",
            "SCRIPT=x",
        ]);
        let said = site.agent().line_where("exec", |line| line.get("EXIT") == Some("-1"));
        assert_eq!((said.ident.as_str(), said.get("REASON")), ("ctrl-exec-exec", Some("script-changed")));
        let said = site.agent().command(&["self-check"]).exits(1).stdout;
        assert!(said.contains("(profile: default) [CHANGED: not the file that sha256= pins]\n"), "{said}");
        // What was pinned is what counts, not that something changed.
        site.agent().write_script("x", "#!/bin/sh\necho ran\n");
        site.agent().command(&["self-check"]).exits(0);
        assert_eq!(site.result("x", &[])["stdout"], "ran\n");
    }
}

#[test]
fn a_pinned_script_that_is_gone_or_unreadable_is_refused() {
    let (site, script) = pinned("max_children = 9");
    std::fs::remove_file(&script).unwrap();
    let refused = site.result("x", &[]);
    assert_eq!(refused["reason"], "script-changed", "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("No such file"), "{refused}");
    nix::unistd::mkfifo(&script, nix::sys::stat::Mode::from_bits_truncate(0o777)).unwrap();
    let refused = site.result("x", &[]);
    assert!(refused["error"].as_str().unwrap().contains("not a regular file"), "{refused}");
}

#[test]
fn discovery_shows_each_scripts_digest_as_it_is_now() {
    let site = Site::builder().sh("a", "echo one").sh("b", "echo two").allow("none = /no/such/file").start();
    let file = |name: &str| site.agent().root.join("scripts").join(name);
    let shown = |name: &str| {
        let all = scripts(&site);
        all.as_array().unwrap().iter().find(|script| script["name"] == name).unwrap()["sha256"].clone()
    };
    let before = shown("a");
    assert_eq!((before.clone(), shown("b")), (sha256sum(&file("a")).into(), sha256sum(&file("b")).into()));
    assert_eq!(shown("none"), Value::Null);
    std::fs::write(file("a"), "#!/bin/sh\necho drifted\n").unwrap();
    assert_eq!(shown("a"), sha256sum(&file("a")));
    assert_ne!(shown("a"), before);
}

#[test]
fn a_script_takes_as_many_arguments_as_its_line_says() {
    let site = Site::builder().sh("echo", "echo \"$#\"").prepare();
    let script = site.agent().root.join("scripts/echo");
    let mut site = site;
    pin(site.agent(), &script, "args=1..2");
    site.start(0);
    assert_eq!(site.result("x", &["a", "b"])["stdout"], "2\n");
    for args in [&[][..], &["a", "b", "c"]] {
        let refused = site.result("x", args);
        assert_eq!((&refused["exit"], &refused["reason"]), (&json!(-1), &json!("arguments-count")), "{refused}");
        let text = format!("the script takes 1 to 2 arguments, and the call has {}", args.len());
        assert_eq!(refused["error"], text);
    }
    assert_eq!(site.agent().lines("deny").len(), 2);
    pin(site.agent(), &script, "args=none");
    site.agent().reload().is(&["ACTION=reload", "RESULT=ok"]);
    assert_eq!((&site.result("x", &[])["stdout"], &site.result("x", &["a"])["exit"]), (&json!("0\n"), &json!(-1)));
}
