//! The auth hook, at the dispatcher and at the agent: only exit status 0 allows.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Site, eventually, host, pki, tls};

#[test]
fn a_dispatcher_s_hook_decides_by_its_exit_status() {
    for (status, code, reason) in
        [(1, 1, "denied"), (2, 2, "bad credentials"), (3, 3, "insufficient privilege"), (77, 77, "hook exited 77")]
    {
        let site = Site::builder().sh("ok", "touch {work}/ran").hook(&format!("exit {status}")).start();
        for verb in [&["run", "agent1", "ok"][..], &["ping", "agent1"]] {
            let ran = site.control(verb).exits(1);
            assert_eq!((ran.stdout.as_str(), ran.messages()), ("", format!("Denied: {reason}\n")));
            let line = &ran.lines("auth")[0];
            let action = format!("AUTHACTION={}", verb[0]);
            let reason = format!("REASON={reason}");
            line.is(&["ACTION=auth", &action, "IP=127.0.0.1", &reason, "RESULT=deny", "USER=(none)"]);
            let json = site.control(&[&["--json"], verb].concat()).exits(1).json();
            assert_eq!(json, json!({"ok": 0, "error": reason.strip_prefix("REASON=").unwrap(), "code": code}));
        }
        assert!(!site.agent().work("ran").exists() && site.agent().lines("ping").is_empty());
    }
}

#[test]
fn a_hook_is_told_everything_in_its_environment_and_on_its_input() {
    let text = "cat > {work}/stdin; env | grep ^ENVEXEC_ | sort > {work}/env";
    let site = Site::builder().agents(2).sh("ok", "true").hook(text).start();
    let words = ["--username", "ann", "--token", "t0k", "run", "agent1", "agent2", "ok", "--", "a b", "c"];
    let ran = site.control(&words).exits(0);
    ran.lines("auth")[0].is(&["ACTION=auth", "AUTHACTION=run", "IP=127.0.0.1", "RESULT=pass", "USER=ann"]);
    let env = std::fs::read_to_string(site.control.join("env")).unwrap();
    for line in [
        "ENVEXEC_ACTION=run",
        "ENVEXEC_SCRIPT=ok",
        "ENVEXEC_HOSTS=agent1,agent2",
        "ENVEXEC_ARGS=a b c",
        "ENVEXEC_ARGS_JSON=[\"a b\",\"c\"]",
        "ENVEXEC_USERNAME=ann",
        "ENVEXEC_TOKEN=t0k",
        "ENVEXEC_SOURCE_IP=127.0.0.1",
    ] {
        assert!(env.lines().any(|known| known == line), "{line}: {env}");
    }
    let stdin: Value = serde_json::from_str(&std::fs::read_to_string(site.control.join("stdin")).unwrap()).unwrap();
    assert_eq!((&stdin["hosts"], &stdin["args"]), (&json!(["agent1", "agent2"]), &json!(["a b", "c"])));
    assert_eq!((&stdin["action"], &stdin["token"]), (&json!("run"), &json!("t0k")));
}

