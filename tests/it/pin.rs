//! The pin: who answers for an agent must show the certificate that this agent was issued. What is refused has not
//! seen one byte of a request.

use crate::harness::impostor::Impostor;
use crate::harness::pki::Credentials;
use crate::harness::{Site, pki};

/// Answers as an agent would that ran the script.
const ANSWER: &str = "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{\"exit\":0,\"stdout\":\"evil\",\"status\":\"ok\"}";

/// Calls `web`, which an impostor answers for with these credentials.
fn call(site: &Site, credentials: &Credentials, verb: &[&str]) -> (serde_json::Value, String) {
    let impostor = Impostor::start(&site.authority(), credentials, ANSWER);
    site.control(&["edit-agent", "web", "--agent-port", &impostor.address.port().to_string()]).exits(0);
    let mut words = vec!["--json", "--token", "s3cr3t"];
    words.extend_from_slice(verb);
    let ran = site.control(&words);
    assert_eq!(impostor.connections(), 1);
    (ran.result(), impostor.heard())
}

const RUN: [&str; 5] = ["run", "web", "deploy", "--", "secret-argument"];

#[test]
fn another_agents_certificate_is_refused_before_any_byte_of_a_request() {
    let site = Site::builder().agents(0).start();
    let ca = site.authority();
    let (web, db) = (pki::issue(&ca, "web"), pki::issue(&ca, "db"));
    site.register("web", 1, &web);
    site.register("db", 1, &db);
    for verb in [&RUN[..], &["ping", "web"]] {
        let (result, heard) = call(&site, &db, verb);
        let error = result["error"].as_str().unwrap();
        assert!(error.starts_with("agent 'web' presented the certificate of 'db' - refused;"), "{error}");
        assert!(error.contains("pair it again"), "{error}");
        assert_eq!(heard, "");
    }
    let (result, heard) = call(&site, &web, &RUN);
    assert_eq!(result["stdout"], "evil", "the right certificate is not refused");
    assert!(heard.contains("s3cr3t") && heard.contains("secret-argument"));
}

#[test]
fn another_key_under_the_right_name_is_refused() {
    let site = Site::builder().agents(0).start();
    site.register("web", 1, &pki::issue(&site.authority(), "web"));
    let (result, heard) = call(&site, &pki::issue(&site.authority(), "web"), &RUN);
    let error = result["error"].as_str().unwrap();
    assert!(error.starts_with("agent 'web' presented another key than the one it was paired with"), "{error}");
    assert_eq!(heard, "");
}

#[test]
fn a_record_of_the_original_takes_no_other_agents_certificate_either() {
    let site = Site::builder().agents(0).original_records().start();
    let ca = site.authority();
    let (web, db) = (pki::issue(&ca, "web"), pki::issue(&ca, "db"));
    site.register("db", 1, &db);
    for (credentials, refused) in [(&db, true), (&web, false), (&pki::issue(&ca, "www"), false)] {
        // Written anew each time: the change of the port leaves the certificate's name in the record.
        let impostor = Impostor::start(&ca, credentials, ANSWER);
        site.register("web", impostor.address.port(), &web);
        let result = site.control(&["--json", "--token", "s3cr3t", "run", "web", "deploy"]).result();
        assert_eq!(result["error"].is_string(), refused, "{result}");
        assert_eq!(impostor.heard().is_empty(), refused);
    }
}

#[test]
fn a_record_that_cannot_be_read_frees_no_name() {
    let site = Site::builder().agents(0).original_records().start();
    let ca = site.authority();
    let (web, www) = (pki::issue(&ca, "web"), pki::issue(&ca, "www"));
    let impostor = Impostor::start(&ca, &www, ANSWER);
    site.register("web", impostor.address.port(), &web);
    // Whose it was, nobody can say: it may have been the one of this very certificate.
    std::fs::write(site.record("broken"), "{").unwrap();
    let result = site.control(&["--json", "--token", "s3cr3t", "run", "web", "deploy"]).result();
    assert!(result["error"].as_str().unwrap().contains("presented the certificate of 'www'"), "{result}");
    assert!(impostor.heard().is_empty());
}

#[test]
fn certificates_that_are_not_of_the_ca_or_over_are_refused() {
    let site = Site::builder().agents(0).start();
    let ca = site.authority();
    let expired = pki::issue_expired(&ca, "web");
    site.register("web", 1, &expired);
    for (credentials, reason) in [(&expired, "expired"), (&pki::issue(&pki::foreign_authority(), "web"), "CA")] {
        let (result, heard) = call(&site, credentials, &RUN);
        let error = result["error"].as_str().unwrap();
        assert!(
            error.starts_with("TLS handshake with '127.0.0.1' failed - certificate or trust mismatch: "),
            "{error}"
        );
        assert!(error.contains(reason) && heard.is_empty(), "{error}");
    }
}
