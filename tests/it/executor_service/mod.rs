//! The executor as a service of the system: its socket, its visitors, its configuration and its end.

mod client;
mod words;

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::Signal;

use crate::harness::executor::{Mode, Service};
use crate::harness::process::{finish, program};
use crate::harness::site::Builder;
use crate::harness::{Site, audit, binary, eventually, host};
use client::{AGENT, STRANGER, play, play_further_in};

fn builder() -> Builder {
    Site::builder().executor(Mode::System).sh("ok", "echo ran as $(id -u)")
}

/// With the service, and without an agent.
fn service(builder: Builder) -> Site {
    let mut site = builder.prepare();
    site.agent_mut().start_service();
    site
}

#[test]
fn the_socket_is_the_agent_s_alone() {
    let site = service(builder());
    let facts = std::fs::symlink_metadata(site.agent().socket()).unwrap();
    assert!(facts.file_type().is_socket());
    assert_eq!((facts.mode() & 0o7777, facts.uid(), facts.gid()), (0o600, AGENT, 65_534));
    assert_eq!(play(AGENT, &site.agent().socket(), "hello"), "\"done\"");
    assert_eq!(play(0, &site.agent().socket(), "hello"), "\"done\"");
    assert_eq!(play(STRANGER, &site.agent().socket(), "hello"), "PermissionDenied");
}

#[test]
fn who_is_neither_the_agent_nor_root_is_closed_without_a_byte_and_logged() {
    let site = service(builder());
    let socket = site.agent().socket();
    std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(play(STRANGER, &socket, "hello"), "");
    let line = site.agent().service().line_where("exec-peer-reject", |_| true);
    assert_eq!((line.ident.as_str(), line.get("PEER_UID")), ("ctrl-exec-exec", Some("1")));
    assert_eq!(play(AGENT, &socket, "hello"), "\"done\"");
}

#[test]
fn a_script_that_is_root_and_comes_to_the_socket_nevertheless_gives_no_orders() {
    let site = service(builder());
    let socket = site.agent().socket();
    for scene in ["hello", "reload", "unlisted"] {
        assert!(!play_further_in(0, &socket, scene).contains("done"), "{scene}");
        let line = site.agent().service().line_where("exec-peer-reject", |_| true);
        assert_eq!(line.get("PEER_UID"), Some("0"), "{scene}");
    }
    assert_eq!(play(0, &socket, "hello"), "\"done\"");
}

#[test]
fn a_script_that_has_become_the_agents_account_gives_no_orders_either() {
    let site = service(builder());
    let socket = site.agent().socket();
    for scene in ["hello", "reload", "order"] {
        assert_eq!(play_further_in(AGENT, &socket, scene), "", "{scene}");
        let line = site.agent().service().line_where("exec-peer-reject", |_| true);
        assert_eq!(line.get("PEER_UID"), Some("65534"), "{scene}");
        assert_eq!(play(AGENT, &socket, scene), if scene == "order" { "started, ended 0" } else { "\"done\"" });
    }
}

