//! `ctrl-exec-exec` by the words of the original, through a link of that name.

use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::builder;
use super::client::{AGENT, play};
use crate::harness::binary;
use crate::harness::executor::Service;
use crate::harness::process::{Ran, finish, program};

const SETTINGS: &str = "port = 7443\ncert = /etc/x/c\nkey = /etc/x/k\nca = /etc/x/a\nscript_dirs = /bin:/usr/bin\n\
    [profile default]\nrun_as = nobody\n[profile ops]\nrun_as = root\ncaps = CAP_CHOWN, CAP_KILL\nwritable = /srv:/opt\n\
    no_new_privileges = no\n";
const SCRIPTS: &str = "plain = /bin/true\nstrong = /bin/sh profile=ops\noutside = /etc/passwd\nlost = /bin/ls profile=none\n\
    changed = /bin/true sha256=0000000000000000000000000000000000000000000000000000000000000000\n";

/// What has a default elsewhere.
const NAMED: &str = "trusted_dispatchers_path = /etc/x/t\nrevoked_serials = /etc/x/r\ncert_staging_path = /etc/x/s\n\
    async_runs_dir = /etc/x/runs\n";

/// The link, and both files beside it; the agent's own files are there, too.
struct Place(TempDir);

impl Place {
    fn new(settings: &str, scripts: &str) -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        symlink(binary(), place.path("ctrl-exec-exec")).unwrap();
        let settings = settings.replace("/etc/x/", &format!("{}/", place.0.path().display()));
        std::fs::write(place.path("agent.conf"), settings).unwrap();
        std::fs::write(place.path("scripts.conf"), scripts).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = program(&self.path("ctrl-exec-exec"));
        command.args(words).current_dir(self.0.path());
        command
    }

    fn resolve(&self, name: &str) -> Ran {
        finish(self.command(&["resolve", "agent.conf", "scripts.conf", name]), "")
    }
}

#[test]
fn each_decision_is_one_line_on_standard_output_and_status_0() {
    let place = Place::new(SETTINGS, SCRIPTS);
    for (name, line) in [
        ("plain", "OK path=/bin/true|profile=default|run_as=nobody|nnp=1|caps=|writable=\n"),
        ("strong", "OK path=/bin/sh|profile=ops|run_as=root|nnp=0|caps=CAP_CHOWN,CAP_KILL|writable=/srv:/opt\n"),
        ("unlisted", "DENY not-allowlisted\n"),
        ("../plain", "DENY not-allowlisted\n"),
    ] {
        let ran = place.resolve(name).exits(0);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), (line, ""), "{name}");
    }
    // What the word leaves open is said besides, where it does not get into what reads the line.
    for (name, line, reason) in [
        ("outside", "DENY not-in-script-dirs\n", "script_dirs"),
        ("lost", "DENY undefined-profile\n", "[profile none]"),
        ("changed", "DENY script-changed\n", "sha256"),
    ] {
        let ran = place.resolve(name).exits(0);
        assert_eq!(ran.stdout, line);
        assert!(ran.stderr.contains(reason) && ran.stderr.lines().count() == 1, "{ran:?}");
    }
}

