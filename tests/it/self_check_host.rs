//! What `self-check` says of the host that an agent is to serve on: its port, its places, its lists, its profiles.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use time::{Duration, OffsetDateTime};

use crate::harness::executor::Mode;
use crate::harness::process::{Ran, finish, program};
use crate::harness::{Agent, Site, binary, host, pki};

/// What a check says that fails.
#[track_caller]
fn fails(agent: &Agent, part: &str) -> String {
    let ran = agent.command(&["self-check"]).exits(1);
    assert!(ran.stdout.contains(part), "{part}: {ran:?}");
    ran.stdout
}

fn rewrite(agent: &Agent, from: &str, to: &str) {
    let text = std::fs::read_to_string(agent.config()).unwrap();
    assert!(text.contains(from), "{from}: {text}");
    std::fs::write(agent.config(), text.replace(from, to)).unwrap();
}

#[test]
fn a_port_that_another_program_holds_fails_the_check_and_that_of_the_agent_itself_does_not() {
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = taken.local_addr().unwrap().port();
    let mut site = Site::builder().prepare();
    rewrite(site.agent(), "port = 0\n", &format!("port = {port}\n"));
    let (pid, line) = (std::process::id(), format!("  Port: cannot listen on 127.0.0.1:{port}: Address "));
    let said = fails(site.agent(), &line);
    assert!(said.contains(&format!(": process {pid} (")) && said.contains("agent.conf:"), "{said}");
    site.agent().command(&["serve"]).exits(69);
    drop(taken);
    assert!(site.agent().command(&["self-check"]).exits(0).stdout.contains("  Port OK\n"));
    site.start(0);
    let said = site.agent().command(&["self-check"]).exits(0).stdout;
    assert!(said.contains(&format!("  Port: 127.0.0.1:{port} is the running agent's (process ")), "{said}");
    // Another agent's configuration makes it another program.
    let other = site.agent().root.join("etc/ctrl-exec-agent/other.conf");
    std::fs::copy(site.agent().config(), &other).unwrap();
    let ran = site.agent().command(&["--config", other.to_str().unwrap(), "self-check"]).exits(1);
    assert!(ran.stdout.contains(&line), "{ran:?}");
}

#[test]
fn an_address_that_the_host_does_not_have_fails_the_check() {
    let site = Site::builder().prepare();
    rewrite(site.agent(), "bind = 127.0.0.1\n", "bind = 192.0.2.7\n");
    let said = fails(site.agent(), "  Port: cannot listen on 192.0.2.7:0: ");
    assert!(said.contains("'bind' must name addresses that this host has") && said.contains("agent.conf:"), "{said}");
    site.agent().command(&["serve"]).exits(69);
}

#[test]
fn places_that_the_agent_cannot_write_to_fail_the_check() {
    let site = Site::builder().prepare();
    let agent = site.agent();
    let state = agent.root.join("var/lib/ctrl-exec-agent");
    let file = agent.root.join("file");
    std::fs::write(&file, "").unwrap();
    let good = std::fs::read_to_string(agent.config()).unwrap();
    let with = |line: &str| std::fs::write(agent.config(), format!("{line}\n{good}")).unwrap();
    with(&format!("async_runs_dir = {}/runs", file.display()));
    let said = fails(agent, &format!("cannot make a directory in {}: Not a directory", file.display()));
    assert!(said.contains(": no job can be accepted (") && said.contains("agent.conf:1)"), "{said}");
    with("cert_staging_path = /no/such/place/agent.crt.staged");
    let said = fails(agent, "  State: cannot write to /no/such/place: No such file");
    assert!(said.contains(": no renewed certificate can be taken ("), "{said}");
    std::fs::write(agent.config(), &good).unwrap();
    agent.command(&["self-check"]).exits(0);
    let said = read_only(agent, &state).stdout;
    let reason = format!("{}: Read-only file system", state.display());
    assert!(said.contains(&reason) && !said.contains("Permission denied"), "{said}");
    std::os::unix::fs::chown(&state, Some(0), Some(0)).unwrap();
    std::fs::set_permissions(&state, std::fs::Permissions::from_mode(0o755)).unwrap();
    let said = fails(agent, &format!("{}: Permission denied", state.display()));
    assert!(said.contains(": no dispatcher can change its certificate ("), "{said}");
    assert!(said.contains(": no job can be accepted ("), "{said}");
}

