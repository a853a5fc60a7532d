//! `serve`: what keeps an agent from starting, and how it ends.

use std::net::TcpListener;
use std::path::PathBuf;

use crate::harness::audit::Line;
use crate::harness::executor::Mode;
use crate::harness::{Site, agent::write_key, host, pki};

#[test]
fn an_agent_without_certificate_key_or_ca_is_not_paired() {
    for file in ["agent.crt", "agent.key", "ca.crt"] {
        let site = Site::builder().prepare();
        let path = site.agent().root.join("etc/ctrl-exec-agent").join(file);
        std::fs::remove_file(&path).unwrap();
        let ran = site.agent().command(&["serve"]).exits(78);
        assert!(ran.stderr.contains(&format!("Error: not paired: missing file: {}", path.display())), "{ran:?}");
        assert!(ran.stderr.contains("\nhint: pair this host first: ctrl-exec-agent request-pairing"), "{ran:?}");
    }
}

#[test]
fn every_error_of_both_files_is_shown_with_its_place_and_a_caret() {
    let site = Site::builder().prepare();
    let (config, allowlist) = (site.agent().config(), site.agent().allowlist());
    std::fs::write(&config, "port = 0\nprot = 7443\nmax_output = ten\n[profile default]\ncaps = CAP_FLY\n").unwrap();
    std::fs::write(&allowlist, "a = /bin/true # why\nb = /bin/true profile=nope\n").unwrap();
    let ran = site.agent().command(&["serve"]).exits(78);
    for place in
        ["agent.conf:2:1: ", "agent.conf:3:14: ", "agent.conf:5:8: ", "scripts.conf:1:15: ", "scripts.conf:2:1: "]
    {
        assert!(ran.stderr.contains(place), "{place}:\n{}", ran.stderr);
    }
    for text in ["\n    prot = 7443\n    ^^^^\n", "'port'", "'cert'", "CAP_FLY", "nope"] {
        assert!(ran.stderr.contains(text), "{text}:\n{}", ran.stderr);
    }
}

#[test]
fn a_profile_that_is_not_defined_is_an_error_at_the_start() {
    let site = Site::builder().allow("a = /bin/true profile=missing").prepare();
    let ran = site.agent().command(&["serve"]).exits(78);
    assert!(ran.stderr.contains("scripts.conf:1:") && ran.stderr.contains("a -> missing"), "{ran:?}");
}

#[test]
fn a_script_listed_twice_is_warned_about_and_the_last_line_counts() {
    let site = Site::builder().allow("say = /bin/false\nsay = /bin/echo").start();
    assert_eq!(site.result("say", &["last"])["stdout"], "last\n");
    let stderr = site.agent().stderr();
    assert!(stderr.contains("scripts.conf:2:1: warning: 'say' is set twice: line 2 replaces line 1"), "{stderr}");
    site.agent().line("config-warn").is(&["ACTION=config-warn", "ENTRY=*", "MSG=*"]);
}

#[test]
fn files_that_the_original_served_with_are_no_reason_not_to_serve() {
    let settings = "rate_limit_volume = 10/60\nrate_limit_disable = 1x\nstdin_timeout = 0\nmax_children = 0";
    let site =
        Site::builder().agent(settings).sh("ok", "echo ran").allow("a = bin/relative\nnonsense\nb = /x /y").start();
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
    assert_eq!(site.result("a", &[])["error"], "script not permitted");
    for key in ["rate_limit_volume", "rate_limit_disable", "stdin_timeout", "max_children"] {
        let warned = site.agent().line_where("config-warn", |line| line.get("KEY") == Some(key));
        warned.is(&["ACTION=config-warn", &format!("KEY={key}"), "MSG=*"]);
    }
    assert_eq!(site.agent().stderr().matches(": the line is skipped\n").count(), 3, "{}", site.agent().stderr());
}

