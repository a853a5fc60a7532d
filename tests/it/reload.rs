//! SIGHUP: everything is read again and takes effect as one snapshot, or nothing does.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::background::Background;
use crate::harness::executor::Mode;
use crate::harness::{Agent, Site, host, pki, tls};

fn replace(path: &Path, from: &str, to: &str) {
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from}: {text}");
    std::fs::write(path, text.replace(from, to)).unwrap();
}

fn append(path: &Path, text: &str) {
    let before = std::fs::read_to_string(path).unwrap();
    std::fs::write(path, before + text).unwrap();
}

fn capabilities(site: &Site, agent: &Agent) -> serde_json::Value {
    tls::connect(agent.address(), &site.authority(), &site.dispatcher()).get("/capabilities").json()
}

#[test]
fn a_reload_changes_scripts_tags_and_limits_at_once() {
    let site = Site::builder().sh("old", "echo old").agent("max_output = 4096").start();
    let agent = site.agent();
    let script = agent.write_script("new", "#!/bin/sh\necho 0123456789; sleep 300\n");
    std::fs::write(agent.allowlist(), format!("new = {} profile=quick\n", script.display())).unwrap();
    replace(&agent.config(), "max_output = 4096", "max_output = 1024");
    let quick = agent.profile("quick", "timeout = 1\nkill_grace = 0\n");
    append(&agent.config(), &format!("{quick}[tags]\nenv = test\n"));
    assert_eq!(site.result("old", &[])["exit"], 0, "nothing changes before the signal");
    agent.reload().is(&["ACTION=reload", "RESULT=ok"]);
    assert_eq!(site.result("old", &[])["error"], "script not permitted");
    let new = site.result("new", &[]);
    assert_eq!((&new["exit"], &new["reason"]), (&json!(126), &json!("time limit of 1000 ms passed")), "{new}");
    let seen = capabilities(&site, agent);
    assert_eq!((&seen["tags"], &seen["scripts"][0]["name"]), (&json!({"env": "test"}), &json!("new")), "{seen}");
    let executor = crate::harness::audit::lines(&agent.executor_stderr());
    let executor = executor.into_iter().find(|line| line.action() == "exec-reload").unwrap();
    assert_eq!(executor.ident, "ctrl-exec-exec");
    executor.is(&["ACTION=exec-reload"]);
}

/// Puts these lines above a configuration and reloads it.
fn with(agent: &Agent, config: &str, lines: &str) {
    std::fs::write(agent.config(), format!("{lines}\n{config}")).unwrap();
    agent.reload().is(&["ACTION=reload", "RESULT=ok"]);
}

#[test]
fn a_reload_takes_up_the_hook_and_its_time() {
    // A site with a hook is where nobody else could have put one.
    let site = Site::builder().sh("ok", "echo ran").agent_hook("exit 2").start();
    let agent = site.agent();
    assert_eq!(site.result("ok", &[])["error"], "not authorised: bad credentials");
    let text = std::fs::read_to_string(agent.config()).unwrap();
    let without: String = text.split_inclusive('\n').filter(|line| !line.starts_with("auth_hook")).collect();
    with(agent, &without, "");
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
    let slow = agent.write_script("slow-hook", "#!/bin/sh\nexec sleep 300\n");
    with(agent, &without, &format!("auth_hook = {}\nauth_hook_timeout = 1", slow.display()));
    assert_eq!(site.result("ok", &[])["error"], "not authorised: denied");
    agent.line("auth-hook-timeout").is(&["ACTION=auth-hook-timeout", "TIMEOUT=1"]);
    with(agent, &text, "");
    assert_eq!(site.result("ok", &[])["error"], "not authorised: bad credentials");
}