#[test]
fn an_agent_that_was_started_as_its_account_is_looked_into_by_nobody_of_that_account() {
    let mut site = builder().prepare();
    site.agent_mut().look_after_service();
    let words = format!("set -- setpriv --clear-groups --reuid {AGENT} --regid {AGENT} \"$@\"");
    site.agent_mut().start_with(&words, [Stdio::null(), Stdio::null()]);
    let looks = |pid: u32| {
        let mut command = Command::new("cat");
        command.arg(format!("/proc/{pid}/environ")).uid(AGENT).gid(AGENT);
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    let mut other = Command::new("sleep").arg("1000").uid(AGENT).gid(AGENT).spawn().unwrap();
    let (agent, any) = (looks(site.agent().pid()), looks(other.id()));
    other.kill().unwrap();
    other.wait().unwrap();
    assert_eq!((agent, any), (false, true));
    assert_eq!(site.agent_mut().stop(), Some(0));
}

#[test]
fn a_front_end_hands_over_no_file_of_another_account() {
    let site = service(builder().sh("append", "echo changed >> /dev/stdin"));
    let socket = site.agent().socket();
    let before = std::fs::read("/etc/passwd").unwrap();
    for scene in ["foreign input", "device as input"] {
        assert_eq!(play(AGENT, &socket, scene), "refused order-foreign-file", "{scene}");
    }
    assert_eq!(std::fs::read("/etc/passwd").unwrap(), before);
    assert!(play(AGENT, &socket, "own input").starts_with("started, ended "));
}

/// What forks without executing a program must have no other thread, whose locks would stay locked for ever.
#[test]
fn neither_the_service_nor_a_monitor_has_a_second_thread() {
    let site = service(builder());
    let pid = site.agent().service().pid();
    assert_eq!(play(AGENT, &site.agent().socket(), "hello"), "\"done\"");
    let all: Vec<u32> = host::children(pid).into_iter().chain([pid]).collect();
    for one in all {
        // A monitor may have ended meanwhile.
        let threads = std::fs::read_dir(format!("/proc/{one}/task")).map_or(0, Iterator::count);
        assert!(threads == 1 || (threads == 0 && one != pid), "{one}: {threads}");
    }
}

/// Each as the agent's account through the real socket; afterwards the executor serves as before.
#[test]
fn nothing_that_a_front_end_sends_ends_the_executor() {
    let site = service(builder());
    let (socket, pid) = (site.agent().socket(), site.agent().service().pid());
    let count = || std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count();
    play(AGENT, &socket, "hello");
    eventually("no monitor", || host::children(pid).is_empty().then_some(()));
    let before = count();
    for (scene, answer) in [
        ("nonsense", "refused order-too-large"),
        ("empty order", "refused order-malformed"),
        ("huge order", "refused order-too-large"),
        ("largest order", "refused order-malformed"),
        ("no descriptors", "refused order-descriptors"),
        ("two descriptors", "refused order-descriptors"),
        ("nine descriptors", "refused order-descriptors"),
        ("many descriptors", "refused order-descriptors"),
        ("directory", "refused order-descriptors"),
        ("hello with a descriptor", "refused order-descriptors"),
        ("order as a word", "refused order-malformed"),
        ("unlisted", "refused script-not-permitted"),
        ("stall", "refused order-late"),
        ("hang up at once", "gone"),
        ("hang up in the middle", "gone"),
    ] {
        assert_eq!(play(AGENT, &socket, scene), answer, "{scene}");
        assert_eq!(play(AGENT, &socket, "hello"), "\"done\"", "after '{scene}'");
    }
    assert_eq!(play(AGENT, &socket, "output"), "started, ended 0: ran as 1|");
    // What follows an order is nonsense, and a front-end that talks nonsense has lost its script.
    let two = play(AGENT, &socket, "two orders");
    assert!(two.matches("ended").count() == 1 && !two.contains("refused"), "{two}");
    assert_eq!(play(AGENT, &socket, "hello"), "\"done\"");
    assert!(host::alive(pid));
    eventually("no monitor", || host::children(pid).is_empty().then_some(()));
    eventually("as many descriptors as before", || (count() <= before).then_some(()));
    assert_eq!(host::zombies(pid), 0);
}

#[test]
fn a_crowd_of_silent_connections_is_turned_away_and_a_reload_gets_through() {
    let site = service(builder().agent("max_children = 4"));
    let seen = play(AGENT, &site.agent().socket(), "crowd");
    assert_eq!(seen, "\"done\", refused busy, true");
    let pid = site.agent().service().pid();
    eventually("the end of the crowd", || host::children(pid).is_empty().then_some(()));
    assert_eq!(play(AGENT, &site.agent().socket(), "hello"), "\"done\"");
}

#[test]
fn the_executor_is_in_a_network_without_anybody() {
    let site = service(builder());
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let there = format!("/proc/{}/ns/net", site.agent().service().pid());
    let own = std::fs::read_link("/proc/self/ns/net").unwrap();
    assert_ne!(std::fs::read_link(&there).unwrap(), own);
    // A thread goes where the executor is.
    let reached = std::thread::spawn(move || {
        setns(std::fs::File::open(there).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
        let devices = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap().lines().count() - 2;
        (TcpStream::connect(address).is_ok(), TcpStream::connect("192.0.2.1:9").is_ok(), devices)
    });
    assert_eq!(reached.join().unwrap(), (false, false, 1), "only a loopback, which is down");
    TcpStream::connect(address).unwrap();
}

#[test]
fn a_dead_executor_s_socket_is_replaced_and_a_live_one_is_an_error() {
    let mut site = service(builder());
    let (root, socket) = (site.agent().root.clone(), site.agent().socket());
    let second = finish(Service::command(&root, &socket), "").exits(69);
    assert!(second.stderr.contains("is in use: another process answers there"), "{second:?}");
    assert!(second.stderr.contains("\nhint: another executor serves this host already"), "{second:?}");
    assert_eq!(play(AGENT, &socket, "hello"), "\"done\"");
    assert_eq!(site.agent_mut().take_service().end(Signal::SIGKILL), None);
    assert!(socket.exists());
    assert_eq!(play(AGENT, &socket, "hello"), "ConnectionRefused");
    site.agent_mut().start_service();
    assert_eq!(play(AGENT, &socket, "hello"), "\"done\"");
    assert_eq!(site.agent_mut().take_service().end(Signal::SIGTERM), Some(0));
    assert!(!socket.exists(), "one that ends tidies up");
}

#[test]
fn a_socket_in_a_directory_that_others_may_write_is_refused() {
    let site = builder().prepare();
    let open = site.agent().root.join("work/exec.sock");
    let ran = finish(Service::command(&site.agent().root, &open), "").exits(69);
    assert!(ran.stderr.contains("the socket's directory is not safe") && ran.stderr.contains("chmod go-w"), "{ran:?}");
}

/// Starts the service as an init system would that made its socket.
fn activated(site: &Site, listener: std::os::fd::OwnedFd, words: &str) -> Command {
    let socket = site.agent().root.join("nowhere.sock");
    let inner = Service::command(&site.agent().root, &socket);
    let mut command = program(Path::new("/bin/sh"));
    command.args(["-c", &format!("exec 3<&0 </dev/null; export {words}; exec \"$@\""), "sh", "/bin/sh"]);
    command.args(inner.get_args()).env("CTRL_EXEC_ROOT", &site.agent().root).stdin(Stdio::from(listener));
    command
}

#[test]
fn a_socket_that_the_init_system_made_is_used() {
    let site = builder().prepare();
    let path = site.agent().root.join("given.sock");
    let listener = UnixListener::bind(&path).unwrap();
    std::os::unix::fs::chown(&path, Some(AGENT), None).unwrap();
    let log = site.agent().root.join("log");
    let mut command = activated(&site, listener.into(), "LISTEN_FDS=1 LISTEN_PID=$$");
    let mut child = command.stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap();
    assert_eq!(play(AGENT, &path, "hello"), "\"done\"");
    assert!(!site.agent().root.join("nowhere.sock").exists());
    let lines = audit::lines(&std::fs::read_to_string(&log).unwrap());
    assert!(lines.iter().any(|line| line.action() == "exec-start" && line.get("MADE_BY") == Some("init")), "{lines:?}");
    let start = lines.iter().find(|line| line.action() == "exec-start").unwrap();
    assert_eq!(start.get("SOCKET"), path.to_str(), "where it is, and not where it was expected");
    host::kill(child.id(), Signal::SIGTERM);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(path.exists(), "it is the init system's to remove");
}

#[test]
fn what_the_init_system_hands_over_must_be_one_listening_unix_socket() {
    let site = builder().prepare();
    let tcp = || TcpListener::bind(("127.0.0.1", 0)).unwrap().into();
    for (words, text) in
        [("LISTEN_FDS=1 LISTEN_PID=$$", "no listening unix stream socket"), ("LISTEN_FDS=2 LISTEN_PID=$$", "2 sockets")]
    {
        let mut command = activated(&site, tcp(), words);
        let ran = command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().unwrap();
        let said = String::from_utf8(ran.stderr).unwrap();
        assert_eq!(ran.status.code(), Some(69), "{said}");
        assert!(said.contains(text), "{said}");
        assert!(said.contains("the socket that was handed over cannot be used") && said.contains("ListenStream="));
    }
}

#[test]
fn a_socket_with_a_relative_path_is_named_with_it() {
    let site = builder().prepare();
    let ran = finish(Service::command(&site.agent().root, Path::new("rel.sock")), "").exits(64);
    assert!(ran.stderr.contains("the path 'rel.sock' of the socket is not absolute"), "{ran:?}");
    assert!(ran.stderr.contains("\nhint: ") && !ran.stderr.contains("cannot open"), "{ran:?}");
}

#[test]
fn a_hang_up_reads_the_configuration_again_and_a_broken_one_changes_nothing() {
    let site = service(builder());
    let (agent, service) = (site.agent(), site.agent().service());
    let good = std::fs::read_to_string(agent.allowlist()).unwrap();
    std::fs::write(agent.allowlist(), format!("{good}x = /x # why\n")).unwrap();
    host::kill(service.pid(), Signal::SIGHUP);
    let line = service.line_where("exec-reload-fail", |_| true);
    let place = format!("{}:{}:", agent.allowlist().display(), good.lines().count() + 1);
    assert!(line.get("ERROR").unwrap().contains(&place), "{line:?}");
    let failed = play(AGENT, &agent.socket(), "reload");
    assert!(failed.contains("\"failed\"") && failed.contains("scripts.conf:"), "{failed}");
    assert_ne!(play(AGENT, &agent.socket(), "order"), "refused script-not-permitted", "the old one holds");
    std::fs::write(agent.allowlist(), "").unwrap();
    host::kill(service.pid(), Signal::SIGHUP);
    service.line_where("exec-reload", |_| true);
    assert_eq!(play(AGENT, &agent.socket(), "order"), "refused script-not-permitted");
    std::fs::write(agent.allowlist(), good).unwrap();
    assert_eq!(play(AGENT, &agent.socket(), "reload"), "\"done\"");
    assert_ne!(play(AGENT, &agent.socket(), "order"), "refused script-not-permitted");
}

#[test]
fn configuration_that_another_could_have_written_is_refused() {
    let site = builder().prepare();
    let (root, socket) = (site.agent().root.clone(), site.agent().socket());
    let refused = |text: &str| {
        let ran = finish(Service::command(&root, &socket), "").exits(78);
        assert!(ran.stderr.contains(text), "{text}: {ran:?}");
    };
    for path in [site.agent().config(), site.agent().allowlist()] {
        let mode = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o664);
        refused(&format!("{} has mode 0664, writable by others than root (chmod go-w)", path.display()));
        mode(0o644);
        std::os::unix::fs::chown(&path, Some(AGENT), None).unwrap();
        refused(&format!("{} belongs to uid {AGENT} (chown root)", path.display()));
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
    }
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o777)).unwrap();
    refused("agent1 has mode 0777");
}