#[test]
fn nothing_that_means_nothing_keeps_an_agent_from_starting() {
    let mut site = Site::builder().sh("ok", "echo ran").prepare();
    let add = |path: PathBuf, text: &[u8]| {
        std::fs::write(&path, [std::fs::read(&path).unwrap().as_slice(), text].concat()).unwrap();
    };
    let lines = |path: PathBuf| std::fs::read_to_string(path).unwrap().lines().count();
    let (conf, scripts) = (lines(site.agent().config()), lines(site.agent().allowlist()));
    add(site.agent().config(), b"# M\xfcller\n[tags]\nsite = Z\xfcrich\n[foo]\nbar = 1\n");
    add(site.agent().allowlist(), b"# M\xfcller\nother = /bin/true owner=ops\n");
    site.start(0);
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
    assert_eq!(site.result("other", &[])["exit"], 0);
    let agent = site.agent();
    for (file, line, what) in [
        (agent.config(), conf + 1, "the text is not UTF-8 (also on line "),
        (agent.config(), conf + 4, "unknown section '[foo]'"),
        (agent.allowlist(), scripts + 1, "the text is not UTF-8: "),
        (agent.allowlist(), scripts + 2, "unknown annotation 'owner'"),
    ] {
        let entry = format!("{}:{line}", file.display());
        let warned = agent.line_where("config-warn", |warned| warned.get("ENTRY") == Some(&entry));
        assert!(warned.get("MSG").unwrap().starts_with(what), "{warned:?}");
    }
    agent.reload().is(&["ACTION=reload", "RESULT=ok"]);
    // What means something is refused, with its line.
    add(agent.allowlist(), b"caf\xe9 = /bin/true\n");
    let said = agent.reload();
    assert_eq!(said.get("RESULT"), Some("kept the old configuration"));
    assert!(
        said.get("ERROR").unwrap().contains(&format!("scripts.conf:{}:4: the text is not UTF-8", scripts + 3)),
        "{said:?}"
    );
}

#[test]
fn the_version_is_told_wherever_it_is_asked_for() {
    let site = Site::builder().prepare();
    for words in [&["--version"][..], &["serve", "--version"], &["pairing-status", "--version"]] {
        let said = site.agent().command(words).exits(0).stdout;
        assert_eq!(said, format!("ctrl-exec-agent {}\n", env!("CARGO_PKG_VERSION")), "{words:?}");
    }
}

#[test]
fn a_key_that_belongs_to_another_certificate_is_an_error() {
    let site = Site::builder().agents(2).prepare();
    let path = site.agents[0].root.join("etc/ctrl-exec-agent/agent.key");
    write_key(&path, &site.agents[1].credentials.key);
    let ran = site.agent().command(&["serve"]).exits(78);
    assert!(ran.stderr.contains("agent.key") && ran.stderr.contains("does not belong to the certificate"), "{ran:?}");
}

#[test]
fn a_hook_that_cannot_be_executed_is_an_error_at_the_start() {
    let site = Site::builder().agent("auth_hook = /no/such/hook").prepare();
    let ran = site.agent().command(&["serve"]).exits(78);
    assert!(ran.stderr.contains("auth_hook '/no/such/hook' is not executable"), "{ran:?}");
}

#[test]
fn a_port_in_use_is_unavailable_and_named() {
    let taken = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let site = Site::builder().prepare();
    let text = std::fs::read_to_string(site.agent().config()).unwrap();
    std::fs::write(site.agent().config(), text.replace("port = 0", &format!("port = {}", address.port()))).unwrap();
    let ran = site.agent().command(&["serve"]).exits(69);
    assert!(ran.stderr.contains(&format!("cannot listen on {address}")), "{ran:?}");
    assert!(ran.stderr.contains("\nhint: is another agent running?"), "{ran:?}");
}

