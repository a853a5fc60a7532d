//! What `self-check` says of a script or a hook that nobody could start.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use crate::harness::Site;
use crate::harness::agent::write_executable;
use crate::harness::executor::Mode;

#[test]
fn a_script_that_root_alone_may_read_is_in_order_where_it_runs() {
    for mode in Mode::ROOT {
        let mut site = Site::builder()
            .executor(mode)
            .sh("closed", "echo ran")
            .script("closed-to-all", "#!/bin/sh\n")
            .allow("deep = {scripts}/deep/x profile=strong")
            .allow("deep-nobody = {scripts}/deep/x")
            .section("[profile strong]\nrun_as = root")
            .prepare();
        let scripts = site.agent().root.join("scripts");
        let mode_of = |path: &str, mode| {
            std::fs::set_permissions(scripts.join(path), Permissions::from_mode(mode)).unwrap();
        };
        std::fs::create_dir(scripts.join("deep")).unwrap();
        write_executable(&scripts.join("deep/x"), "#!/bin/sh\necho ran\n");
        let list = std::fs::read_to_string(site.agent().allowlist()).unwrap();
        let strong = list.lines().map(|line| {
            if line.starts_with("closed =") { format!("{line} profile=strong\n") } else { format!("{line}\n") }
        });
        std::fs::write(site.agent().allowlist(), strong.collect::<String>()).unwrap();
        for (path, mode) in [("deep", 0o700), ("closed", 0o700), ("closed-to-all", 0o600)] {
            mode_of(path, mode);
        }
        site.start(0);
        let said = site.agent().command(&["self-check"]).exits(1).stdout;
        for (name, exit, mark) in [
            ("closed", 0, "ok"),
            ("deep", 0, "ok"),
            ("closed-to-all", 127, "NOT EXECUTABLE"),
            ("deep-nobody", 127, "CANNOT START: exec: Permission denied"),
        ] {
            assert_eq!(site.result(name, &[])["exit"], exit, "{mode:?} {name}");
            let line = said.lines().find(|line| line.starts_with(&format!("  Script '{name}': ")));
            assert!(line.is_some_and(|line| line.ends_with(&format!(" [{mark}]"))), "{mode:?} {name}: {said}");
        }
        assert!(!said.contains("No sha256 in discovery"), "{mode:?}: {said}");
    }
}

#[test]
fn a_script_of_which_callers_are_shown_no_digest_is_named() {
    let site = Site::builder().executor(Mode::Private).sh("open", "true").sh("closed", "true").start();
    let undigested = "  No sha256 in discovery, as the agent's account cannot read the file: closed\n";
    assert!(!site.agent().command(&["self-check"]).exits(0).stdout.contains("No sha256"));
    let closed = site.agent().root.join("scripts/closed");
    std::os::unix::fs::chown(&closed, Some(0), Some(0)).unwrap();
    std::fs::set_permissions(&closed, Permissions::from_mode(0o711)).unwrap();
    let said = site.agent().command(&["self-check"]).stdout;
    assert!(said.contains(undigested), "{said}");
}

#[test]
fn a_profile_under_which_no_script_starts_is_not_passed_by_the_check() {
    for mode in Mode::ROOT {
        let site = Site::builder()
            .executor(mode)
            .sh("ok", "echo ran")
            .allow("x = {scripts}/ok profile=x")
            .section("[profile x]\nrun_as = daemon")
            .start();
        let good = std::fs::read_to_string(site.agent().config()).unwrap();
        let scripts = site.agent().root.join("scripts").display().to_string();
        let system = format!("{scripts}:/usr:/bin:/lib:/lib64");
        for (readable, starts) in [("/etc/passwd", false), (&format!("{scripts}:/bin"), false), (&system, true)] {
            let text = format!("{good}readable = {readable}\n");
            std::fs::write(site.agent().config(), text).unwrap();
            site.agent().reload().is(&["ACTION=reload", "RESULT=ok"]);
            assert_eq!(site.result("x", &[])["exit"], if starts { 0 } else { 127 }, "{mode:?} {readable}");
            let ran = site.agent().command(&["self-check"]).exits(i32::from(!starts));
            let said = &ran.stdout;
            assert_eq!(said.contains("  Profiles OK\n"), starts, "{mode:?} {readable}: {said}");
            assert_eq!(said.contains("  Profile 'x': none of its scripts can start: exec: "), !starts, "{said}");
            let line = said.lines().find(|line| line.starts_with("  Script 'x': ")).unwrap();
            let why = "(is it in the profile's 'readable'?)]";
            assert!(if starts { line.ends_with(" [ok]") } else { line.ends_with(why) }, "{mode:?} {readable}: {said}");
        }
    }
}

#[test]
fn what_nobody_could_start_is_not_passed_by_the_check() {
    let texts = [
        ("lost", "#!/nope/sh\n", "'#!' interpreter /nope/sh: No such file or directory"),
        ("returns", "#!/bin/sh\r\necho\r\n", "its first line ends with a carriage return"),
        ("plain", "echo ran\n", "Exec format error: it is no program and does not begin with a line such as #!/bin/sh"),
        ("empty", "", "Exec format error: it is no program"),
    ];
    let site = texts.iter().fold(Site::builder().sh("ok", "true"), |site, (name, text, _)| site.script(name, text));
    let site = site.start();
    let said = site.agent().command(&["self-check"]).exits(1).stdout;
    for (name, _, why) in texts {
        let found = said.lines().find(|line| line.starts_with(&format!("  Script '{name}': ")));
        assert!(found.is_some_and(|line| line.contains(&format!("[CANNOT START: {why}"))), "{name}: {said}");
        assert_eq!(site.result(name, &[])["exit"], 127, "{name}");
    }
    assert!(!said.contains('\r') && said.contains("(profile: default) [ok]\n"), "{said}");
}

#[test]
fn a_hook_that_cannot_be_started_is_not_passed_by_the_check() {
    let site = Site::builder().sh("ok", "true").agent_hook("exit 0").start();
    let agent = site.agent();
    let hook = agent.root.join("etc/ctrl-exec-agent/auth-hook");
    assert_eq!(site.result("ok", &[])["exit"], 0);
    write_executable(&hook, "#!/nope/sh\nexit 0\n");
    assert_eq!(site.result("ok", &[])["exit"], -1);
    let why = format!("{} cannot start: '#!' interpreter /nope/sh: No such file or directory", hook.display());
    let said = agent.command(&["self-check"]).exits(1).stdout;
    assert!(said.contains(&format!("  Auth hook: {why}: every call is denied\n")), "{said}");
    let json = agent.command(&["explain", "--unprivileged", "--json", "ok"]).exits(1).json();
    assert_eq!((&json["gate"], &json["code"]), (&"hook".into(), &"not-authorised".into()), "{json}");
}
