//! `check-config`, `self-check`, `self-ping`, `pairing-status`, `paired`: what a host says about itself.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use ctrl_exec::pki::ca::Ca;
use ctrl_exec::pki::serial;
use time::{Duration, OffsetDateTime};

use crate::harness::process::{finish, program};
use crate::harness::{Agent, Site, binary, host, pki, tls};

#[test]
fn a_sound_dispatcher_passes_its_check() {
    let site = Site::builder().agents(0).start();
    let said = site.control(&["check-config"]).exits(0).stdout;
    for part in [
        "  Config OK\n",
        "  CA certificate OK (expires ",
        "  CA key OK\n",
        "  Dispatcher certificate and key OK (serial ",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(said.contains(&site.dispatcher().serial()), "{said}");
}

#[test]
fn a_dispatcher_names_everything_that_is_missing_at_once() {
    let site = Site::builder().agents(0).dispatcher("auth_hook = /no/such/hook").start();
    let etc = site.control.join("etc/ctrl-exec");
    std::fs::remove_file(etc.join("dispatcher.key")).unwrap();
    std::fs::remove_file(etc.join("ca.key")).unwrap();
    let said = site.control(&["check-config"]).exits(78).stdout;
    for part in
        ["dispatcher.key", "ca.key", "hint: ctrl-exec setup-ctrl-exec", "hint: ctrl-exec setup-ca", "/no/such/hook"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn what_another_user_may_not_read_is_no_reason_to_make_it_anew() {
    let site = Site::builder().agents(0).start();
    if !host::has_root() {
        return;
    }
    // Where this test's own binary lies, another user may have no way to it.
    let copy = site.control.join("ctrl-exec");
    let mut cp = program("cp".as_ref());
    cp.arg(binary()).arg(&copy);
    finish(cp, "").exits(0);
    let nobody = |words: &[&str]| {
        let mut command = program(&copy);
        command.arg("--root").arg(&site.control).args(words).uid(65534).gid(65534);
        finish(command, "")
    };
    let said = nobody(&["check-config"]).exits(78).stdout;
    assert!(said.contains("dispatcher.key\n  because: Permission denied") && !said.contains("setup-"), "{said}");
    std::fs::create_dir_all(site.registry()).unwrap();
    std::fs::set_permissions(site.registry(), std::fs::Permissions::from_mode(0o700)).unwrap();
    for verb in [&["edit-agent", "x", "--ip", "::1"][..], &["unpair", "x"], &["ping", "x"], &["list-agents"]] {
        let ran = nobody(verb).exits(77);
        assert!(ran.stderr.contains("\nhint: ") && ran.stderr.contains("group ctrl-exec"), "{ran:?}");
    }
    nobody(&["setup-ctrl-exec"]).exits(77);
}

#[test]
fn a_broken_dispatcher_configuration_shows_each_error_in_its_place() {
    let site = Site::builder().agents(0).start();
    let conf = site.control.join("etc/ctrl-exec/ctrl-exec.conf");
    std::fs::write(&conf, "max_paralel = 3\nread_timeout = soon # later\n").unwrap();
    for verb in [&["check-config"][..], &["ping", "x"], &["run", "x", "y"], &["setup-ctrl-exec"]] {
        let said = site.control(verb).exits(78).stderr;
        assert!(said.contains("ctrl-exec.conf:1:1: ") && said.contains("ctrl-exec.conf:2:16: "), "{said}");
        assert!(said.contains("'max_parallel'") && said.contains("^^^"), "{said}");
    }
}

#[test]
fn a_sound_agent_passes_its_check() {
    let site = Site::builder().sh("ok", "true").start();
    let said = site.agent().command(&["self-check"]).exits(0).stdout;
    assert!(said.starts_with("Checking config...\n  Config OK (port 0)\n  Allowlist OK (1 scripts)\n"), "{said}");
    assert!(said.contains("  Certs OK (expires ") && said.contains("  Trust OK (1 dispatcher serials)\n"), "{said}");
    assert!(said.contains("  Script 'ok': ") && said.contains("(profile: default) [ok]\n"), "{said}");
    assert!(said.ends_with("Self-check complete.\n"), "{said}");
}

#[test]
fn an_agent_says_what_needs_hands() {
    let site = Site::builder().allow("missing = /no/such/script").prepare();
    std::fs::write(site.agent().trust(), "# nobody\n").unwrap();
    let said = site.agent().command(&["self-check"]).exits(1).stdout;
    assert!(said.contains("  Script 'missing': /no/such/script  (profile: default) [NOT EXECUTABLE]\n"), "{said}");
    assert!(said.contains("no trusted dispatchers"), "{said}");
    std::fs::write(site.agent().config(), "port = 0\nprot = 1\n").unwrap();
    let ran = site.agent().command(&["self-check"]).exits(1);
    assert!(ran.stderr.contains("Config error: ") && ran.stderr.contains("agent.conf:2:1: "), "{ran:?}");
}

#[test]
fn whatever_keeps_an_agent_from_serving_fails_its_check() {
    let site = Site::builder().sh("ok", "true").prepare();
    let agent = site.agent();
    let check = |part: &str, hint: &str| {
        let served = agent.command(&["serve"]).exits(78);
        let said = agent.command(&["self-check"]).exits(1).stdout;
        assert!(said.contains(part) && served.stderr.contains(part), "{part}: {said}{served:?}");
        assert!(said.contains(hint) && served.stderr.contains(hint), "{hint}: {said}{served:?}");
    };
    std::fs::create_dir(agent.revoked()).unwrap();
    check("revoked-serials\n  because: it is not a regular file", "");
    std::fs::remove_dir(agent.revoked()).unwrap();
    let ca = agent.root.join("etc/ctrl-exec-agent/ca.crt");
    let good = std::fs::read(&ca).unwrap();
    std::fs::write(&ca, "no certificate\n").unwrap();
    check("ca.crt cannot be used as the CA", "pair this host again");
    std::fs::write(&ca, good).unwrap();
    agent.command(&["self-check"]).exits(0);
}

#[test]
fn a_file_that_only_root_can_read_fails_the_check() {
    let site = Site::builder().prepare();
    if !host::has_root() {
        return;
    }
    let key = site.agent().root.join("etc/ctrl-exec-agent/agent.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&key, Some(0), Some(0)).unwrap();
    let served = site.agent().command(&["serve"]).exits(78).stderr;
    assert!(
        served.contains("Permission denied") && served.contains(&format!("chmod 640 {}", key.display())),
        "{served}"
    );
    let said = site.agent().command(&["self-check"]).exits(1).stdout;
    assert!(said.contains("  Account OK (checked as 'nobody')\n"), "{said}");
    assert!(said.contains("agent.key\n  because: Permission denied") && !said.contains("NOT paired"), "{said}");
    assert!(said.contains(&format!("chmod 640 {}", key.display())), "{said}");
}

#[test]
fn what_a_dangerous_capability_costs_is_said() {
    let site =
        Site::builder().section("[profile x]\ncaps = CAP_SYS_ADMIN, CAP_KILL\nallow_dangerous_caps = yes").prepare();
    let said = site.agent().command(&["self-check"]).exits(0).stdout;
    assert!(said.contains("  Profile 'x': CAP_SYS_ADMIN undoes the confinement: it can make the read-only"), "{said}");
    assert!(!said.contains("CAP_KILL"), "{said}");
    let config = site.agent().config();
    let text = std::fs::read_to_string(&config).unwrap().replace("allow_dangerous_caps = yes\n", "");
    std::fs::write(&config, text).unwrap();
    let refused = site.agent().command(&["serve"]).exits(78).stderr;
    assert!(refused.contains("CAP_SYS_ADMIN undoes the confinement"), "{refused}");
    assert!(refused.contains("add the line 'allow_dangerous_caps = yes'"), "{refused}");
}

#[test]
fn a_profile_that_could_write_to_the_agents_own_files_fails_the_check() {
    let site = Site::builder().agent("executor_socket = {scripts}/exec.sock").prepare();
    let (config, root) = (site.agent().config(), site.agent().root.display().to_string());
    let writable = format!("{root}/etc:/srv:{root}/scripts/../var/lib/ctrl-exec-agent/runs/x");
    let text = std::fs::read_to_string(&config).unwrap() + "[profile x]\nrun_as = nobody\nwritable = " + &writable;
    std::fs::write(&config, text).unwrap();
    let ran = site.agent().command(&["self-check"]).exits(1);
    assert!(ran.stdout.contains("  Profiles: the executor refuses them\n"), "{ran:?}");
    assert_eq!(ran.stderr.matches("Profile 'x': writable path '").count(), 2, "{ran:?}");
    for part in [", where agent.conf is", ", where trusted_dispatchers_path is", "no run_as"] {
        assert!(ran.stderr.contains(part), "{part}: {ran:?}");
    }
}

#[test]
fn a_script_outside_script_dirs_is_neither_in_order_nor_advertised() {
    let site = Site::builder().agent("script_dirs = {scripts}").sh("in", "true").allow("out = /bin/true").start();
    let said = site.agent().command(&["self-check"]).exits(1).stdout;
    assert!(said.contains("  Script 'out': /bin/true  (profile: default) [NOT IN script_dirs]\n"), "{said}");
    assert!(said.contains("(profile: default) [ok]\n"), "{said}");
    let mut http = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    let scripts = http.get("/capabilities").json()["scripts"].clone();
    assert_eq!((scripts.as_array().unwrap().len(), &scripts[0]["name"]), (1, &"in".into()), "{scripts}");
    assert_eq!(site.result("out", &[])["error"], "script not permitted");
}

#[test]
fn pairing_status_tells_until_when_or_why_not() {
    let site = Site::builder().prepare();
    let agent = site.agent();
    let expiry = agent.credentials.certificate().expiry_text();
    let said = agent.command(&["pairing-status"]).exits(0).stdout;
    assert_eq!(said, format!("Paired. Certificate expires: {expiry}\n"));
    let silent = agent.command(&["paired"]).exits(0);
    assert_eq!((silent.stdout, silent.stderr), (String::new(), String::new()));
    let cert = agent.root.join("etc/ctrl-exec-agent/agent.crt");
    std::fs::write(&cert, pki::issue(&site.authority(), "other").cert).unwrap();
    let said = agent.command(&["pairing-status"]).exits(1).stdout;
    assert!(said.starts_with("Not paired. Reason: ") && said.contains("does not belong"), "{said}");
    std::fs::remove_file(&cert).unwrap();
    let said = agent.command(&["pairing-status"]).exits(1).stdout;
    assert_eq!(said, format!("Not paired. Reason: missing file: {}\n", cert.display()));
    agent.command(&["paired"]).exits(1);
}

/// What `self-check` and `pairing-status` say of a certificate that cannot serve.
#[track_caller]
fn cannot_serve(agent: &Agent, part: &str) {
    let expiry = agent.credentials.certificate().expiry_text();
    let said = agent.command(&["self-check"]).exits(1).stdout;
    let told = said.lines().find(|line| line.starts_with("  Certs: ")).unwrap();
    assert!(told.contains(&format!("agent.crt (expires {expiry}) cannot serve: ")) && told.contains(part), "{said}");
    assert!(!said.contains("Certs OK"), "{said}");
    let said = agent.command(&["pairing-status"]).exits(1).stdout;
    let begin = format!("Paired. Certificate expires: {expiry}\nThe certificate cannot serve: ");
    assert!(said.starts_with(&begin) && said.contains(part), "{said}");
}

#[test]
fn a_certificate_that_no_dispatcher_accepts_fails_the_check_and_the_status() {
    let mut site = Site::builder().prepare();
    let (ca, good) = (site.authority(), site.agent().credentials.clone());
    let now = OffsetDateTime::now_utc();
    for (ca, from, part) in [
        (&ca, now - Duration::days(40), "it expired on "),
        (&ca, now + Duration::days(5), "it is valid from "),
        (&pki::foreign_authority(), now, "it does not hold the signature of this CA"),
    ] {
        site.agent_mut().write_credentials(pki::reissue_at(ca, "agent1", &good, 30, from));
        cannot_serve(site.agent(), part);
    }
    let old = Ca::create("ctrl-exec CA", 400, &serial::fresh().unwrap(), now - Duration::days(500)).unwrap();
    site.agent_mut().write_credentials(pki::reissue_at(&old, "agent1", &good, 30, now - Duration::days(450)));
    std::fs::write(site.agent().root.join("etc/ctrl-exec-agent/ca.crt"), old.certificate().to_pem()).unwrap();
    cannot_serve(site.agent(), "the CA certificate expired on ");
    std::fs::write(site.agent().root.join("etc/ctrl-exec-agent/ca.crt"), ca.certificate().to_pem()).unwrap();
    site.agent_mut().write_credentials(good);
    site.agent().command(&["self-check"]).exits(0);
    let other = pki::issue(&ca, "agent1");
    std::fs::write(site.agent().root.join("etc/ctrl-exec-agent/agent.crt"), other.cert).unwrap();
    let said = site.agent().command(&["self-check"]).exits(1).stdout;
    assert!(said.contains("  Certs: NOT paired - ") && said.contains("does not belong to the certificate"), "{said}");
}

#[test]
fn a_certificate_or_a_ca_that_ends_soon_is_told_and_is_no_fault() {
    let mut site = Site::builder().prepare();
    let (ca, good) = (site.authority(), site.agent().credentials.clone());
    let now = OffsetDateTime::now_utc();
    let check = |agent: &Agent| {
        let said = agent.command(&["self-check"]).exits(0).stdout;
        agent.command(&["pairing-status"]).exits(0);
        assert!(said.contains("  Certs OK (expires "), "{said}");
        said
    };
    assert!(!check(site.agent()).contains("  Certs: "));
    site.agent_mut().write_credentials(pki::reissue_at(&ca, "agent1", &good, 30, now - Duration::days(20)));
    let said = check(site.agent());
    assert!(said.contains("  Certs: 9 days are left, less than half: if the dispatcher does not renew it, "), "{said}");
    let old = Ca::create("ctrl-exec CA", 400, &serial::fresh().unwrap(), now - Duration::days(390)).unwrap();
    site.agent_mut().write_credentials(pki::reissue_at(&old, "agent1", &good, 5, now));
    std::fs::write(site.agent().root.join("etc/ctrl-exec-agent/ca.crt"), old.certificate().to_pem()).unwrap();
    let said = check(site.agent());
    assert!(said.contains("  Certs: the CA certificate expires on "), "{said}");
}

#[test]
fn a_key_or_a_trust_map_in_other_hands_fails_the_check() {
    let site = Site::builder().prepare();
    let agent = site.agent();
    let key = agent.root.join("etc/ctrl-exec-agent/agent.key");
    let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    let fails = |part: &str| {
        let said = agent.command(&["self-check"]).exits(1).stdout;
        assert!(said.contains(part), "{part}: {said}");
    };
    for open in [0o644, 0o604, 0o660, 0o602] {
        mode(&key, open);
        let told = format!("  Private key: {} has mode {open:04o}, so that others may read or write it", key.display());
        fails(&told);
    }
    mode(&key, 0o600);
    for open in [0o664, 0o646] {
        mode(&agent.trust(), open);
        fails(&format!("  Trust: {} has mode {open:04o}, so that others may write it", agent.trust().display()));
    }
    mode(&agent.trust(), 0o644);
    std::os::unix::fs::chown(agent.trust(), Some(4321), None).unwrap();
    fails(&format!("  Trust: {} belongs to uid 4321", agent.trust().display()));
    // As the original leaves them: the key is root's, for the agent's group to read, and the map the agent's own.
    host::give_to_agent(&agent.trust());
    let nobody = ctrl_exec::sys::user::Account::by_name("nobody").unwrap().unwrap();
    std::os::unix::fs::chown(&key, Some(0), Some(nobody.gid().as_raw())).unwrap();
    mode(&key, 0o640);
    agent.command(&["self-check"]).exits(0);
}

#[test]
fn who_may_not_read_the_key_is_told_so_and_not_that_the_host_is_not_paired() {
    let site = Site::builder().prepare();
    let agent = site.agent();
    let etc = agent.root.join("etc/ctrl-exec-agent");
    // Where this test's own binary lies, another user may have no way to it.
    let copy = agent.root.join("ctrl-exec");
    let mut cp = program("cp".as_ref());
    cp.arg(binary()).arg(&copy);
    finish(cp, "").exits(0);
    let stranger = |verb: &str| {
        let mut command = program(&copy);
        command.args(["agent", "--root"]).arg(&agent.root).arg(verb).uid(54_321).gid(54_321);
        finish(command, "")
    };
    let key = etc.join("agent.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    for verb in ["pairing-status", "self-ping"] {
        let ran = stranger(verb).exits(77);
        assert!(ran.stderr.starts_with(&format!("Error: cannot open {}", key.display())), "{}", ran.stderr);
        let hint = "hint: run it as root, with sudo, or as 'nobody', the agent's account\n";
        assert!(ran.stderr.ends_with(hint), "{}", ran.stderr);
        assert!(!ran.stdout.contains("aired"), "{}", ran.stdout);
    }
    // The directory hides whether there are any.
    let hidden = etc.join("hidden");
    std::fs::create_dir(&hidden).unwrap();
    std::fs::rename(&key, hidden.join("agent.key")).unwrap();
    std::fs::set_permissions(&hidden, std::fs::Permissions::from_mode(0o700)).unwrap();
    let config = etc.join("agent.conf");
    let text = std::fs::read_to_string(&config).unwrap();
    let moved = text.replace(&key.display().to_string(), &hidden.join("agent.key").display().to_string());
    assert_ne!(moved, text);
    std::fs::write(&config, moved).unwrap();
    let said = stranger("pairing-status").exits(77).stderr;
    assert!(said.contains("hidden/agent.key"), "{said}");
    stranger("paired").exits(1);
    let said = stranger("self-check").exits(1).stdout;
    assert!(said.contains("  Certs: cannot open ") && !said.contains("NOT paired"), "{said}");
    agent.command(&["pairing-status"]).exits(0);
}

#[test]
fn a_self_ping_reaches_the_running_agent() {
    let mut site = Site::builder().start();
    let port = site.agent().address().port().to_string();
    let said = site.agent().command(&["--port", &port, "self-ping"]).exits(0).stdout;
    assert!(said.contains("  Paired: yes (cert expires ") && said.contains("  mTLS handshake: OK\n"), "{said}");
    assert!(said.contains("  Ping response: 403 serial mismatch (expected"), "{said}");
    site.agent_mut().stop();
    let said = site.agent().command(&["--port", &port, "self-ping"]).exits(1).stdout;
    assert!(said.contains(&format!("Port {port}: not listening")), "{said}");
}

#[test]
fn an_agent_that_is_not_paired_cannot_ping_itself() {
    let site = Site::builder().prepare();
    std::fs::remove_file(site.agent().root.join("etc/ctrl-exec-agent/agent.key")).unwrap();
    let said = site.agent().command(&["self-ping"]).exits(1).stdout;
    assert!(said.contains("  Paired: no - missing file: ") && said.ends_with("agent not paired.\n"), "{said}");
}

#[test]
fn a_check_says_what_the_kernel_offers_and_which_profile_it_does_not_do_for() {
    use crate::harness::executor::Mode;
    for mode in Mode::ROOT {
        let mut site = Site::builder().executor(mode).sh("ok", "exit 0").prepare();
        if mode == Mode::System {
            site.agent_mut().start_service();
        }
        let said = site.agent().command(&["self-check"]).exits(0).stdout;
        let kernel = said.lines().find(|line| line.starts_with("  Kernel: ")).unwrap();
        assert!(kernel.ends_with(", mount_setattr, seccomp; user namespaces are not needed"), "{kernel}");
        let groups = said.lines().find(|line| line.starts_with("  Control groups: ")).unwrap();
        assert_eq!(groups.ends_with("(delegated to the executor)"), mode == Mode::System, "{groups}");
        let config = std::fs::read_to_string(site.agent().config()).unwrap();
        std::fs::write(site.agent().config(), config + "[profile gone]\nrun_as = no-such-account\n").unwrap();
        let said = site.agent().command(&["self-check"]).exits(1).stdout;
        let line = "  Profile 'gone': every run is refused here: the account 'no-such-account' is not known";
        assert!(said.contains(line), "{said}");
    }
}