#[test]
fn a_root_agent_becomes_its_account_or_does_not_start() {
    if !host::has_root() {
        return;
    }
    for (user, text) in [("no-such-account", "does not exist"), ("root", "no script runs as root by accident")] {
        let site = Site::builder().prepare();
        let config = std::fs::read_to_string(site.agent().config()).unwrap();
        std::fs::write(site.agent().config(), config.replace("user = nobody", &format!("user = {user}"))).unwrap();
        let ran = site.agent().command(&["serve"]).exits(78);
        assert!(ran.stderr.contains(text) && ran.stderr.contains("\nhint: set 'user' in "), "{ran:?}");
    }
    let site = Site::builder().allow("id = /usr/bin/id").start();
    let said = site.result("id", &["-u"])["stdout"].as_str().unwrap().to_owned();
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap();
    assert_eq!(said.trim(), nobody.uid.to_string());
    let groups = site.result("id", &["-G"])["stdout"].as_str().unwrap().to_owned();
    assert_eq!(groups.trim(), nobody.gid.to_string());
}

#[test]
fn profiles_that_cannot_be_applied_are_warned_about_at_the_start() {
    // A script that names a profile expects it.
    let quiet =
        Site::builder().executor(Mode::Private).section("timeout = 9\nkill_grace = 1\n[profile unused]").start();
    assert!(!quiet.agent().stderr().contains("without a root executor"), "{}", quiet.agent().stderr());
    let named = Site::builder().executor(Mode::Private).sh("x", "true").section("[profile p]");
    let named = named.allow("y = {scripts}/x profile=p").start();
    let told = "warning: without a root executor every script runs with this agent's own rights (uid 65534); of its \
                profile, timeout and kill_grace are applied and nothing else\n";
    assert!(named.agent().stderr().contains(told), "{}", named.agent().stderr());
}

/// A setting of each key of a profile that takes rights to apply, or is not applied alone.
const ONLY_AS_ROOT: [&str; 15] = [
    "run_as = daemon",
    "caps = CAP_NET_BIND_SERVICE",
    "allow_dangerous_caps = yes",
    "writable = /srv",
    "readable = /usr",
    "no_new_privileges = no",
    "memory_max = 64MiB",
    "processes_max = 64",
    "cpu_max = 50",
    "files_max = 64",
    "network = no",
    "syscalls = off",
    "umask = 0077",
    "environment = MODE=test",
    "working_directory = /usr",
];

#[test]
fn each_key_that_has_no_effect_without_a_root_executor_is_named_with_its_profile() {
    let key = |setting: &&'static str| setting.split(' ').next().unwrap();
    let sections: Vec<String> =
        ONLY_AS_ROOT.iter().map(|setting| format!("[profile {}]\n{setting}\ntimeout = 60", key(setting))).collect();
    let all = format!("[profile all]\n{}\nkill_grace = 1\n", ONLY_AS_ROOT.join("\n"));
    let told = "id -u; umask; pwd; echo $MODE; ulimit -n; grep NoNewPrivs /proc/$$/status; wc -l < /proc/net/dev";
    let site = Site::builder().executor(Mode::Private).sh("ok", told).allow("all = {scripts}/ok profile=all");
    let mut site = site.section(&format!("{}\n{all}", sections.join("\n"))).prepare();
    let config = std::fs::read_to_string(site.agent().config()).unwrap();
    let place = |name: &str| {
        let line = config.lines().position(|line| line == format!("[profile {name}]")).unwrap() + 1;
        format!("{}:{line}", site.agent().config().display())
    };
    let keys: Vec<&str> = ONLY_AS_ROOT.iter().map(key).collect();
    let mut lines: Vec<(String, String)> = Vec::new();
    for (name, keys) in keys.iter().map(|key| (*key, (*key).to_owned())).chain([("all", keys.join(", "))]) {
        lines.push((place(name), format!("Profile '{name}': not applied without a root executor: {keys}")));
    }
    let checked = site.agent().command(&["self-check"]).stdout;
    site.start(0);
    let (started, logged) = (site.agent().stderr(), site.agent().lines("config-warn"));
    for (place, message) in &lines {
        assert!(started.contains(&format!("warning: {place}: {message}\n")), "{place} {message}\n{started}");
        assert!(checked.contains(&format!("  Warning: {place}: {message}\n")), "{place} {message}\n{checked}");
        let of = |line: &&Line| line.get("ENTRY") == Some(place) && line.get("MSG") == Some(message);
        assert_eq!(logged.iter().filter(of).count(), 1, "{place} {message}\n{logged:?}");
    }
    assert_eq!(started.matches("not applied without a root executor").count(), 2 * lines.len(), "{started}");
    assert_eq!(checked.matches("not applied without a root executor").count(), lines.len(), "{checked}");
    // And it is the truth: with all of them a script finds what it finds with none.
    let [with, without] = ["all", "ok"].map(|script| site.result(script, &[]));
    assert_eq!((&with["exit"], &with["stdout"]), (&without["exit"], &without["stdout"]), "{with} {without}");
    // What a reload brings is told as well.
    std::fs::write(site.agent().config(), config + "[profile late]\nnetwork = no\n").unwrap();
    site.agent().reload();
    let late = "Profile 'late': not applied without a root executor: network";
    site.agent().line_where("config-warn", |line| line.get("MSG") == Some(late));
}

