//! `list-agents`, `edit-agent`, `unpair`: the registry on the command line.

use serde_json::{Value, json};

use crate::harness::{Site, pki};

fn site() -> Site {
    let site = Site::builder().agents(0).start();
    let credentials = pki::issue(&site.authority(), "web");
    site.register("web", 7443, &credentials);
    site
}

fn record(site: &Site, name: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(site.record(name)).unwrap()).unwrap()
}

#[test]
fn agents_are_listed_as_table_and_as_json() {
    let site = site();
    let table = site.control(&["list-agents"]).exits(0).stdout;
    let lines: Vec<&str> = table.lines().collect();
    let head: Vec<&str> = lines[0].split_whitespace().collect();
    assert_eq!(head, ["HOSTNAME", "IP", "PORT", "LOOKUP", "PAIRED", "CERT", "EXPIRY", "DAYS", "LEFT"]);
    assert_eq!(lines[1], "-".repeat(112));
    assert!(lines[2].starts_with("web   ") && lines[2].contains("  127.0.0.1  "), "{table}");
    let json = site.control(&["--json", "list-agents"]).exits(0).json();
    assert_eq!((&json[0]["hostname"], &json[0]["port"]), (&json!("web"), &json!(7443)));
}

#[test]
fn an_empty_registry_is_said_and_no_error() {
    let site = Site::builder().agents(0).start();
    assert_eq!(site.control(&["list-agents"]).exits(0).stdout, "No registered agents.\n");
    assert_eq!(site.control(&["--json", "list-agents"]).exits(0).json(), json!([]));
}

#[test]
fn tags_choose_among_agents() {
    let site = site();
    let mut tagged = record(&site, "web");
    tagged["hostname"] = json!("db");
    tagged["tags"] = json!({"env": "prod", "role": "db"});
    std::fs::write(site.record("db"), tagged.to_string()).unwrap();
    let chosen = site.control(&["--json", "list-agents", "--tags", "env=prod,role=db"]).exits(0).json();
    assert_eq!((chosen.as_array().unwrap().len(), &chosen[0]["hostname"]), (1, &json!("db")));
    let none = site.control(&["list-agents", "--tags", "env=test"]).exits(0).stdout;
    assert_eq!(none, "No agents match the tag filter.\n");
    for bad in ["env", "=x", "", ","] {
        assert!(site.control(&["list-agents", "--tags", bad]).exits(64).stderr.contains("Invalid --tags filter"));
    }
}

#[test]
fn a_broken_record_is_reported_and_hides_no_other() {
    let site = site();
    std::fs::write(site.record("broken"), "{\"hostname\": ").unwrap();
    let ran = site.control(&["list-agents"]).exits(0);
    assert!(ran.stdout.contains("web") && ran.stderr.contains("broken.json"), "{ran:?}");
}

#[test]
fn an_agent_is_changed_and_keeps_what_is_not_named() {
    let site = site();
    let mut before = record(&site, "web");
    before["of_another_version"] = json!([1, 2]);
    std::fs::write(site.record("web"), before.to_string()).unwrap();
    let words =
        ["edit-agent", "web", "--rename", "www", "--ip", "10.0.0.9", "--agent-port", "8443", "--lookup-by", "ip"];
    let ran = site.control(&words).exits(0);
    assert_eq!(
        ran.stdout,
        "Updated agent 'www'.\n  renamed from: web\n  ip:        10.0.0.9\n  port:      8443\n  lookup_by: ip\n"
    );
    ran.lines("edit-agent")[0].is(&[
        "ACTION=edit-agent",
        "AGENT=www",
        "IP=10.0.0.9",
        "LOOKUP_BY=ip",
        "PORT=8443",
        "RENAMED_FROM=web",
    ]);
    assert!(!site.record("web").exists());
    let after = record(&site, "www");
    assert_eq!((&after["hostname"], &after["ip"], &after["port"]), (&json!("www"), &json!("10.0.0.9"), &json!(8443)));
    assert_eq!((&after["cert_cn"], &after["of_another_version"]), (&json!("web"), &json!([1, 2])));
}

#[test]
fn a_renamed_agent_is_still_the_same_agent() {
    for original in [false, true] {
        let builder = Site::builder().sh("ok", "true");
        let site = if original { builder.original_records() } else { builder }.start();
        site.control(&["edit-agent", "agent1", "--rename", "elsewhere"]).exits(0);
        site.control(&["run", "elsewhere", "ok"]).exits(0);
        site.control(&["run", "agent1", "ok"]).exits(1);
    }
}

#[test]
fn a_change_that_is_none_or_wrong_changes_nothing() {
    let site = site();
    site.register("db", 7443, &pki::issue(&site.authority(), "db"));
    let mut other = record(&site, "db");
    other["reqid"] = json!("another");
    std::fs::write(site.record("db"), other.to_string()).unwrap();
    let before = std::fs::read(site.record("web")).unwrap();
    let cases: [(&[&str], i32, &str); 9] = [
        (&["edit-agent", "web"], 64, "Nothing to change"),
        (&["edit-agent"], 64, "NAME"),
        (&["edit-agent", "web", "--ip", "10.0.0"], 64, "--ip must be an IPv4 or IPv6 address"),
        (&["edit-agent", "web", "--agent-port", "0"], 64, "--agent-port must be a port number (1-65535)"),
        (&["edit-agent", "web", "--lookup-by", "luck"], 64, "--lookup-by must be 'ip' or 'hostname'"),
        (&["edit-agent", "web", "--rename", "../x"], 64, "invalid"),
        (&["edit-agent", "../web", "--agent-port", "1"], 64, "invalid"),
        (&["edit-agent", "nope", "--agent-port", "1"], 1, "Edit failed: No registry entry for 'nope'"),
        (&["edit-agent", "web", "--rename", "db"], 1, "Edit failed: agent 'db' already exists"),
    ];
    for (words, status, text) in cases {
        let ran = site.control(words).exits(status);
        assert!(ran.stderr.contains(text), "{words:?}: {ran:?}");
    }
    assert_eq!(std::fs::read(site.record("web")).unwrap(), before);
}

#[test]
fn unpairing_removes_the_record_and_says_what_stays_valid() {
    let site = site();
    let serial = record(&site, "web")["cert_serial"].as_str().unwrap().to_owned();
    let ran = site.control(&["unpair", "web"]).exits(0);
    assert!(ran.stdout.starts_with("Unregistered 'web'.\nWARNING: Agent certificate remains valid until: "), "{ran:?}");
    assert!(ran.stdout.contains("revocation list") && ran.stdout.contains(&serial), "{ran:?}");
    ran.lines("unpair")[0].is(&["ACTION=unpair", "AGENT=web", "EXPIRY=*"]);
    assert!(!site.record("web").exists());
    let again = site.control(&["unpair", "web"]).exits(1);
    assert!(again.stderr.contains("Unpair failed: No registry entry for 'web'"), "{again:?}");
}

#[test]
fn a_registry_that_cannot_be_used_is_named_with_its_cause() {
    let site = site();
    std::fs::write(site.record("web"), "{").unwrap();
    for (words, text) in
        [(&["edit-agent", "web", "--agent-port", "1"][..], "Edit failed: "), (&["unpair", "web"], "Unpair failed: ")]
    {
        let ran = site.control(words).exits(69);
        assert!(ran.stderr.contains(text) && ran.stderr.contains("web.json is not a valid record: EOF"), "{ran:?}");
    }
}