/// The check of a host that has this directory on a read-only file system.
fn read_only(agent: &Agent, directory: &Path) -> Ran {
    let words = "mount -o bind \"$0\" \"$0\" && mount -o remount,bind,ro \"$0\" && exec \"$@\"";
    let mut command = program("unshare".as_ref());
    command.args(["--mount", "sh", "-c", words]).arg(directory).arg(binary());
    command.args(["agent", "--root"]).arg(&agent.root).arg("self-check");
    finish(command, "").exits(1)
}

#[test]
fn a_list_that_is_a_link_to_nothing_is_not_an_empty_list() {
    let mut site = Site::builder().start();
    for list in [site.agent().revoked(), site.agent().trust()] {
        let agent = site.agent();
        let (aside, kept) = (list.with_extension("aside"), std::fs::read_to_string(&list).unwrap_or_default());
        std::fs::write(&aside, format!("{kept}{} control-9\n", "deadbeef")).unwrap();
        drop(std::fs::remove_file(&list));
        std::os::unix::fs::symlink(&aside, &list).unwrap();
        assert!(agent.reload().get("RESULT").is_some_and(|result| result != "kept the old configuration"));
        std::fs::remove_file(&aside).unwrap();
        let said = agent.reload();
        said.is(&["ACTION=reload", "ERROR=*", "RESULT=kept the old configuration"]);
        let error = said.get("ERROR").unwrap().to_owned();
        assert!(error.contains(&list.display().to_string()) && error.contains("does not exist"), "{error}");
        fails(agent, &format!("cannot follow the link {}", list.display()));
        site.control(&["ping", "agent1"]).exits(0);
        site.agent_mut().stop();
        let ran = site.agent().command(&["serve"]).exits(78);
        assert!(ran.stderr.contains(&list.display().to_string()), "{ran:?}");
        std::fs::remove_file(&list).unwrap();
        std::fs::write(&list, kept).unwrap();
        site.start(0);
    }
}

#[test]
fn lines_that_mean_nothing_fail_the_check_and_so_does_trust_in_the_revoked_alone() {
    let site = Site::builder().prepare();
    let agent = site.agent();
    let trust = std::fs::read_to_string(agent.trust()).unwrap();
    std::fs::write(agent.revoked(), "what is this\n").unwrap();
    let said = fails(agent, "  Revocation: a line in ");
    assert!(!said.contains("Revocation OK"), "{said}");
    assert!(agent.command(&["self-check"]).exits(1).stderr.contains("revoked-serials:1 "));
    std::fs::write(agent.revoked(), format!("{}\n", site.dispatcher().serial())).unwrap();
    let said = fails(agent, "  Trust: 1 of the 1 serials in ");
    assert!(said.contains(": every request is denied\n"), "{said}");
    std::fs::write(agent.trust(), format!("{trust}abc123 control-2\n")).unwrap();
    let said = agent.command(&["self-check"]).exits(0).stdout;
    assert!(said.contains("  Trust: 1 of the 2 serials in ") && !said.contains("denied"), "{said}");
    std::fs::remove_file(agent.revoked()).unwrap();
    std::fs::write(agent.trust(), format!("{trust}xyz\nzzz y\n")).unwrap();
    fails(agent, "  Trust: 2 lines in ");
    std::fs::write(agent.trust(), trust).unwrap();
    agent.command(&["self-check"]).exits(0);
}

#[test]
fn a_staged_certificate_that_would_be_thrown_away_fails_the_check() {
    let mut site = Site::builder().prepare();
    let (ca, present) = (site.authority(), site.agent().credentials.clone());
    let staged = site.agent().root.join("var/lib/ctrl-exec-agent/agent.crt.staged");
    let stage = |text: &str| {
        std::fs::write(&staged, text).unwrap();
        host::give_to_agent(&staged);
    };
    let now = OffsetDateTime::now_utc();
    site.agent_mut().write_credentials(pki::reissue_at(&ca, "agent1", &present, 30, now - Duration::days(20)));
    for (text, part) in [
        ("garbage\n".to_owned(), ""),
        (pki::issue(&ca, "agent1").cert, ""),
        (pki::reissue_at(&pki::foreign_authority(), "agent1", &present, 60, now).cert, ""),
    ] {
        stage(&text);
        let said = fails(site.agent(), &format!("  Renewed certificate: {} is not taken up: ", staged.display()));
        assert!(said.contains(part) && staged.exists(), "{said}");
    }
    stage(&pki::reissue_at(&ca, "agent1", &present, 60, now).cert);
    let said = site.agent().command(&["self-check"]).exits(0).stdout;
    assert!(said.contains("  Renewed certificate OK ("), "{said}");
    assert!(staged.exists());
}

