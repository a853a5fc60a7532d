//! What sslyze finds, judged: it reports, and does not know what this program is meant to be.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::site::Site;
use crate::{Fact, Tools};

/// TLS 1.2 suites: forward secrecy and authenticated encryption, in the names of the IANA registry.
const SUITES_1_2: [&str; 6] = [
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
];
/// TLS 1.3 suites (RFC 8446 B.4), without the one of a shortened tag.
const SUITES_1_3: [&str; 3] = ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"];
/// Groups that a key exchange may use.
const GROUPS: [&str; 3] = ["X25519", "secp256r1", "secp384r1"];

/// Scans the agent twice: as somebody without a certificate, and as a dispatcher that it trusts. Some questions need a
/// handshake to its end, which the first never gets.
pub(crate) fn facts(site: &Site, tools: &Tools) -> Vec<Fact> {
    let own = site.root().join("etc/ctrl-exec");
    let (cert, key) = (own.join("d.crt"), own.join("d.key"));
    let mut facts = judged(&scan(site, tools, None), "a stranger");
    facts.extend(judged(&scan(site, tools, Some((&cert, &key))), "a dispatcher"));
    facts
}

fn scan(site: &Site, tools: &Tools, credentials: Option<(&Path, &Path)>) -> Value {
    let who = if credentials.is_some() { "dispatcher" } else { "stranger" };
    let report = tools.reports.join(format!("sslyze-{who}.json"));
    let mut command = Command::new(&tools.python);
    command.args(["-m", "sslyze", "--quiet", "--mozilla_config", "disable", "--json_out"]).arg(&report);
    for look in [
        "sslv2",
        "sslv3",
        "tlsv1",
        "tlsv1_1",
        "tlsv1_2",
        "tlsv1_3",
        "certinfo",
        "compression",
        "early_data",
        "elliptic_curves",
        "ems",
        "fallback",
        "heartbleed",
        "openssl_ccs",
        "reneg",
        "resum",
        "robot",
    ] {
        command.arg(format!("--{look}"));
    }
    if let Some((cert, key)) = credentials {
        command.arg("--cert").arg(cert).arg("--key").arg(key);
    }
    command.arg("--certinfo_ca_file").arg(site.root().join("etc/ctrl-exec/ca.crt"));
    let (address, port) = (site.address().ip(), site.address().port());
    let output = command.arg(format!("web:{port}{{{address}}}")).output().expect("sslyze starts");
    let text = std::fs::read(&report);
    let text = text.unwrap_or_else(|_| panic!("sslyze says nothing: {}", String::from_utf8_lossy(&output.stderr)));
    serde_json::from_slice(&text).expect("sslyze writes JSON")
}

fn judged(report: &Value, who: &str) -> Vec<Fact> {
    let server = &report["server_scan_results"][0];
    let all = &server["scan_result"];
    let mut facts = Vec::new();
    for old in ["ssl_2_0", "ssl_3_0", "tls_1_0", "tls_1_1"] {
        let suites = suites(all, old);
        facts.push(Fact::new(format!("{old} for {who}"), listed(&suites), suites.as_ref().is_ok_and(Vec::is_empty)));
    }
    for (version, allowed) in [("tls_1_2", &SUITES_1_2[..]), ("tls_1_3", &SUITES_1_3)] {
        let suites = suites(all, version);
        facts.push(Fact::new(format!("{version} for {who}"), listed(&suites), only(&suites, allowed)));
    }
    let groups = result(all, "elliptic_curves").map(|curves| names(&curves["supported_curves"]));
    facts.push(Fact::new(format!("groups for {who}"), listed(&groups), only(&groups, &GROUPS)));
    facts.extend(answers(all, who, ANYBODY));
    facts.extend(certificate(all, who));
    let demanded = &server["connectivity_result"]["client_auth_requirement"];
    if who == "a stranger" {
        facts.push(Fact::new("a client's certificate", text(demanded), demanded == "REQUIRED"));
    } else {
        facts.extend(answers(all, who, WHOLE));
    }
    facts
}

/// A part of the scan, a field of its result, and what that may be.
type Question = (&'static str, &'static str, &'static [&'static str]);