#[test]
fn a_reload_takes_up_the_limits_of_rates_and_of_requests() {
    let text = "echo > {work}/up; while [ ! -e {work}/go ]; do sleep 0.02; done";
    let site = Site::builder().agents(2).sh("wait", text).start();
    let (agent, stranger) = (&site.agents[0], &site.agents[1].credentials);
    let config = std::fs::read_to_string(agent.config()).unwrap();
    let garbage = || {
        let mut tcp = tls::tcp(agent.address());
        drop(std::io::Write::write_all(&mut tcp, b"GET / HTTP/1.1\r\n\r\n"));
        drop(std::io::Read::read_to_end(&mut tcp, &mut Vec::new()));
    };
    with(agent, &config, "rate_limit_probe = 1/600/3600");
    garbage();
    agent.line("rate-block").is(&["ACTION=rate-block", "PEER=127.0.0.1", "REASON=probe"]);
    with(agent, &config, "rate_limit_volume = 2/60/300");
    let ask = || tls::connect(agent.address(), &site.authority(), stranger).post("/ping", "{}").status;
    assert_eq!([ask(), ask()], [403, 403]);
    drop(tls::tcp(agent.address()));
    agent.line_where("rate-block", |line| line.get("REASON") == Some("volume"));
    with(agent, &config, "rate_limit_disable = yes");
    for _ in 0..15 {
        garbage();
        assert_eq!(ask(), 403);
    }
    assert_eq!(agent.lines("rate-block").len(), 2);
    with(agent, &config, "max_children = 1");
    let run = Background::start(site.control_command(&["--json", "run", "agent1", "wait"]));
    agent.worked("up");
    let ping = || tls::connect(agent.address(), &site.authority(), &site.dispatcher()).post("/ping", "{}").status;
    assert_eq!(ping(), 503);
    with(agent, &config, "max_children = 2");
    assert_eq!(ping(), 200);
    std::fs::write(agent.work("go"), "").unwrap();
    run.end().exits(0);
}

#[test]
fn a_reload_takes_up_where_scripts_may_be_and_what_sidecars_decide() {
    let site = Site::builder().sh("ok", "echo ran").start();
    let agent = site.agent();
    let config = std::fs::read_to_string(agent.config()).unwrap();
    with(agent, &config, "script_dirs = /usr/bin");
    assert_eq!(site.result("ok", &[])["error"], "script not permitted");
    assert_eq!(capabilities(&site, agent)["scripts"], json!([]));
    with(agent, &config, &format!("script_dirs = {}", agent.root.join("scripts").display()));
    assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
    let sidecar = agent.root.join("scripts/ok.schema.json");
    std::fs::write(sidecar, r#"{"arguments": {"type": "object", "properties": {}}, "argv": []}"#).unwrap();
    with(agent, &config, "schema = enforce");
    assert_eq!(site.result("ok", &["x"])["reason"], "arguments-not-allowed");
    with(agent, &config, "schema = advertise");
    assert_eq!(site.result("ok", &["x"])["stdout"], "ran\n");
}

#[test]
fn a_reload_takes_up_lists_at_other_places() {
    let site = Site::builder().start();
    let agent = site.agent();
    let config = std::fs::read_to_string(agent.config()).unwrap();
    let other = pki::issue(&site.authority(), "control-2");
    let ask = |who: &pki::Credentials| {
        let answer = tls::connect(agent.address(), &site.authority(), who).post("/ping", "{}");
        (answer.status, answer.json()["error"].as_str().map(str::to_owned))
    };
    let refused = |text: &str| (403, Some(text.to_owned()));
    let list = agent.root.join("etc/ctrl-exec-agent/another-list");
    std::fs::write(&list, format!("{} control-2\n", other.serial())).unwrap();
    assert_eq!((ask(&site.dispatcher()), ask(&other)), ((200, None), refused("serial mismatch")));
    with(agent, &config, &format!("trusted_dispatchers_path = {}", list.display()));
    assert_eq!((ask(&site.dispatcher()), ask(&other)), (refused("serial mismatch"), (200, None)));
    with(agent, &config, "");
    std::fs::write(&list, site.dispatcher().serial()).unwrap();
    assert_eq!(ask(&site.dispatcher()), (200, None));
    with(agent, &config, &format!("revoked_serials = {}", list.display()));
    assert_eq!(ask(&site.dispatcher()), refused("certificate revoked"));
    with(agent, &config, "");
    assert_eq!(ask(&site.dispatcher()), (200, None));
}

#[test]
fn a_reload_takes_up_certificate_key_and_ca_at_other_places() {
    let site = Site::builder().start();
    let agent = site.agent();
    let config = std::fs::read_to_string(agent.config()).unwrap();
    let etc = agent.root.join("etc/ctrl-exec-agent");
    let ca = pki::foreign_authority();
    let (own, caller) = (pki::issue(&ca, &agent.name), pki::issue(&ca, "control-2"));
    std::fs::write(etc.join("new-ca.crt"), ca.certificate().to_pem()).unwrap();
    std::fs::write(etc.join("new-agent.crt"), &own.cert).unwrap();
    crate::harness::agent::write_key(&etc.join("new-agent.key"), &own.key);
    append(&agent.trust(), &format!("{} control-2\n", caller.serial()));
    let elsewhere = ["agent.crt", "agent.key", "ca.crt"]
        .iter()
        .fold(config.clone(), |text, file| text.replace(&format!("/{file}\n"), &format!("/new-{file}\n")));
    with(agent, &elsewhere, "");
    assert_eq!(tls::connect(agent.address(), &ca, &caller).post("/ping", "{}").status, 200);
    site.control(&["ping", "agent1"]).exits(1);
    // One of the three without the others is no identity.
    std::fs::write(agent.config(), config.replace("/agent.key\n", "/new-agent.key\n")).unwrap();
    assert_eq!(agent.reload().get("RESULT"), Some("kept the old configuration"));
    assert_eq!(tls::connect(agent.address(), &ca, &caller).post("/ping", "{}").status, 200);
    with(agent, &config, "");
    site.control(&["ping", "agent1"]).exits(0);
}

#[test]
fn a_reload_takes_up_whether_scripts_may_be_anybodys() {
    for mode in Mode::ROOT {
        let site = Site::builder().executor(mode).sh("ok", "echo ran").start();
        let agent = site.agent();
        let config = std::fs::read_to_string(agent.config()).unwrap();
        let script = agent.root.join("scripts/ok");
        std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o777)).unwrap();
        for _ in 0..2 {
            let refused = site.result("ok", &[]);
            assert_eq!(
                (&refused["exit"], &refused["error"]),
                (&json!(-1), &json!("script not permitted")),
                "{refused}"
            );
            with(agent, &config, "trusted_paths = no");
            assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
            with(agent, &config, "");
        }
    }
}

