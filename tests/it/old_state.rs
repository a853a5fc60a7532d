//! Files that the original left behind, as they are, under the real program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::Site;
use crate::harness::openssl::Openssl;
use crate::harness::pki::Credentials;

fn old(place: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/old_state").join(place)
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        // Copied as a new file: when it was written decides whether a request is stale.
        std::fs::write(to.join(entry.file_name()), std::fs::read(entry.path()).unwrap()).unwrap();
    }
}

fn with_registry() -> Site {
    let site = Site::builder().agents(0).prepare();
    copy_dir(&old("agents"), &site.registry());
    // What the original's own writes leave beside the records.
    std::fs::write(site.registry().join(".registry.lock"), "").unwrap();
    std::fs::write(site.registry().join("kX3_fq9ZpA"), "{\"hostname\":\"half").unwrap();
    site
}

#[test]
fn every_record_that_the_original_could_read_is_listed() {
    let site = with_registry();
    let ran = site.control(&["--json", "list-agents"]).exits(0);
    let listed: BTreeMap<String, Value> = serde_json::from_str::<Vec<Value>>(&ran.stdout)
        .unwrap()
        .into_iter()
        .map(|record| (record["hostname"].as_str().unwrap().to_owned(), record))
        .collect();
    let names: Vec<&str> = listed.keys().map(String::as_str).collect();
    assert_eq!(names, ["copy-of-web", "db-1", "nameless", "nulls", "pretty_printed", "stub", "web.example.org"]);
    let facts = |name: &str| {
        let record = &listed[name];
        (record["ip"].as_str().unwrap(), record["port"].as_u64().unwrap(), record["lookup_by"].as_str().unwrap())
    };
    assert_eq!(facts("web.example.org"), ("192.0.2.10", 7443, "hostname"));
    assert_eq!(facts("db-1"), ("2001:db8::7", 7450, "ip"));
    assert_eq!(facts("copy-of-web"), ("192.0.2.11", 7443, "hostname"));
    for name in ["stub", "nameless", "nulls"] {
        assert_eq!(facts(name), ("", 7443, "hostname"), "{name}");
    }
    assert_eq!(listed["web.example.org"]["tags"], json!({"env": "prod", "site": "london", "rack": 7}));
    for broken in ["empty.json", "truncated.json"] {
        assert!(ran.stderr.contains(broken), "{broken}: {}", ran.stderr);
    }
    assert_eq!(ran.stderr.lines().filter(|line| line.starts_with("warning: ")).count(), 2, "{}", ran.stderr);

    let table = site.control(&["list-agents"]).exits(0).stdout;
    let line = |name: &str| table.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{table}"));
    assert!(line("web.example.org").contains("Jun  7 16:28:00 2028 GMT"));
    assert!(line("db-1").trim_end().rsplit(' ').next().unwrap().starts_with('-'), "long expired: {}", line("db-1"));
    assert!(line("copy-of-web").trim_end().ends_with('?') && line("nulls").contains('?'));
    let chosen = site.control(&["--json", "list-agents", "--tags", "site=london"]).exits(0).json();
    assert_eq!((chosen.as_array().unwrap().len(), &chosen[0]["hostname"]), (1, &json!("web.example.org")));
}

#[test]
fn a_change_to_an_old_record_loses_nothing_of_it() {
    let site = with_registry();
    for entry in std::fs::read_dir(old("agents")).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let Ok(before) = serde_json::from_str::<serde_json::Map<String, Value>>(&text) else { continue };
        let name = path.file_stem().unwrap().to_str().unwrap();
        site.control(&["edit-agent", name, "--agent-port", "9443"]).exits(0);
        let after: Value = serde_json::from_str(&std::fs::read_to_string(site.record(name)).unwrap()).unwrap();
        assert_eq!((&after["hostname"], &after["port"]), (&json!(name), &json!(9443)));
        for (key, value) in before.iter().filter(|(key, _)| !matches!(key.as_str(), "hostname" | "port" | "lookup_by"))
        {
            let same = &after[key] == value;
            // What is no text, or no object of tags, is written as an empty one.
            let emptied = value.is_null() && after[key] == "" || key == "tags" && after[key] == json!({});
            assert!(same || emptied || key == "reqid" && after[key] == "42", "{name}.{key}: {value} {after}");
        }
    }
}

#[test]
fn an_agent_of_an_old_record_is_reached() {
    let mut site = Site::builder().sh("ok", "echo ran").prepare();
    site.agent_mut().start();
    let port = site.agent().address().port().to_string();
    for file in ["web.example.org", "stub", "nameless", "nulls"] {
        let record = std::fs::read(old("agents").join(format!("{file}.json"))).unwrap();
        std::fs::create_dir_all(site.registry()).unwrap();
        std::fs::write(site.record("agent1"), record).unwrap();
        let words = ["edit-agent", "agent1", "--agent-port", &port, "--lookup-by", "ip", "--ip", "127.0.0.1"];
        site.control(&words).exits(0);
        assert_eq!(site.result("ok", &[])["stdout"], "ran\n", "{file}");
    }
}

