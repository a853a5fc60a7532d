//! Argument contracts: a sidecar beside a script says which arguments it takes, and the agent holds callers to it.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};

use crate::harness::site::Builder;
use crate::harness::{Agent, Site, tls};

/// Restarts a named service.
fn restart() -> Value {
    json!({
        "description": "Restarts a service",
        "version": "1.4",
        "destructive": true,
        "arguments": {
            "type": "object",
            "properties": {
                "service": {"type": "string", "enum": ["nginx", "postgresql"]},
                "wait": {"type": "integer", "minimum": 0, "maximum": 600},
                "force": {"type": "boolean"},
            },
            "required": ["service"],
            "additionalProperties": false,
        },
        "argv": [{"arg": "wait", "flag": "--wait"}, {"arg": "force", "flag": "--force"}, {"arg": "service"}],
    })
}

fn describe(agent: &Agent, script: &str, sidecar: &str) {
    std::fs::write(agent.root.join("scripts").join(format!("{script}.schema.json")), sidecar).unwrap();
}

fn builder() -> Builder {
    Site::builder().sh("restart", "echo \"$@\" | tee -a {work}/ran").sh("plain", "echo \"$@\"")
}

/// An agent with one script that has a contract and one that has none.
fn site(settings: &str, hook: &str) -> Site {
    let mut site = builder().agent(settings).agent_hook(hook).prepare();
    describe(site.agent(), "restart", &restart().to_string());
    site.start(0);
    site
}

fn shown(site: &Site, name: &str) -> Value {
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    let scripts = http.get("/capabilities").json()["scripts"].clone();
    scripts.as_array().unwrap().iter().find(|script| script["name"] == name).unwrap().clone()
}

#[test]
fn what_the_contract_allows_runs_and_what_it_does_not_starts_nothing() {
    let site = site("max_children = 9", "echo asked >> {work}/asked; exit 0");
    for args in [&["nginx"][..], &["--wait", "30", "--force", "postgresql"]] {
        let ran = site.result("restart", args);
        assert_eq!(ran["stdout"], format!("{}\n", args.join(" ")), "{ran}");
    }
    let refusals: [(&[&str], &str); 7] = [
        (&[], "'service' is missing"),
        (&["sshd"], "'service': the value is not one of"),
        (&["nginx", "postgresql"], "argument 2 has no place in the script's contract"),
        (&["--wait", "601", "nginx"], "'wait': the value is greater than the maximum of 600"),
        (&["--wait", "soon", "nginx"], "argument 2, 'wait', must be an integer"),
        (&["--help"], "argument 1, 'service', begins with '-' like an option"),
        (&["--force", "--wait", "1", "nginx"], "argument 2, 'service', begins with '-' like an option"),
    ];
    for (args, why) in refusals {
        let refused = site.result("restart", args);
        assert_eq!((&refused["exit"], &refused["reason"]), (&json!(-1), &json!("arguments-not-allowed")), "{refused}");
        let error = refused["error"].as_str().unwrap();
        assert!(error.starts_with("arguments not allowed: ") && error.contains(why), "{args:?}: {error}");
    }
    assert_eq!(std::fs::read_to_string(site.agent().work("ran")).unwrap().lines().count(), 2);
    // The contract stands before the hook.
    assert_eq!(std::fs::read_to_string(site.agent().work("asked")).unwrap().lines().count(), 2);
    site.agent().line("deny").is(&[
        "ACTION=deny",
        "DISPATCHER=control-1",
        "PEER=127.0.0.1",
        "REASON=arguments-not-allowed",
        "REQID=*",
        "SCRIPT=restart",
    ]);
    assert!(site.agent().lines("exec").iter().all(|line| line.get("OUTCOME") == Some("exited")));
}

