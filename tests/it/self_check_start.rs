//! What `self-check` says of a script or a hook that nobody could start.

use crate::harness::Site;
use crate::harness::agent::write_executable;

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
