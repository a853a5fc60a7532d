//! A relay between a tool and the agent: the tool's connections reach the agent from another address, and, where the
//! tool has no certificate to show, with one.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use ctrl_exec::pki::ca::Ca;
use ctrl_exec::tls::identity::{Identity, IdentitySlot};
use ctrl_exec::tls::{any_name, dispatcher_client, only_http_1};
use rustls::ClientConfig;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Runtime;
use tokio_rustls::TlsConnector;

/// Where the agent sees the tool.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 9);

/// Who the tool is to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Guise {
    /// Nobody: it speaks TLS itself and has no certificate.
    Stranger,
    /// Another agent of the same CA.
    Neighbour,
    /// A dispatcher that this agent trusts.
    Dispatcher,
}

/// A relay that listens until it is dropped.
pub(crate) struct Relay {
    pub(crate) address: SocketAddr,
    _runtime: Runtime,
}

impl Relay {
    /// A relay to `agent`; `root` is the site's directory.
    pub(crate) fn start(agent: SocketAddr, root: &Path, guise: Guise) -> Self {
        let runtime = Runtime::new().unwrap();
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let connector = match guise {
            Guise::Stranger => None,
            Guise::Neighbour => Some(config(root, "web/etc/ctrl-exec-agent/agent")),
            Guise::Dispatcher => Some(config(root, "etc/ctrl-exec/d")),
        };
        let connector = connector.map(TlsConnector::from);
        runtime.spawn(async move {
            loop {
                let Ok((tool, _)) = listener.accept().await else { continue };
                tokio::spawn(relayed(tool, agent, connector.clone()));
            }
        });
        Self { address, _runtime: runtime }
    }
}

/// One connection, until either end has enough.
async fn relayed(mut tool: TcpStream, agent: SocketAddr, connector: Option<TlsConnector>) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((SOURCE, 0).into())?;
    let mut stream = socket.connect(agent).await?;
    match connector {
        None => copy_bidirectional(&mut tool, &mut stream).await?,
        Some(connector) => copy_bidirectional(&mut tool, &mut connector.connect(any_name(), stream).await?).await?,
    };
    Ok(())
}

/// A client's configuration with the certificate and key of this name.
fn config(root: &Path, name: &str) -> Arc<ClientConfig> {
    let read = |place: String| std::fs::read_to_string(root.join(place)).unwrap();
    let identity = Identity::load(&read(format!("{name}.crt")), &read(format!("{name}.key"))).unwrap();
    let ca = Ca::load(&read("etc/ctrl-exec/ca.key".to_owned()), &read("etc/ctrl-exec/ca.crt".to_owned())).unwrap();
    only_http_1(&dispatcher_client(IdentitySlot::new(identity), ca.anchor()).unwrap())
}
