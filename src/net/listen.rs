//! Listening sockets: several addresses, IPv4 and IPv6, and an accept loop that nothing a stranger does can end.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::sys::socket;

/// Pending connections the kernel queues (listen(2)); the kernel caps it at `net.core.somaxconn`.
const BACKLOG: u32 = 1024;
/// Pause after an accept error that will not go away by itself (no descriptors, no memory).
const PAUSE: Duration = Duration::from_millis(100);

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}")]
pub struct ListenError {
    address: SocketAddr,
    #[source]
    source: io::Error,
}

/// One or more listening sockets on one port.
#[derive(Debug)]
pub struct Listener {
    sockets: Vec<TcpListener>,
}

impl Listener {
    /// Listens on `port` of every address; on all of IPv6 and IPv4 where none is given. Port 0 takes a free port, the
    /// same on every address.
    ///
    /// # Errors
    /// The first address that cannot be bound.
    pub fn bind(addresses: &[IpAddr], port: u16) -> Result<Self, ListenError> {
        if addresses.is_empty() {
            return Self::bind_everything(port);
        }
        let mut sockets = Vec::with_capacity(addresses.len());
        let mut port = port;
        for address in addresses {
            let socket = open(SocketAddr::new(*address, port), true)?;
            port = socket.local_addr().map_or(port, |local| local.port());
            sockets.push(socket);
        }
        Ok(Self { sockets })
    }

