//! What `run` and `ping` share on the command line: the hook, the references, the runtime.

use std::future::Future;

use serde_json::json;

use super::{Globals, globals};
use crate::cli::out;
use crate::dispatcher::call::Fleet;
use crate::dispatcher::gate;
use crate::dispatcher::resolve::{self, ResolveError, Target};
use crate::dispatcher::site::Site;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::hook::Context;
use crate::sys::{descriptors, random};
use crate::wire::name::RequestId;

/// From how many hosts on a second thread is worth its start: a handshake costs a third of a millisecond.
const MANY: usize = 16;
/// Descriptors that are needed beside one for each host.
const SPARE: u64 = 64;

/// A runtime for so many hosts.
pub fn block_on<T>(hosts: usize, work: impl Future<Output = T>) -> Result<T, Failure> {
    let mut builder = if hosts >= MANY {
        tokio::runtime::Builder::new_multi_thread()
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    // Where the limit cannot be raised, the hosts that are too many say so.
    let _ = descriptors::raise(u64::try_from(hosts).unwrap_or(u64::MAX).saturating_add(SPARE));
    let runtime = builder.enable_all().build().map_err(|error| Failure::new(Exit::Unavailable, error))?;
    Ok(runtime.block_on(work))
}

/// Asks the hook; a denial is printed in the documented form and is how the process ends.
pub async fn allowed(site: &Site, globals: &Globals, context: Context) -> Result<(), Exit> {
    let context = Context { username: globals.username.clone(), token: globals.token.clone(), ..context };
    gate::ask_for_cli(site, context).await.map_err(|denied| {
        if globals.json {
            out::json(&json!({ "ok": 0, "error": denied.reason, "code": denied.code }));
        } else {
            out::error(format!("Denied: {denied}"));
        }
        Exit::Failed
    })
}

/// The agents that the references name, all or none. `port`, else the configured one, is for those that are registered
/// with the default port.
pub fn targets(site: &Site, references: &[String], port: Option<u16>) -> Result<Vec<Target>, Failure> {
    let port = port.unwrap_or(site.settings.port);
    resolve::resolve(&site.registry, references, Some(port)).map_err(|error| match error {
        ResolveError::Store(store) if store.is_permission_denied() => {
            Failure::new(Exit::Permission, store).hint("run it with sudo, or as a member of the group ctrl-exec")
        }
        ResolveError::Store(store) => Failure::new(Exit::Unavailable, store),
        unknown @ ResolveError::Unknown { .. } => Failure::new(Exit::Failed, unknown)
            .hint("Only registered agents can be addressed - run 'ctrl-exec-dispatcher list-agents' to see them."),
    })
}

/// A fresh request id.
pub fn request_id() -> Result<RequestId, Failure> {
    let bytes = random::bytes().map_err(|error| Failure::new(Exit::Unavailable, error))?;
    Ok(RequestId::from_random(bytes))
}

/// The connections of this site.
pub fn fleet(site: &Site, globals: &Globals) -> Result<Fleet, Failure> {
    let dialer = site.dialer(globals.sessions().as_deref()).map_err(globals::failed)?;
    Ok(Fleet { dialer, log: site.log.clone(), most: site.settings.max_parallel })
}
