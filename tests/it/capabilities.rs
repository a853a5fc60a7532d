//! `GET /capabilities`: what an agent would run, and what stands beside it.

use serde_json::{Value, json};

use crate::harness::{Agent, Site, tls};

fn scripts(site: &Site) -> Vec<Value> {
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    http.get("/capabilities").json()["scripts"].as_array().unwrap().clone()
}

fn describe(agent: &Agent, script: &str, sidecar: &str) {
    std::fs::write(agent.root.join("scripts").join(format!("{script}.schema.json")), sidecar).unwrap();
}

#[test]
fn a_sidecar_is_shown_as_it_stands_with_its_version() {
    let mut site = Site::builder().sh("a", "true").sh("b", "true").sh("c", "true").sh("d", "true").prepare();
    let body =
        json!({"version": "2.1", "description": "caf\u{e9}", "arguments": {"type": "object"}, "x-team": ["ops", 1]});
    describe(site.agent(), "a", &body.to_string());
    // As sha256sum has it for {"a":"x","z":[1,2]}.
    describe(site.agent(), "b", "{ \"z\": [1, 2],\n \"a\": \"x\" }");
    describe(site.agent(), "c", r#"{"version": "not one"}"#);
    site.start(0);
    let shown = scripts(&site);
    assert_eq!((&shown[0]["schema"], &shown[0]["schema_version"]), (&body, &json!("2.1")));
    assert_eq!((&shown[1]["schema"]["z"], &shown[1]["schema_version"]), (&json!([1, 2]), &json!(DERIVED)));
    assert!(shown[2]["schema_version"].as_str().unwrap().starts_with("sha256:"), "{shown:?}");
    for key in ["schema", "schema_version"] {
        assert!(shown[3].get(key).is_none(), "{shown:?}");
    }
    let said = site.agent().line("schema-version-derive");
    said.is(&["ACTION=schema-version-derive", "REASON=*", "SCRIPT=c"]);
    assert_eq!(site.agent().lines("schema-version-derive").len(), 1);
}

const DERIVED: &str = "sha256:650284ec8e04";

#[test]
fn what_is_no_sidecar_is_logged_and_not_shown() {
    let mut site = Site::builder().sh("a", "true").sh("b", "true").prepare();
    describe(site.agent(), "a", "no json");
    describe(site.agent(), "b", &format!("{{\"x\":\"{}\"}}", "x".repeat(65_536 - 8)));
    site.start(0);
    let shown = scripts(&site);
    assert!(shown[0].get("schema").is_none(), "{shown:?}");
    assert!(shown[1].get("schema").is_some(), "exactly the largest size: {shown:?}");
    site.agent().line("schema-skip").is(&["ACTION=schema-skip", "REASON=*", "SCRIPT=a"]);
    assert_eq!(site.agent().lines("schema-skip").len(), 1);
}