#[test]
fn a_script_without_a_contract_takes_any_arguments() {
    let site = site("schema = enforce", "exit 0");
    assert_eq!(site.result("plain", &["-x", "", "--"])["stdout"], "-x  --\n");
    describe(site.agent(), "plain", r#"{"description": "says nothing about arguments"}"#);
    site.agent().reload();
    assert_eq!(site.result("plain", &["-x"])["stdout"], "-x\n");
}

#[test]
fn who_only_advertises_lets_the_script_decide() {
    let site = site("schema = advertise", "exit 0");
    assert_eq!(site.result("restart", &["sshd"])["stdout"], "sshd\n");
    assert_eq!(shown(&site, "restart")["schema"], restart());
}

#[test]
fn a_reload_reads_the_sidecars_again() {
    let site = site("max_children = 9", "exit 0");
    assert_eq!(site.result("restart", &["sshd"])["reason"], "arguments-not-allowed");
    let mut wider = restart();
    wider["arguments"]["properties"]["service"]["enum"] = json!(["sshd"]);
    wider["version"] = json!("1.5");
    describe(site.agent(), "restart", &wider.to_string());
    assert_eq!(
        site.result("restart", &["sshd"])["reason"],
        "arguments-not-allowed",
        "nothing changes before the signal"
    );
    site.agent().reload().is(&["ACTION=reload", "RESULT=ok"]);
    assert_eq!(site.result("restart", &["sshd"])["stdout"], "sshd\n");
    assert_eq!(site.result("restart", &["nginx"])["reason"], "arguments-not-allowed");
    assert_eq!(shown(&site, "restart")["schema_version"], "1.5");
}

#[test]
fn a_contract_that_cannot_be_used_refuses_every_call_and_is_told() {
    let mut site = builder().prepare();
    let large = format!("{{\"arguments\": {{}}, \"description\": \"{}\"}}", "x".repeat(65_536));
    let not_declared = json!({"arguments": {"properties": {}}, "argv": [{"arg": "x"}]}).to_string();
    for (sidecar, reason, logged) in [
        (r#"{"arguments": {},}"#, "is no JSON: ", "schema-broken"),
        (r#"[{"arguments": {}}]"#, "is no JSON object", "schema-broken"),
        (large.as_str(), "larger than the 65536 bytes", "schema-broken"),
        (r#"{"arguments": {"type": "objekt"}}"#, "no usable JSON Schema", "schema-broken"),
        (r#"{"arguments": {"properties": {"x": {"$ref": "file:///etc/passwd"}}}}"#, "JSON Schema", "schema-broken"),
        (not_declared.as_str(), "declares no property 'x'", "schema-broken"),
    ] {
        describe(site.agent(), "restart", sidecar);
        site.start(0);
        let refused = site.result("restart", &[]);
        assert_eq!((&refused["exit"], &refused["reason"]), (&json!(-1), &json!("contract-broken")), "{sidecar}");
        let line = site.agent().line(logged);
        assert!(line.get("REASON").unwrap().contains(reason), "{line:?}");
        assert_eq!(line.get("SCRIPT"), Some("restart"));
        let said = site.agent().command(&["self-check"]).exits(1).stdout;
        let found =
            said.lines().find(|line| line.starts_with("  Contract of 'restart': BROKEN, every call is refused: "));
        assert!(found.is_some_and(|line| line.contains(reason)), "{said}");
        assert!(!said.contains("counts as absent"), "{said}");
        assert_eq!(site.result("plain", &["x"])["stdout"], "x\n");
        site.agent_mut().stop();
    }
    // Who only advertises is told, and serves.
    describe(site.agent(), "restart", &not_declared);
    let config = site.agent().config();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(config, format!("schema = advertise\n{text}")).unwrap();
    let said = site.agent().command(&["self-check"]).exits(0).stdout;
    assert!(said.contains("  Contract of 'restart': BROKEN, and nothing is enforced: "), "{said}");
}

#[test]
fn a_parameter_that_no_argument_can_say_is_told() {
    let site = builder().prepare();
    let name = json!({"type": "object", "properties": {"name": {"type": "string"}}});
    let check = |sidecar: Value, good: bool| {
        describe(site.agent(), "restart", &sidecar.to_string());
        let said = site.agent().command(&["self-check"]).exits(i32::from(!good)).stdout;
        let line = "  Contract of 'restart': 'name' is declared in '$ref', 'allOf' or the like alone, ";
        assert_eq!(said.contains(line), !good, "{sidecar}: {said}");
    };
    check(json!({"arguments": {"$ref": "#/$defs/a", "$defs": {"a": name}}}), false);
    check(json!({"arguments": {"allOf": [name]}}), false);
    check(json!({"arguments": {"allOf": [name], "properties": {"name": {}}}}), true);
    // Here it is said what arguments are.
    check(json!({"arguments": {"allOf": [name]}, "argv": ["--all"]}), true);
}

#[test]
fn a_file_that_is_no_sidecar_stops_no_script_and_is_told() {
    let site = site("max_children = 9", "exit 0");
    let agent = site.agent();
    let path = agent.root.join("scripts/restart.schema.json");
    let large = format!("{{\"description\": \"{}\"}}", "x".repeat(70_000));
    for (sidecar, reason) in [
        ("{bad", "is no JSON: "),
        ("[]", "is no JSON object"),
        (large.as_str(), "larger than the 65536 bytes"),
        (&restart().to_string(), "Permission denied"),
        ("", "it leads nowhere"),
    ] {
        describe(agent, "restart", sidecar);
        if reason == "Permission denied" {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
        } else if sidecar.is_empty() {
            std::fs::remove_file(&path).unwrap();
            std::os::unix::fs::symlink("/no/such/file", &path).unwrap();
        }
        let before = agent.lines("schema-skip").len();
        agent.reload().is(&["ACTION=reload", "RESULT=ok"]);
        assert_eq!(site.result("restart", &["sshd"])["stdout"], "sshd\n", "{reason}");
        assert_eq!(shown(&site, "restart")["schema"], Value::Null);
        let skipped = agent.lines("schema-skip");
        assert_eq!(skipped.len(), before + 1, "{skipped:?}");
        let (expected, told) =
            (reason.replace("it leads nowhere", "No such file"), skipped[before].get("REASON").unwrap());
        assert!(told.contains(&expected) && skipped[before].get("SCRIPT") == Some("restart"), "{told}");
        let said = agent.command(&["self-check"]).exits(1).stdout;
        let line = format!("  Sidecar of 'restart': NOT READ, it counts as absent: {told}\n");
        assert!(said.contains(&line) && !said.contains("BROKEN"), "{said}");
        let said = agent.command(&["explain", "--unprivileged", "restart", "--", "sshd"]).exits(0).stdout;
        assert!(said.contains("the sidecar counts as absent, so any arguments pass: "), "{said}");
    }
    std::fs::remove_file(&path).unwrap();
    agent.command(&["self-check"]).exits(0);
}

#[test]
fn a_check_lists_the_scripts_without_a_contract() {
    let site = builder().prepare();
    let check = || site.agent().command(&["self-check"]).exits(0).stdout;
    assert!(check().contains("  Argument contracts: 0 enforced; without one: plain, restart\n"), "{}", check());
    describe(site.agent(), "restart", &restart().to_string());
    assert!(check().contains("  Argument contracts: 1 enforced; without one: plain\n"), "{}", check());
}
