//! `ctrl-exec-agent explain --verb`: what it says is what becomes of a request that runs nothing.

use crate::harness::executor::Mode;
use crate::harness::site::Builder;
use crate::harness::{Site, pki, tls};

fn builder(mode: Mode) -> Builder {
    Site::builder().executor(mode).agent_hook("echo asked >> {work}/asked").sh("ok", "echo ran >> {work}/ran")
}

/// The verbs that run nothing, as requests.
const VERBS: [(&str, &str, &str); 7] = [
    ("ping", "POST /ping", "{}"),
    ("capabilities", "GET /capabilities", ""),
    ("result", "GET /result/r1", ""),
    ("cancel", "POST /cancel/r1", "{}"),
    ("renew", "POST /renew", "{}"),
    ("renew-complete", "POST /renew-complete", "{}"),
    ("rotate-serial", "POST /rotate-serial", r#"{"serial":"ab"}"#),
];

#[test]
fn what_is_explained_of_a_verb_that_runs_nothing_is_what_happens() {
    let mut site = builder(Mode::Own).agent("rate_limit_disable = 1").prepare();
    let [stranger, revoked] = ["stranger", "revoked"].map(|name| pki::issue(&site.authority(), name));
    let trust = std::fs::read_to_string(site.agent().trust()).unwrap();
    std::fs::write(site.agent().trust(), format!("{trust}{} control-2\n", revoked.serial())).unwrap();
    std::fs::write(site.agent().revoked(), format!("{}\n", revoked.serial())).unwrap();
    site.start(0);
    let (agent, asked) = (site.agent(), || std::fs::read_to_string(site.agent().work("asked")).unwrap_or_default());
    for (verb, line, body) in VERBS {
        for credentials in [&site.dispatcher(), &stranger, &revoked] {
            let before = asked();
            let words = ["explain", "--json", "--verb", verb, "--from", "127.0.0.1", "--serial", &credentials.serial()];
            let ran = agent.command(&words);
            let json = ran.json();
            assert_eq!(asked(), before, "the hook was asked: {verb}");
            let mut http = tls::connect(agent.address(), &site.authority(), credentials);
            http.send(format!("{line} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
            let answer = http.answer().unwrap();
            let happened = match (answer.status, answer.json()["error"].as_str()) {
                (403, Some("certificate revoked")) => "revoked-cert",
                (403, Some("serial mismatch" | "forbidden")) => "serial-reject",
                (403, other) => panic!("{verb}: {other:?}"),
                _ => "",
            };
            assert_eq!(json["code"].as_str().unwrap_or_default(), happened, "{verb}: {json}");
            let (verdict, code) = if happened.is_empty() { ("would-be-answered", 0) } else { ("would-be-refused", 1) };
            assert_eq!((&json["verdict"], &json["verb"], ran.code), (&verdict.into(), &verb.into(), code), "{json}");
            let gates: Vec<_> = json["gates"].as_array().unwrap().iter().map(|gate| gate["gate"].clone()).collect();
            let hook = gates.last() == Some(&"hook".into());
            assert_eq!(gates[..5], ["address", "rate", "handshake", "revocation", "trust-map"], "{json}");
            assert_eq!((gates.len(), asked() != before), (5 + usize::from(hook), hook && code == 0), "{verb}: {json}");
        }
    }
}

#[test]
fn a_verb_is_known_by_both_its_names_and_takes_nothing_that_belongs_to_a_run() {
    let site = builder(Mode::Private).prepare();
    let agent = site.agent();
    for (name, verb, action) in [("discovery", "capabilities", "'discovery'"), ("rotate", "rotate-serial", "'rotate'")]
    {
        let text = agent.command(&["explain", "--verb", name]).exits(0).stdout;
        assert!(text.ends_with("\nWould be answered.\n") && text.contains(verb), "{text}");
        let hook = text.lines().find(|line| line.trim_start().starts_with("hook")).unwrap();
        assert!(hook.contains("would be asked about") && hook.contains(action), "{hook}");
        assert!(!text.contains("allowlist") && !text.contains("executor"), "{text}");
        assert_eq!(agent.command(&["explain", "--json", "--verb", name]).json()["verb"], verb);
    }
    assert_eq!(
        agent.command(&["explain", "--json", "--unprivileged", "--verb", "run", "ok"]).exits(0).json()["verb"],
        "run"
    );
    for wrong in [
        &["explain"][..],
        &["explain", "--verb", "run"],
        &["explain", "--verb", "nonsense"],
        &["explain", "--verb", "unknown"],
        &["explain", "--verb", "ping", "ok"],
        &["explain", "--verb", "ping", "--username", "ann"],
        &["explain", "--verb", "ping", "--", "x"],
    ] {
        agent.command(wrong).exits(64);
    }
    assert!(!agent.work("asked").exists());
}