#[test]
fn a_reload_says_which_keys_wait_for_a_restart() {
    let mut site = Site::builder().executor(Mode::Private).prepare();
    let config = std::fs::read_to_string(site.agent().config()).unwrap();
    site.start(0);
    let agent = site.agent();
    let page = include_str!("../../assets/man/ctrl-exec-agent.conf.5");
    let told = page.split(".Dv SIGHUP").nth(1).unwrap().split(".Pp").next().unwrap();
    for (from, key, value) in [
        ("port = 0", "port", "1"),
        ("bind = 127.0.0.1", "bind", "127.0.0.2"),
        ("user = nobody", "user", "games"),
        ("", "executor_socket", "/run/none.sock"),
        ("", "async_runs_dir", "/var/none"),
    ] {
        let fresh = if from.is_empty() {
            format!("{key} = {value}\n{config}")
        } else {
            config.replace(from, &format!("{key} = {value}"))
        };
        with(agent, &fresh, "");
        let line = agent.line_where("config-warn", |line| line.get("KEY") == Some(key));
        assert_eq!(line.get("MSG"), Some("takes effect at the next restart"));
        assert!(told.contains(&format!(".Ic {key}")), "the manual page does not say so of {key}");
        with(agent, &config, "");
        site.control(&["ping", "agent1"]).exits(0);
    }
}