/// What a hook that keeps both has been told about one action: each value of its JSON, as its environment must have it.
fn agree(dir: &Path, action: &str) -> Value {
    let bytes = std::fs::read(dir.join(format!("{action}.json"))).unwrap();
    let told: Value = serde_json::from_slice(&bytes).unwrap();
    let bytes = std::fs::read(dir.join(format!("{action}.env"))).unwrap();
    let env = String::from_utf8(bytes).unwrap();
    let env: BTreeMap<&str, &str> = env.split_terminator('\0').map(|entry| entry.split_once('=').unwrap()).collect();
    let list = |key: &str, between: &str| {
        let words = told[key].as_array().unwrap().iter().map(|word| word.as_str().unwrap());
        words.collect::<Vec<_>>().join(between)
    };
    let mut want = BTreeMap::from([
        ("ENVEXEC_HOSTS", list("hosts", ",")),
        ("ENVEXEC_ARGS", list("args", " ")),
        ("ENVEXEC_ARGS_JSON", told["args"].to_string()),
        ("ENVEXEC_SUBMITTER", told["submitter"]["username"].as_str().unwrap_or_default().to_owned()),
        ("ENVEXEC_SUBMITTER_IP", told["submitter"]["source_ip"].as_str().unwrap_or_default().to_owned()),
        ("ENVEXEC_TRACEPARENT", told.get("traceparent").map_or("", |trace| trace.as_str().unwrap()).to_owned()),
    ]);
    for (name, key) in [
        ("ENVEXEC_ACTION", "action"),
        ("ENVEXEC_SCRIPT", "script"),
        ("ENVEXEC_USERNAME", "username"),
        ("ENVEXEC_TOKEN", "token"),
        ("ENVEXEC_SOURCE_IP", "source_ip"),
        ("ENVEXEC_DISPATCHER", "dispatcher"),
        ("ENVEXEC_DISPATCHER_SERIAL", "dispatcher_serial"),
        ("ENVEXEC_REQID", "reqid"),
        ("ENVEXEC_TIMESTAMP", "timestamp"),
    ] {
        want.insert(name, told[key].as_str().unwrap().to_owned());
    }
    let want: BTreeMap<&str, &str> = want.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(env, want, "{action}");
    // Each value is one of those above: nothing is told on one way alone.
    let optional = usize::from(told.get("traceparent").is_some());
    assert_eq!((told.as_object().unwrap().len(), told["action"].as_str()), (13 - 1 + optional, Some(action)), "{told}");
    told
}

/// Keeps what it is told, by its action.
const KEEPER: &str = "cat > {work}/$ENVEXEC_ACTION.json; env -0 | grep -z ^ENVEXEC_ > {work}/$ENVEXEC_ACTION.env";

#[test]
fn environment_and_input_of_a_hook_agree_in_every_value_for_every_action() {
    let site = Site::builder().sh("ok", "true").agent_hook(KEEPER).hook(KEEPER).start();
    let agent = site.agent();
    let mut http = tls::connect(agent.address(), &site.authority(), &site.dispatcher());
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for traced in [false, true] {
        let header = if traced { format!("traceparent: {trace}\r\n") } else { String::new() };
        let mut ask = |line: &str, body: &Value| {
            let body = body.to_string();
            http.send(format!("{line} HTTP/1.1\r\nHost: x\r\n{header}Content-Length: {}\r\n\r\n{body}", body.len()));
            assert_eq!(http.answer().unwrap().status, 200);
        };
        let odd = ["a b", "é\n\"'", "", "-x=$(y)"];
        let run = json!({"script": "ok", "args": odd, "reqid": "r1", "username": "ann \n b", "token": "t=0\"k"});
        ask("POST /run", &run);
        ask("GET /capabilities", &json!({}));
        ask("POST /rotate-serial", &json!({"serial": "0xAB", "token": "t1"}));
        let told = agree(&agent.work(""), "run");
        assert_eq!((&told["args"], &told["username"], &told["token"]), (&json!(odd), &run["username"], &run["token"]));
        assert_eq!(told.get("traceparent").is_some(), traced);
        agree(&agent.work(""), "discovery");
        let told = agree(&agent.work(""), "rotate");
        assert_eq!((&told["args"], &told["token"]), (&json!(["add", "ab"]), &json!("t1")));
    }
    site.control(&["--username", "ann", "--token", "t", "run", "agent1", "ok", "--", "a b", ""]).exits(0);
    assert_eq!(agree(&site.control, "run")["hosts"], json!(["agent1"]));
    site.control(&["ping", "agent1"]).exits(0);
    agree(&site.control, "ping");
}

