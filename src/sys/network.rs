//! Leaving the host's network, and going back to it (namespaces(7), `network_namespaces(7)`).

use std::fs::File;
use std::io;

use nix::sched::{CloneFlags, setns, unshare};

/// The network that the host has, held by a process that has left it.
#[derive(Debug)]
pub struct HostNetwork(File);

impl HostNetwork {
    /// Leaves for an empty network of this process's own: no address, no route, a loopback that is down. Sockets that
    /// are open already stay where they are, and unix sockets with a path are of no network.
    ///
    /// **Invariant:** the caller has one thread: others would stay.
    ///
    /// # Errors
    /// No `CAP_SYS_ADMIN`, no `/proc`, or a kernel without network namespaces.
    pub fn leave() -> io::Result<Self> {
        let host = File::open("/proc/self/ns/net")?;
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(Self(host))
    }

    /// Leaves once more, after going back.
    ///
    /// # Errors
    /// As [`HostNetwork::leave`].
    pub fn leave_again(&self) -> io::Result<()> {
        Ok(unshare(CloneFlags::CLONE_NEWNET)?)
    }

    /// Goes back.
    ///
    /// # Errors
    /// No `CAP_SYS_ADMIN`.
    pub fn enter(&self) -> io::Result<()> {
        Ok(setns(&self.0, CloneFlags::CLONE_NEWNET)?)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;
    use crate::sys::{process, user};

    #[test]
    fn nobody_is_reached_from_an_empty_network_and_everybody_again_afterwards() {
        if !user::tests::has_root() {
            return;
        }
        let text = process::tests::in_a_process("network", || {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let reached = || TcpStream::connect(listener.local_addr().unwrap()).is_ok();
            let before = reached();
            let host = HostNetwork::leave().unwrap();
            let away = reached();
            host.enter().unwrap();
            let back = reached();
            host.leave_again().unwrap();
            format!("{before} {away} {back} {}", reached())
        });
        assert_eq!(text, "true false true false");
    }
}
