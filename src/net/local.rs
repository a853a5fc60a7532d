//! A listener for processes of this host: a loopback port or a unix socket.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket, UnixListener};

use crate::conf::Endpoint;
use crate::sys::listener::{self, BindError, Bound};
use crate::sys::socket;

/// Pending connections the kernel queues (listen(2)).
const BACKLOG: u32 = 64;
/// Pause after an accept error that will not go away by itself (no descriptors, no memory).
const PAUSE: Duration = Duration::from_millis(100);

/// A place that cannot be listened at.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// An address.
    #[error("cannot listen on {address}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: io::Error,
    },
    /// A unix socket.
    #[error(transparent)]
    Unix(#[from] BindError),
}

impl LocalError {
    /// Whether somebody listens there already.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        match self {
            Self::Tcp { source, .. } => source.kind() == io::ErrorKind::AddrInUse,
            Self::Unix(error) => matches!(error, BindError::InUse(_)),
        }
    }
}

/// A connection of either kind.
pub trait Local: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Local for S {}

/// The listener. A unix socket's name goes with it.
#[derive(Debug)]
pub struct LocalListener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    Unix(UnixListener, Bound),
}

impl LocalListener {
    /// Listens there.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn open(endpoint: &Endpoint) -> Result<Self, LocalError> {
        match endpoint {
            Endpoint::Tcp(address) => {
                let address = *address;
                tcp(address).map(Kind::Tcp).map_err(|source| LocalError::Tcp { address, source })
            }
            Endpoint::Unix(path) => {
                let bound = Bound::shared(path)?;
                let listener = bound.listener().try_clone().and_then(UnixListener::from_std);
                match listener {
                    Ok(listener) => Ok(Kind::Unix(listener, bound)),
                    Err(source) => Err(BindError::from(bound.fault(source)).into()),
                }
            }
        }
        .map(Self)
    }

    /// Whether it could be opened, without a runtime and without leaving anything there.
    ///
    /// # Errors
    /// Why it could not; one that is in use may be in use by whoever would open it.
    pub fn check(endpoint: &Endpoint) -> Result<(), LocalError> {
        match endpoint {
            Endpoint::Tcp(address) => {
                let fail = |source| LocalError::Tcp { address: *address, source };
                std::net::TcpListener::bind(address).map(drop).map_err(fail)
            }
            Endpoint::Unix(path) => Ok(listener::check(path)?),
        }
    }

    /// Where it listens, with the real port.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        match &self.0 {
            Kind::Tcp(listener) => {
                Endpoint::Tcp(listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0))))
            }
            Kind::Unix(_, bound) => Endpoint::Unix(bound.path().to_owned()),
        }
    }

    /// The next connection. Errors of one connection are passed over; errors of the process (no descriptors) are waited
    /// out and reported through `trouble`.
    pub async fn accept(&self, trouble: impl Fn(&io::Error)) -> Box<dyn Local> {
        loop {
            let accepted = match &self.0 {
                Kind::Tcp(listener) => listener.accept().await.map(|(stream, _)| Box::new(stream) as Box<dyn Local>),
                Kind::Unix(listener, _) => listener.accept().await.map(|(stream, _)| Box::new(stream) as _),
            };
            match accepted {
                Ok(stream) => return stream,
                Err(error) if socket::concerns_one_connection(&error) => {}
                Err(error) => {
                    trouble(&error);
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

impl Drop for LocalListener {
    fn drop(&mut self) {
        if let Kind::Unix(_, bound) = &self.0 {
            bound.remove();
        }
    }
}

fn tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv6() { TcpSocket::new_v6()? } else { TcpSocket::new_v4()? };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::{TcpStream, UnixStream};

    use super::*;
    use crate::sys::file::{self, Access};

    async fn hears(listener: &LocalListener, mut client: impl Local) {
        client.write_all(b"x").await.unwrap();
        let mut heard = [0];
        listener.accept(|error| panic!("{error}")).await.read_exact(&mut heard).await.unwrap();
        assert_eq!(heard, *b"x");
    }

    #[tokio::test]
    async fn a_port_of_this_host_is_heard_and_not_shared() {
        let listener = LocalListener::open(&Endpoint::Tcp("127.0.0.1:0".parse().unwrap())).unwrap();
        let Endpoint::Tcp(address) = listener.endpoint() else { panic!("a port") };
        hears(&listener, TcpStream::connect(address).await.unwrap()).await;
        let error = LocalListener::open(&Endpoint::Tcp(address)).unwrap_err();
        assert_eq!((error.is_in_use(), error.to_string()), (true, format!("cannot listen on {address}")));
    }

    #[tokio::test]
    async fn a_socket_is_for_owner_and_group_and_its_name_goes_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        let endpoint = Endpoint::Unix(path.clone());
        let listener = LocalListener::open(&endpoint).unwrap();
        assert_eq!(listener.endpoint(), endpoint);
        assert_eq!(std::fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        hears(&listener, UnixStream::connect(&path).await.unwrap()).await;
        assert!(LocalListener::open(&endpoint).unwrap_err().is_in_use());
        assert!(LocalListener::check(&endpoint).unwrap_err().is_in_use());
        drop(listener);
        assert!(!path.exists());
        LocalListener::check(&endpoint).unwrap();
        assert!(!path.exists());
        let nowhere = Endpoint::Unix(dir.path().join("no/sock"));
        for error in [LocalListener::check(&nowhere).unwrap_err(), LocalListener::open(&nowhere).unwrap_err()] {
            assert!(!error.is_in_use() && error.to_string().contains("/no"), "{error}");
        }
    }

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_nothing_else_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sock");
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let listener = LocalListener::open(&Endpoint::Unix(path.clone())).unwrap();
        hears(&listener, UnixStream::connect(&path).await.unwrap()).await;
        let file = dir.path().join("file");
        file::write_new(&file, b"x", Access::private()).unwrap();
        let error = LocalListener::open(&Endpoint::Unix(file.clone())).unwrap_err();
        assert_eq!(error.to_string(), format!("{} is there and is no socket", file.display()));
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "x");
    }
}