#[test]
fn a_profile_without_an_account_or_with_the_agent_s_is_refused_with_its_line() {
    let site = builder().prepare();
    let text = std::fs::read_to_string(site.agent().config()).unwrap();
    let text = text + "[profile bare]\ncaps = CAP_KILL\n[profile own]\nrun_as = nobody\n";
    std::fs::write(site.agent().config(), &text).unwrap();
    let (root, config) = (site.agent().root.clone(), site.agent().config());
    let run = || finish(Service::command(&root, &site.agent().socket()), "").exits(78).stderr;
    let line = |wanted: &str| text.lines().position(|line| line == wanted).unwrap() + 1;
    let said = run();
    let place = format!("{}:{}:", config.display(), line("[profile bare]"));
    assert!(said.contains(&place) && said.contains("no run_as") && said.contains("run_as = daemon"), "{said}");
    for own in ["nobody", "65534"] {
        let changed =
            text.replace("caps = CAP_KILL", "run_as = root").replace("run_as = nobody", &format!("run_as = {own}"));
        std::fs::write(&config, changed).unwrap();
        let said = run();
        let place = format!("{}:{}: Profile 'own'", config.display(), line("run_as = nobody"));
        assert!(said.contains(&place) && said.contains("is the agent's own account"), "{said}");
    }
}

