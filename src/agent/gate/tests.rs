//! Everything that can refuse, refusing at once; and what is explained, against what is judged.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::TestRunner;
use rustls::pki_types::CertificateDer;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::agent::capabilities::Discovery;
use crate::agent::explain::{self, Files};
use crate::agent::explain_peer::{List, Lists, Who};
use crate::agent::orders::{Beginning, Kinship, Orders};
use crate::agent::sidecar::Sidecars;
use crate::agent::snapshot::{self, Places};
use crate::agent::{cancel, ping, renew, result};
use crate::audit::{Ident, Logger};
use crate::conf::Root;
use crate::hook::Fault;
use crate::pki::csr::{self, ExpectedName};
use crate::pki::{key, serial};
use crate::sys::file::{Access, write_atomic};
use crate::sys::process::Family;
use crate::tls::testing::new_ca;
use crate::wire::explanation::{Line, Summary, Verdict};
use crate::wire::name::AgentName;
use crate::wire::rotate::RotateRequest;
use crate::wire::run::RunRequest;

/// A host's files, which every case writes anew, and somebody with a certificate.
pub(in crate::agent) struct Site {
    dir: TempDir,
    shown: CertificateDer<'static>,
    pub(in crate::agent) runtime: Runtime,
}

/// What of them can differ.
#[derive(Clone, Debug, Default)]
struct Case {
    settings: Vec<&'static str>,
    trust: &'static str,
    revoked: &'static str,
    hook: &'static str,
    verb: Option<Verb>,
    script: &'static str,
    arg: &'static str,
}

const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const SERIAL: &str = "a1";
const HANGS: &str = "sleep 300";
const TRUSTED: &str = "a1 control-1\n";

impl Site {
    pub(in crate::agent) fn new() -> Self {
        // A hook is wanted where nobody else can put one.
        let dir = tempfile::tempdir_in("/var/lib").unwrap();
        let (ca, key) = (new_ca(time::OffsetDateTime::now_utc()), key::generate().unwrap());
        let request = csr::make(&key, &AgentName::parse("agent").unwrap()).unwrap();
        let request = csr::check(&request, ExpectedName::Any).unwrap();
        let now = time::OffsetDateTime::now_utc();
        let certificate = ca.sign_agent(&request, &serial::fresh().unwrap(), 30, now).unwrap();
        let shown = CertificateDer::from(certificate.der().to_vec());
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let site = Self { dir, shown, runtime };
        site.put("ca", &ca.certificate().to_pem(), 0o644);
        site.put("cert", &certificate.to_pem(), 0o644);
        site.put("key", &key.to_pem(), 0o600);
        let contract = r#"{"arguments": {"properties": {"n": {"type": "integer"}}, "required": ["n"]}}"#;
        site.put("held.schema.json", contract, 0o644);
        site.put("broken.schema.json", "[", 0o644);
        site
    }

