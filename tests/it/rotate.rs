//! `/rotate-serial`: a dispatcher's next serial is trusted with the answer, and its last one no more.

use std::net::SocketAddr;

use ctrl_exec::agent::pairing::trust_file;
use ctrl_exec::pki::ca::Ca;
use ctrl_exec::pki::trust::TrustMap;
use ctrl_exec::sys::file::lock_directory;
use ctrl_exec::wire::name::DispatcherId;
use ctrl_exec::wire::serial::Serial;
use serde_json::{Value, json};

use crate::harness::http::{Answer, Http};
use crate::harness::pki::Credentials;
use crate::harness::tls::Tls;
use crate::harness::{Agent, Site, audit, eventually, host, pki, tls};

#[track_caller]
fn rotate(site: &Site, credentials: &Credentials, body: &Value) -> Answer {
    let address = site.agent().address();
    tls::ask_1_0(address, &site.authority(), credentials, "/rotate-serial", &body.to_string())
}

fn ping(site: &Site, credentials: &Credentials) -> u16 {
    tls::connect(site.agent().address(), &site.authority(), credentials).post("/ping", "{}").status
}

/// The map's entries, without its comments.
fn map(agent: &Agent) -> String {
    let text = std::fs::read_to_string(agent.trust()).unwrap();
    text.lines().filter(|line| !line.starts_with('#')).flat_map(|line| [line, "\n"]).collect()
}

fn trust(agent: &Agent, lines: &[String]) {
    std::fs::write(agent.trust(), lines.concat()).unwrap();
    agent.reload();
}