#[test]
fn requests_that_the_original_queued_are_shown_and_can_be_denied() {
    let site = Site::builder().agents(0).prepare();
    let queue = site.control.join("var/lib/ctrl-exec/pairing");
    copy_dir(&old("pairing"), &queue);
    let table = site.control(&["list-requests"]).exits(0).stdout;
    let lines: Vec<&str> = table.lines().collect();
    assert!(lines[2].starts_with("3f9a6b2c1d0e4f58  old.example.org           198.51.100.20     -  "), "{table}");
    assert!(lines[2].ends_with("  048213") && lines[3].contains("Form:     original"), "{table}");
    assert!(lines[4].contains("gw.example.org (ok)") && lines[4].ends_with("  000007"), "{table}");
    let refused = site.control(&["approve", "3f9a6b2c1d0e4f58"]).exits(69);
    assert!(refused.stderr.contains("no pairing session is running"), "{refused:?}");
    for id in ["3f9a6b2c1d0e4f58", "a1b2c3d4e5f60718"] {
        site.control(&["deny", id]).exits(0);
    }
    assert_eq!(site.control(&["list-requests"]).exits(0).stdout, "No pending pairing requests.\n");
}

/// A dispatcher's certificate with a serial of the original's choosing: it counted up from 2.
fn dispatchers(site: &Site, serials: &[&str]) -> Vec<Credentials> {
    let openssl = Openssl::new(&site.dir().join("openssl"));
    openssl.original_ca(2048);
    openssl.run("genrsa -out d.key 2048");
    openssl.run("req -new -key d.key -out d.csr -subj '/CN=ctrl-exec-dispatcher'");
    let issued = |serial: &&str| {
        openssl.run(&format!(
            "x509 -req -in d.csr -CA ca.crt -CAkey ca.key -set_serial 0x{serial} -days 825 -out d{serial}.crt"
        ));
        Credentials::load(&openssl.path(&format!("d{serial}.crt")), &openssl.path("d.key"))
    };
    let made = serials.iter().map(issued).collect();
    openssl.original_leaf("agent1", "agent1", true);
    for root in [site.control.join("etc/ctrl-exec"), site.agent().root.join("etc/ctrl-exec-agent")] {
        std::fs::write(root.join("ca.crt"), openssl.read("ca.crt")).unwrap();
    }
    std::fs::write(site.control.join("etc/ctrl-exec/ca.key"), openssl.read("ca.key")).unwrap();
    made
}

#[test]
fn trust_map_and_revocation_list_count_in_every_spelling() {
    let mut site = Site::builder().original_records().sh("ok", "echo ran").prepare();
    let serials = ["16", "AB12", "BEEF01", "C0FFEE", "0D15EA5E", "77", "ABC"];
    let dispatchers = dispatchers(&site, &serials);
    let openssl = site.dir().join("openssl");
    site.agent_mut().write_credentials(Credentials::load(&openssl.join("agent1.crt"), &openssl.join("agent1.key")));
    std::fs::copy(old("ctrl-exec-dispatchers"), site.agent().trust()).unwrap();
    site.start(0);
    let ids = ["control-1", "backup.site", "c", "control-1", "D-4", "seven", ""];
    let call = |credentials: &Credentials| {
        let etc = site.control.join("etc/ctrl-exec");
        std::fs::write(etc.join("dispatcher.crt"), &credentials.cert).unwrap();
        std::fs::write(etc.join("dispatcher.key"), &credentials.key).unwrap();
        site.control(&["run", "agent1", "ok"])
    };
    for ((serial, id), credentials) in serials.iter().zip(ids).zip(&dispatchers) {
        let ran = call(credentials);
        assert_eq!(ran.code, i32::from(id.is_empty()), "{serial}: {ran:?}");
        if !id.is_empty() {
            let runs = site.agent().lines("run");
            assert_eq!(runs.last().unwrap().get("DISPATCHER"), Some(id), "{serial}");
        }
    }
    let check = site.agent().command(&["self-check"]).exits(1).stdout;
    assert!(check.contains("  Trust OK (6 dispatcher serials)\n"), "{check}");
    assert!(check.contains("  Trust: 3 lines in "), "{check}");

    std::fs::copy(old("revoked-serials"), site.agent().revoked()).unwrap();
    site.agent().reload();
    for (serial, credentials) in serials.iter().zip(&dispatchers) {
        let before = site.agent().lines("revoked-cert").len();
        call(credentials).exits(1);
        let revoked = site.agent().lines("revoked-cert").len() > before;
        assert_eq!(revoked, *serial != "ABC", "{serial}: {}", site.agent().stderr());
    }
}
