//! Sockets that the init system has opened for the agent.

use std::io::Read as _;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::Signal;

use super::{Load, builder, has_result, submit};
use crate::harness::background::Background;
use crate::harness::executor::Mode;
use crate::harness::process::program;
use crate::harness::{Agent, binary, eventually, host, tls};

/// A listening socket that outlives the agents it is handed to, as an init system has it.
fn hand_over(agent: &mut Agent, listener: &TcpListener) {
    agent.look_after_service();
    let words = "exec 3<&0 </dev/null; export LISTEN_FDS=1 LISTEN_PID=$$";
    agent.start_with(words, [Stdio::from(OwnedFd::from(listener.try_clone().unwrap())), Stdio::null()]);
}

#[test]
fn a_socket_of_the_init_system_hears_callers_before_the_agent_is_there_and_while_it_is_replaced() {
    for mode in [Mode::Private, Mode::System] {
        let mut site = builder(mode).prepare();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        site.register("agent1", address.port(), &site.agent().credentials);
        let early = Background::start(site.control_command(&["--json", "run", "agent1", "ok"]));
        hand_over(site.agent_mut(), &listener);
        assert_eq!(site.agent().address(), address);
        assert_eq!(early.end().exits(0).result()["stdout"], "ran\n");
        let id = submit(&site);
        let load = Load::start(&site, address);
        for _ in 0..4 {
            assert_eq!(site.agent_mut().stop(), Some(0));
            hand_over(site.agent_mut(), &listener);
        }
        assert!(load.end() > 4);
        has_result(&site, &id);
    }
}

#[test]
fn a_socket_that_is_not_where_the_configuration_says_is_used_and_warned_about() {
    let mut site = builder(Mode::default()).prepare();
    let config = site.agent().config();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("bind = 127.0.0.1", "bind = 127.0.0.2")).unwrap();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    site.agent_mut().install();
    hand_over(site.agent_mut(), &listener);
    let line = site.agent().line("config-warn");
    line.is(&["ACTION=config-warn", "KEY=port", "MSG=*"]);
    let address = listener.local_addr().unwrap();
    assert!(line.get("MSG").unwrap().contains(&format!("the init system has opened {address}")), "{line:?}");
    assert_eq!(site.agent().address(), address);
    for _ in 0..2 {
        assert_eq!(site.agent().upgrade(), address, "nobody else would hear who calls there");
    }
}

#[test]
fn two_sockets_are_both_heard() {
    let mut site = builder(Mode::default()).prepare();
    let config = site.agent().config();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("bind = 127.0.0.1", "bind = 127.0.0.1, ::1")).unwrap();
    let (first, second) = eventually("a port that is free in both families", || {
        let first = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let second = TcpListener::bind(("::1", first.local_addr().unwrap().port())).ok()?;
        Some((first, second))
    });
    let words = "exec 3<&0 4>&1 </dev/null >/dev/null; export LISTEN_FDS=2 LISTEN_PID=$$ LISTEN_FDNAMES=a:b";
    let given = [&first, &second].map(|socket| Stdio::from(OwnedFd::from(socket.try_clone().unwrap())));
    site.agent_mut().start_with(words, given);
    for address in [first.local_addr().unwrap(), second.local_addr().unwrap()] {
        let mut http = tls::connect(address, &site.authority(), &site.dispatcher());
        assert_eq!(http.post("/ping", "{}").status, 200);
    }
    assert!(site.agent().lines("config-warn").is_empty());
}

#[test]
fn what_is_handed_over_must_be_a_listening_tcp_socket() {
    let site = builder(Mode::default()).prepare();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let connected = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let unix = std::os::unix::net::UnixListener::bind(site.agent().work("sock")).unwrap();
    let datagrams = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let file = std::fs::File::open("/dev/null").unwrap();
    let wrong: [OwnedFd; 4] = [connected.into(), unix.into(), datagrams.into(), file.into()];
    let serve = |stdin: OwnedFd, count: &str| {
        let mut command = program(Path::new("/bin/sh"));
        let words = format!("exec 3<&0 </dev/null; export LISTEN_FDS={count} LISTEN_PID=$$; exec \"$@\"");
        command.args(["-c", &words, "sh"]).arg(binary()).args(["agent", "--root"]).arg(&site.agent().root);
        let output = command.args(["serve", "--unprivileged"]).stdin(Stdio::from(stdin)).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    for socket in wrong {
        let (code, said) = serve(socket, "1");
        assert_eq!(code, Some(78), "{said}");
        assert!(said.contains("descriptor 3, which was handed over, is no listening TCP socket"), "{said}");
        assert!(said.contains("\nhint: the socket unit"), "{said}");
    }
    let (code, said) = serve(listener.try_clone().unwrap().into(), "2");
    assert_eq!(code, Some(78));
    assert!(said.contains("descriptor 4 was to be a listening socket"), "{said}");
    let (code, said) = serve(listener.into(), "1000");
    assert!(code == Some(78) && said.contains("1000 sockets"), "{said}");
}

#[test]
fn neither_variables_nor_descriptors_of_a_hand_over_reach_scripts_and_hooks() {
    let look = "env; ls -l /proc/self/fd";
    let hook = "{ env; ls -l /proc/self/fd; echo; } > {work}/hook";
    let mut site = builder(Mode::default()).sh("look", look).agent_hook(hook).prepare();
    site.agent_mut().install();
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let number = std::fs::read_link(format!("/proc/self/fd/{}", listener.as_raw_fd())).unwrap();
    hand_over(site.agent_mut(), &listener);
    site.register("agent1", listener.local_addr().unwrap().port(), &site.agent().credentials);
    let clean = || {
        let script = site.result("look", &[])["stdout"].as_str().unwrap().to_owned();
        let hook = std::fs::read_to_string(site.agent().work("hook")).unwrap();
        for text in [script, hook] {
            assert!(text.contains("PATH=") && text.contains(" 0 -> "), "{text}");
            for name in ["LISTEN_", "CTRL_EXEC_LISTEN_FDS", "NOTIFY_SOCKET", &number.display().to_string()] {
                assert!(!text.contains(name), "{name}: {text}");
            }
        }
    };
    clean();
    assert_eq!(site.agent().upgrade(), listener.local_addr().unwrap());
    clean();
}

#[test]
fn systemd_s_own_activation_hands_the_socket_over() {
    let site = builder(Mode::default()).prepare();
    // An address that is this process's alone, so that a port that was free there stays so.
    let [.., high, low] = std::process::id().to_be_bytes();
    let own = std::net::Ipv4Addr::new(127, 77, high, low);
    let address = TcpListener::bind((own, 0)).unwrap().local_addr().unwrap();
    let mut command = program(Path::new("systemd-socket-activate"));
    command.args(["--fdname=agent", "-l", &address.to_string()]).arg(binary()).args(["agent", "--root"]);
    command.arg(&site.agent().root).args(["serve", "--unprivileged"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(eventually("the socket of the init system", || TcpStream::connect(address).ok()));
    let mut http = tls::connect(address, &site.authority(), &site.dispatcher());
    assert_eq!(http.post("/ping", "{}").status, 200);
    drop(http);
    host::kill(child.id(), Signal::SIGTERM);
    let mut said = String::new();
    child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{said}");
    assert!(said.contains("ACTION=config-warn KEY=port"), "{said}");
}
