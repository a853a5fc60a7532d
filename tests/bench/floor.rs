//! The floor under a connection: a full mutual handshake of the same TLS library with the same certificates, over
//! loopback.

use std::path::Path;
use std::sync::Arc;

use ctrl_exec::pki::chain::TrustAnchor;
use ctrl_exec::tls::identity::{Identity, IdentitySlot};
use ctrl_exec::tls::{self};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::site::Site;

/// Both ends in this process.
pub(crate) struct Handshake {
    runtime: tokio::runtime::Runtime,
    acceptor: TlsAcceptor,
    connector: TlsConnector,
}

/// The ends of a connection of the site in this directory, with the certificates of the agent `web` and of its
/// dispatcher.
pub(crate) fn ends(root: &Path) -> (TlsAcceptor, TlsConnector) {
    let read = |place: &str| std::fs::read_to_string(root.join(place)).unwrap();
    let anchor = TrustAnchor::from_pem_file(&read("etc/ctrl-exec/ca.crt")).unwrap();
    let slot = |cert: &str, key: &str| IdentitySlot::new(Identity::load(&read(cert), &read(key)).unwrap());
    let server = slot("web/etc/ctrl-exec-agent/agent.crt", "web/etc/ctrl-exec-agent/agent.key");
    let client = slot("etc/ctrl-exec/d.crt", "etc/ctrl-exec/d.key");
    (
        TlsAcceptor::from(tls::agent_server(server, &anchor).unwrap()),
        TlsConnector::from(Arc::clone(&tls::dispatcher_client(client, &anchor).unwrap())),
    )
}

impl Handshake {
    pub(crate) fn prepare(site: &Site) -> Self {
        let (acceptor, connector) = ends(site.root());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, acceptor, connector }
    }

    /// Connects, completes the handshake at both ends, and passes one byte, without which the client's part is not
    /// judged.
    pub(crate) fn once(&self) {
        self.runtime.block_on(async {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = async {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut stream = self.acceptor.accept(stream).await.unwrap();
                stream.write_all(b"x").await.unwrap();
                stream.flush().await.unwrap();
            };
            let client = async {
                let stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut stream = self.connector.connect(tls::any_name(), stream).await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), b'x');
            };
            tokio::join!(server, client);
        });
    }
}