#[test]
fn a_hook_killed_by_a_signal_never_lets_a_script_run() {
    for signal in ["KILL", "SEGV", "TERM"] {
        let hook = format!("kill -{signal} $$");
        let site = Site::builder().sh("ok", "touch {work}/ran").hook(&hook).start();
        let ran = site.control(&["run", "agent1", "ok"]).exits(1);
        assert_eq!(ran.messages(), "Denied: auth hook was killed by a signal\n");
        let site = Site::builder().sh("ok", "touch {work}/ran").agent_hook(&hook).start();
        let result = site.result("ok", &[]);
        assert_eq!(result["error"], "not authorised: auth hook was killed by a signal", "{result}");
        assert!(!site.agent().work("ran").exists());
    }
}

#[test]
fn a_hook_that_takes_too_long_denies_and_its_whole_group_is_killed() {
    let site = Site::builder()
        .sh("ok", "touch {work}/ran")
        .agent("auth_hook_timeout = 1")
        .agent_hook("sleep 300 & echo $! > {work}/hook; wait")
        .start();
    // On a busy machine the hook may not have started anybody by then.
    eventually("a hook that had started somebody", || {
        let result = site.result("ok", &[]);
        assert_eq!((&result["exit"], &result["error"]), (&json!(-1), &json!("not authorised: denied")), "{result}");
        site.agent().work("hook").metadata().is_ok_and(|facts| facts.len() > 0).then_some(())
    });
    site.agent().line("auth-hook-timeout").is(&["ACTION=auth-hook-timeout", "TIMEOUT=1"]);
    let pid = site.agent().worked("hook").parse().unwrap();
    eventually("the end of the hook's child", || (!host::alive(pid)).then_some(()));
    assert!(!site.agent().work("ran").exists());
    let site = Site::builder().agents(0).dispatcher("auth_hook_timeout = 1").hook("sleep 300").start();
    site.register("web", 1, &crate::harness::pki::issue(&site.authority(), "web"));
    let ran = site.control(&["ping", "web"]).exits(1);
    assert_eq!(ran.messages(), "Denied: denied\n");
    ran.lines("auth-hook-timeout")[0].is(&["ACTION=auth-hook-timeout", "TIMEOUT=1"]);
}

#[test]
fn a_dispatcher_s_hook_that_is_gone_denies() {
    let site = Site::builder().dispatcher("auth_hook = /no/such/hook").start();
    let ran = site.control(&["ping", "agent1"]).exits(1);
    assert!(ran.messages().contains("auth hook not found or not executable: /no/such/hook"), "{ran:?}");
    ran.lines("auth")[0].is(&["ACTION=auth", "HOOK=/no/such/hook", "REASON=hook-not-executable", "RESULT=error"]);
}

/// What others could have done to a hook: its mode and owner, those of its directory, and what is said of it.
const DOUBTS: [(u32, u32, u32, &str); 5] = [
    (0o775, 0, 0o755, "/auth-hook has mode 0775, writable by others than root (chmod go-w)"),
    (0o757, 0, 0o755, "/auth-hook has mode 0757, writable by others than root (chmod go-w)"),
    (0o755, 4321, 0o755, "/auth-hook belongs to uid 4321 (chown root)"),
    (0o755, 0, 0o775, " has mode 0775, writable by others than root (chmod go-w)"),
    (0o755, 0, 0o1777, " has mode 1777, writable by others than root (chmod go-w)"),
];

