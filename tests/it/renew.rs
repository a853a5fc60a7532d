//! `/renew` and `/renew-complete`: from the request to the certificate that waits.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use ctrl_exec::pki::csr::{self, ExpectedName};
use serde_json::{Value, json};

use crate::harness::http::Answer;
use crate::harness::openssl::Openssl;
use crate::harness::pki::Credentials;
use crate::harness::{Agent, Site, pki, tls};

fn staged(agent: &Agent) -> PathBuf {
    agent.root.join("var/lib/ctrl-exec-agent/agent.crt.staged")
}

#[track_caller]
fn ask(site: &Site, path: &str, body: &Value) -> Answer {
    tls::ask_1_0(site.agent().address(), &site.authority(), &site.dispatcher(), path, &body.to_string())
}

/// The answer to a certificate that is sent back.
#[track_caller]
fn complete(site: &Site, cert: &str) -> Value {
    let answer = ask(site, "/renew-complete", &json!({"cert": cert, "ca": "", "reqid": "c0ffee"}));
    assert_eq!(answer.status, 200);
    answer.json()
}

fn ping(site: &Site) -> Value {
    site.control(&["--json", "ping", "agent1"]).exits(0).result()
}

#[test]
fn a_reload_takes_up_where_renewed_certificates_wait() {
    let site = Site::builder().start();
    let agent = site.agent();
    let place = staged(agent).with_file_name("other.staged");
    let text = std::fs::read_to_string(agent.config()).unwrap();
    std::fs::write(agent.config(), format!("cert_staging_path = {}\n{text}", place.display())).unwrap();
    agent.reload().is(&["ACTION=reload", "RESULT=ok"]);
    let said = ask(&site, "/renew", &json!({"reqid": "abc123"})).json();
    let request = csr::check(said["csr"].as_str().unwrap(), ExpectedName::Exactly("agent1")).unwrap();
    let serial = ctrl_exec::pki::serial::fresh().unwrap();
    let renewed = site.authority().sign_agent(&request, &serial, 365, time::OffsetDateTime::now_utc()).unwrap();
    assert_eq!(complete(&site, &renewed.to_pem())["staged"], true);
    assert!(place.exists() && !staged(agent).exists());
    assert_eq!(ping(&site)["staged"], true);
}

#[test]
fn a_renewal_goes_from_the_request_to_the_next_handshake() {
    let mut site = Site::builder().start();
    let ca = site.authority();
    let answer = ask(&site, "/renew", &json!({"reqid": "abc123"}));
    let said = answer.json();
    assert_eq!((answer.status, &said["status"], &said["reqid"]), (200, &json!("ok"), &json!("abc123")), "{said}");
    assert_eq!(said.as_object().unwrap().len(), 3, "{said}");
    let request = csr::check(said["csr"].as_str().unwrap(), ExpectedName::Exactly("agent1")).unwrap();
    let present = site.agent().credentials.certificate();
    assert_eq!(request.public_key(), present.public_key());
    site.agent().line("renew").is(&["ACTION=renew", "PEER=127.0.0.1", "REQID=abc123", "STATUS=csr-generated"]);

    let now = time::OffsetDateTime::now_utc();
    let renewed = ca.sign_agent(&request, &ctrl_exec::pki::serial::fresh().unwrap(), 365, now).unwrap();
    assert_eq!(complete(&site, &renewed.to_pem()), json!({"status": "ok", "staged": true, "reqid": "c0ffee"}));
    let line = site.agent().line("renew-complete");
    line.is(&["ACTION=renew-complete", "PEER=127.0.0.1", "REQID=c0ffee", "STATUS=cert-staged"]);
    let path = staged(site.agent());
    assert_eq!(std::fs::read_to_string(&path).unwrap(), renewed.to_pem());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o640);
    let before = ping(&site);
    assert_eq!((&before["staged"], &before["expiry"]), (&json!(true), &json!(present.expiry_text())));

    site.agent_mut().stop();
    site.start(0);
    let after = ping(&site);
    assert_eq!((&after["staged"], &after["expiry"]), (&json!(false), &json!(renewed.expiry_text())));
    let shown = tls::connect(site.agent().address(), &ca, &site.dispatcher());
    assert_eq!(shown.stream.conn.peer_certificates().unwrap()[0].as_ref(), renewed.der().as_ref());
    assert!(!path.exists());
}

#[test]
fn the_request_bears_the_certificate_s_own_name_whatever_the_host_is_called() {
    let mut site = Site::builder().prepare();
    let credentials = pki::issue(&site.authority(), "before-the-move.example.org");
    site.agent_mut().write_credentials(credentials);
    site.start(0);
    let said = ask(&site, "/renew", &json!({"reqid": 7})).json();
    let expected = ExpectedName::Exactly("before-the-move.example.org");
    csr::check(said["csr"].as_str().unwrap(), expected).unwrap();
    assert_eq!(said["reqid"], 7, "echoed with its type");
    site.agent().line("renew").is(&["ACTION=renew", "PEER=127.0.0.1", "REQID=7", "STATUS=csr-generated"]);
}

