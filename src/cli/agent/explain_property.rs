//! Over thousands of configurations: what is explained is what the gates of a run say when they are asked themselves.

mod hooks;
mod lacking;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use tempfile::TempDir;

use super::explain::{Host, explain};
use super::kernel_check;
use crate::agent::explain::Asked;
use crate::agent::explain_peer::Who;
use crate::agent::gate::rules::Rules;
use crate::agent::gate::{self, Rejection};
use crate::agent::metrics::Verb;
use crate::agent::orders::Kinship;
use crate::agent::snapshot::{self, Places, Snapshot};
use crate::audit::{Ident, Logger};
use crate::conf::Root;
use crate::executor::{Offer, OnDisk, Policy, decide, lacking};
use crate::pki::csr::{self, ExpectedName};
use crate::pki::{key, serial};
use crate::sys::capability::Set;
use crate::sys::cgroup::Controllers;
use crate::sys::file::{Access, digest, write_atomic};
use crate::sys::kernel::Kernel;
use crate::sys::user::Account;
use crate::tls::testing::{new_ca, now};
use crate::wire::explanation::{Confined, Summary};
use crate::wire::hex;
use crate::wire::name::{AgentName, RequestId};
use crate::wire::order::{Mode, Order};
use crate::wire::run::RunRequest;
use crate::wire::serial::Serial;

/// A host's directories, which stay, and its two configuration files, which every case writes anew.
struct Site {
    dir: TempDir,
}

