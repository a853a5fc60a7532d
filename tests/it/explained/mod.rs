//! Over generated configurations: what `explain` says is what a real agent does to a real call, with the same ids.

mod case;
mod found;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use ctrl_exec::pki::ca::Ca;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use serde_json::json;

use self::case::{Case, Hook, Who, case};
use crate::explain::{ended, explain, said};
use crate::harness::agent::write_executable;
use crate::harness::audit::Line;
use crate::harness::executor::Mode;
use crate::harness::http::Http;
use crate::harness::pki::Credentials;
use crate::harness::{Agent, Site, eventually, pki, tls};

/// Says what it finds, one thing a line.
const SCRIPT: &str = r#"#!/bin/sh
echo "uid $(id -u)"; echo "gid $(id -g)"; echo "groups $(id -G)"
echo "umask $(umask)"; echo "pwd $(pwd)"; echo "mode $MODE"; echo "files $(ulimit -n)"; echo "args $#:$*"
echo "net $(readlink /proc/self/ns/net)"
sed -n 's/^\(NoNewPrivs\|CapEff\|CapPrm\|CapBnd\|Seccomp\):\t/\1 /p' /proc/self/status
"#;

const CONTRACT: &str = r#"{"arguments": {"properties": {"n": {"type": "integer"}}, "required": ["n"]}}"#;

/// An agent whose two files every case writes anew, and those who call it.
struct World {
    site: Site,
    ca: Ca,
    /// Of its configuration what stays.
    base: String,
    digest: String,
    callers: [Credentials; 3],
}

impl World {
    fn new(mode: Mode) -> Self {
        // A site with a hook is where nobody else could have put one.
        let mut site = Site::builder().executor(mode).agent_hook("exit 0").script("ok", SCRIPT).prepare();
        let ca = site.authority();
        let callers = [site.dispatcher(), pki::issue(&ca, "stranger"), pki::issue(&ca, "revoked")];
        let agent = site.agent();
        let root = agent.root.clone();
        std::fs::create_dir(root.join("other")).unwrap();
        for place in ["scripts/contract", "scripts/broken", "other/ok", "etc/ctrl-exec-agent/hidden"] {
            write_executable(&root.join(place), SCRIPT);
        }
        put(&root.join("scripts/theirs"), SCRIPT, 0o777);
        put(&root.join("scripts/plain"), SCRIPT, 0o644);
        put(&root.join("scripts/contract.schema.json"), CONTRACT, 0o644);
        put(&root.join("scripts/broken.schema.json"), "{\"arguments\": ", 0o644);
        std::os::unix::fs::symlink(root.join("other/ok"), root.join("scripts/link")).unwrap();
        for (name, end) in [("exits", "exit $STATUS"), ("killed", "kill -9 $$"), ("doubtful", "exit 0")] {
            for status in [0, 1, 3, 77] {
                let end = end.replace("$STATUS", &status.to_string());
                let text = format!("#!/bin/sh\necho asked >> {}\n{end}\n", agent.work("asked").display());
                let mode = if name == "doubtful" { 0o757 } else { 0o755 };
                put(&root.join(format!("etc/ctrl-exec-agent/hook-{name}-{status}")), &text, mode);
            }
        }
        let trust = std::fs::read_to_string(agent.trust()).unwrap();
        let revoked = callers[2].serial();
        std::fs::write(agent.trust(), format!("{trust}{revoked} control-2\n")).unwrap();
        std::fs::write(agent.revoked(), format!("{revoked}\n")).unwrap();
        let config = std::fs::read_to_string(agent.config()).unwrap();
        let top = config.split("[profile ").next().unwrap().lines().filter(|line| !line.starts_with("auth_hook"));
        let base = top.fold(String::new(), |text, line| text + line + "\n") + "rate_limit_disable = 1\n";
        let digest = ctrl_exec::sys::file::digest(&root.join("scripts/ok")).unwrap().1;
        let digest = ctrl_exec::wire::hex::encode(&digest);
        site.start(0);
        Self { site, ca, base, digest, callers }
    }

    fn agent(&self) -> &Agent {
        self.site.agent()
    }

    /// Writes both files; `{}` stands for the agent's directory. Whether the agent takes them.
    fn configure(&self, case: &Case) -> bool {
        let mut config = self.base.clone();
        config.extend(case.settings.iter().flat_map(|line| [*line, "\n"]));
        let hook = match case.hook {
            Hook::None => None,
            Hook::Allows => Some("exits-0".to_owned()),
            Hook::Exits(status) => Some(format!("exits-{status}")),
            Hook::Killed => Some("killed-0".to_owned()),
            Hook::Doubtful => Some("doubtful-0".to_owned()),
        };
        if let Some(name) = hook {
            writeln!(config, "auth_hook = {{}}/etc/ctrl-exec-agent/hook-{name}").unwrap();
        }
        config += "[profile default]\nrun_as = daemon\n[profile p]\n";
        config.extend(case.profile.iter().flat_map(|line| [*line, "\n"]));
        let here = self.agent().root.display().to_string();
        std::fs::write(self.agent().config(), config.replace("{}", &here)).unwrap();
        let words = case.words.iter().filter(|word| !word.is_empty());
        let line = words.fold(format!("x = {}", case.path), |line, word| line + " " + word);
        let line = line.replace("{}", &here).replace("RIGHT", &self.digest).replace("WRONG", &"0".repeat(64));
        std::fs::write(self.agent().allowlist(), line + "\n").unwrap();
        self.agent().reload().get("RESULT") == Some("ok")
    }

