//! `explain` and the run about what stands on the host: places that a profile names, what executes a script, and room.

use serde_json::Value;

use crate::explain::{ended, explain, mend, said};
use crate::harness::executor::Mode;
use crate::harness::process::Ran;
use crate::harness::{Agent, Site, eventually};

/// Profiles whose places are there, and are not, for a script under them.
const SECTIONS: &str = "[profile proc]\nrun_as = daemon\nwritable = /proc
[profile many-files]\nrun_as = daemon\nfiles_max = 1048576
[profile shared-memory]\nrun_as = daemon\nwritable = {work}\nworking_directory = /dev/shm
[profile private]\nrun_as = daemon\nwritable = {work}\nworking_directory = /run/lock
[profile private-top]\nrun_as = daemon\nwritable = {work}\nworking_directory = /tmp
[profile over-there]\nrun_as = daemon\nreadable = {scripts}
[profile in-run]\nrun_as = daemon\nwritable = {work}\nreadable = /run/lock:/usr:/bin:/lib:/lib64
[profile written]\nrun_as = daemon\nwritable = {scripts}/own\nreadable = /usr:/bin:/lib:/lib64
[profile beside-others]\nrun_as = daemon\nwritable = {scripts}
[profile linked]\nrun_as = daemon\nwritable = {work}/link
[profile nowhere]\nrun_as = daemon\nwritable = {work}\nworking_directory = {work}/none
";

/// Scripts and how they must end, under their own profile if they have one; with any words, whether it depends on the host.
const CALLS: [(&str, &str); 21] = [
    ("proc", "writable-proc"),
    ("many-files", ""),
    ("shared-memory", "runs"),
    ("private", "not-started directory"),
    ("private-top", "runs"),
    ("over-there", "not-started exec"),
    ("in-run", "not-confined readable"),
    ("written", "runs"),
    ("through-written", "not-started exec"),
    ("beside-others", "writable-script"),
    ("linked", "not-confined writable"),
    ("nowhere", "not-started directory"),
    ("no-interpreter", "not-started exec"),
    ("closed-interpreter", "not-started exec"),
    ("twice", "runs"),
    ("endless", "not-started exec"),
    ("empty", "not-started exec"),
    ("garbage", "not-started exec"),
    ("crlf", "not-started exec"),
    ("true", "runs"),
    ("private-interpreter", "not-started exec"),
];

/// Scripts whose first line decides.
const HEADS: [(&str, &str); 8] = [
    ("no-interpreter", "#!/no/such/interpreter\n"),
    ("closed-interpreter", "#!{scripts}/plain\n"),
    ("twice", "#! {scripts}/ok\n"),
    ("endless", "#!{scripts}/endless\n"),
    ("empty", ""),
    ("garbage", "\u{1}garbage"),
    ("crlf", "#!/bin/sh\r\necho\r\n"),
    ("private-interpreter", "#!/run/lock/none\n"),
];

fn site(mode: Mode) -> Site {
    let mut site = Site::builder().executor(mode).sh("ok", "true").prepare();
    let agent = site.agent();
    let (scripts, work) = (agent.root.join("scripts"), agent.root.join("work"));
    std::os::unix::fs::symlink("/srv", work.join("link")).unwrap();
    let placed =
        |text: &str| text.replace("{work}", work.to_str().unwrap()).replace("{scripts}", scripts.to_str().unwrap());
    mend(agent, "plain", "#!/bin/sh\n", 0o644);
    let mut allowlist = std::fs::read_to_string(agent.allowlist()).unwrap() + "true = /bin/true\n";
    for (name, text) in HEADS {
        mend(agent, name, &placed(text), 0o755);
        allowlist += &placed(&format!("{name} = {{scripts}}/{name}\n"));
    }
    for name in SECTIONS.lines().filter_map(|line| line.strip_prefix("[profile ")?.strip_suffix(']')) {
        let place = if name == "written" { "own/ok" } else { "ok" };
        allowlist += &placed(&format!("{name} = {{scripts}}/{place} profile={name}\n"));
    }
    std::fs::create_dir(scripts.join("own")).unwrap();
    mend(agent, "own/ok", "#!/bin/sh\ntrue\n", 0o755);
    mend(agent, "own/twice", &placed("#! {scripts}/own/ok\n"), 0o755);
    allowlist += &placed("through-written = {scripts}/own/twice profile=written\n");
    std::fs::write(agent.allowlist(), allowlist).unwrap();
    let config = std::fs::read_to_string(agent.config()).unwrap() + &placed(SECTIONS);
    std::fs::write(agent.config(), config).unwrap();
    site.start(0);
    site
}

