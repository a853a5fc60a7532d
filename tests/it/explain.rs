//! `ctrl-exec-agent explain`: what it says is what becomes of the call, and it runs nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::agent::write_executable;
use crate::harness::executor::Mode;
use crate::harness::process::{self, Ran};
use crate::harness::site::Builder;
use crate::harness::{Agent, Site, binary, host, pki, tls};

const CONTRACT: &str = r#"{"arguments": {"properties": {"n": {"type": "integer"}}, "required": ["n"]}}"#;

/// Every way in which a profile, a line or a file can stand in the way of a run, and some that do not.
const SECTIONS: &str = "[profile stranger]\nrun_as = no-such-account
[profile root]\nrun_as = root
[profile closed]\nrun_as = daemon\nnetwork = no\nwritable = {work}\numask = 077\nenvironment = MODE=test
[profile open]\nrun_as = 12345\nsyscalls = off\ncaps = CAP_CHOWN\nno_new_privileges = no
[profile memory]\nrun_as = daemon\nmemory_max = 64M
[profile half-cpu]\nrun_as = daemon\ncpu_max = 50%
[profile processes]\nrun_as = daemon\nprocesses_max = 40\nfiles_max = 64
[profile processes-root]\nrun_as = root\nprocesses_max = 40
[profile nowhere]\nrun_as = daemon\nwritable = {work}/none
[profile linked]\nrun_as = daemon\nwritable = {work}/link
[profile reads]\nrun_as = daemon\nreadable = /bin:/usr:/lib:/lib64:/etc:{scripts}
[profile reads-nothing]\nrun_as = daemon\nreadable = {work}/none
[profile lost]\nrun_as = daemon\nworking_directory = /no/such/directory
[profile shut-out]\nrun_as = daemon\nworking_directory = /root
[profile within]\nrun_as = daemon\nworking_directory = {work}
";