#[test]
fn a_root_executor_applies_every_key_and_is_warned_of_none() {
    for mode in Mode::ROOT {
        let site = Site::builder().executor(mode).sh("ok", "true").section("umask = 0077\nnetwork = no").start();
        assert!(!site.agent().stderr().contains("without a root executor"), "{}", site.agent().stderr());
        assert!(!site.agent().command(&["self-check"]).stdout.contains("without a root executor"), "{mode:?}");
    }
}

#[test]
fn sigterm_ends_an_agent_with_success_and_leaves_no_process() {
    let mut site = Site::builder().start();
    let (agent, executor) = (site.agent().pid(), site.agent().executor());
    assert_eq!(site.agent_mut().stop(), Some(0));
    assert!(!host::alive(agent));
    crate::harness::eventually("the end of the executor", || (!host::alive(executor)).then_some(()));
}

#[test]
fn an_agent_hears_ipv6_and_ipv4_where_bind_says_so() {
    let mut site = Site::builder().prepare();
    let text = std::fs::read_to_string(site.agent().config()).unwrap();
    std::fs::write(site.agent().config(), text.replace("bind = 127.0.0.1", "bind = ::1, 127.0.0.1")).unwrap();
    site.start(0);
    site.control(&["ping", "agent1"]).exits(0);
    site.control(&["edit-agent", "agent1", "--ip", "::1"]).exits(0);
    let ran = site.control(&["--json", "ping", "agent1"]).exits(0);
    assert_eq!(ran.lines("ping")[0].get("TARGET").unwrap(), format!("[::1]:{}", site.agent().address().port()));
    site.agent().line_where("ping", |line| line.get("PEER") == Some("::1"));
}

#[test]
fn an_agent_whose_own_certificate_has_expired_serves_and_says_so_with_the_remedy() {
    let mut site = Site::builder().prepare();
    let present = site.agent().credentials.clone();
    let expired = pki::issue_expired(&site.authority(), "agent1");
    site.agent_mut().write_credentials(expired);
    site.agent_mut().start();
    let agent = site.agent();
    let said = |number: usize| {
        let warning = |line: &Line| line.get("KEY") == Some("cert");
        let line = agent.lines("config-warn").into_iter().filter(warning).nth(number).expect("a warning");
        line.is(&["ACTION=config-warn", "KEY=cert", "MSG=*"]);
        line.get("MSG").unwrap().to_owned()
    };
    let told = said(0);
    for part in ["agent.crt cannot serve: ", "expired on ", "pair this host again (ctrl-exec-agent request-pairing"] {
        assert!(told.contains(part), "{told}");
    }
    // Its own check says the same.
    let checked = agent.command(&["self-check"]).exits(1).stdout;
    let reason = told.split_once(" cannot serve: ").unwrap().1;
    assert!(checked.contains(reason), "{checked}\n{told}");
    assert_eq!(agent.reload().get("RESULT"), Some("ok"));
    assert_eq!(said(1), told);
    site.agent_mut().write_credentials(present);
    let agent = site.agent();
    assert_eq!(agent.reload().get("RESULT"), Some("ok"));
    assert_eq!(agent.lines("config-warn").iter().filter(|line| line.get("KEY") == Some("cert")).count(), 2);
}