/// What is seen before a client's certificate is asked for.
const ANYBODY: &[Question] = &[
    ("tls_compression", "supports_compression", &["false"]),
    ("heartbleed", "is_vulnerable_to_heartbleed", &["false"]),
    ("openssl_ccs_injection", "is_vulnerable_to_ccs_injection", &["false"]),
    ("tls_extended_master_secret", "supports_ems_extension", &["true"]),
    ("robot", "robot_result", &["NOT_VULNERABLE_NO_ORACLE", "NOT_VULNERABLE_RSA_NOT_SUPPORTED"]),
];
/// What needs a handshake to its end. sslyze looks for resumption in TLS 1.2, where there is none to be.
const WHOLE: &[Question] = &[
    ("tls_1_3_early_data", "supports_early_data", &["false"]),
    ("session_renegotiation", "is_vulnerable_to_client_renegotiation_dos", &["false"]),
    ("session_renegotiation", "supports_secure_renegotiation", &["true"]),
    ("session_resumption", "session_id_resumption_result", &["NOT_SUPPORTED"]),
    ("session_resumption", "tls_ticket_resumption_result", &["NOT_SUPPORTED"]),
];

fn answers(all: &Value, who: &str, questions: &[Question]) -> Vec<Fact> {
    let mut facts = Vec::new();
    for (command, field, fine) in questions {
        let seen = result(all, command).map(|found| text(&found[field]));
        let good = seen.as_ref().is_ok_and(|seen| fine.contains(&seen.as_str()));
        facts.push(Fact::new(format!("{field} for {who}"), seen.unwrap_or_else(|why| why), good));
    }
    facts
}

/// What the agent shows: one certificate, of the site's own CA, with a key and a signature of today.
fn certificate(all: &Value, who: &str) -> Vec<Fact> {
    let shown = match result(all, "certificate_info") {
        Ok(found) => &found["certificate_deployments"],
        Err(why) => return vec![Fact::new(format!("certificate for {who}"), why, false)],
    };
    let (leaf, only) = (&shown[0]["received_certificate_chain"][0], shown.as_array().is_some_and(|all| all.len() == 1));
    let (kind, size) = (text(&leaf["public_key"]["algorithm"]), &leaf["public_key"]["key_size"]);
    let strong = kind == "ECPublicKey" && size.as_u64() >= Some(256);
    let hash = text(&leaf["signature_hash_algorithm"]["name"]);
    let stores = shown[0]["path_validation_results"].as_array().into_iter().flatten();
    let valid: Vec<String> = stores
        .filter(|each| each["was_validation_successful"] == true)
        .map(|each| text(&each["trust_store"]["path"]).rsplit('/').next().unwrap_or_default().to_owned())
        .collect();
    vec![
        Fact::new(format!("key of the certificate for {who}"), format!("{kind} {size}"), strong && only),
        Fact::new(format!("its signature for {who}"), hash.clone(), ["sha256", "sha384", "sha512"].contains(&&*hash)),
        Fact::new(format!("its chain for {who} is valid by"), valid.join(" "), valid == ["ca.crt"]),
    ]
}

/// What a part of the scan found, or why it found nothing.
fn result<'a>(all: &'a Value, command: &str) -> Result<&'a Value, String> {
    let part = &all[command];
    if part["status"] == "COMPLETED" {
        return Ok(&part["result"]);
    }
    Err(format!("not looked at: {} {}", text(&part["status"]), text(&part["error_reason"])))
}

fn suites(all: &Value, version: &str) -> Result<Vec<String>, String> {
    let found = result(all, &format!("{version}_cipher_suites"))?;
    let suites = found["accepted_cipher_suites"].as_array().ok_or("no list")?;
    Ok(suites.iter().map(|suite| text(&suite["cipher_suite"]["name"])).collect())
}

fn names(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(|each| text(&each["name"])).collect()
}

fn only(found: &Result<Vec<String>, String>, allowed: &[&str]) -> bool {
    found.as_ref().is_ok_and(|found| !found.is_empty() && found.iter().all(|name| allowed.contains(&name.as_str())))
}

fn listed(found: &Result<Vec<String>, String>) -> String {
    match found {
        Ok(names) if names.is_empty() => "none".to_owned(),
        Ok(names) => names.join(" "),
        Err(why) => why.clone(),
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