#[test]
fn only_root_serves_and_the_account_must_exist() {
    let site = builder().prepare();
    let mut command = program(&binary());
    command.args(["serve-executor", "serve", "/run/x.sock", "agent.conf", "scripts.conf", "nobody"]);
    let ran = finish(host::unprivileged(&command, site.dir()), "").exits(77);
    assert!(ran.stderr.contains("must run as root"), "{ran:?}");
    let mut command = program(&binary());
    let etc = site.agent().root.join("etc/ctrl-exec-agent");
    command.args(["serve-executor", "/run/x.sock"]).arg(etc.join("agent.conf")).arg(etc.join("scripts.conf"));
    command.arg("no-such-account");
    let ran = finish(command, "").exits(78);
    assert!(ran.stderr.contains("'no-such-account' does not exist") && ran.stderr.contains("\nhint: "), "{ran:?}");
}

#[test]
fn an_unknown_command_line_shows_the_usage_and_ends_with_1() {
    for words in [&["serve-executor", "serve"][..], &["serve-executor", "resolve", "a"], &["serve-executor", "a", "b"]]
    {
        let ran = crate::harness::run(words).exits(1);
        assert!(ran.stderr.starts_with("Usage: ctrl-exec-exec serve SOCKET "), "{ran:?}");
    }
    let ran = crate::harness::run(&["serve-executor", "--version"]).exits(0);
    assert_eq!(ran.stdout, format!("ctrl-exec-exec {}\n", env!("CARGO_PKG_VERSION")));
}