#[test]
fn what_every_run_is_refused_for_is_no_ok() {
    let memory = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default().contains("memory");
    for (lines, why) in [
        ("", ""),
        ("writable = /no/such", "writable: /no/such: No such file or directory"),
        ("readable = /no/such", "readable: /no/such: No such file or directory"),
        ("working_directory = /no/such", "working_directory: /no/such: No such file or directory"),
        ("files_max = 1048576", "files_max: 1048576 is above the executor's own hard limit of 4096 open files"),
        ("files_max = 4096", ""),
        ("caps = CAP_CHOWN", "caps: CAP_CHOWN cannot be given"),
        ("memory_max = 64M", if memory { "" } else { "memory_max: " }),
    ] {
        // All of the agent's places are there: no default one is missing on this host, for which such a run would be refused.
        let named = SETTINGS.replace("script_dirs", &format!("{NAMED}script_dirs"));
        let place = Place::new(
            &named.replace("run_as = nobody\n", &format!("run_as = nobody\n{lines}\n")),
            "plain = /bin/true\n",
        );
        let words = ["--bounding-set", if lines.starts_with("caps") { "-chown" } else { "+all" }];
        let mut command = program(std::path::Path::new("/bin/sh"));
        let limited = "ulimit -n 4096 && exec setpriv \"$@\"";
        command.args(["-c", limited, "sh"]).args(words).arg(place.path("ctrl-exec-exec"));
        command.args(["resolve", "agent.conf", "scripts.conf", "plain"]).current_dir(place.0.path());
        let ran = finish(command, "").exits(0);
        if why.is_empty() {
            assert!(ran.stdout.starts_with("OK path=/bin/true|") && ran.stderr.is_empty(), "{lines}: {ran:?}");
            continue;
        }
        // What a run ends with, too.
        let (word, what) = if lines.starts_with("working_directory") {
            ("not-started", "no script starts")
        } else {
            ("not-confined", "every run is refused")
        };
        assert_eq!(ran.stdout, format!("DENY {word}\n"), "{lines}: {ran:?}");
        let reason = format!("profile 'default': {what} on this host: {why}");
        assert!(ran.stderr.contains(&reason) && ran.stderr.lines().count() == 1, "{lines}: {ran:?}");
    }
}

#[test]
fn a_broken_configuration_is_told_on_standard_error_with_status_2() {
    let without_account = SETTINGS.replace("run_as = nobody\n", "");
    for (settings, scripts, place, text) in [
        (SETTINGS.replace("port = 7443", "port = many"), SCRIPTS, "agent.conf:1:8: ", "port"),
        (without_account, SCRIPTS, "agent.conf:6:2: ", "no run_as"),
        (SETTINGS.to_owned(), "plain = /bin/true # why\n", "scripts.conf:1:19: ", "comment"),
    ] {
        let ran = Place::new(&settings, scripts).resolve("plain").exits(2);
        assert!(ran.stdout.is_empty() && ran.stderr.contains(place) && ran.stderr.contains(text), "{ran:?}");
    }
    let place = Place::new(SETTINGS, SCRIPTS);
    std::fs::remove_file(place.path("scripts.conf")).unwrap();
    let ran = place.resolve("plain").exits(2);
    assert!(ran.stdout.is_empty() && ran.stderr.contains("scripts.conf"), "{ran:?}");
}

#[test]
fn other_words_show_the_usage_on_standard_error_with_status_1() {
    let place = Place::new(SETTINGS, SCRIPTS);
    for words in [
        &[][..],
        &["resolve"],
        &["resolve", "agent.conf", "scripts.conf"],
        &["resolve", "agent.conf", "scripts.conf", "plain", "more"],
        &["serve", "x.sock", "agent.conf", "scripts.conf"],
        &["plain"],
    ] {
        let ran = finish(place.command(words), "").exits(1);
        assert!(ran.stdout.is_empty() && ran.stderr.starts_with("Usage: ctrl-exec-exec serve SOCKET "), "{ran:?}");
    }
    let help = finish(place.command(&["--help"]), "").exits(0);
    assert!(help.stdout.starts_with("Usage: ctrl-exec-exec serve SOCKET ") && help.stderr.is_empty(), "{help:?}");
}

#[test]
fn the_service_takes_its_socket_files_and_front_end_in_the_original_s_order() {
    let mut site = builder().prepare();
    let place = Place::new("", "");
    let (root, socket) = (site.agent().root.clone(), site.agent().socket());
    let etc = root.join("etc/ctrl-exec-agent");
    let mut command = place.command(&["serve"]);
    command.arg(&socket).arg(etc.join("agent.conf")).arg(etc.join("scripts.conf")).arg("nobody");
    command.env("CTRL_EXEC_ROOT", &root);
    let service = Service::of(command, &root, 1);
    assert_eq!(play(AGENT, &socket, "output"), "started, ended 0: ran as 1|");
    // An agent finds it as it finds one that was started in any other way.
    site.agent_mut().adopt_service(service);
    site.start(0);
    assert_eq!(site.result("ok", &[])["stdout"], "ran as 1\n");
    let service = site.agent_mut().take_service();
    assert_eq!(service.end(Signal::SIGTERM), Some(0));
    assert!(!socket.exists());
}
