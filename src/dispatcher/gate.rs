//! The dispatcher's own gate: the auth hook, asked before a verb reaches any host.

use crate::dispatcher::site::Site;
use crate::hook::{Context, Decision, Hook, record};
use crate::sys::clock;
use crate::wire::stamp;

/// The hook said no.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct Denied {
    /// The hook's code, 1 to 255.
    pub code: u8,
    /// The documented reason.
    pub reason: String,
}

/// Asks the hook about a command-line call; without a hook the command line is allowed, since who can use it can read
/// the dispatcher's key anyway.
pub async fn ask_for_cli(site: &Site, context: Context) -> Result<(), Denied> {
    let context = Context { source_ip: "127.0.0.1".to_owned(), timestamp: stamp::utc(clock::unix_now()), ..context };
    let Some(hook) = hook(site) else {
        record::no_hook(&site.log, &context, "no-hook-cli");
        return Ok(());
    };
    let decision = hook.ask(&context).await;
    record::decision(&site.log, &hook, &context, &decision);
    match decision {
        Decision::Allowed => Ok(()),
        Decision::Denied { code, reason, .. } => Err(Denied { code, reason }),
    }
}

/// The hook of this site, if it has one.
#[must_use]
pub fn hook(site: &Site) -> Option<Hook> {
    let path = site.settings.auth_hook.as_ref()?;
    Some(Hook::new(path.to_path_buf(), site.settings.auth_hook_timeout))
}