#[test]
fn a_profile_that_runs_as_the_agent_fails_every_check_and_is_not_recommended() {
    let site = Site::builder().executor(Mode::Own).prepare();
    for account in ["nobody", "65534"] {
        let text = std::fs::read_to_string(site.agent().config()).unwrap();
        std::fs::write(site.agent().config(), format!("{text}[profile x{account}]\nrun_as = {account}\n")).unwrap();
        let ran = site.agent().command(&["self-check"]).exits(1);
        assert!(ran.stdout.contains("  Profiles: the executor refuses them\n"), "{ran:?}");
        for told in [
            ran.stderr,
            site.agent().command(&["serve", "--check"]).exits(78).stderr,
            site.agent().command(&["serve"]).exits(78).stderr,
        ] {
            let part = format!("Profile 'x{account}': run_as '{account}' is the agent's own account");
            assert!(told.contains(&part) && told.contains("'run_as = daemon'"), "{told}");
        }
    }
}

const REFUSED: &str = "  Profile 'x': every run is refused here: ";

#[test]
fn a_limit_on_files_that_the_executor_cannot_set_is_named() {
    let site = Site::builder().executor(Mode::Own).section("[profile x]\nrun_as = daemon\nfiles_max = 500").prepare();
    let check = |most: u64| {
        let mut command = program("sh".as_ref());
        let words = format!("ulimit -n {most}; exec \"$0\" agent --root \"$1\" self-check");
        finish(
            {
                command.args(["-c", &words]).arg(binary()).arg(&site.agent().root);
                command
            },
            "",
        )
    };
    let said = check(499).exits(1).stdout;
    let line = format!("{REFUSED}files_max: 500 is above the executor's own hard limit of 499 open files: ");
    assert!(said.contains(&line) && said.contains("'LimitNOFILE='"), "{said}");
    check(500).exits(0);
}

#[test]
fn a_profile_that_refuses_every_run_is_named_with_what_is_wrong() {
    for mode in Mode::ROOT {
        let mut site = Site::builder().executor(mode).sh("ok", "true").prepare();
        if mode == Mode::System {
            site.agent_mut().start_service();
        }
        let agent = site.agent();
        let work = agent.root.join("work").display().to_string();
        std::os::unix::fs::symlink("/srv", agent.work("link")).unwrap();
        let good = std::fs::read_to_string(agent.config()).unwrap();
        for (lines, why) in [
            ("writable = /proc", "its writable path /proc is read-only in every run"),
            ("writable = {w}/none", "writable: {w}/none: No such file or directory"),
            ("writable = {w}/link", "writable: {w}/link is reached through a symbolic link"),
            ("readable = {w}/none", "readable: {w}/none: No such file or directory"),
            ("working_directory = /no/such", "working_directory: /no/such: No such file or directory"),
            ("working_directory = /root", "working_directory: /root: Permission denied"),
            ("writable = {w}\nworking_directory = /run/lock", "working_directory: /run/lock: No such file"),
            ("writable = {w}\nworking_directory = /dev/shm", ""),
        ] {
            let text = format!("{good}[profile x]\nrun_as = daemon\n{}\n", lines.replace("{w}", &work));
            std::fs::write(agent.config(), text).unwrap();
            let ran = agent.command(&["self-check"]);
            let line = format!("{REFUSED}{}", why.replace("{w}", &work));
            assert_eq!(ran.code, i32::from(!why.is_empty()), "{mode:?} {lines}: {ran:?}");
            assert_eq!(ran.stdout.contains(&line), !why.is_empty(), "{mode:?} {lines}: {ran:?}");
            assert_eq!(ran.stdout.contains("  Profiles OK\n"), why.is_empty(), "{mode:?} {lines}: {ran:?}");
        }
    }
}