#[test]
fn an_rsa_key_and_a_version_1_certificate_of_the_original_are_renewed_by_openssl() {
    let mut site = Site::builder().original_records().prepare();
    let openssl = Openssl::new(&site.dir().join("openssl"));
    openssl.original_ca(2048);
    openssl.original_leaf("agent1", "agent1", true);
    openssl.original_leaf("d", "ctrl-exec-dispatcher", false);
    for root in [site.control.join("etc/ctrl-exec"), site.agent().root.join("etc/ctrl-exec-agent")] {
        std::fs::write(root.join("ca.crt"), openssl.read("ca.crt")).unwrap();
    }
    let etc = site.control.join("etc/ctrl-exec");
    for (from, to) in [("ca.key", "ca.key"), ("d.crt", "dispatcher.crt"), ("d.key", "dispatcher.key")] {
        std::fs::write(etc.join(to), openssl.read(from)).unwrap();
    }
    site.agent_mut().write_credentials(Credentials::load(&openssl.path("agent1.crt"), &openssl.path("agent1.key")));
    std::fs::write(site.agent().trust(), format!("{} old-control\n", site.dispatcher().serial())).unwrap();
    site.start(0);
    let said = ask(&site, "/renew", &json!({"reqid": "r"})).json();
    std::fs::write(openssl.path("renew.csr"), said["csr"].as_str().unwrap()).unwrap();
    let text = openssl.run("req -in renew.csr -noout -verify -text").stdout;
    assert!(text.contains("CN = agent1") && text.contains("sha256WithRSAEncryption"), "{text}");
    openssl
        .run("x509 -req -in renew.csr -CA ca.crt -CAkey ca.key -set_serial 0xABCD -days 900 -sha256 -out renewed.crt");
    assert_eq!(complete(&site, &openssl.read("renewed.crt"))["staged"], true);
    site.agent_mut().stop();
    site.start(0);
    let expiry =
        Credentials::load(&openssl.path("renewed.crt"), &openssl.path("agent1.key")).certificate().expiry_text();
    assert_eq!(ping(&site)["expiry"], expiry);
}

#[test]
fn a_certificate_that_may_not_take_the_present_one_s_place_is_not_staged() {
    let site = Site::builder().start();
    let (agent, ca) = (site.agent(), site.authority());
    let own = &agent.credentials;
    let good = pki::reissue(&ca, "agent1", own, 365).cert;
    let later = time::OffsetDateTime::now_utc() + time::Duration::days(2);
    for (cert, error) in [
        (pki::reissue(&pki::foreign_authority(), "agent1", own, 365).cert, "does not verify against the agent CA"),
        (pki::reissue_at(&ca, "agent1", own, 365, later).cert, "does not verify against the agent CA"),
        (pki::issue(&ca, "agent1").cert, "public key does not match the agent key"),
        (pki::reissue(&ca, "agent2", own, 365).cert, "is for \"CN=agent2\", the present one for \"CN=agent1\""),
        (pki::reissue(&ca, "agent1", own, 3).cert, "is not newer"),
        (own.cert.clone(), "has the serial of the present one"),
        (format!("{good}# and more"), "does not verify against the agent CA"),
        (format!("{good}{good}"), "does not verify against the agent CA"),
        (ca.certificate().to_pem(), "does not verify against the agent CA"),
        ("nonsense".to_owned(), "does not verify against the agent CA"),
    ] {
        let said = complete(&site, &cert);
        let text = said["error"].as_str().unwrap();
        assert!(text.starts_with("renewed cert ") && text.contains(error), "{error}: {said}");
        assert_eq!((&said["status"], &said["reqid"]), (&json!("error"), &json!("c0ffee")));
        assert!(!staged(agent).exists(), "{error}");
        let line = agent.lines("renew-complete").pop().unwrap();
        line.is(&["ACTION=renew-complete", "ERROR=*", "PEER=127.0.0.1", "REQID=c0ffee"]);
        assert!(line.get("ERROR").unwrap().starts_with(text), "{line:?}");
    }
    for body in [json!({"reqid": "x"}), json!({"cert": null}), json!({"cert": [good]}), json!([])] {
        let said = ask(&site, "/renew-complete", &body).json();
        assert_eq!((&said["status"], &said["error"]), (&json!("error"), &json!("cert required")), "{body}");
    }
    assert!(!staged(agent).exists());
    assert_eq!(complete(&site, &format!("{good}\r\n \n"))["staged"], true);
    assert_eq!(std::fs::read_to_string(staged(agent)).unwrap(), good, "and nothing else that was sent");
}