#[test]
fn what_is_explained_of_the_ground_is_what_a_run_finds() {
    for mode in Mode::ROOT {
        let site = site(mode);
        for (script, expected) in CALLS {
            let explained = explain(site.agent(), &[], script, &[]);
            let said = said(&explained);
            let result = site.result(script, &[]);
            assert_eq!(said, ended(&result), "{mode:?} {script}: {result}\n{}", explained.stdout);
            assert!(expected.is_empty() || said == expected, "{mode:?} {script}: {said}");
        }
    }
}

#[test]
fn without_a_root_executor_the_interpreter_is_looked_at_too() {
    let site = heads_without_profiles();
    for (script, _) in HEADS {
        let said = said(&explain(site.agent(), &[], script, &[]));
        assert_eq!(said, ended(&site.result(script, &[])), "{script}");
    }
    let told = start_line(site.agent(), "no-interpreter")["text"].as_str().unwrap().to_owned();
    assert_eq!(told, "exec: '#!' interpreter /no/such/interpreter: No such file or directory");
}

fn heads_without_profiles() -> Site {
    let mut builder = Site::builder().executor(Mode::Private).sh("ok", "true");
    for (name, _) in HEADS {
        builder = builder.allow(&format!("{name} = {{scripts}}/{name}"));
    }
    let mut site = builder.prepare();
    let scripts = site.agent().root.join("scripts").display().to_string();
    mend(site.agent(), "plain", "#!/bin/sh\n", 0o644);
    for (name, text) in HEADS {
        mend(site.agent(), name, &text.replace("{scripts}", &scripts), 0o755);
    }
    site.start(0);
    site
}

fn start_line(agent: &Agent, script: &str) -> Value {
    gate(&explain(agent, &[], script, &[]), "start")
}

fn gate(ran: &Ran, name: &str) -> Value {
    let gates = ran.json()["gates"].clone();
    gates.as_array().unwrap().iter().find(|gate| gate["gate"] == name).unwrap().clone()
}

#[test]
fn a_call_that_finds_no_room_is_explained_as_it_ends() {
    for mode in Mode::ROOT {
        let site = Site::builder()
            .executor(mode)
            .agent("max_children = 1")
            .sh("wait", "until [ -e {work}/go ]; do sleep 0.01; done")
            .sh("ok", "true")
            .start();
        let told = |ran: &Ran| gate(ran, "room")["text"].as_str().unwrap().to_owned();
        let free = explain(site.agent(), &[], "ok", &[]);
        assert_eq!(said(&free), "runs");
        assert!(told(&free).starts_with("0 of at most 1 scripts run as detached jobs; "));
        site.control(&["run", "--async", "agent1", "wait"]).exits(0);
        let full = explain(site.agent(), &[], "ok", &[]);
        assert_eq!((said(&full), ended(&site.result("ok", &[]))), ("busy".to_owned(), "busy".to_owned()));
        assert!(told(&full).starts_with("1 scripts are running, which is as many as max_children allows"));
        std::fs::write(site.agent().work("go"), "").unwrap();
        eventually("room", || (said(&explain(site.agent(), &[], "ok", &[])) == "runs").then_some(()));
    }
}