/// A call: the script, its arguments, and, where the test says so, how it must end.
type Call = (&'static str, &'static [&'static str], &'static str);

const CALLS: [Call; 33] = [
    ("ok", &["a", "b c"], "runs"),
    ("unlisted", &[], "script-not-permitted"),
    ("../ok", &[], "script-not-permitted"),
    ("contract", &["7"], "runs"),
    ("contract", &["seven"], "arguments-not-allowed"),
    ("contract", &[], "arguments-not-allowed"),
    ("broken", &["x"], "contract-broken"),
    ("counted", &["a"], "runs"),
    ("counted", &["a", "b"], "arguments-count"),
    ("pinned", &[], "runs"),
    ("changed", &[], "script-changed"),
    ("theirs", &[], "script-not-trusted"),
    ("missing", &[], "not-started exec"),
    ("plain", &[], "not-started exec"),
    ("roots", &[], "not-started exec"),
    ("roots-own", &[], "runs"),
    ("directory", &[], "script-not-trusted"),
    ("hidden", &[], "script-hidden"),
    ("stranger", &[], "run-as-unknown"),
    ("root", &[], "runs"),
    ("closed", &[], "runs"),
    ("open", &[], "runs"),
    ("memory", &[], ""),
    ("half-cpu", &[], ""),
    ("processes", &[], "runs"),
    ("processes-root", &[], ""),
    ("nowhere", &[], "not-confined writable"),
    ("linked", &[], "not-confined writable"),
    ("reads", &[], ""),
    ("reads-nothing", &[], ""),
    ("lost", &[], "not-started directory"),
    ("shut-out", &[], "not-started directory"),
    ("within", &[], "runs"),
];

fn builder(mode: Mode) -> Builder {
    let mut site = Site::builder().executor(mode).agent_hook("echo asked >> {work}/asked");
    for name in ["ok", "contract", "broken", "theirs"] {
        site = site.sh(name, "echo ran >> {work}/ran");
    }
    site
}

/// Writes the rest of an agent's files and starts it.
fn site(mode: Mode) -> Site {
    let mut site = builder(mode).prepare();
    let agent = site.agent();
    let (scripts, work) = (agent.root.join("scripts"), agent.root.join("work"));
    std::os::unix::fs::symlink(&scripts, work.join("link")).unwrap();
    mend(agent, "contract.schema.json", CONTRACT, 0o644);
    mend(agent, "broken.schema.json", "{\"arguments\": ", 0o644);
    mend(agent, "theirs", "#!/bin/sh\n", 0o777);
    mend(agent, "plain", "#!/bin/sh\n", 0o644);
    mend(agent, "roots", "#!/bin/sh\n", 0o700);
    let etc = agent.root.join("etc/ctrl-exec-agent");
    std::fs::write(etc.join("script"), "#!/bin/sh\n").unwrap();
    let digest = ctrl_exec::wire::hex::encode(&ctrl_exec::sys::file::digest(&scripts.join("ok")).unwrap().1);
    let at = |name: &str| scripts.join(name).display().to_string();
    let mut allowlist = std::fs::read_to_string(agent.allowlist()).unwrap();
    let lines = format!(
        "counted = {0} args=1\npinned = {0} sha256={digest}\nchanged = {0} sha256={1}\nmissing = {2}\nplain = {3}\n\
         roots = {4}\nroots-own = {4} profile=root\ndirectory = {5}\nhidden = {6}/script\n",
        at("ok"),
        "00".repeat(32),
        at("none"),
        at("plain"),
        at("roots"),
        scripts.display(),
        etc.display(),
    );
    allowlist += &lines;
    for line in SECTIONS.lines() {
        if let Some(name) = line.strip_prefix("[profile ") {
            let name = name.trim_end_matches(']');
            allowlist.extend([name, " = ", &at("ok"), " profile=", name, "\n"]);
        }
    }
    std::fs::write(agent.allowlist(), allowlist).unwrap();
    let sections = SECTIONS.replace("{work}", &work.display().to_string());
    let sections = sections.replace("{scripts}", &scripts.display().to_string());
    let config = std::fs::read_to_string(agent.config()).unwrap() + &sections;
    std::fs::write(agent.config(), config).unwrap();
    site.start(0);
    site
}

pub(crate) fn mend(agent: &Agent, name: &str, text: &str, mode: u32) {
    let path = agent.root.join("scripts").join(name);
    write_executable(&path, text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
}

pub(crate) fn explain(agent: &Agent, options: &[&str], script: &str, args: &[&str]) -> Ran {
    let mut words = vec!["explain", "--json"];
    words.extend((agent.mode == Mode::Private).then_some("--unprivileged"));
    words.extend_from_slice(options);
    words.push(script);
    if !args.is_empty() {
        words.push("--");
        words.extend_from_slice(args);
    }
    agent.command(&words)
}

/// How the explanation says that the call ends: `runs`, or the code, with the step of a run that would not start.
pub(crate) fn said(ran: &Ran) -> String {
    let json = ran.json();
    let verdict = json["verdict"].as_str().unwrap();
    assert_eq!(ran.code, i32::from(verdict != "would-run"), "{json}");
    if verdict == "would-run" {
        return "runs".to_owned();
    }
    assert_eq!(verdict, "would-be-refused", "{json}");
    let code = json["code"].as_str().unwrap().to_owned();
    if !code.starts_with("not-") {
        return code;
    }
    let gates = json["gates"].as_array().unwrap();
    let text = gates.iter().find(|gate| gate["code"] == *code).unwrap()["text"].as_str().unwrap();
    format!("{code} {}", text.split(':').next().unwrap())
}

/// How it ended, in the same words.
pub(crate) fn ended(result: &Value) -> String {
    // The script decides about its own exit status.
    if result["exit"].as_i64().unwrap() >= 0 && result["reason"].is_null() {
        return "runs".to_owned();
    }
    let reason = result["reason"].as_str().unwrap_or_else(|| panic!("{result}"));
    for (words, code) in [("could not confine: ", "not-confined"), ("could not start: ", "not-started")] {
        if let Some(rest) = reason.strip_prefix(words) {
            return format!("{code} {}", rest.split(':').next().unwrap());
        }
    }
    reason.to_owned()
}

#[test]
fn what_is_explained_is_what_happens_with_either_root_executor() {
    for mode in Mode::ROOT {
        let site = site(mode);
        let asked = || std::fs::read_to_string(site.agent().work("asked")).unwrap_or_default().lines().count();
        for (script, args, expected) in CALLS {
            let before = asked();
            let explained = explain(site.agent(), &["--from", "127.0.0.1"], script, args);
            assert_eq!(asked(), before, "the hook was asked: {script}");
            let said = said(&explained);
            let happened = ended(&site.result(script, args));
            assert_eq!(said, happened, "{mode:?} {script} {args:?}\n{}", explained.stdout);
            assert!(expected.is_empty() || said == expected, "{mode:?} {script} {args:?}: {said}");
        }
    }
}

#[test]
fn an_explanation_runs_neither_script_nor_hook() {
    for mode in Mode::ALL {
        let site = builder(mode).prepare();
        explain(site.agent(), &[], "ok", &[]).exits(0);
        assert!(!site.agent().work("ran").exists() && !site.agent().work("asked").exists(), "{mode:?}");
    }
}

#[test]
fn without_a_root_executor_the_explanation_is_that_of_the_agents_own_account() {
    let mut site = builder(Mode::Private).allow("missing = {scripts}/none").prepare();
    mend(site.agent(), "broken", "#!/bin/sh\n", 0o644);
    site.start(0);
    for script in ["ok", "missing", "broken", "unlisted"] {
        let said = said(&explain(site.agent(), &[], script, &[]));
        assert_eq!(said, ended(&site.result(script, &[])), "{script}");
    }
    let json = explain(site.agent(), &[], "ok", &[]).json();
    assert!(json["executor"].as_str().unwrap().starts_with("private: "), "{json}");
    assert!(json["surroundings"]["confinement"].is_null(), "{json}");
}

#[test]
fn who_asks_is_judged_where_it_is_said() {
    let site = builder(Mode::Own).agent("allowed_ips = 127.0.0.0/8").prepare();
    let agent = site.agent();
    let serial = site.dispatcher().serial();
    let (stranger, revoked) = ("abc123", "def456");
    let trust = std::fs::read_to_string(agent.trust()).unwrap();
    std::fs::write(agent.trust(), format!("{trust}{revoked} control-2\n")).unwrap();
    std::fs::write(agent.revoked(), format!("{revoked}\n")).unwrap();
    let judged = |options: &[&str]| {
        let json = explain(agent, options, "ok", &[]).json();
        format!("{} {}", json["gate"].as_str().unwrap_or("none"), json["code"].as_str().unwrap_or("runs"))
    };
    assert_eq!(judged(&["--from", "127.9.9.9", "--serial", &serial]), "none runs");
    assert_eq!(judged(&["--from", "::ffff:127.0.0.1", "--dispatcher", "control-1"]), "none runs");
    assert_eq!(judged(&["--from", "10.0.0.1", "--serial", stranger]), "address ip-block");
    assert_eq!(judged(&["--serial", stranger]), "trust-map serial-reject");
    assert_eq!(judged(&["--dispatcher", "control-9"]), "trust-map serial-reject");
    assert_eq!(judged(&["--serial", "DE:F4:56"]), "revocation revoked-cert");
    assert_eq!(judged(&["--dispatcher", "control-2"]), "revocation revoked-cert");
    let gates = explain(agent, &["--serial", revoked], "ok", &[]).json()["gates"].clone();
    let revocation = gates.as_array().unwrap().iter().find(|gate| gate["gate"] == "revocation").unwrap();
    assert_eq!(revocation["place"], format!("{}:1", agent.revoked().display()));
    agent.command(&["explain", "--serial", stranger, "--dispatcher", "x", "ok"]).exits(64);
    let text = agent.command(&["explain", "ok"]).exits(0).stdout;
    for gate in ["address", "revocation", "trust-map"] {
        let line = text.lines().find(|line| line.trim_start().starts_with(gate)).unwrap();
        assert!(line.contains("not judged (no --"), "{line}");
    }
}

#[test]
fn the_codes_of_the_front_end_are_those_of_its_log() {
    let mut site = builder(Mode::Own).prepare();
    let other = pki::issue(&site.authority(), "other");
    site.start(0);
    let serial = other.serial().clone();
    let mut stranger = tls::connect(site.agent().address(), &site.authority(), &other);
    assert_eq!(stranger.post("/run", "{}").status, 403);
    let code = explain(site.agent(), &["--serial", &serial], "ok", &[]).json()["code"].clone();
    site.agent().line(code.as_str().unwrap());
    std::fs::write(site.agent().revoked(), format!("{}\n", site.dispatcher().serial())).unwrap();
    site.agent().reload();
    site.control(&["--json", "run", "agent1", "ok"]);
    let serial = site.dispatcher().serial().clone();
    let code = explain(site.agent(), &["--serial", &serial], "ok", &[]).json()["code"].clone();
    site.agent().line(code.as_str().unwrap());
}

#[test]
fn each_verdict_names_the_line_that_decides() {
    let site = site(Mode::Own);
    let agent = site.agent();
    let places = |script: &str, args: &[&str]| explain(agent, &[], script, args).json()["gates"].clone();
    let line_of = |file: PathBuf, start: &str| {
        let text = std::fs::read_to_string(&file).unwrap();
        let number = text.lines().position(|line| line.starts_with(start)).unwrap() + 1;
        format!("{}:{number}", file.display())
    };
    let of = |gates: &Value, name: &str| {
        let gates = gates.as_array().unwrap();
        gates.iter().find(|gate| gate["gate"] == name).unwrap()["place"].as_str().unwrap().to_owned()
    };
    let gates = places("changed", &[]);
    for gate in ["allowlist", "executor-allowlist", "pins"] {
        assert_eq!(of(&gates, gate), line_of(agent.allowlist(), "changed = "), "{gate}");
    }
    assert_eq!(of(&gates, "hook"), line_of(agent.config(), "auth_hook = "));
    assert_eq!(of(&gates, "path"), format!("{} (default)", agent.config().display()));
    assert_eq!(
        of(&places("contract", &[]), "contract"),
        agent.root.join("scripts/contract.schema.json").to_str().unwrap()
    );
    assert_eq!(of(&places("ok", &[]), "profile"), line_of(agent.config(), "[profile default]"));
    assert_eq!(of(&places("stranger", &[]), "confinement"), line_of(agent.config(), "run_as = no-such-account"));
}

#[test]
fn what_the_script_would_find_is_said_in_full() {
    let site = site(Mode::System);
    let json = explain(site.agent(), &[], "closed", &["x y"]).exits(0).json();
    let found = &json["surroundings"];
    let path = site.agent().root.join("scripts/ok").display().to_string();
    assert_eq!((&found["path"], &found["argv"]), (&path.clone().into(), &json!([path, "x y"])));
    assert_eq!(found["sha256"].as_str().unwrap().len(), 64);
    assert_eq!((&found["umask"], &found["pinned"]), (&"0077".into(), &false.into()));
    assert!(found["environment"].as_array().unwrap().contains(&"MODE=test".into()), "{found}");
    let confined = &found["confinement"];
    assert_eq!((&confined["user"], &confined["network"]), (&"daemon".into(), &false.into()));
    assert_eq!(confined["private"], json!(["/dev", "/run", "/tmp"]));
    assert_eq!(confined["writable"], json!([site.agent().root.join("work").display().to_string()]));
    let hidden = site.agent().root.join("etc/ctrl-exec-agent").display().to_string();
    assert!(confined["hidden"].as_array().unwrap().contains(&hidden.into()), "{confined}");
    let text = site.agent().command(&["explain", "closed", "--", "x y"]).exits(0).stdout;
    for words in ["Would run.", "network             none", "umask               0077", "MODE=test", "\"x y\""] {
        assert!(text.contains(words), "{words}\n{text}");
    }
    let refused = site.agent().command(&["explain", "unlisted"]).exits(1).stdout;
    assert!(refused.ends_with("\nWould be refused: allowlist script-not-permitted\n"), "{refused}");
    let limits = &explain(site.agent(), &[], "processes", &[]).json()["surroundings"]["confinement"]["limits"];
    assert_eq!((&limits[0]["key"], &limits[0]["value"]), (&"processes_max".into(), &40.into()));
    assert_eq!((&limits[1]["key"], &limits[1]["means"]), (&"files_max".into(), &"rlimit".into()));
}

#[test]
fn a_configuration_that_nothing_can_be_explained_from_is_told_with_its_places() {
    let site = builder(Mode::Own).prepare();
    let good = std::fs::read_to_string(site.agent().config()).unwrap();
    for (bad, words) in [
        (format!("{good}nonsense\n"), "agent.conf:"),
        (good.replace("run_as = daemon", "run_as = nobody"), "is the agent's own account"),
        (good.replace("run_as = daemon", ""), "no run_as"),
    ] {
        std::fs::write(site.agent().config(), bad).unwrap();
        let told = site.agent().command(&["explain", "ok"]).exits(78).stderr;
        assert!(told.contains(words), "{told}");
    }
}

#[test]
fn somebody_without_rights_is_told_what_could_not_be_looked_at() {
    let site = builder(Mode::System).prepare();
    let ask = |words: &[&str]| {
        let mut command = process::program(&binary());
        command.args(["agent", "--root"]).arg(&site.agent().root).args(["explain", "--json", "ok"]).args(words);
        as_daemon(&command, &site)
    };
    // Everything that is needed to decide is public here; what only root can try is said not to be judged.
    let json = ask(&[]).exits(0).json();
    let start = json["gates"].as_array().unwrap().last().unwrap().clone();
    assert_eq!((&start["gate"], &start["verdict"]), (&"start".into(), &"not-judged".into()), "{json}");
    let close = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).unwrap();
    close(&site.agent().trust());
    let json = ask(&["--serial", "ab"]).exits(77).json();
    assert_eq!((&json["verdict"], &json["gate"]), (&"unknown".into(), &"trust-map".into()), "{json}");
    ask(&[]).exits(0);
    // The agent may not read it either, and then it does not serve.
    let refused = site.agent().command(&["explain", "ok"]).exits(78).stderr;
    assert!(refused.contains("ctrl-exec-dispatchers") && refused.contains("hint: "), "{refused}");
    host::give_to_agent(&site.agent().trust());
    site.agent().command(&["explain", "ok"]).exits(0);
    ask_as_daemon(&site);
    close(&site.agent().config());
    assert!(ask(&[]).exits(77).stderr.contains("hint: run it as root"));
}

/// As an account that is neither root's nor the agent's.
fn as_daemon(command: &Command, site: &Site) -> Ran {
    let mut command = host::unprivileged(command, site.dir());
    command.uid(1).gid(1);
    process::finish(command, "")
}

/// Behind a closed door lies what would be judged.
fn ask_as_daemon(site: &Site) {
    let scripts = site.agent().root.join("scripts");
    std::fs::set_permissions(&scripts, std::fs::Permissions::from_mode(0o700)).unwrap();
    let mut command = process::program(&binary());
    command.args(["agent", "--root"]).arg(&site.agent().root).args(["explain", "--json", "ok"]);
    let json = as_daemon(&command, site).exits(77).json();
    assert_eq!((&json["verdict"], &json["gate"]), (&"unknown".into(), &"contract".into()), "{json}");
    // The agent's own account cannot read the sidecar either, for which it counts as absent.
    let json = explain(site.agent(), &[], "ok", &[]).exits(1).json();
    assert!(json["gates"].to_string().contains("the sidecar counts as absent, so any arguments pass"), "{json}");
    assert_eq!((&json["gate"], &json["code"]), (&"start".into(), &"not-started".into()), "{json}");
}
