//! Where something is served to this host alone, without authentication: a loopback port or a unix socket.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use super::diagnostic::shown;
use super::value::{self, Complaint};

/// A place that only processes of this host can reach.
///
/// **Invariant:** an address is one of the loopback network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP port; 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A unix socket.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `ADDRESS:PORT`, `unix:/PATH` or `/PATH`.
pub(super) fn endpoint(text: &str) -> Result<Endpoint, Complaint> {
    if let Some(path) = text.strip_prefix("unix:").or_else(|| text.starts_with('/').then_some(text)) {
        return value::socket(path).map(Endpoint::Unix);
    }
    let address: SocketAddr = text.parse().map_err(|_| malformed(text))?;
    if address.ip().to_canonical().is_loopback() {
        return Ok(Endpoint::Tcp(address));
    }
    let message = format!("must be an address of this host's loopback, not '{}'", address.ip());
    Err(Complaint::of_key(message).help(
        "it is served without TLS and to whoever asks: use 127.0.0.1 or a unix socket, and where another host reads it, \
         a proxy that authenticates",
    ))
}

fn malformed(text: &str) -> Complaint {
    let complaint = Complaint::of_key(format!("must be ADDRESS:PORT or unix:/PATH, not '{}'", shown(text)));
    let example = "for example 127.0.0.1:9443, [::1]:9443 or unix:/run/ctrl-exec-metrics/agent.sock";
    if let Ok(port) = text.parse::<u16>() {
        return complaint.help(format!("an address belongs before the port: 127.0.0.1:{port}"));
    }
    if text.parse::<IpAddr>().is_ok() {
        return complaint.help(format!("a port belongs behind the address: {example}"));
    }
    complaint.help(example)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_loopback_port_or_a_socket() {
        for (text, shown) in [
            ("127.0.0.1:9443", "127.0.0.1:9443"),
            ("127.8.8.8:0", "127.8.8.8:0"),
            ("[::1]:9443", "[::1]:9443"),
            ("[::ffff:127.0.0.1]:1", "[::ffff:127.0.0.1]:1"),
            ("unix:/run/m.sock", "unix:/run/m.sock"),
            ("/run/m.sock", "unix:/run/m.sock"),
        ] {
            assert_eq!(endpoint(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_others_could_reach_or_nobody_can_is_refused() {
        let why = |text: &str| format!("{:?}", endpoint(text).unwrap_err());
        for text in ["0.0.0.0:9443", "[::]:9443", "10.0.0.1:9443", "[fe80::1]:9443", "[::ffff:10.0.0.1]:9443"] {
            assert!(why(text).contains("loopback") && why(text).contains("proxy"), "{text}");
        }
        assert!(why("9443").contains("127.0.0.1:9443"));
        assert!(why("127.0.0.1").contains("a port belongs behind"));
        for text in ["", "localhost:9443", "on", "127.0.0.1:99999", "::1:9443x"] {
            assert!(why(text).contains("must be ADDRESS:PORT or unix:/PATH"), "{text}");
        }
        assert!(why("unix:run/m.sock").contains("absolute path"));
        assert!(why(&format!("unix:/{}", "x".repeat(107))).contains("108 bytes"));
    }
}
