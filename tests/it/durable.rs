//! What the agent says it has stored is on the disk: content, then name, and only then the answer. A host that loses power
//! the moment after has the old files or the new ones, whole.

use std::path::PathBuf;
use std::process::Stdio;

use serde_json::json;

use crate::harness::process::{finish, program};
use crate::harness::trace::{Call, Kept, Trace, kept, locked};
use crate::harness::{Site, binary, pki, tls};

/// A site whose agent is traced from its first instruction on.
fn traced() -> (Site, Trace) {
    let mut site = Site::builder().prepare();
    let trace = Trace::new(site.dir().join("calls"));
    site.agent_mut().start_with(&trace.words(), [Stdio::null(), Stdio::null()]);
    (site, trace)
}

fn etc(site: &Site, name: &str) -> PathBuf {
    site.agent().root.join("etc/ctrl-exec-agent").join(name)
}

/// Demands that nobody is told anything until the change is safe, and somebody is then.
#[track_caller]
fn told_only_after(calls: &[Call], kept: Kept) {
    let told: Vec<&Call> = calls.iter().filter(|call| call.tells() && call.ended > kept.begun).collect();
    assert!(told.iter().all(|call| call.begun > kept.durable), "somebody was told too early: {calls:#?}");
    assert!(!told.is_empty(), "nobody was told: {calls:#?}");
}

#[test]
fn a_rotation_is_locked_and_on_the_disk_before_it_is_answered() {
    let (site, trace) = traced();
    let (agent, ca, own) = (site.agent(), site.authority(), site.dispatcher());
    let path = agent.trust();
    for body in [json!({"serial": "abc"}), json!({"serial": "abc", "action": "remove"})] {
        let mut http = tls::connect(agent.address(), &ca, &own);
        assert_eq!(http.post("/ping", "{}").status, 200);
        let mark = trace.mark();
        assert_eq!(http.post("/rotate-serial", &body.to_string()).json()["status"], "ok");
        let answered = |calls: &[Call]| {
            let synced = calls.iter().rposition(|call| call.on(&["fsync"], path.parent().unwrap()));
            synced.is_some_and(|at| calls.iter().skip(at).any(Call::tells))
        };
        let calls = trace.until(mark, answered);
        let kept = kept(&calls, &path);
        locked(&calls, path.parent().unwrap(), kept);
        told_only_after(&calls, kept);
    }
}

#[test]
fn a_renewed_certificate_is_on_the_disk_before_it_is_said_to_be_staged_or_installed() {
    let (site, trace) = traced();
    let (agent, ca) = (site.agent(), site.authority());
    let renewed = pki::reissue(&ca, "agent1", &agent.credentials, 365);
    let mut http = tls::connect(agent.address(), &ca, &site.dispatcher());
    assert_eq!(http.post("/ping", "{}").status, 200);
    let mark = trace.mark();
    let staged = http.post("/renew-complete", &json!({"cert": renewed.cert}).to_string()).json();
    assert_eq!(staged["staged"], true, "{staged}");
    let path = agent.root.join("var/lib/ctrl-exec-agent/agent.crt.staged");
    let calls = trace.until(mark, |calls| calls.iter().any(|call| call.ended > mark && call.tells()));
    told_only_after(&calls, kept(&calls, &path));

    let mut command = program(&binary());
    command.args(["agent", "--root"]).arg(&agent.root).arg("promote-cert");
    let trace = Trace::new(site.dir().join("promotion"));
    finish(trace.of(&command), "").exits(0);
    let calls = trace.calls();
    let installed = kept(&calls, &etc(&site, "agent.crt"));
    // Gone only when the one that it became is safe.
    let gone = calls.iter().find(|call| call.is(&["unlink", "unlinkat"]) && call.text.contains("agent.crt.staged"));
    assert!(gone.is_some_and(|gone| gone.begun > installed.durable), "{calls:#?}");
}

#[test]
fn an_interrupted_pairing_is_completed_on_the_disk_before_its_journal_goes() {
    let site = Site::builder().prepare();
    let agent = site.agent();
    let fresh = pki::issue(&site.authority(), "agent1");
    let ca = site.authority().certificate().to_pem();
    let journal = json!({"cert": fresh.cert, "key": fresh.key, "ca": ca, "trusted": ["abc", "second"]});
    std::fs::write(etc(&site, "agent.key.pairing"), journal.to_string()).unwrap();
    let mut command = program(&binary());
    command.args(["agent", "--root"]).arg(&agent.root).arg("promote-cert");
    let trace = Trace::new(site.dir().join("calls"));
    finish(trace.of(&command), "").exits(0);
    let calls = trace.calls();
    let gone = calls.iter().find(|call| call.is(&["unlink"]) && call.text.contains("agent.key.pairing\""));
    let gone = gone.unwrap_or_else(|| panic!("{calls:#?}"));
    for path in [etc(&site, "agent.crt"), etc(&site, "agent.key"), etc(&site, "ca.crt"), agent.trust()] {
        assert!(kept(&calls, &path).durable < gone.begun, "{}: {calls:#?}", path.display());
    }
    locked(&calls, agent.trust().parent().unwrap(), kept(&calls, &agent.trust()));
    // Else a host that loses power could have it again, and undo what came after it.
    let folder = agent.root.join("etc/ctrl-exec-agent");
    let synced = |call: &Call| call.on(&["fsync"], &folder) && call.begun > gone.ended;
    assert!(calls.iter().any(synced), "{calls:#?}");
}