#[test]
fn files_that_are_missing_are_named_in_the_original_s_words() {
    let site = Site::builder().start();
    let agent = site.agent();
    let etc = agent.root.join("etc/ctrl-exec-agent");
    let good = pki::reissue(&site.authority(), "agent1", &agent.credentials, 365).cert;
    let away = |name: &str| std::fs::rename(etc.join(name), etc.join("away")).unwrap();
    let back = |name: &str| std::fs::rename(etc.join("away"), etc.join(name)).unwrap();
    away("agent.key");
    let said = ask(&site, "/renew", &json!({"reqid": "r"})).json();
    assert_eq!(said, json!({"status": "error", "error": "agent key not available", "reqid": "r"}));
    agent.line("renew").is(&["ACTION=renew", "ERROR=*", "PEER=127.0.0.1", "REQID=r"]);
    let key = format!("agent key not found at '{}'", etc.join("agent.key").display());
    assert_eq!(complete(&site, &good)["error"], key);
    back("agent.key");
    away("ca.crt");
    assert_eq!(complete(&site, &good)["error"], format!("CA cert not found at '{}'", etc.join("ca.crt").display()));
    back("ca.crt");
    away("agent.crt");
    assert_eq!(ask(&site, "/renew", &json!({})).json()["error"], "could not generate CSR");
    back("agent.crt");
    std::fs::create_dir(staged(agent)).unwrap();
    let said = complete(&site, &good)["error"].as_str().unwrap().to_owned();
    let place = staged(agent).display().to_string();
    assert!(said.starts_with("could not stage cert: cannot ") && said.contains(&place), "{said}");
}

#[test]
fn a_certificate_of_the_ca_alone_renews_nothing() {
    let site = Site::builder().agents(2).agent_hook("exit 1").start();
    let (agent, other) = (&site.agents[0], &site.agents[1].credentials);
    let good = pki::reissue(&site.authority(), "agent1", &agent.credentials, 365).cert;
    for path in ["/renew", "/renew-complete"] {
        let body = json!({"cert": good, "reqid": "x"}).to_string();
        let answer = tls::ask_1_0(agent.address(), &site.authority(), other, path, &body);
        assert_eq!((answer.status, &answer.json()["error"]), (403, &json!("serial mismatch")), "{path}");
    }
    assert!(!staged(agent).exists() && agent.lines("renew").is_empty() && agent.lines("renew-complete").is_empty());
    // The hook judges what is done on the host, not what becomes of its certificate.
    assert_eq!(complete(&site, &good)["staged"], true);
    assert!(agent.lines("auth").is_empty());
}

#[test]
fn files_are_those_that_the_configuration_names() {
    let mut site = Site::builder().agent("cert_staging_path = {scripts}/../var/lib/ctrl-exec-agent/waiting").prepare();
    let agent = site.agent_mut();
    let (etc, elsewhere) = (agent.root.join("etc/ctrl-exec-agent"), agent.root.join("elsewhere"));
    std::fs::create_dir(&elsewhere).unwrap();
    for name in ["agent.crt", "agent.key", "ca.crt"] {
        std::fs::rename(etc.join(name), elsewhere.join(name)).unwrap();
    }
    let text = std::fs::read_to_string(agent.config()).unwrap();
    let text = ["agent.crt", "agent.key", "ca.crt"].iter().fold(text, |text, name| {
        text.replace(&etc.join(name).display().to_string(), &elsewhere.join(name).display().to_string())
    });
    std::fs::write(agent.config(), text).unwrap();
    let expiry = agent.credentials.certificate().expiry_text();
    let said = agent.command(&["pairing-status"]).exits(0).stdout;
    assert_eq!(said, format!("Paired. Certificate expires: {expiry}\n"));
    site.start(0);
    let before = ping(&site);
    assert_eq!((&before["expiry"], &before["staged"]), (&json!(expiry), &json!(false)));
    let renewed = pki::reissue(&site.authority(), "agent1", &site.agent().credentials, 365);
    assert_eq!(complete(&site, &renewed.cert)["staged"], true);
    assert_eq!(ping(&site)["staged"], true);
    assert_eq!(
        std::fs::read_to_string(site.agent().root.join("var/lib/ctrl-exec-agent/waiting")).unwrap(),
        renewed.cert
    );
    site.agent().command(&["cert-staged"]).exits(0);
    site.agent_mut().stop();
    site.start(0);
    assert_eq!(std::fs::read_to_string(elsewhere.join("agent.crt")).unwrap(), renewed.cert);
    let after = ping(&site);
    assert_eq!((&after["expiry"], &after["staged"]), (&json!(renewed.certificate().expiry_text()), &json!(false)));
    assert!(!etc.join("agent.crt").exists());
}
