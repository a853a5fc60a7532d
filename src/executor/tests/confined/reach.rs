//! Whom a script can talk to: the network, and sockets and FIFOs in the tree.

use std::io::{ErrorKind, Read as _};
use std::net::{TcpListener, UdpSocket};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use super::super::attempts::{socket, tries};
use super::super::harness::Executor;
use crate::sys::landlock;

#[test]
fn the_network_is_the_hosts_or_none_at_all() {
    let host = std::fs::read_link("/proc/self/ns/net").unwrap();
    let text = "readlink /proc/self/ns/net; tail -n +3 /proc/net/dev | cut -d: -f1 | tr -d ' '";
    let with = Executor::root("run_as = nobody");
    assert!(with.says(text).starts_with(host.to_str().unwrap()));
    let without = Executor::root("run_as = nobody\nnetwork = no");
    let said = without.says(text);
    assert!(!said.contains(host.to_str().unwrap()) && said.ends_with("]\nlo\n"), "{said}");
}

#[test]
fn a_server_of_the_hosts_is_reached_with_the_network_and_not_without() {
    let (tcp, udp) = (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    tcp.set_nonblocking(true).unwrap();
    udp.set_nonblocking(true).unwrap();
    let ways = [format!("tcp {}", tcp.local_addr().unwrap()), format!("udp {}", udp.local_addr().unwrap())];
    let ways = ways.each_ref().map(String::as_str);
    for profile in ["network = no", "network = no\nsyscalls = off", "network = no\nwritable = {}/open"] {
        let without = Executor::root(&format!("run_as = root\n{profile}"));
        assert_eq!(tries(&without, &ways), ["ENETUNREACH", "ENETUNREACH"], "{profile}");
    }
    assert_eq!(tcp.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(udp.recv(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    let with = Executor::root("run_as = root\nwritable = {}/open");
    assert_eq!(tries(&with, &ways), ["done", "done"]);
    tcp.accept().unwrap();
    assert_eq!(udp.recv(&mut [0]).unwrap(), 1);
}

#[test]
fn without_a_network_no_socket_reaches_past_its_namespace_whatever_the_filter() {
    let off = "network = no\nsyscalls = off";
    let lifted = "network = no\nsyscalls = off\ncaps = CAP_SYS_ADMIN\nallow_dangerous_caps = yes";
    for profile in ["network = no", off, lifted] {
        let executor = Executor::root(&format!("run_as = root\n{profile}"));
        let answers = tries(&executor, &["socket vsock", "socket alg", "socket netlink"]);
        assert_eq!(answers, ["EAFNOSUPPORT", "EAFNOSUPPORT", "done"], "{profile}");
        assert_eq!(tries(&executor, &["call io_uring_setup"]), ["EPERM"], "{profile}");
    }
    // With the network there is what the kernel has.
    let offered = ["vsock", "alg"].map(|family| if socket(family).is_ok() { "done" } else { "EAFNOSUPPORT" });
    assert_eq!(tries(&Executor::root("run_as = root"), &["socket vsock", "socket alg"]), offered);
}

#[test]
fn abstract_sockets_of_the_host_are_reached_by_nobody_without_a_network_or_with_writable() {
    let name = format!("ctrl-exec-test-{}", std::process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let reached = |profile: &str| {
        tries(&Executor::root(&format!("run_as = root\n{profile}")), &[&format!("abstract {name}")]) == ["done"]
    };
    assert!(!reached("network = no"));
    assert!(!reached("network = no\nwritable = {}/open"));
    // Landlock's part, from its version 6 on.
    let scoped = landlock::version().is_some_and(|version| version >= 6);
    assert_eq!(reached("writable = {}/open"), !scoped);
    // And the twin.
    assert!(reached(""));
}

#[test]
fn a_service_is_reached_at_its_socket_only_where_that_is_named() {
    for above in ["/run", "/tmp"] {
        let place = tempfile::tempdir_in(above).unwrap();
        let socket = place.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        listener.set_nonblocking(true).unwrap();
        let connect = format!("unix {}", socket.display());
        let without = Executor::root("run_as = root\nwritable = {}/open");
        assert_eq!(tries(&without, &[&connect]), ["ENOENT"]);
        assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
        let named = Executor::root(&format!("run_as = root\nwritable = {{}}/open:{}", place.path().display()));
        assert_eq!(tries(&named, &[&connect]), ["done"]);
        listener.accept().unwrap();
    }
}

/// A FIFO that is open for reading, so that what is written to it would be heard at once.
fn fifo(path: &Path) -> std::fs::File {
    nix::unistd::mkfifo(path, Mode::S_IRWXU).unwrap();
    open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK, Mode::empty()).unwrap().into()
}

#[test]
fn a_fifo_is_written_to_only_where_that_is_named() {
    // One in a private place, and one that Landlock alone guards: a read-only tree does not.
    for (above, guard) in [("/tmp", "ENOENT"), ("/var/tmp", "EACCES")] {
        let place = tempfile::tempdir_in(above).unwrap();
        let path = place.path().join("fifo");
        let mut reader = fifo(&path);
        let write = format!("fifo {}", path.display());
        let without = Executor::root("run_as = root\nwritable = {}/open");
        assert_eq!(tries(&without, &[&write]), [guard]);
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 0);
        let named = Executor::root(&format!("run_as = root\nwritable = {{}}/open:{}", place.path().display()));
        assert_eq!(tries(&named, &[&write]), ["done"]);
        assert_eq!(reader.read(&mut [0; 8]).unwrap(), 1);
    }
}
