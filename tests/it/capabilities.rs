//! `GET /capabilities`: what an agent would run, and what stands beside it.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;

use ctrl_exec::wire::hex;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::harness::agent::write_executable;
use crate::harness::executor::Mode;
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
fn numbers_of_a_sidecar_are_shown_as_they_were_spelt() {
    let mut site = Site::builder().sh("a", "true").prepare();
    let arguments = r#"{"maximum": 98765432109876543210987, "x": [2.50, 1e3, 2.0]}"#;
    let text = &format!("{{ \"version\": 12345678901234567890123,\n\t\"arguments\": {arguments} }}");
    describe(site.agent(), "a", text);
    site.start(0);
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    let answer = http.get("/capabilities");
    let body = String::from_utf8(answer.body.clone()).unwrap();
    assert!(body.contains(text), "{body}");
    assert_eq!(answer.json()["scripts"][0]["schema_version"], "12345678901234567890123");
    assert!(site.agent().lines("schema-version-derive").is_empty());
}

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

#[test]
fn a_script_that_root_alone_may_read_has_its_digest_too_while_the_executor_is_there_to_tell() {
    for mode in Mode::ROOT {
        let site =
            Site::builder().executor(mode).sh("open", "true").sh("closed", "true").allow("gone = {scripts}/gone");
        let mut site = site.allow("deep = {scripts}/deep/x").start();
        let place = site.agent().root.join("scripts");
        std::fs::create_dir(place.join("deep")).unwrap();
        write_executable(&place.join("deep/x"), "#!/bin/sh\n");
        for path in ["deep", "closed"] {
            std::fs::set_permissions(place.join(path), std::fs::Permissions::from_mode(0o700)).unwrap();
        }
        let shown = |site: &Site| {
            let digests = scripts(site).into_iter().map(|script| (script["name"].clone(), script["sha256"].clone()));
            digests.map(|(name, digest)| (name.as_str().unwrap().to_owned(), digest)).collect::<BTreeMap<_, _>>()
        };
        let is = |path: &str| {
            json!(hex::encode(&ctrl_exec::sys::file::digest_of(&std::fs::read(place.join(path)).unwrap())))
        };
        for _ in 0..2 {
            let now = shown(&site);
            let all = [("closed", "closed"), ("deep", "deep/x"), ("open", "open")];
            for (name, path) in all {
                assert_eq!(now[name], is(path), "{mode:?} {name}");
            }
            assert_eq!(now["gone"], Value::Null);
            // Another state of the file is another digest.
            write_executable(&place.join("deep/x"), "#!/bin/sh\ntrue\n");
        }
        // What others may have put there is no matter of root's.
        std::fs::set_permissions(place.join("deep"), std::fs::Permissions::from_mode(0o730)).unwrap();
        assert_eq!((&shown(&site)["deep"], &shown(&site)["closed"]), (&Value::Null, &is("closed")), "{mode:?}");
        if mode == Mode::System {
            site.agent_mut().take_service().end(Signal::SIGTERM);
            assert_eq!((&shown(&site)["closed"], &shown(&site)["open"]), (&Value::Null, &is("open")));
        }
    }
}

#[test]
fn scripts_stand_in_the_order_of_their_names_with_their_place_their_profile_and_whether_they_can_run() {
    let site = Site::builder().sh("mid", "true").sh("a-first", "true").sh("Zed", "true").sh("z_last", "true");
    let site = site.allow("gone = {scripts}/gone").allow("b-quick = profile=quick {scripts}/mid");
    let mut site = site.agent("[tags]\nsite = north\nrole = db").prepare();
    let config = std::fs::read_to_string(site.agent().config()).unwrap();
    let quick = site.agent().profile("quick", "timeout = 9\n");
    std::fs::write(site.agent().config(), config + &quick).unwrap();
    let scripts = site.agent().root.join("scripts");
    std::fs::set_permissions(scripts.join("a-first"), std::fs::Permissions::from_mode(0o644)).unwrap();
    site.start(0);
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    let told = http.get("/capabilities").json();
    let facts = told["scripts"].as_array().unwrap().iter().map(|script| {
        let text = |key: &str| script[key].as_str().unwrap().to_owned();
        (text("name"), text("path"), text("profile"), script["executable"].as_bool().unwrap())
    });
    let want = [
        ("Zed", "Zed", "default", true),
        ("a-first", "a-first", "default", false),
        ("b-quick", "mid", "quick", true),
        ("gone", "gone", "default", false),
        ("mid", "mid", "default", true),
        ("z_last", "z_last", "default", true),
    ];
    let place = |file: &str| scripts.join(file).display().to_string();
    let want = want.map(|(name, file, profile, runs)| (name.to_owned(), place(file), profile.to_owned(), runs));
    assert_eq!(facts.collect::<Vec<_>>(), want);
    assert_eq!((&told["status"], &told["version"]), (&json!("ok"), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!(told["tags"], json!({"site": "north", "role": "db"}));
}