    fn caller(&self, who: Who) -> &Credentials {
        let [trusted, stranger, revoked] = &self.callers;
        match who {
            Who::Trusted => trusted,
            Who::Stranger => stranger,
            Who::Revoked => revoked,
        }
    }

    fn asked(&self) -> usize {
        std::fs::read_to_string(self.agent().work("asked")).unwrap_or_default().lines().count()
    }

    /// Makes the call. How it ended, in the words of an explanation, and what the script said.
    fn call(&self, case: &Case, reqid: &str) -> (String, String) {
        let stream = tls::tcp(self.agent().address());
        let config = tls::config(&self.ca, Some(self.caller(case.who)));
        let Ok(stream) = tls::handshake(config, stream) else { return ("ip-block".to_owned(), String::new()) };
        let body = json!({ "script": case.script, "args": case.args, "reqid": reqid });
        let answer = Http::new(stream).post("/run", &body.to_string());
        let result = answer.json();
        let error = result["error"].as_str().unwrap_or_default();
        let code = match (answer.status, error) {
            (403, "certificate revoked") => "revoked-cert".to_owned(),
            (403, "serial mismatch") => "serial-reject".to_owned(),
            (200, error) if error.starts_with("not authorised: ") => "hook".to_owned(),
            (200, _) => ended(&result),
            other => panic!("{other:?} {case:?}"),
        };
        (code, result["stdout"].as_str().unwrap_or_default().to_owned())
    }
}

fn put(path: &Path, text: &str, mode: u32) {
    write_executable(path, text);
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// The gate that refuses with this code, and no other does.
fn gates_of(code: &str) -> &'static [&'static str] {
    match code.split(' ').next().unwrap() {
        "ip-block" => &["address"],
        "revoked-cert" => &["revocation"],
        "serial-reject" => &["trust-map"],
        "script-not-permitted" => &["allowlist"],
        "contract-broken" | "arguments-not-allowed" => &["contract"],
        "arguments-too-large" => &["order"],
        "script-not-trusted" | "script-not-in-script-dirs" => &["path"],
        "arguments-count" | "script-changed" => &["pins"],
        "run-as-unknown" | "script-hidden" => &["confinement"],
        "not-confined" => &["means", "start"],
        "not-started" => &["start"],
        other => panic!("{other}: whose is it?"),
    }
}