fn set(path: &Path, mode: u32, owner: u32) {
    std::os::unix::fs::chown(path, Some(owner), None).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn an_agent_s_hook_that_others_could_have_written_lets_nothing_run() {
    let site = Site::builder().sh("ok", "touch {work}/ran").agent_hook("exit 0").start();
    let agent = site.agent();
    let etc = agent.root.join("etc/ctrl-exec-agent");
    let hook = etc.join("auth-hook");
    for (number, (mode, owner, above, doubt)) in DOUBTS.into_iter().enumerate() {
        set(&hook, mode, owner);
        set(&etc, above, 0);
        let error = site.result("ok", &[])["error"].as_str().unwrap().to_owned();
        assert!(error.starts_with("not authorised: auth hook ") && error.ends_with(doubt), "{doubt}: {error}");
        let line = &agent.lines("auth")[number];
        let path = format!("HOOK={}", hook.display());
        line.is(&["ACTION=auth", "ERROR=*", &path, "REASON=hook-not-trusted", "RESULT=error"]);
        let said = agent.command(&["self-check"]).exits(1).stdout;
        assert!(said.contains("  Auth hook: ") && said.contains(&format!("{doubt}: every call is denied")), "{said}");
    }
    assert!(!agent.work("ran").exists());
    // Said on purpose, it is the operator's word.
    let config = std::fs::read_to_string(agent.config()).unwrap();
    std::fs::write(agent.config(), format!("trusted_paths = no\n{config}")).unwrap();
    assert_eq!(agent.reload().get("RESULT"), Some("ok"));
    assert_eq!(site.result("ok", &[])["exit"], 0);
    agent.command(&["self-check"]).exits(0);
    std::fs::write(agent.config(), config).unwrap();
    agent.reload();
    // As the original installs it, and as a hook of the agent's own.
    let nobody = ctrl_exec::sys::user::Account::by_name("nobody").unwrap().unwrap();
    std::os::unix::fs::chown(&etc, Some(0), Some(nobody.gid().as_raw())).unwrap();
    for owner in [0, nobody.uid().as_raw()] {
        set(&hook, 0o755, owner);
        set(&etc, 0o750, 0);
        assert_eq!(site.result("ok", &[])["exit"], 0);
    }
    agent.command(&["self-check"]).exits(0);
}

#[test]
fn a_dispatcher_s_hook_that_others_could_have_written_denies_and_the_check_says_so() {
    let site = Site::builder().sh("ok", "touch {work}/ran").hook("exit 0").start();
    let etc = site.control.join("etc/ctrl-exec");
    let hook = etc.join("auth-hook");
    for (mode, owner, above, doubt) in DOUBTS {
        set(&hook, mode, owner);
        set(&etc, above, 0);
        let ran = site.control(&["run", "agent1", "ok"]).exits(1);
        assert!(ran.messages().starts_with("Denied: auth hook ") && ran.messages().contains(doubt), "{ran:?}");
        let path = format!("HOOK={}", hook.display());
        ran.lines("auth")[0].is(&["ACTION=auth", "ERROR=*", &path, "REASON=hook-not-trusted", "RESULT=error"]);
        let said = site.control(&["check-config"]).exits(78).stdout;
        assert!(said.contains(&format!("{doubt}: every call is denied\n")), "{said}");
    }
    assert!(!site.agent().work("ran").exists());
    set(&hook, 0o755, 0);
    set(&etc, 0o750, 0);
    site.control(&["run", "agent1", "ok"]).exits(0);
    let said = site.control(&["check-config"]).exits(0).stdout;
    assert!(said.contains(&format!("  Auth hook OK ({})\n", hook.display())), "{said}");
}

#[test]
fn an_agent_s_hook_decides_about_runs_and_discovery_but_not_pings() {
    let hook = "[ \"$ENVEXEC_SCRIPT\" = good ] || exit 3\nenv | grep ^ENVEXEC_ > {work}/env";
    let site = Site::builder().sh("good", "echo good").sh("bad", "touch {work}/ran").agent_hook(hook).start();
    let agent = site.agent();
    let ran = site.control(&["--json", "--username", "ann", "run", "agent1", "good"]).exits(0);
    assert_eq!(ran.result()["stdout"], "good\n");
    agent.line("auth").is(&["ACTION=auth", "AUTHACTION=run", "IP=127.0.0.1", "RESULT=pass", "USER=ann"]);
    let env = std::fs::read_to_string(agent.work("env")).unwrap();
    let serial = format!("ENVEXEC_DISPATCHER_SERIAL={}\n", site.dispatcher().serial());
    assert!(env.contains(&serial) && env.contains("ENVEXEC_DISPATCHER=control-1\n"), "{env}");
    let bad = site.result("bad", &[]);
    assert_eq!((&bad["exit"], &bad["error"]), (&json!(-1), &json!("not authorised: insufficient privilege")), "{bad}");
    agent.line("deny").is(&[
        "ACTION=deny",
        "DISPATCHER=control-1",
        "PEER=127.0.0.1",
        "REASON=insufficient privilege",
        "REQID=*",
        "SCRIPT=bad",
    ]);
    let mut http = tls::connect(agent.address(), &site.authority(), &site.dispatcher());
    let discovery = http.get("/capabilities");
    assert_eq!((discovery.status, discovery.json()), (403, json!({"error": "not authorised"})));
    agent.line("capabilities-deny").is(&[
        "ACTION=capabilities-deny",
        "DISPATCHER=control-1",
        "PEER=127.0.0.1",
        "REASON=insufficient privilege",
    ]);
    assert_eq!(http.post("/ping", "{}").status, 200);
    assert!(!agent.work("ran").exists());
}

#[test]
fn a_hook_s_token_is_in_no_log() {
    let site = Site::builder().sh("ok", "true").hook("exit 2").agent_hook("exit 2").start();
    let ran = site.control(&["--token", "s3cr3t", "run", "agent1", "ok"]).exits(1);
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    http.post("/run", r#"{"script":"ok","token":"s3cr3t"}"#);
    assert!(!ran.stderr.contains("s3cr3t") && !site.agent().stderr().contains("s3cr3t"));
}

#[test]
fn an_agent_s_hook_is_not_asked_about_results_and_certificates() {
    let hook = "echo \"$ENVEXEC_ACTION\" >> {work}/asked; [ \"$ENVEXEC_ACTION\" = run ]";
    let site = Site::builder().sh("ok", "true").agent_hook(hook).start();
    let agent = site.agent();
    let mut http = tls::connect(agent.address(), &site.authority(), &site.dispatcher());
    assert_eq!(http.post("/run", r#"{"script":"ok","reqid":"j","async":true}"#).status, 202);
    eventually("the end of the job", || (http.get("/result/j").json()["status"] == "done").then_some(()));
    assert_eq!(http.get("/result/j?from=0").status, 200);
    assert_eq!(http.post("/renew", "{}").json()["status"], "ok");
    let cert = pki::reissue(&site.authority(), "agent1", &agent.credentials, 365).cert;
    let staged = http.post("/renew-complete", &json!({"cert": cert}).to_string()).json();
    assert_eq!(staged["staged"], true, "{staged}");
    assert_eq!(http.post("/ping", "{}").status, 200);
    assert_eq!(std::fs::read_to_string(agent.work("asked")).unwrap(), "run\n");
    // And is about these.
    assert_eq!(http.get("/capabilities").status, 403);
    assert_eq!(http.post("/rotate-serial", r#"{"serial":"ab"}"#).status, 403);
    assert_eq!(std::fs::read_to_string(agent.work("asked")).unwrap(), "run\ndiscovery\nrotate\n");
}

#[test]
fn an_argument_with_a_nul_is_refused_before_the_hook_is_asked() {
    let site = Site::builder().sh("ok", "touch {work}/ran").agent_hook("touch {work}/asked").start();
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    for detached in [false, true] {
        let body = json!({"script": "ok", "args": ["a", "b\0c"], "reqid": "r", "async": detached});
        let answer = http.post("/run", &body.to_string());
        let error = "argument 2 contains a NUL byte";
        let want = json!({"script": "ok", "exit": -1, "error": error, "reason": "argument-nul", "reqid": "r"});
        assert_eq!((answer.status, answer.json()), (200, want));
    }
    let fields = ["DISPATCHER=control-1", "PEER=127.0.0.1", "REASON=argument-nul", "REQID=r", "SCRIPT=ok"];
    let denied = site.agent().lines("deny");
    assert_eq!(denied.len(), 2, "{denied:?}");
    for line in &denied {
        line.is(&[&["ACTION=deny"], &fields[..]].concat());
    }
    assert!(!site.agent().work("asked").exists() && !site.agent().work("ran").exists());
    assert_eq!(http.post("/run", r#"{"script":"ok","args":["a"]}"#).json()["exit"], 0);
    assert!(site.agent().work("asked").exists());
}
