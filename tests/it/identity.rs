//! What `scripts.conf` pins of a script: the content of its file (`sha256=`) and the number of its arguments (`args=`).

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::executor::Mode;
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
fn pinned(mode: Mode, settings: &str) -> (Site, PathBuf) {
    let mut site = Site::builder().executor(mode).guarded().agent(settings).prepare();
    let script = site.agent().write_script("x", "#!/bin/sh\necho ran\n");
    pin(site.agent(), &script, &format!("sha256={}", sha256sum(&script)));
    site.start(0);
    (site, script)
}

#[test]
fn a_pinned_script_runs_until_its_file_changes() {
    for (mode, settings) in [
        (Mode::Private, "max_children = 9"),
        (Mode::Private, "script_dirs = {scripts}"),
        (Mode::Own, "max_children = 9"),
        (Mode::System, "trusted_paths = no"),
    ] {
        let (site, script) = pinned(mode, settings);
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
    let (site, script) = pinned(Mode::default(), "max_children = 9");
    std::fs::remove_file(&script).unwrap();
    let refused = site.result("x", &[]);
    assert_eq!(refused["reason"], "script-changed", "{refused}");
    assert!(refused["error"].as_str().unwrap().contains("No such file"), "{refused}");
    nix::unistd::mkfifo(&script, nix::sys::stat::Mode::from_bits_truncate(0o777)).unwrap();
    let refused = site.result("x", &[]);
    assert_eq!((&refused["exit"], &refused["reason"]), (&json!(-1), &json!("script-not-trusted")), "{refused}");
}

/// Puts two files at one place in turns, without an end, by another name and rename(2).
const EXCHANGE: &str = r#"
$| = 1; my ($place, @files) = @ARGV; my $turn = 0;
while (1) {
    my $file = $files[$turn++ % 2];
    unlink("$place.new"); link($file, "$place.new") && rename("$place.new", $place) or die "$file: $!\n";
    # Two names of one file are left as they are.
    print "begun\n" if $turn == 100;
}
"#;

#[test]
fn whoever_exchanges_a_pinned_script_all_the_time_never_has_it_run_and_an_unpinned_one_as_before() {
    /// Neither the agent's account nor the scripts'.
    const STRANGER: u32 = 5;
    for (mode, settings) in
        [(Mode::Private, ""), (Mode::Own, "trusted_paths = no"), (Mode::System, "trusted_paths = no")]
    {
        let mut site = Site::builder().executor(mode).guarded().agent(settings).prepare();
        let agent = site.agent();
        let dir = agent.root.join("others");
        std::fs::create_dir(&dir).unwrap();
        std::os::unix::fs::chown(&dir, Some(STRANGER), None).unwrap();
        let [right, wrong] = ["right", "wrong"].map(|name| {
            let file = agent.write_script(name, &format!("#!/bin/sh\necho {name}\n"));
            let path = dir.join(name);
            std::fs::rename(file, &path).unwrap();
            std::os::unix::fs::chown(&path, Some(STRANGER), None).unwrap();
            path
        });
        let place = dir.join("x");
        let list = format!("x = {0} sha256={1}\ny = {0}\n", place.display(), sha256sum(&right));
        std::fs::write(agent.allowlist(), list).unwrap();
        let mut exchange = program("perl".as_ref());
        exchange.args(["-e", EXCHANGE]).args([&place, &right, &wrong]).uid(STRANGER).gid(STRANGER).current_dir("/");
        let mut exchange = exchange.stdout(Stdio::piped()).spawn().unwrap();
        BufReader::new(exchange.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        site.start(0);
        for _ in 0..20 {
            let refused = site.result("x", &[]);
            assert_eq!((&refused["exit"], &refused["reason"]), (&json!(-1), &json!("script-not-trusted")), "{refused}");
            assert_eq!(refused.get("stdout"), None, "{refused}");
        }
        // Which of the two an unpinned one is then, nobody has said.
        let any = site.result("y", &[]);
        assert!(["right\n", "wrong\n"].iter().any(|text| any["stdout"] == *text), "{mode:?} {any}");
        drop((exchange.kill(), exchange.wait()));
        let line = site.agent().line("deny");
        assert_eq!((line.get("REASON"), line.get("SCRIPT")), (Some("script-not-trusted"), Some("x")));
        let line = site.agent().line_where("exec", |line| line.get("EXIT") == Some("-1"));
        assert_eq!((line.ident.as_str(), line.get("REASON")), ("ctrl-exec-exec", Some("script-not-trusted")));
        let said = site.agent().command(&["self-check"]).exits(1).stdout;
        let others = format!("{} belongs to uid {STRANGER}", dir.display());
        assert!(
            said.contains(&format!("Script 'x': {}  (profile: default) [NOT TRUSTED: ", place.display())),
            "{said}"
        );
        assert!(said.contains(&others), "{said}");
        assert_eq!(said.matches("NOT TRUSTED").count(), 1, "{said}");
    }
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