#[test]
fn a_whole_rotation_takes_effect_at_once_and_loses_no_connection() {
    let site = Site::builder().sh("ok", "echo ran").start();
    let (agent, old) = (site.agent(), site.dispatcher());
    let new = pki::issue(&site.authority(), "ctrl-exec-dispatcher");
    let executor = agent.executor();
    let mut open = tls::connect(agent.address(), &site.authority(), &old);
    assert_eq!(open.post("/run", r#"{"script":"ok"}"#).json()["stdout"], "ran\n");
    assert_eq!(ping(&site, &new), 403);

    let spelt = format!("0x{}", new.serial().to_uppercase());
    let answer = rotate(&site, &old, &json!({"serial": spelt, "action": "add"}));
    let expected = json!({"status": "ok", "action": "add", "serial": spelt, "dispatcher": "control-1"});
    assert_eq!((answer.status, answer.json()), (200, expected));
    let serial = format!("SERIAL={}", new.serial());
    let fields = ["ACTION=rotate", "DISPATCHER=control-1", "PEER=127.0.0.1", &serial, "SERIAL_ACTION=add"];
    agent.line("rotate").is(&fields);
    assert_eq!(ping(&site, &new), 200);
    assert_eq!(open.post("/ping", "{}").status, 200);
    assert!(map(agent).contains(&format!("{} control-1\n", old.serial())));

    let answer = rotate(&site, &new, &json!({"serial": old.serial(), "action": "remove"}));
    assert_eq!((answer.status, &answer.json()["action"]), (200, &json!("remove")));
    agent.line_where("rotate", |line| line.get("SERIAL_ACTION") == Some("remove"));
    assert_eq!(map(agent), format!("{} control-1\n", new.serial()));
    assert_eq!(open.post("/ping", "{}").json()["error"], "serial mismatch", "an open connection's next request too");
    let mut http = tls::connect(agent.address(), &site.authority(), &new);
    assert_eq!(http.post("/run", r#"{"script":"ok"}"#).json()["stdout"], "ran\n");
    assert_eq!(agent.executor(), executor);
    assert!(agent.lines("reload").is_empty());
    assert!(audit::lines(&agent.executor_stderr()).iter().all(|line| line.action() != "exec-reload"));
}

#[test]
fn a_rotation_outlives_a_restart_and_a_reload() {
    let mut site = Site::builder().start();
    let new = pki::issue(&site.authority(), "ctrl-exec-dispatcher");
    rotate(&site, &site.dispatcher(), &json!({"serial": new.serial()}));
    site.agent().reload();
    assert_eq!(ping(&site, &new), 200);
    site.agent_mut().stop();
    site.start(0);
    assert_eq!(ping(&site, &new), 200);
}

#[test]
fn what_a_dispatcher_may_not_change_stays() {
    let site = Site::builder().start();
    let (agent, own) = (site.agent(), site.dispatcher());
    let other = pki::issue(&site.authority(), "ctrl-exec-dispatcher");
    let before = [format!("{} control-1\n", own.serial()), format!("{} control-2\n", other.serial())];
    trust(agent, &before);
    let entries = map(agent);
    for (body, error) in [
        (json!({"serial": other.serial()}), "serial belongs to another dispatcher"),
        (json!({"serial": other.serial(), "action": "remove"}), "serial not owned by 'control-1'"),
        (json!({"serial": own.serial(), "action": "remove"}), "the last serial of 'control-1' is not removed: "),
        (json!({"action": "add"}), "serial required"),
        (json!({"serial": "nan"}), "\"nan\" is not a certificate serial number"),
        (json!({"serial": "abc", "action": "steal"}), "invalid action 'steal'"),
        (json!({"serial": 10}), "serial must be a text"),
        (json!([]), "serial required"),
    ] {
        let failures = agent.lines("rotate-fail").len();
        let answer = rotate(&site, &own, &body);
        let said = answer.json();
        assert_eq!((answer.status, &said["status"]), (200, &json!("error")), "{body}");
        assert!(said["error"].as_str().unwrap().starts_with(error), "{error}: {said}");
        assert_eq!(map(agent), entries, "{body}");
        let line = &agent.lines("rotate-fail")[failures];
        line.is(&["ACTION=rotate-fail", "DISPATCHER=control-1", &format!("ERROR={}", said["error"].as_str().unwrap())]);
    }
    assert_eq!((ping(&site, &own), ping(&site, &other)), (200, 200));
    let absent = rotate(&site, &own, &json!({"serial": "abc", "action": "remove"}));
    assert_eq!(absent.json()["status"], "ok", "gone already is as good as removed");
    assert!(agent.lines("rotate").iter().all(|line| line.get("SERIAL") == Some("abc")));
}

#[test]
fn digits_are_hex_and_one_serial_has_one_form() {
    let site = Site::builder().start();
    let own = site.dispatcher();
    for spelt in ["10", "00:10", "0x0010", "serial=10"] {
        assert_eq!(rotate(&site, &own, &json!({"serial": spelt})).json()["status"], "ok", "{spelt}");
    }
    let entries = map(site.agent());
    assert_eq!(entries.lines().count(), 2, "{entries}");
    assert!(entries.ends_with("\n10 control-1\n"), "{entries}");
    assert_eq!(rotate(&site, &own, &json!({"serial": "16", "action": "remove"})).json()["status"], "ok");
    assert_eq!(map(site.agent()), entries, "16 is not the decimal form of 10");
}

#[test]
fn a_hook_decides_about_rotations() {
    let hook = "cat > {work}/asked; [ \"$ENVEXEC_TOKEN\" = t0k ] || exit 2";
    let site = Site::builder().agent_hook(hook).start();
    let (agent, own) = (site.agent(), site.dispatcher());
    let entries = map(agent);
    let denied = rotate(&site, &own, &json!({"serial": "AB", "token": "wrong"}));
    assert_eq!((denied.status, denied.json()), (403, json!({"error": "not authorised: bad credentials"})));
    agent.line("rotate-deny").is(&["ACTION=rotate-deny", "DISPATCHER=control-1", "REASON=bad credentials"]);
    agent.line("auth").is(&[
        "ACTION=auth",
        "AUTHACTION=rotate",
        "IP=127.0.0.1",
        "REASON=bad credentials",
        "RESULT=deny",
        "USER=(none)",
    ]);
    assert_eq!(map(agent), entries);
    assert_eq!(rotate(&site, &own, &json!({"serial": "AB", "token": "t0k"})).json()["status"], "ok");
    let asked: Value = serde_json::from_slice(&std::fs::read(agent.work("asked")).unwrap()).unwrap();
    assert_eq!(
        (&asked["action"], &asked["args"], &asked["script"]),
        (&json!("rotate"), &json!(["add", "ab"]), &json!(""))
    );
    assert_eq!((&asked["dispatcher"], &asked["dispatcher_serial"]), (&json!("control-1"), &json!(own.serial())));
    assert!(map(agent).contains("ab control-1\n") && !agent.stderr().contains("t0k"));
}

#[test]
fn a_token_that_a_hook_could_not_have_whole_never_reaches_it() {
    // What its environment holds would end at the NUL: the right token, with something behind it.
    let hook = "echo > {work}/asked; [ \"$ENVEXEC_TOKEN\" = t0k ]";
    let site = Site::builder().agent_hook(hook).start();
    let (agent, own) = (site.agent(), site.dispatcher());
    let entries = map(agent);
    let large = "x".repeat(200_000);
    for (body, error) in [
        (json!({"serial": "AB", "token": "t0k\0x"}), "token contains a NUL byte"),
        (json!({"serial": "AB", "token": "\0"}), "token contains a NUL byte"),
        (json!({"serial": "AB", "token": large}), "token is longer than 4096 bytes"),
    ] {
        let answer = rotate(&site, &own, &body);
        assert_eq!((answer.status, answer.json()), (200, json!({"status": "error", "error": error})));
    }
    for body in [json!({"serial": "AB\0"}), json!({"serial": "AB", "action": "add\0"})] {
        assert_eq!(rotate(&site, &own, &body).json()["status"], "error", "{body}");
    }
    assert_eq!(map(agent), entries);
    assert!(!agent.work("asked").exists());
    assert_eq!(rotate(&site, &own, &json!({"serial": "AB", "token": "t0k"})).json()["status"], "ok");
}

#[test]
fn a_map_that_cannot_be_written_stays_in_force_as_it_was() {
    let site = Site::builder().start();
    let (agent, own) = (site.agent(), site.dispatcher());
    let new = pki::issue(&site.authority(), "ctrl-exec-dispatcher");
    let state = agent.trust().parent().unwrap().to_owned();
    if host::is_root() {
        std::os::unix::fs::chown(&state, Some(0), Some(0)).unwrap();
        let said = rotate(&site, &own, &json!({"serial": new.serial()})).json();
        assert_eq!(said["status"], "error", "{said}");
        agent.line("rotate-fail").is(&["ACTION=rotate-fail", "DISPATCHER=control-1", "ERROR=*"]);
        assert_eq!((ping(&site, &own), ping(&site, &new)), (200, 403));
        host::give_to_agent(&state);
    }
    let text = std::fs::read(agent.trust()).unwrap();
    std::fs::write(agent.trust(), [0xff, 0xfe]).unwrap();
    let said = rotate(&site, &own, &json!({"serial": new.serial()})).json();
    assert_eq!(said["error"], "the serial of this request is trusted no more", "{said}");
    assert_eq!(std::fs::read(agent.trust()).unwrap(), [0xff, 0xfe]);
    assert_eq!((ping(&site, &own), ping(&site, &new)), (200, 403));
    std::fs::write(agent.trust(), text).unwrap();
    assert_eq!(rotate(&site, &own, &json!({"serial": new.serial()})).json()["status"], "ok");
}

#[test]
fn a_rotation_takes_no_other_dispatcher_s_trust_away() {
    let site = Site::builder().start();
    let (agent, own) = (site.agent(), site.dispatcher());
    let [other, new] = ["disp-b", "disp-b"].map(|name| pki::issue(&site.authority(), name));
    // As editors write it: a mark of the byte order, a comment in Latin-1, and a line that means nothing to the agent.
    let before = [
        format!("\u{feff}{} control-1\r\n", own.serial()).into_bytes(),
        b"# M\xfcller's\nwhat is this\n".to_vec(),
        format!("{} disp-b # spare\n", other.serial()).into_bytes(),
    ];
    std::fs::write(agent.trust(), before.concat()).unwrap();
    agent.reload();
    assert_eq!((ping(&site, &own), ping(&site, &other)), (200, 200));
    assert_eq!(rotate(&site, &other, &json!({"serial": new.serial()})).json()["status"], "ok");
    assert_eq!((ping(&site, &own), ping(&site, &other), ping(&site, &new)), (200, 200, 200));
    let added = format!("{} disp-b\n", new.serial());
    let after = std::fs::read(agent.trust()).unwrap();
    assert_eq!(after, [&before.concat()["\u{feff}".len()..], added.as_bytes()].concat());
    rotate(&site, &new, &json!({"serial": other.serial(), "action": "remove"}));
    assert_eq!((ping(&site, &own), ping(&site, &other), ping(&site, &new)), (200, 403, 200));
    let after = std::fs::read(agent.trust()).unwrap();
    assert_eq!(after, [&before[0]["\u{feff}".len()..], &before[1], added.as_bytes()].concat());
}

#[test]
fn trust_that_ended_in_the_file_is_no_base_for_a_change() {
    let site = Site::builder().start();
    std::fs::write(site.agent().trust(), "abc control-1\n").unwrap();
    let said = rotate(&site, &site.dispatcher(), &json!({"serial": "def"})).json();
    assert_eq!(said["error"], "the serial of this request is trusted no more");
    assert_eq!(map(site.agent()), "abc control-1\n");
}

/// Sends a rotation and does not wait for its answer.
fn sent(site: &Site, body: &Value) -> Http<Tls> {
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    let body = body.to_string();
    http.send(format!("POST /rotate-serial HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
    http
}

#[test]
fn a_caller_that_goes_away_leaves_file_and_memory_alike() {
    let site = Site::builder().start();
    let agent = site.agent();
    let new = pki::issue(&site.authority(), "ctrl-exec-dispatcher");
    let held = lock_directory(agent.trust().parent().unwrap()).unwrap();
    let http = sent(&site, &json!({"serial": new.serial()}));
    let pid = agent.pid().to_string();
    let waits = |line: &str| line.contains("-> FLOCK") && line.split_whitespace().any(|word| word == pid);
    eventually("a rotation that waits for the lock", || {
        std::fs::read_to_string("/proc/locks").unwrap().lines().any(waits).then_some(())
    });
    drop(http);
    drop(held);
    agent.line("rotate");
    assert!(map(agent).contains(&new.serial()));
    assert_eq!(ping(&site, &new), 200);
}

#[test]
fn a_caller_that_goes_away_while_the_hook_is_asked_changes_nothing() {
    let site = Site::builder().agent_hook("echo $$ > {work}/hook; sleep 300").start();
    let (agent, entries) = (site.agent(), map(site.agent()));
    let http = sent(&site, &json!({"serial": "abc"}));
    let hook = agent.worked("hook").parse().unwrap();
    drop(http);
    eventually("the end of the hook", || (!host::alive(hook)).then_some(()));
    assert_eq!(map(agent), entries);
    assert!(agent.lines("rotate").is_empty());
}

fn adds(address: SocketAddr, ca: &Ca, credentials: &Credentials, prefix: &str) {
    for number in 0..8 {
        let body = json!({"serial": format!("{prefix}{number}")}).to_string();
        assert_eq!(tls::ask_1_0(address, ca, credentials, "/rotate-serial", &body).json()["status"], "ok");
    }
}

#[test]
fn rotations_a_pairing_and_reloads_at_once_lose_nothing() {
    let site = Site::builder().start();
    let (agent, own) = (site.agent(), site.dispatcher());
    let other = pki::issue(&site.authority(), "ctrl-exec-dispatcher");
    trust(agent, &[format!("{} control-1\n", own.serial()), format!("{} control-2\n", other.serial())]);
    let (address, ca) = (agent.address(), site.authority());
    std::thread::scope(|scope| {
        for (prefix, credentials) in [("a", &own), ("b", &own), ("c", &other), ("d", &other)] {
            let ca = &ca;
            scope.spawn(move || adds(address, ca, credentials, prefix));
        }
        scope.spawn(|| {
            for number in 0..8 {
                let paired = Serial::parse_hex(&format!("e{number}")).unwrap();
                let add = |map: &mut TrustMap| drop(map.insert(paired, DispatcherId::parse("control-3").unwrap()));
                trust_file::update(&agent.trust(), add).unwrap();
            }
        });
        for _ in 0..6 {
            assert_eq!(agent.reload().get("RESULT"), Some("ok"));
        }
    });
    let entries = map(agent);
    assert_eq!(entries.lines().count(), 2 + 5 * 8, "{entries}");
    // What is in force is what is in the file.
    for (credentials, serial) in [(&own, "a7"), (&other, "c7")] {
        let said = rotate(&site, credentials, &json!({"serial": serial, "action": "remove"})).json();
        assert_eq!(said["status"], "ok", "{said}");
    }
    assert_eq!(map(agent).lines().count(), 5 * 8);
}