    /// One dual-stack socket; IPv4 alone where the host has no IPv6.
    fn bind_everything(port: u16) -> Result<Self, ListenError> {
        let both = open(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port), false);
        let socket = match both {
            Err(error) if socket::lacks_ipv6(&error.source) => {
                open(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port), false)?
            }
            other => other?,
        };
        Ok(Self { sockets: vec![socket] })
    }

    /// Takes over sockets that listen already. They must not wait ([`std::net::TcpListener::set_nonblocking`]).
    ///
    /// # Errors
    /// The runtime is out of descriptors.
    pub fn adopt(sockets: Vec<std::net::TcpListener>) -> io::Result<Self> {
        let taken_over = |listener: std::net::TcpListener| {
            socket::watch_for_loss(&listener)?;
            TcpListener::from_std(listener)
        };
        let sockets = sockets.into_iter().map(taken_over).collect::<io::Result<_>>()?;
        Ok(Self { sockets })
    }

    /// Whether [`Listener::bind`] with the same words would listen at the same places. Sockets for each family apart are
    /// as good as one for both.
    #[must_use]
    pub fn is_at(&self, addresses: &[IpAddr], port: u16) -> bool {
        let bound = self.local_addresses();
        let ports = bound.iter().all(|at| port == 0 || at.port() == port);
        let places: BTreeSet<IpAddr> = bound.iter().map(SocketAddr::ip).collect();
        let wanted: BTreeSet<IpAddr> = addresses.iter().copied().collect();
        let everywhere = |all: &BTreeSet<IpAddr>| {
            all.contains(&Ipv6Addr::UNSPECIFIED.into()) && all.iter().all(IpAddr::is_unspecified)
        };
        ports && (places == wanted || everywhere(&places) && (wanted.is_empty() || everywhere(&wanted)))
    }

    /// The sockets, to be passed on.
    #[must_use]
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.sockets.iter().map(|socket| socket.as_fd()).collect()
    }

    /// The addresses bound, with the real port.
    #[must_use]
    pub fn local_addresses(&self) -> Vec<SocketAddr> {
        self.sockets.iter().filter_map(|socket| socket.local_addr().ok()).collect()
    }

    /// The next connection, with `TCP_NODELAY` set and an IPv4-mapped peer shown as IPv4. Errors of one connection are
    /// passed over; errors of the process (no descriptors) are waited out and reported through `trouble`.
    pub async fn accept(&self, trouble: impl Fn(&io::Error)) -> (TcpStream, SocketAddr) {
        loop {
            match self.accept_any().await {
                Ok((stream, peer)) => {
                    // A socket that refuses TCP_NODELAY is already closed by its peer; the first read says so.
                    let _ = stream.set_nodelay(true);
                    return (stream, SocketAddr::new(peer.ip().to_canonical(), peer.port()));
                }
                Err(error) if socket::concerns_one_connection(&error) => {}
                Err(error) => {
                    trouble(&error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn accept_any(&self) -> io::Result<(TcpStream, SocketAddr)> {
        std::future::poll_fn(|context| {
            for socket in &self.sockets {
                if let std::task::Poll::Ready(accepted) = socket.poll_accept(context) {
                    return std::task::Poll::Ready(accepted);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

fn open(address: SocketAddr, only_v6: bool) -> Result<TcpListener, ListenError> {
    let listen = || {
        let socket = if address.is_ipv6() { v6_socket(only_v6)? } else { TcpSocket::new_v4()? };
        socket.set_reuseaddr(true)?;
        socket::watch_for_loss(&socket)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| ListenError { address, source })
}

/// Explicit either way: the default is a sysctl of the host.
fn v6_socket(only_v6: bool) -> io::Result<TcpSocket> {
    let v6 = TcpSocket::new_v6()?;
    socket::set_v6_only(&v6, only_v6)?;
    Ok(v6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn several_addresses_share_one_free_port() {
        let listener = Listener::bind(&["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()], 0).unwrap();
        let bound = listener.local_addresses();
        assert_eq!(bound.len(), 2);
        assert_eq!(bound[0].port(), bound[1].port());
        for address in bound {
            let client = TcpStream::connect(address).await.unwrap();
            let (_, peer) = listener.accept(|error| panic!("{error}")).await;
            assert_eq!(peer, client.local_addr().unwrap());
        }
    }

    #[tokio::test]
    async fn the_default_hears_both_families_and_shows_ipv4_as_ipv4() {
        let listener = Listener::bind(&[], 0).unwrap();
        let port = listener.local_addresses()[0].port();
        for address in ["127.0.0.1", "::1"] {
            let address: IpAddr = address.parse().unwrap();
            let _client = TcpStream::connect((address, port)).await.unwrap();
            let (_, peer) = listener.accept(|error| panic!("{error}")).await;
            assert_eq!(peer.ip(), address);
        }
    }

    #[tokio::test]
    async fn sockets_that_were_taken_over_serve_and_know_where_they_are() {
        let socket = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        socket.set_nonblocking(true).unwrap();
        let address = socket.local_addr().unwrap();
        let listener = Listener::adopt(vec![socket]).unwrap();
        let client = TcpStream::connect(address).await.unwrap();
        let (_, peer) = listener.accept(|error| panic!("{error}")).await;
        assert_eq!((peer, listener.descriptors().len()), (client.local_addr().unwrap(), 1));
        let port = address.port();
        let [v4, v6]: [IpAddr; 2] = ["127.0.0.1", "::1"].map(|text| text.parse().unwrap());
        assert!(listener.is_at(&[v4], port) && listener.is_at(&[v4], 0));
        for (addresses, port) in [(&[v4][..], port ^ 1), (&[v6], port), (&[v4, v6], port), (&[], port)] {
            assert!(!listener.is_at(addresses, port), "{addresses:?} {port}");
        }
        let everything = Listener::bind(&[], 0).unwrap();
        assert!(everything.is_at(&[], 0) && !everything.is_at(&[v4], 0));
        let both: [IpAddr; 2] = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
        assert!(everything.is_at(&both, 0) && !everything.is_at(&both[..1], 0));
    }

    #[tokio::test]
    async fn an_address_in_use_is_named() {
        let first = Listener::bind(&["127.0.0.1".parse().unwrap()], 0).unwrap();
        let port = first.local_addresses()[0].port();
        let error = Listener::bind(&["127.0.0.1".parse().unwrap()], port).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot listen on 127.0.0.1:{port}"));
    }
}
