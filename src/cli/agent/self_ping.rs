//! `self-ping`: calls the running agent on loopback with the agent's own certificate.

use std::net::{IpAddr, Ipv4Addr};

use super::pairing_status::Untold;
use super::{Globals, pairing_status, remedy, self_check};
use crate::agent::self_ping::{self, Pong, SelfPingError};
use crate::agent::snapshot;
use crate::cli::out;
use crate::exit::Exit;
use crate::failure::Failure;

/// Pings; 0 also where the agent refuses its own serial, since it then is there and enforces its policy.
pub fn run(globals: &Globals) -> Result<Exit, Failure> {
    out::line("Checking config...");
    let loaded =
        snapshot::configuration(&globals.places()).map_err(|error| self_check::broken(error, &globals.places()))?;
    let settings = loaded.settings;
    out::line(format!("  Config OK (port {})", *settings.port));
    match pairing_status::own(globals) {
        Ok(own) => out::line(format!("  Paired: yes (cert expires {})", own.expiry)),
        Err(Untold::Denied(error)) => return Err(remedy::denied(error, &globals.places())),
        Err(Untold::NoCa(error)) => return Err(remedy::advised(error, &globals.places())),
        Err(Untold::Unpaired(reason)) => {
            out::line(format!("  Paired: no - {reason}"));
            out::line("  Cannot self-ping: agent not paired.");
            return Ok(Exit::Failed);
        }
    }
    let address = settings.bind.first().copied().filter(|ip| !ip.is_unspecified());
    let address = address.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let port = globals.port.unwrap_or(*settings.port);
    out::line(format!("Connecting to {address}:{port}..."));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::new(Exit::Unavailable, error))?;
    match runtime.block_on(self_ping::ping(&settings, (address, port).into())) {
        Ok(pong) => {
            out::line(format!("  Port {port}: listening"));
            out::line("  mTLS handshake: OK");
            let good = pong != Pong::Other;
            out::line(match pong {
                Pong::Ok => "  Ping response: OK",
                Pong::Untrusted => {
                    "  Ping response: 403 serial mismatch (expected - agent is running and enforcing policy)"
                }
                Pong::Other => "  Ping response: unexpected",
            });
            out::line("Self-ping complete.");
            Ok(if good { Exit::Success } else { Exit::Failed })
        }
        Err(error) => {
            if !matches!(error, SelfPingError::Closed(_)) {
                out::line(format!("  Port {port}: listening"));
            }
            out::line(format!("  {}", Failure::new(Exit::Failed, error)));
            Ok(Exit::Failed)
        }
    }
}