#[test]
fn a_broken_file_keeps_all_of_the_old_state_and_says_where() {
    let site = Site::builder().sh("ok", "echo ran").start();
    let agent = site.agent();
    for (path, line) in [(agent.config(), "\nprot = 1\n"), (agent.allowlist(), "\nx = /x # why\n")] {
        let (sound, trust) = (std::fs::read_to_string(&path).unwrap(), std::fs::read_to_string(agent.trust()).unwrap());
        append(&path, line);
        // A change that is right in itself does not slip in beside the broken one.
        std::fs::write(agent.trust(), "").unwrap();
        let said = agent.reload();
        said.is(&["ACTION=reload", "ERROR=*", "RESULT=kept the old configuration"]);
        let place = format!("{}:{}:", path.display(), sound.lines().count() + 2);
        assert!(said.get("ERROR").unwrap().contains(&place), "{said:?}");
        assert_eq!(site.result("ok", &[])["stdout"], "ran\n");
        std::fs::write(&path, sound).unwrap();
        std::fs::write(agent.trust(), trust).unwrap();
        agent.reload().is(&["ACTION=reload", "RESULT=ok"]);
    }
}

#[test]
fn a_line_of_the_revocation_list_that_cannot_be_read_is_told_and_unrevokes_nobody() {
    let site = Site::builder().start();
    let agent = site.agent();
    let serial = site.dispatcher().serial();
    std::fs::write(agent.revoked(), [b"\xef\xbb\xbf", serial.as_bytes(), b" # M\xfcller\nno serial\n"].concat())
        .unwrap();
    let said = agent.reload();
    said.is(&["ACTION=reload", "ERROR=*", "RESULT=incomplete"]);
    assert!(said.get("ERROR").unwrap().contains("no serial on line 2: it revokes nothing"), "{said:?}");
    let refused = tls::connect(agent.address(), &site.authority(), &site.dispatcher()).post("/ping", "{}");
    assert_eq!(refused.json()["error"], "certificate revoked");
    std::fs::write(agent.revoked(), b"# M\xfcller\n").unwrap();
    agent.reload().is(&["ACTION=reload", "RESULT=ok"]);
    site.control(&["ping", "agent1"]).exits(0);
}

#[test]
fn whatever_cannot_be_read_refuses_the_reload() {
    let site = Site::builder().start();
    let agent = site.agent();
    let etc = agent.root.join("etc/ctrl-exec-agent");
    for file in [agent.revoked(), agent.trust(), etc.join("agent.crt"), etc.join("agent.key"), etc.join("ca.crt")] {
        let kept = std::fs::read(&file).ok();
        drop(std::fs::remove_file(&file));
        std::fs::create_dir(&file).unwrap();
        let said = agent.reload();
        assert_eq!(said.get("RESULT"), Some("kept the old configuration"), "{}: {said:?}", file.display());
        assert!(said.get("ERROR").unwrap().contains(&file.display().to_string()), "{said:?}");
        std::fs::remove_dir(&file).unwrap();
        if let Some(bytes) = kept {
            std::fs::write(&file, bytes).unwrap();
            if file.ends_with("agent.key") {
                crate::harness::agent::write_key(&file, &agent.credentials.key);
            }
        }
        site.control(&["ping", "agent1"]).exits(0);
    }
    assert_eq!(agent.reload().get("RESULT"), Some("ok"));
}

#[test]
fn a_renewed_certificate_is_shown_from_the_next_handshake_on() {
    let mut site = Site::builder().start();
    let mut open = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    assert_eq!(open.post("/ping", "{}").status, 200);
    let renewed = pki::issue(&site.authority(), "agent1");
    site.agent_mut().write_credentials(renewed.clone());
    site.agent().reload();
    let fresh = tls::connect(site.agent().address(), &site.authority(), &site.dispatcher());
    let shown = fresh.stream.conn.peer_certificates().unwrap()[0].clone();
    assert_eq!(shown.as_ref(), renewed.certificate().der().as_ref());
    assert_eq!(open.post("/ping", "{}").status, 200, "an open connection goes on");
    let refused = site.control(&["--json", "ping", "agent1"]).exits(1).result();
    assert!(refused["error"].as_str().unwrap().contains("another key than the one it was paired with"), "{refused}");
}

#[test]
fn a_run_under_way_finishes_by_the_old_rules() {
    let text = "echo started > {work}/started; while [ ! -e {work}/go ]; do sleep 0.02; done; echo done";
    let site = Site::builder().sh("wait", text).start();
    let agent = site.agent();
    let run = Background::start(site.control_command(&["--json", "run", "agent1", "wait"]));
    agent.worked("started");
    std::fs::write(agent.allowlist(), "").unwrap();
    for _ in 0..3 {
        agent.reload().is(&["ACTION=reload", "RESULT=ok"]);
    }
    assert_eq!(site.result("wait", &[])["error"], "script not permitted");
    std::fs::write(agent.work("go"), "").unwrap();
    assert_eq!(run.end().exits(0).result()["stdout"], "done\n");
}