    fn at(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    #[expect(clippy::disallowed_methods, reason = "a thousand cases, none of which is to outlive a power cut")]
    fn put(&self, name: &str, text: &str, mode: u32) {
        std::fs::write(self.at(name), text).unwrap();
        std::fs::set_permissions(self.at(name), std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn places(&self) -> Places {
        let root = Root::new(Some(self.dir.path().to_owned()));
        Places { config: self.at("agent.conf"), allowlist: self.at("scripts.conf"), root }
    }

    fn configure(&self, case: &Case) {
        let mut text = "port = 7443\ncert = {}/cert\nkey = {}/key\nca = {}/ca\ntrusted_dispatchers_path = {}/trust\n\
            revoked_serials = {}/revoked\nexecutor_socket = {}/none\n"
            .to_owned();
        // One that hangs is ended soon, and any other has the time that it takes on a busy machine.
        let patience = if case.hook == HANGS { "1" } else { "60" };
        text.extend(["auth_hook_timeout = ", patience, "\n"]);
        text.extend(case.settings.iter().flat_map(|line| [*line, "\n"]));
        if !case.hook.is_empty() {
            text += "auth_hook = {}/hook\n";
            self.put("hook", &format!("#!/bin/sh\n{}\n", case.hook), 0o755);
        }
        let here = |text: &str| text.replace("{}", &self.dir.path().display().to_string());
        self.put("agent.conf", &here(&(text + "[profile default]\nrun_as = daemon\n")), 0o644);
        self.put("scripts.conf", &here("open = {}/open\nheld = {}/held\nbroken = {}/broken\n"), 0o644);
        self.put("trust", case.trust, 0o644);
        self.put("revoked", case.revoked, 0o644);
    }

    /// An agent with these files, and one who comes to it.
    fn agent(&self, case: &Case) -> (Arc<Agent>, Peer) {
        self.agent_logging(case, Logger::to_writer(Ident::Agent, Box::new(std::io::sink())))
    }

    /// A run that was asked for and passed every gate, of an agent that logs there.
    pub(in crate::agent) async fn asked(&self, body: &str, log: Logger) -> (Arc<Agent>, Asked<RunRequest>) {
        let (agent, peer) = self.agent_logging(&Case { trust: TRUSTED, ..Case::default() }, log);
        let peer = asks(&agent, &peer, Some(Verb::Run), UnixTime::now()).await.unwrap();
        let asked = calls(&agent, peer, RunRequest::parse(body.as_bytes()).unwrap()).await.unwrap().into_parts().0;
        (agent, asked)
    }

    fn agent_logging(&self, case: &Case, log: Logger) -> (Arc<Agent>, Peer) {
        self.configure(case);
        let places = self.places();
        let (snapshot, _) = Snapshot::load(&places, "here", &log).unwrap();
        let proof = Arc::new(snapshot.tls.prove(&self.shown, UnixTime::now()).unwrap());
        let beginning = Beginning {
            descriptors: 1024,
            file: "/proc/self/exe".into(),
            family: Family::of(b"tests"),
            executor: None,
        };
        let orders = Orders::new(&Kinship::of(&snapshot.settings, false), &places, beginning).unwrap();
        let serial = Serial::parse_hex(SERIAL).unwrap();
        let peer = Peer { address: ADDRESS, proof, serial, session: Session::Full };
        (Agent::new(places, log, orders, snapshot), peer)
    }

    /// What the hook says to a case in which nothing else refuses.
    fn hook(&self, case: &Case, meanwhile: impl Fn(&Path)) -> Result<Consent, Refused> {
        loop {
            let (agent, peer) = self.agent(&Case { trust: TRUSTED, ..case.clone() });
            meanwhile(&self.at("hook"));
            let said = self.runtime.block_on(async {
                let peer = asks(&agent, &peer, Some(Verb::Capabilities), UnixTime::now()).await?;
                let called = calls(&agent, peer, Discovery).await;
                called.map(|passed| passed.into_parts().1).map_err(|stopped| stopped.refused)
            });
            // A process that another test has just started may still have the hook open, as this one wrote it.
            match said.as_ref().err().and_then(Refused::denial) {
                Some(denial) if denial.reason().contains("Text file busy") => {}
                _ => return said,
            }
        }
    }
}

#[test]
fn an_address_that_is_blocked_and_not_allowed_is_not_allowed() {
    let site = Site::new();
    let arrives = |settings: &[&'static str]| {
        let (agent, _) = site.agent(&Case { settings: settings.to_vec(), ..Case::default() });
        let first = site.runtime.block_on(super::arrives(&agent, ADDRESS));
        (0..3).for_each(|_| agent.failed(ADDRESS, "no handshake"));
        [first, site.runtime.block_on(super::arrives(&agent, ADDRESS))]
    };
    assert_eq!(arrives(&[]), [Ok(()), Err(Refused::Rate(rate::Verdict::Blocked))]);
    assert_eq!(arrives(&["allowed_ips = 10.0.0.0/8"]), [Err(Refused::Address), Err(Refused::Address)]);
}

#[test]
fn the_hooks_word_is_a_verdict_and_a_hook_that_cannot_decide_denies() {
    let site = Site::new();
    let says = |hook| site.hook(&Case { hook, ..Case::default() }, |_| {});
    assert_eq!(says(""), Ok(Consent::NoHook));
    assert_eq!(says("exit 0"), Ok(Consent::Allowed));
    let denied = |status, reason: &str| Err(Refused::Hook(Denial::Denied { status, reason: reason.to_owned() }));
    assert_eq!(says("exit 2"), denied(2, "bad credentials"));
    assert_eq!(says("exit 77"), denied(77, "hook exited 77"));
    let failed = |says: Result<Consent, Refused>| match says {
        Err(Refused::Hook(Denial::Failed { fault, reason })) => (fault, reason),
        other => panic!("{other:?}"),
    };
    assert_eq!(failed(says("kill -KILL $$")), (Fault::Killed, "auth hook was killed by a signal".to_owned()));
    assert_eq!(failed(says(HANGS)), (Fault::TimedOut(1), "denied".to_owned()));
    let spoilt = |spoil: fn(&Path)| failed(site.hook(&Case { hook: "exit 0", ..Case::default() }, spoil)).0;
    let set = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(spoilt(|path| std::fs::remove_file(path).unwrap()), Fault::NotExecutable);
    let open_to_all = site.hook(&Case { hook: "exit 0", ..Case::default() }, |path| set(path, 0o777));
    assert_eq!(failed(open_to_all).0, Fault::Untrusted);
    let no_program = site.hook(&Case { hook: "exit 0", ..Case::default() }, |path| {
        write_atomic(path, b"#!/no/such/shell\n", Access::public()).unwrap();
        set(path, 0o755);
    });
    assert_eq!(failed(no_program).0, Fault::NotStarted);
}

fn case() -> impl Strategy<Value = Case> {
    let ips = ["", "", "", "allowed_ips = 127.0.0.0/8", "allowed_ips = 10.0.0.0/8"];
    let files = (
        select(ips.to_vec()),
        select(vec!["", "", "schema = advertise"]),
        select(vec![TRUSTED, TRUSTED, TRUSTED, "b2 control-2\n", ""]),
        select(vec!["", "", "", "A1\n"]),
        select(vec!["", "", "exit 0", "exit 3", "kill -KILL $$"]),
    );
    let verbs = Verb::ALL.into_iter().filter(|verb| *verb != Verb::Unknown);
    let verbs: Vec<Verb> = verbs.chain([Verb::Run; 4]).collect();
    let asked = (
        select(verbs),
        select(vec!["open", "held", "held", "broken", "unlisted", "../x"]),
        select(vec!["7", "word", "-x"]),
    );
    (files, asked).prop_map(|((ips, schema, trust, revoked, hook), (verb, script, arg))| Case {
        settings: vec![ips, schema],
        trust,
        revoked,
        hook,
        verb: Some(verb),
        script,
        arg,
    })
}

impl Case {
    fn body(&self) -> Vec<u8> {
        match self.verb {
            Some(Verb::Run) => serde_json::json!({"script": self.script, "args": [self.arg]}).to_string().into_bytes(),
            _ => Vec::new(),
        }
    }
}

/// One who comes all the way: what the first gate says that refuses.
async fn comes(agent: &Agent, peer: &Peer, case: &Case) -> Result<(), Refused> {
    async fn called<A: Ask>(agent: &Agent, peer: TrustedPeer, ask: A) -> Result<(), Refused> {
        calls(agent, peer, ask).await.map(drop).map_err(|stopped| stopped.refused)
    }
    arrives(agent, peer.address).await?;
    let verb = case.verb.unwrap();
    let trusted = asks(agent, peer, Some(verb), UnixTime::now()).await?;
    match verb {
        Verb::Run => called(agent, trusted, RunRequest::parse(&case.body()).unwrap()).await,
        Verb::Ping => called(agent, trusted, ping::ask(b"{}")).await,
        Verb::Capabilities => called(agent, trusted, Discovery).await,
        Verb::Result => called(agent, trusted, result::ask("/result/r1").unwrap()).await,
        Verb::Cancel => called(agent, trusted, cancel::ask("/cancel/r1").unwrap()).await,
        Verb::Renew => called(agent, trusted, renew::ask(b"{}")).await,
        Verb::RenewComplete => called(agent, trusted, renew::ask_complete(b"{}")).await,
        Verb::RotateSerial => called(agent, trusted, RotateRequest::parse(br#"{"serial":"ab"}"#).unwrap()).await,
        Verb::Unknown => Ok(()),
    }
}

fn explained(site: &Site, case: &Case) -> Vec<Line> {
    let log = Logger::to_writer(Ident::Agent, Box::new(std::io::sink()));
    let loaded = snapshot::configuration(&site.places()).unwrap();
    let (settings, sidecars) = (&loaded.settings, Sidecars::load(&loaded.allowlist, &log));
    let revoked = (snapshot::revoked(settings, &log).unwrap().0, case.revoked.to_owned());
    let trust = (snapshot::trust(settings, &log).unwrap(), case.trust.to_owned());
    let lists = Lists {
        revoked: List { path: site.at("revoked"), content: Ok(revoked) },
        trust: List { path: site.at("trust"), content: Ok(trust) },
    };
    let files = Files { loaded: &loaded, sidecars: &sidecars, lists, unpaired: None, eyes: true };
    let who = Who::Serial(Serial::parse_hex(SERIAL).unwrap());
    explain::explain(&explain::Asked { verb: case.verb.unwrap(), from: Some(ADDRESS), who, body: case.body() }, &files)
}

/// The gate that refuses a case; "none" if it passes all.
fn check(site: &Site, case: &Case) -> String {
    let (agent, peer) = site.agent(case);
    let verb = case.verb.unwrap();
    let lines = explained(site, case);
    let gates: Vec<&str> = lines.iter().map(|line| line.gate).filter(|gate| *gate != "request").collect();
    assert_eq!(gates, order::of(verb).map(Gate::as_str).collect::<Vec<_>>(), "{case:?}");
    let said = Summary::of(&lines);
    let refused = match site.runtime.block_on(comes(&agent, &peer, case)) {
        Ok(()) => {
            assert_eq!(said, Summary::WouldRun, "{case:?}");
            return format!("{} none", verb.as_str());
        }
        Err(refused) => refused,
    };
    let gate = refused.gate().as_str();
    if refused.gate() == Gate::Hook {
        let hook = lines.iter().find(|line| line.gate == gate).map(|line| &line.verdict);
        assert_eq!((said, hook), (Summary::WouldRun, Some(&Verdict::NotJudged)), "{case:?}");
    } else {
        assert_eq!(said, Summary::WouldBeRefused { gate, code: refused.code().to_owned() }, "{case:?}");
    }
    format!("{} {gate}", verb.as_str())
}

#[test]
fn what_is_explained_is_what_every_verbs_gates_say() {
    let (site, seen) = (Site::new(), RefCell::new(BTreeSet::new()));
    let mut runner = TestRunner::new(ProptestConfig { cases: 1000, ..ProptestConfig::default() });
    let outcome = runner.run(&case(), |case| {
        seen.borrow_mut().insert(check(&site, &case));
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    let judged = |gate: &Gate| !matches!(gate, Gate::Rate | Gate::Handshake);
    let verbs = Verb::ALL.into_iter().filter(|verb| *verb != Verb::Unknown);
    let all = verbs.flat_map(|verb| {
        let gates = order::of(verb).filter(judged).map(Gate::as_str).chain(["none"]);
        gates.map(move |gate| format!("{} {gate}", verb.as_str()))
    });
    let missing: Vec<String> = all.filter(|pair| !seen.borrow().contains(pair)).collect();
    assert!(missing.is_empty(), "never met: {missing:?}");
}
