//! What keeps a host from asking: found before anything is sent, said in words, with nothing written.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::harness::host::{has_root, own_port, unprivileged};

/// A port at which nobody listens.
fn dead_port() -> String {
    own_port().to_string()
}

#[test]
fn a_host_without_the_agents_directory_is_told_to_install_it() {
    let world = World::new();
    let etc = world.agent().root.join("etc/ctrl-exec-agent");
    std::fs::remove_dir_all(&etc).unwrap();
    let ran = world.asked(&dead_port(), &[]).exits(78);
    let text = format!("Error: Cert directory '{}' does not exist - has the agent been installed?\n", etc.display());
    assert!(ran.stderr.contains(&text), "{ran:?}");
    assert!(!etc.exists());
}

#[test]
fn a_host_without_a_full_name_is_warned_before_it_asks() {
    let world = World::new();
    // A name of its own, which no resolver knows more of.
    let asked_as = |name: &str| {
        let asking = world.asking(&dead_port(), &[]);
        let mut command = program("unshare".as_ref());
        command.args(["--uts", "sh", "-c", "echo \"$0\" > /proc/sys/kernel/hostname; exec \"$@\"", name]);
        command.arg(asking.get_program()).args(asking.get_args());
        finish(command, "").exits(69).stderr
    };
    let warning = "Warning: no fully qualified name was found for this host; 'lonely-host-7' will be registered.\n\
                   \x20        The dispatcher may not be able to resolve it.\n\
                   \x20        Give the host a full name (hostnamectl set-hostname, or /etc/hosts), or\n\
                   \x20        let the dispatcher use the address: --lookup-by ip\n";
    let said = asked_as("lonely-host-7");
    assert!(said.contains(warning), "{said}");
    let said = asked_as("host-7.example.net");
    assert!(!said.contains("fully qualified"), "{said}");
}

#[test]
fn a_directory_that_may_not_be_written_to_needs_root() {
    let world = World::new();
    let etc = world.agent().root.join("etc/ctrl-exec-agent");
    std::fs::set_permissions(&etc, std::fs::Permissions::from_mode(0o555)).unwrap();
    let ran = finish(unprivileged(&world.asking(&dead_port(), &[]), world.site.dir()), "").exits(77);
    let text = format!("Error: Cannot write to '{}' - re-run as root or with sudo\n", etc.display());
    assert!(ran.stderr.ends_with(&text) && !ran.stdout.contains("Connecting"), "{ran:?}");
    std::fs::set_permissions(&etc, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn who_may_not_use_the_control_hosts_files_is_told_what_to_do() {
    if !has_root() {
        return;
    }
    let world = World::new();
    let session = world.session(&[]);
    let mut asking = world.ask(&session, &[]);
    let id = reqid(&mut asking);
    let cases: [&[&str]; 6] = [
        &["approve", &id],
        &["deny", &id],
        &["list-requests"],
        &["pairing-mode", "--port", "0"],
        &["pairing-mode", "start", "--port", "0"],
        &["setup-ctrl-exec"],
    ];
    for words in cases {
        let ran = finish(unprivileged(&world.site.control_command(words), world.site.dir()), "").exits(77);
        assert!(ran.stderr.contains("\nhint: run it ") && !ran.stdout.contains("active"), "{words:?}: {ran:?}");
    }
    assert!(asking.runs());
    assert_eq!(world.queued(), [format!("{id}.json")]);
}

#[test]
fn a_dispatcher_that_is_not_there_is_named() {
    let world = World::new();
    let port = dead_port();
    let ran = world.asked(&port, &[]).exits(69);
    let text =
        format!("Pairing failed: cannot reach ctrl-exec at 127.0.0.1:{port}: Connection refused (os error 111)\n");
    assert!(ran.stderr.contains(&text), "{ran:?}");
    let mut command = program(&binary());
    command.args(["agent", "--root"]).arg(&world.agent().root);
    command.args(["request-pairing", "--dispatcher", "no-such-host.invalid"]);
    let ran = finish(command, "").exits(69);
    assert!(
        ran.stderr.contains("Pairing failed: could not resolve ctrl-exec hostname 'no-such-host.invalid'\n"),
        "{ran:?}"
    );
    world.nothing_came_of_it();
}

#[test]
fn who_listens_there_but_does_not_pair_is_told_apart() {
    // An agent's own port, which demands a certificate.
    let mut other = Site::builder().prepare();
    other.start(0);
    let world = World::new();
    let mut ports = vec![other.agent().address().port().to_string()];
    // Servers that speak something else, or hang up at once.
    for answer in ["HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n", "SSH-2.0-OpenSSH_9.7\r\n", ""] {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        ports.push(listener.local_addr().unwrap().port().to_string());
        std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let _ = stream.write_all(answer.as_bytes());
            }
        });
    }
    for port in ports {
        let ran = world.asked(&port, &[]).exits(69);
        let text =
            format!("Pairing failed: reached 127.0.0.1:{port}, but it is not responding as a pairing listener: ");
        assert!(ran.messages().contains(&text), "{ran:?}");
        assert!(!ran.stdout.contains("Generating"), "{ran:?}");
    }
    world.nothing_came_of_it();
}

#[test]
fn options_that_make_no_sense_are_refused_before_anything_is_done() {
    let world = World::new();
    let run = |words: &[&str]| world.agent().command(&[&["request-pairing"], words].concat()).exits(64).stderr;
    let required = run(&[]);
    assert_eq!(required, "Error: --dispatcher <host> required for request-pairing\n");
    let cases: [(&[&str], &str); 7] = [
        (&["--dispatcher", "a b"], "names no dispatcher"),
        (&["--dispatcher", "http://control"], "names no dispatcher"),
        (&["--dispatcher", "control:0"], "names no dispatcher"),
        (&["--dispatcher", "control", "--lookup-by", "luck"], "--lookup-by must be 'ip' or 'hostname'"),
        (&["--dispatcher", "control", "--ip", "10.0.0"], "--ip must be an IPv4 or IPv6 address"),
        (&["--dispatcher", "control", "--timeout", "0"], "--timeout must be between 1 and 600 seconds"),
        (&["--dispatcher", "control", "--port", "x"], "invalid value 'x'"),
    ];
    for (words, text) in cases {
        let said = run(words);
        assert!(said.contains(text), "{words:?}: {said}");
    }
    world.nothing_came_of_it();
}

#[test]
fn a_configuration_that_cannot_be_read_is_said_and_the_defaults_are_used() {
    let world = World::new();
    std::fs::write(world.agent().config(), "port = 7443\nprot = 1\n").unwrap();
    let session = world.session(&[]);
    let mut asking = world.ask(&session, &[]);
    let id = reqid(&mut asking);
    world.approve(&id, &[]).exits(0);
    let ran = asking.ends().exits(0);
    assert!(ran.stderr.contains("agent.conf:2:1: ") && ran.stderr.contains("The default paths are used."), "{ran:?}");
    assert!(files(world.agent()).iter().all(|path| path.exists()));
}