#[test]
fn reloads_under_load_lose_no_request() {
    let site = Site::builder().sh("ok", "echo ran").start();
    let load = |_| Background::start(site.control_command(&["--json", "run", "agent1", "ok"]));
    let runs: Vec<Background> = (0..16).map(load).collect();
    for _ in 0..8 {
        site.agent().reload();
    }
    for run in runs {
        assert_eq!(run.end().exits(0).result()["stdout"], "ran\n");
    }
}

/// Two connections of one dispatcher, each with a request on it before the reload and one behind.
fn refused_after_a_reload(site: &Site, mut change: impl FnMut(&Agent), line: &[&str]) {
    let agent = site.agent();
    let mut open = [0, 1].map(|_| tls::connect(agent.address(), &site.authority(), &site.dispatcher()));
    for connection in &mut open {
        assert_eq!(connection.post("/ping", "{}").status, 200);
    }
    change(agent);
    assert_eq!(agent.reload().get("RESULT"), Some("ok"));
    for (connection, path) in open.iter_mut().zip(["/ping", "/run"]) {
        let refused = connection.post(path, r#"{"script":"ok"}"#);
        assert_eq!((refused.status, refused.json()["error"].as_str()), (403, Some("forbidden")), "{refused:?}");
        assert!(connection.rest().is_empty(), "the connection ends");
    }
    let found = agent.lines(line[0].trim_start_matches("ACTION="));
    assert_eq!(found.len(), 2, "{found:?}");
    found[0].is(line);
    assert!(agent.lines("run").is_empty());
}

#[test]
fn an_address_that_is_not_allowed_any_more_loses_its_open_connections() {
    let site = Site::builder().sh("ok", "echo ran").start();
    let narrow = |agent: &Agent| {
        let text = std::fs::read_to_string(agent.config()).unwrap();
        std::fs::write(agent.config(), format!("allowed_ips = 192.0.2.0/24\n{text}")).unwrap();
    };
    refused_after_a_reload(&site, narrow, &["ACTION=ip-block", "PEER=127.0.0.1"]);
}

#[test]
fn a_peer_of_a_ca_that_was_replaced_loses_its_open_connections() {
    let site = Site::builder().sh("ok", "echo ran").start();
    let replace = |agent: &Agent| {
        let ca = pki::foreign_authority();
        let own = pki::issue(&ca, &agent.name);
        let etc = agent.root.join("etc/ctrl-exec-agent");
        std::fs::write(etc.join("ca.crt"), ca.certificate().to_pem()).unwrap();
        std::fs::write(etc.join("agent.crt"), &own.cert).unwrap();
        crate::harness::agent::write_key(&etc.join("agent.key"), &own.key);
    };
    refused_after_a_reload(&site, replace, &["ACTION=tls-failure", "PEER=127.0.0.1", "REASON=*"]);
}

/// Until the signal waits, the executor is not there to answer, so that the start goes no further.
#[test]
fn a_signal_that_comes_before_the_agent_listens_does_not_end_it_and_is_not_lost() {
    let mut site = Site::builder().executor(Mode::System).sh("ok", "echo ran").prepare();
    site.agent_mut().start_service();
    let executor = site.agent().service().pid();
    host::kill(executor, Signal::SIGSTOP);
    let waits = "until grep -q '^SigBlk:.*[13579bdf]$' /proc/$$/status; do :; done";
    let words = format!("( {waits}; kill -HUP $$; kill -CONT {executor} ) &");
    site.agent_mut().start_with(&words, [Stdio::null(), Stdio::null()]);
    site.agent().line("reload").is(&["ACTION=reload", "RESULT=ok"]);
    let seen = capabilities(&site, site.agent());
    assert_eq!(seen["scripts"][0]["name"], "ok", "{seen}");
}