/// What the executor is to have logged about a call.
#[derive(Debug)]
enum Logged {
    /// It never heard of it.
    Nothing,
    /// It ended so, under this profile where one was decided on.
    Ended(&'static str, Option<String>),
}

/// Compares one explanation with what happened. Returns both in short, and what the executor's log must have.
fn compare(world: &World, case: &Case, reqid: &str) -> (String, Logged) {
    let private = world.agent().mode == Mode::Private;
    let before = world.asked();
    let serial = world.caller(case.who).serial();
    let explained = explain(world.agent(), &["--from", "127.0.0.1", "--serial", &serial], case.script, &case.args);
    assert_eq!(world.asked(), before, "an explanation asks nobody: {case:?}");
    let (said, json) = (said(&explained), explained.json());
    let (happened, output) = world.call(case, reqid);
    let gates = json["gates"].as_array().unwrap();
    let place = |name: &str| gates.iter().position(|gate| gate["gate"] == name).unwrap();
    let hook = &gates[place("hook")];
    let about = format!("{case:?}\n{json:#}\nhappened: {happened}\n{output}");

    // The hook is asked if nothing before it refuses and nobody else could have written it, and what is said of it leaves open
    // what it will say.
    let reached = gates[..place("hook")].iter().all(|gate| gate["verdict"] != "refuses");
    let doubtful = case.hook == Hook::Doubtful && !case.settings.contains(&"trusted_paths = no");
    let denies = !matches!(case.hook, Hook::None | Hook::Allows | Hook::Doubtful) || doubtful;
    let verdict = match (reached, case.hook) {
        (_, Hook::None) => "passes",
        (true, _) if doubtful => "refuses",
        (true, _) => "not-judged",
        (false, _) => hook["verdict"].as_str().unwrap(),
    };
    assert_eq!(hook["verdict"], verdict, "{about}");
    let asked = usize::from(reached && case.hook != Hook::None && !doubtful);
    assert_eq!(world.asked() - before, asked, "{about}");
    if reached && doubtful {
        assert_eq!((&json["gate"], &json["code"]), (&"hook".into(), &"not-authorised".into()), "{about}");
        assert!(hook["text"].as_str().unwrap().contains("chmod"), "{about}");
    }
    if reached && denies {
        assert_eq!(happened, "hook", "{about}");
        return (if doubtful { "hook not asked" } else { "hook" }.to_owned(), Logged::Nothing);
    }

    assert_eq!(said, happened, "{about}");
    if said == "runs" {
        let found = &json["surroundings"];
        // What needs no script of ours says nothing.
        if !case.path.starts_with("/bin") {
            found::compare(found, &output, &about);
        }
        assert_eq!(found["confinement"].is_null(), private, "{about}");
        return (said, Logged::Ended("exited", found["profile"].as_str().map(str::to_owned)));
    }
    let gate = json["gate"].as_str().unwrap();
    assert!(gates_of(&said).contains(&gate), "{about}");
    let front_end = place(gate) <= place("hook") || said == "arguments-too-large";
    let outcome = match said.split(' ').next().unwrap() {
        _ if front_end => return (said, Logged::Nothing),
        "not-confined" => "not-confined",
        "not-started" => "not-started",
        _ => return (said, Logged::Ended("refused", None)),
    };
    let profile = json["surroundings"]["profile"].as_str().map(str::to_owned);
    (said, Logged::Ended(outcome, profile))
}

/// As many configurations of one agent, one after the other; how their calls ended.
fn walk(mode: Mode, configurations: usize) -> BTreeSet<String> {
    let (world, mut runner) = (World::new(mode), TestRunner::deterministic());
    let (mut seen, mut expected) = (BTreeSet::new(), BTreeMap::new());
    for number in 0..configurations {
        let case = case().new_tree(&mut runner).unwrap().current();
        if !world.configure(&case) {
            // What the agent does not take is no ground for an explanation either.
            assert!(mode != Mode::Private && case.profile[0] == "run_as = nobody", "{case:?}");
            let told = explain(world.agent(), &[], "x", &[]).exits(78).stderr;
            assert!(told.contains("is the agent's own account"), "{told}");
            seen.insert("broken".to_owned());
            continue;
        }
        let reqid = format!("case-{number}");
        let (code, logged) = compare(&world, &case, &reqid);
        seen.insert(code);
        expected.insert(reqid, logged);
    }
    judge_log(world.agent(), &expected);
    seen
}

/// The executor has decided what it was said to decide, under the profile that was said.
fn judge_log(agent: &Agent, expected: &BTreeMap<String, Logged>) {
    let ordered = expected.values().filter(|logged| matches!(logged, Logged::Ended(..))).count();
    let lines =
        eventually("a line for each order", || Some(agent.lines("exec")).filter(|lines| lines.len() >= ordered));
    let by_id: BTreeMap<&str, &Line> = lines.iter().filter_map(|line| Some((line.get("REQID")?, line))).collect();
    assert_eq!((lines.len(), by_id.len()), (ordered, ordered), "one line for each order and none besides");
    for (reqid, logged) in expected {
        match (logged, by_id.get(reqid.as_str())) {
            (Logged::Nothing, None) => {}
            (Logged::Ended(outcome, profile), Some(line)) => {
                assert_eq!(
                    (line.get("OUTCOME"), line.get("PROFILE")),
                    (Some(*outcome), profile.as_deref()),
                    "{line:?}"
                );
            }
            (logged, line) => panic!("{reqid}: {logged:?}, and {line:?}"),
        }
    }
}

/// What must have been met, or the test would prove less than it says.
const SEEN: [&str; 18] = [
    "broken",
    "runs",
    "hook",
    "hook not asked",
    "ip-block",
    "revoked-cert",
    "serial-reject",
    "script-not-permitted",
    "contract-broken",
    "arguments-not-allowed",
    "arguments-count",
    "script-changed",
    "script-not-trusted",
    "script-not-in-script-dirs",
    "script-hidden",
    "run-as-unknown",
    "not-confined writable",
    "not-started directory",
];

fn met(seen: &BTreeSet<String>, wanted: &[&str]) {
    let missing: Vec<_> = wanted.iter().filter(|code| !seen.contains(**code)).collect();
    assert!(missing.is_empty(), "never met: {missing:?}, but {seen:?}");
}

#[test]
fn over_generated_configurations_the_agents_own_executor_does_what_is_explained() {
    met(&walk(Mode::Own, 400), &SEEN);
}

#[test]
fn over_generated_configurations_the_systems_executor_does_what_is_explained() {
    met(&walk(Mode::System, 200), &["runs", "hook", "script-not-trusted", "not-started directory"]);
}

#[test]
fn over_generated_configurations_an_agent_without_root_does_what_is_explained() {
    met(&walk(Mode::Private, 200), &["runs", "hook", "arguments-not-allowed", "not-started exec"]);
}
