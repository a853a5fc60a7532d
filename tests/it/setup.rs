//! `setup-ca` and `setup-ctrl-exec`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::harness::process::finish;
use crate::harness::{Site, openssl::Openssl, pki, run};

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_ca_is_made_once_and_never_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().to_str().unwrap();
    let etc = dir.path().join("etc/ctrl-exec");
    let said = run(&["--root", root, "setup-ca"]).exits(0).stdout;
    let (key, cert) = (etc.join("ca.key"), etc.join("ca.crt"));
    assert_eq!(
        said,
        format!(
            "Setting up dispatcher CA...\nCA created:\n  Key:  {}\n  Cert: {}\n\
             Keep ca.key secure - it never leaves this host.\n",
            key.display(),
            cert.display()
        )
    );
    assert_eq!((mode(&key), mode(&cert)), (0o600, 0o644));
    let before = std::fs::read(&key).unwrap();
    let again = run(&["--root", root, "setup-ca"]).exits(1);
    assert!(again.stderr.contains("CA key already exists: "), "{again:?}");
    assert_eq!(std::fs::read(&key).unwrap(), before);
}

#[test]
fn openssl_agrees_with_what_was_made() {
    let site = Site::builder().agents(1).prepare();
    let etc = site.control.join("etc/ctrl-exec");
    let openssl = Openssl::new(&etc);
    openssl.run("verify -CAfile ca.crt dispatcher.crt");
    let agent = site.agent().root.join("etc/ctrl-exec-agent/agent.crt");
    openssl.run(&format!("verify -CAfile ca.crt {}", agent.display()));
    let text = openssl.run("x509 -in dispatcher.crt -noout -subject -serial").stdout;
    assert!(text.contains("CN = ctrl-exec-dispatcher"), "{text}");
    let serial = text.to_lowercase().split_once("serial=").unwrap().1.trim().trim_start_matches('0').to_owned();
    assert_eq!(serial, site.dispatcher().serial());
    assert_eq!(mode(&etc.join("dispatcher.key")), 0o600);
}

#[test]
fn a_dispatcher_certificate_needs_a_ca() {
    let site = Site::builder().agents(0).prepare();
    std::fs::remove_file(site.control.join("etc/ctrl-exec/ca.key")).unwrap();
    let ran = site.control(&["setup-ctrl-exec"]).exits(78);
    assert!(ran.stderr.contains("no CA key at ") && ran.stderr.contains("hint: make the CA first"), "{ran:?}");
}

#[test]
fn replacing_a_certificate_that_agents_trust_wants_a_yes() {
    let site = Site::builder().agents(0).prepare();
    site.register("web", 7443, &pki::issue(&site.authority(), "web"));
    let before = site.dispatcher().serial();
    for answer in ["", "n\n", "\n", "yes please\n"] {
        let ran = finish(site.control_command(&["setup-ctrl-exec"]), answer).exits(0);
        assert!(ran.stdout.contains("  1 registered agent will require re-pairing"), "{ran:?}");
        assert!(ran.stdout.ends_with("Aborted.\n"), "{ran:?}");
        assert_eq!(site.dispatcher().serial(), before);
    }
    finish(site.control_command(&["setup-ctrl-exec"]), "y\n").exits(0);
    assert_ne!(site.dispatcher().serial(), before);
}

#[test]
fn without_agents_a_certificate_is_replaced_without_asking() {
    let site = Site::builder().agents(0).prepare();
    let before = site.dispatcher().serial();
    let said = site.control(&["setup-ctrl-exec"]).exits(0).stdout;
    assert!(said.starts_with("Replacing the existing dispatcher cert; no agents are registered.\n"), "{said}");
    assert_ne!(site.dispatcher().serial(), before);
}
