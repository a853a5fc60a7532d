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
    parts: Parts,
}

/// What both ends are made of.
struct Parts {
    anchor: TrustAnchor,
    server: Arc<IdentitySlot>,
    client: Arc<IdentitySlot>,
}

impl Parts {
    /// Of the site in this directory: the certificates of the agent `web` and of its dispatcher.
    fn of(root: &Path) -> Self {
        let read = |place: &str| std::fs::read_to_string(root.join(place)).unwrap();
        let anchor = TrustAnchor::from_pem_file(&read("etc/ctrl-exec/ca.crt")).unwrap();
        let slot = |cert: &str, key: &str| IdentitySlot::new(Identity::load(&read(cert), &read(key)).unwrap());
        let server = slot("web/etc/ctrl-exec-agent/agent.crt", "web/etc/ctrl-exec-agent/agent.key");
        Self { anchor, server, client: slot("etc/ctrl-exec/d.crt", "etc/ctrl-exec/d.key") }
    }

    /// Ends that have met nobody yet, so that they compute every signature.
    fn ends(&self) -> (TlsAcceptor, TlsConnector) {
        let server = tls::agent_end(Arc::clone(&self.server), &self.anchor).unwrap();
        let client = tls::dispatcher_client(Arc::clone(&self.client), &self.anchor).unwrap();
        (TlsAcceptor::from(server.config()), TlsConnector::from(client))
    }
}

/// The ends of a connection of the site in this directory.
pub(crate) fn ends(root: &Path) -> (TlsAcceptor, TlsConnector) {
    Parts::of(root).ends()
}

impl Handshake {
    pub(crate) fn prepare(site: &Site) -> Self {
        let parts = Parts::of(site.root());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, parts }
    }

    /// Connects, completes the handshake at both ends, and passes one byte, without which the client's part is not
    /// judged.
    pub(crate) fn once(&self) {
        let (acceptor, connector) = self.parts.ends();
        self.runtime.block_on(async {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let address = listener.local_addr().unwrap();
            let server = async {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut stream = acceptor.accept(stream).await.unwrap();
                stream.write_all(b"x").await.unwrap();
                stream.flush().await.unwrap();
            };
            let client = async {
                let stream = TcpStream::connect(address).await.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut stream = connector.connect(tls::any_name(), stream).await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), b'x');
            };
            tokio::join!(server, client);
        });
    }
}