impl Site {
    fn new() -> Self {
        // Where a root executor trusts the directories above.
        let dir = tempfile::tempdir_in("/var/lib").unwrap();
        let site = Self { dir };
        for place in ["", "etc", "scripts", "other", "work", "var/lib/ctrl-exec-agent"] {
            std::fs::create_dir_all(site.at(place)).unwrap();
            std::fs::set_permissions(site.at(place), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let (ca, key) = (new_ca(now()), key::generate().unwrap());
        let request = csr::make(&key, &AgentName::parse("agent").unwrap()).unwrap();
        let request = csr::check(&request, ExpectedName::Any).unwrap();
        let certificate = ca.sign_agent(&request, &serial::fresh().unwrap(), 30, now()).unwrap();
        site.put("etc/ca", &ca.certificate().to_pem(), 0o644);
        site.put("etc/cert", &certificate.to_pem(), 0o644);
        site.put("etc/key", &key.to_pem(), 0o600);
        for script in ["scripts/bare", "scripts/open", "scripts/contract", "scripts/broken", "other/x", "etc/hidden"] {
            site.put(script, "#!/bin/sh\n", 0o755);
        }
        site.put("scripts/theirs", "#!/bin/sh\n", 0o757);
        site.put("scripts/plain", "#!/bin/sh\n", 0o644);
        symlink(site.at("other/x"), site.at("scripts/link")).unwrap();
        site.put("scripts/open.schema.json", "{}", 0o644);
        site.put("scripts/broken.schema.json", "[\"arguments\"", 0o644);
        hooks::put(&site);
        let contract = r#"{"arguments": {"properties": {"n": {"type": "integer"}, "word": {"type": "string"}}}}"#;
        site.put("scripts/contract.schema.json", contract, 0o644);
        site
    }

    fn at(&self, place: &str) -> PathBuf {
        self.dir.path().join(place)
    }

    fn put(&self, place: &str, text: &str, mode: u32) {
        write_atomic(&self.at(place), text.as_bytes(), Access::public()).unwrap();
        std::fs::set_permissions(self.at(place), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn places(&self) -> Places {
        let root = Root::new(Some(self.dir.path().to_owned()));
        Places { config: self.at("etc/agent.conf"), allowlist: self.at("etc/scripts.conf"), root }
    }

    /// Writes both files; `{}` stands for the site's directory.
    fn configure(&self, case: &Case) {
        let here = self.dir.path().display().to_string();
        let mut agent = "port = 7443\ncert = {}/etc/cert\nkey = {}/etc/key\nca = {}/etc/ca\nuser = nobody\n\
            trusted_dispatchers_path = {}/etc/trust\nrevoked_serials = {}/etc/revoked\n"
            .to_owned();
        agent.extend(case.settings.iter().flat_map(|line| [*line, "\n"]));
        agent += "[profile default]\nrun_as = daemon\n[profile p]\n";
        agent.extend(case.profile.iter().flat_map(|line| [*line, "\n"]));
        self.put("etc/agent.conf", &agent.replace("{}", &here), 0o644);
        let mut line = format!("x = {}", case.path);
        for word in case.words.iter().filter(|word| !word.is_empty()) {
            write!(line, " {word}").unwrap();
        }
        let right = digest(&self.at("other/x")).map(|(_, digest)| hex::encode(&digest)).unwrap();
        let line = line.replace("{}", &here).replace("RIGHT", &right).replace("WRONG", &"0".repeat(64));
        self.put("etc/scripts.conf", &format!("{line}\n"), 0o644);
        self.put("etc/trust", case.trust, 0o644);
        self.put("etc/revoked", "bad\n", 0o644);
    }
}

/// One configuration and one call.
#[derive(Clone, Debug)]
struct Case {
    settings: Vec<&'static str>,
    profile: Vec<&'static str>,
    path: &'static str,
    words: [&'static str; 3],
    trust: &'static str,
    from: &'static str,
    serial: &'static str,
    script: &'static str,
    args: Vec<&'static str>,
    many: bool,
    private: bool,
    offer: (bool, bool, bool),
}

fn settings() -> impl Strategy<Value = Vec<&'static str>> {
    let ips = select(vec!["", "", "allowed_ips = 127.0.0.0/8", "allowed_ips = 10.0.0.0/8, ::1"]);
    let dirs = ["", "", "script_dirs = {}/scripts", "script_dirs = {}/other:{}/none", "script_dirs = {}"];
    let trusted = select(vec!["", "", "trusted_paths = no"]);
    let schema = select(vec!["", "", "schema = advertise"]);
    let settings = (ips, select(dirs.to_vec()), trusted, schema, select(hooks::LINES.to_vec()));
    settings.prop_map(|(a, b, c, d, e)| vec![a, b, c, d, e])
}

fn profile() -> impl Strategy<Value = Vec<&'static str>> {
    let account = ["daemon", "daemon", "root", "12345", "no-such-account"];
    let account = account.map(|name| match name {
        "daemon" => "run_as = daemon",
        "root" => "run_as = root",
        "12345" => "run_as = 12345",
        _ => "run_as = no-such-account",
    });
    let rest = [
        "caps = CAP_CHOWN",
        "caps = CAP_DAC_OVERRIDE",
        "memory_max = 64M",
        "cpu_max = 50%",
        "processes_max = 9",
        "files_max = 64",
        "caps = CAP_SYS_RESOURCE",
        "caps = CAP_SYS_ADMIN\nallow_dangerous_caps = yes",
        "no_new_privileges = no",
        "environment = MODE=test",
        "kill_grace = 9",
        "readable = /bin:/usr",
        "writable = {}/work",
        "writable = {}/none",
        "network = no",
        "syscalls = off",
        "working_directory = /no/such/place",
        "umask = 077",
        "timeout = 7",
    ];
    let rest = proptest::sample::subsequence(rest.to_vec(), 0..4);
    (select(account.to_vec()), rest).prop_map(|(account, mut rest)| {
        let mut seen = Vec::new();
        rest.retain(|line| {
            let key = line.split(' ').next();
            let new = !seen.contains(&key);
            seen.push(key);
            new
        });
        rest.insert(0, account);
        rest
    })
}

fn case() -> impl Strategy<Value = Case> {
    let path = [
        "{}/scripts/bare",
        "{}/scripts/bare",
        "{}/scripts/open",
        "{}/scripts/contract",
        "{}/scripts/contract",
        "{}/scripts/broken",
        "{}/scripts/theirs",
        "{}/scripts/plain",
        "{}/scripts/link",
        "{}/scripts/../other/x",
        "{}/scripts/none",
        "{}/etc/hidden",
        "{}/scripts",
        "/bin/true",
    ];
    let line = (
        select(path.to_vec()),
        select(vec!["profile=p", "profile=p", "profile=default", ""]),
        select(vec!["", "", "sha256=RIGHT", "sha256=WRONG"]),
        select(vec!["", "", "args=none", "args=1", "args=0..2"]),
    );
    let call = (
        select(vec!["", "127.0.0.1", "::ffff:127.0.0.1", "10.1.2.3", "::1", "2001:db8::1"]),
        select(vec!["", "a1", "A1", "bad", "c3"]),
        select(vec!["x", "x", "x", "x", "x", "x", "unlisted", "../x", ""]),
        proptest::collection::vec(select(vec!["7", "word", "-x", "", "a\0b", "ü"]), 0..4),
    );
    let rare = |one_in| proptest::bool::weighted(1.0 / f64::from(one_in));
    let surroundings = (rare(40), rare(6), any::<(bool, bool, bool)>());
    let trust = select(vec!["a1 main\nbad other\n", "a1 main\nbad other\n", ""]);
    (settings(), profile(), line, call, (trust, surroundings)).prop_map(|(settings, profile, line, call, rest)| Case {
        settings,
        profile,
        path: line.0,
        words: [line.1, line.2, line.3],
        from: call.0,
        serial: call.1,
        script: call.2,
        args: call.3,
        trust: rest.0,
        many: rest.1.0,
        private: rest.1.1,
        offer: rest.1.2,
    })
}

impl Case {
    fn body(&self) -> Vec<u8> {
        let args = if self.many { vec!["7"; 300] } else { self.args.clone() };
        serde_json::json!({"script": self.script, "args": args, "username": "", "token": ""}).to_string().into_bytes()
    }

    fn from(&self) -> Option<IpAddr> {
        self.from.parse().ok()
    }

    fn serial(&self) -> Option<Serial> {
        Serial::parse_hex(self.serial).ok()
    }

    fn kinship(&self) -> Kinship {
        if self.private { Kinship::Private } else { Kinship::Own }
    }

    fn offer(&self) -> Offer {
        let (groups, landlock, seccomp) = self.offer;
        let controllers = Controllers { memory: groups, processes: groups, cpu: groups && landlock };
        let kernel = Kernel { landlock: landlock.then_some(5), mount_setattr: true, seccomp, user_namespaces: true };
        Offer { kernel, controllers, ..Offer::look(None) }
    }
}

/// The code with which the gates of a run, each asked itself, refuse this call; and those of its executor.
fn run(case: &Case, snapshot: &Snapshot, policy: &Policy) -> Result<Order, String> {
    let code = |refusal: crate::wire::refusal::Refusal| refusal.code().to_owned();
    if case.from().is_some_and(|peer| !gate::admits(&snapshot.settings, peer)) {
        return Err("ip-block".to_owned());
    }
    let serial = case.serial();
    match serial.map(|serial| gate::judge_serial(&serial, &snapshot.revoked, &snapshot.trust).map(drop)) {
        Some(Err(Rejection::Revoked)) => return Err("revoked-cert".to_owned()),
        Some(Err(_)) => return Err("serial-reject".to_owned()),
        Some(Ok(())) | None => {}
    }
    let request = RunRequest::parse(&case.body()).map_err(|_| "request-malformed")?;
    let script = Rules::of(snapshot).listed(&request.script()).map_err(code)?;
    Rules::of(snapshot).contract(&script, &request.args).map_err(code)?;
    let order = Order::new(script, request.args, RequestId::from_random([7; 8]), Mode::Attached).map_err(code)?;
    decide(&order, policy, &OnDisk).map_err(code)?;
    Ok(order)
}

/// How the call of a case is said to end; nothing if the configuration is broken, which is said too.
fn check(site: &Site, case: &Case) -> Option<String> {
    site.configure(case);
    let places = site.places();
    let (kinship, offer) = (case.kinship(), case.offer());
    let loaded = snapshot::configuration(&places).unwrap();
    let who = case.serial().map_or(Who::Anybody, Who::Serial);
    let asked = Asked { verb: Verb::Run, from: case.from(), who, body: case.body() };
    let host = Host { places: &places, loaded: &loaded, kinship: &kinship, offer: &offer, eyes: &|| Ok(true) };
    let explained = explain(&asked, &host);
    let policy = match kernel_check::policy(&kinship, &places) {
        Ok(policy) => policy,
        Err(text) => {
            assert!(explained.is_err_and(|failure| failure.to_string().contains(&text)), "{text}");
            return None;
        }
    };
    let explained = explained.unwrap();
    if let Some(confined) = explained.surroundings.as_ref().and_then(|found| found.confinement.as_ref()) {
        assert!(is_told(case, confined), "{case:?}: {confined:?}");
    }
    let summary = Summary::of(&explained.gates);
    let log = Logger::to_writer(Ident::Agent, Box::new(std::io::sink()));
    let (snapshot, _) = Snapshot::load(&places, "here", &log).unwrap();
    hooks::judge(site, case, &explained.gates, &snapshot);
    match (run(case, &snapshot, &policy), &summary) {
        (Err(code), Summary::WouldBeRefused { code: said, .. }) => assert_eq!(said, &code, "{case:?}"),
        (Ok(order), summary) => {
            // Behind the decision only the host and the file itself can stand in the way.
            let lacking = lacking(&policy, &OnDisk, &offer);
            let profile = policy.scripts[order.script()].profile.as_str();
            let expected = lacking.iter().any(|(name, _)| name == profile);
            match summary {
                Summary::WouldRun => assert!(!expected, "{case:?}"),
                Summary::WouldBeRefused { gate, .. } if *gate == "means" => assert!(expected, "{case:?}"),
                Summary::WouldBeRefused { gate, .. } if *gate == "start" => assert!(may_not_start(case), "{case:?}"),
                other => panic!("{case:?}: {other:?}"),
            }
        }
        (Err(code), said) => panic!("{case:?}: refused with {code}, and explained as {said:?}"),
    }
    Some(match summary {
        Summary::WouldBeRefused { code, .. } => code,
        _ => "would run".to_owned(),
    })
}

/// Whether an explanation has the profile's account with its groups, and exactly its capabilities and privileges.
fn is_told(case: &Case, confined: &Confined) -> bool {
    let profile = if case.words[0] == "profile=p" { case.profile.as_slice() } else { &["run_as = daemon"] };
    let values = |key: &str| profile.iter().flat_map(|text| text.lines()).find_map(|line| line.strip_prefix(key));
    let (uid, gid, groups) = match values("run_as = ").unwrap() {
        "12345" => (12_345, 12_345, vec![]),
        name => {
            let account = Account::by_name(name).unwrap().unwrap();
            let groups = account.groups().unwrap().iter().map(|group| group.as_raw()).collect();
            (account.uid().as_raw(), account.gid().as_raw(), groups)
        }
    };
    let caps: Vec<&str> = values("caps = ").into_iter().collect();
    (confined.uid, confined.gid, &confined.groups, &confined.caps) == (uid, gid, &groups, &caps)
        && confined.no_new_privileges == values("no_new_privileges = no").is_none()
        && confined.limits.iter().any(|limit| limit.key == "files_max") == values("files_max").is_some()
}

/// Whether a case has something that keeps a permitted run from starting.
fn may_not_start(case: &Case) -> bool {
    let named = |line: &&&str| line.contains("/none") || line.contains("/no/such/place");
    let missing = case.profile.iter().find(named).is_some() || case.path.contains("none");
    missing || case.path.ends_with("plain") || Path::new(case.path).ends_with("scripts")
}

/// Cases to try, and what must have been among them, or the test would prove less than it says.
const CASES: u32 = 2000;
const SEEN: [&str; 17] = [
    "would run",
    "ip-block",
    "revoked-cert",
    "serial-reject",
    "script-not-permitted",
    "arguments-not-allowed",
    "contract-broken",
    "arguments-too-large",
    "argument-nul",
    "script-not-trusted",
    "script-not-in-script-dirs",
    "arguments-count",
    "script-changed",
    "run-as-unknown",
    "script-hidden",
    "not-confined",
    "not-started",
];

#[test]
fn what_is_explained_is_what_the_gates_of_a_run_say() {
    let (site, seen) = (Site::new(), RefCell::new(BTreeSet::new()));
    let mut runner = TestRunner::new(ProptestConfig { cases: CASES, ..ProptestConfig::default() });
    let outcome = runner.run(&case(), |case| {
        seen.borrow_mut().extend(check(&site, &case));
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let seen = seen.into_inner();
    let missing: Vec<_> = SEEN.iter().filter(|code| !seen.contains(**code)).collect();
    assert!(missing.is_empty(), "never met: {missing:?}");
}
