//! `check-config`: everything a verb would find, at once.

use super::Globals;
use crate::cli::out;
use crate::dispatcher::gate;
use crate::dispatcher::site::{Site, SiteError};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::pki::chain::TrustAnchor;
use crate::sys::file::{self, FileError};

/// No arguments.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Checks the configuration, then each file that it names; 78 if anything is wrong.
pub fn run(_: &Args, globals: &Globals) -> Result<Exit, Failure> {
    out::line(format!("Checking {}...", globals.config().display()));
    let site = globals.site()?;
    out::line("  Config OK");
    let mut good = true;
    let mut report = |what: &str, checked: Result<String, SiteError>, remedy: &str| match checked {
        Ok(text) => out::line(format!("  {what} OK{text}")),
        Err(error) => {
            good = false;
            let denied = error.file().is_some_and(FileError::is_permission_denied);
            let remedy = if denied { "run it as root, with sudo, or as the file's owner" } else { remedy };
            out::line(format!("  {what}: {}", Failure::new(Exit::Config, error).hint(remedy)));
        }
    };
    report("CA certificate", site.anchor().map(|anchor| expires(&anchor)), "ctrl-exec setup-ca");
    report("CA key", ca_key(&site), "ctrl-exec setup-ca; only root reads the key");
    report("Dispatcher certificate and key", identity(&site), "ctrl-exec setup-ctrl-exec");
    good &= hook(&site);
    Ok(if good { Exit::Success } else { Exit::Config })
}

fn hook(site: &Site) -> bool {
    let Some(hook) = gate::hook(site) else { return true };
    let path = hook.path().display();
    if !file::is_executable(hook.path()) {
        out::line(format!("  Auth hook: {path} is not executable: every call is denied"));
        return false;
    }
    if let Some((_, doubt)) = hook.doubt() {
        let doubt = doubt.strip_prefix("auth hook ").unwrap_or(&doubt);
        out::line(format!("  Auth hook: {doubt}: every call is denied"));
        return false;
    }
    out::line(format!("  Auth hook OK ({path})"));
    true
}

fn expires(anchor: &TrustAnchor) -> String {
    format!(" (expires {})", anchor.certificate().expiry_text())
}

/// The API's user has no right to the CA key, and needs none.
fn ca_key(site: &Site) -> Result<String, SiteError> {
    match site.ca() {
        Ok(_) => Ok(String::new()),
        Err(error) if error.file().is_some_and(FileError::is_permission_denied) => {
            Ok(" (not readable by this user)".to_owned())
        }
        Err(error) => Err(error),
    }
}

fn identity(site: &Site) -> Result<String, SiteError> {
    let identity = site.identity()?;
    let certificate = identity.certificate();
    Ok(format!(" (serial {}, expires {})", certificate.serial(), certificate.expiry_text()))
}
