//! What `self-check` says of the places that the agent itself writes to, and of what waits in one of them.

use std::path::Path;

use time::OffsetDateTime;

use super::{Globals, remedy};
use crate::agent::pairing::places::Places;
use crate::agent::promote;
use crate::cli::out;
use crate::conf::agent::{Loaded, Settings};
use crate::store::jobs::Jobs;
use crate::sys::file::{self, FileError};
use crate::wire::causes;

/// Whether this process can keep there what an agent keeps: jobs, a renewed certificate, trust. `eyes` says that it has the
/// account of the agent in question. Nothing where another cannot tell.
pub(super) fn places(settings: &Settings, eyes: bool) -> Option<bool> {
    let jobs = Jobs::new(settings.async_runs_dir.to_path_buf(), settings.max_output).check();
    let jobs = jobs.map_err(|error| causes::on_one_line(&error));
    let beside = |file: &Path| in_place(file.parent().unwrap_or(file)).map_err(|error| causes::on_one_line(&error));
    let all = [
        ("async_runs_dir", jobs, "no job can be accepted"),
        ("cert_staging_path", beside(&settings.cert_staging_path), "no renewed certificate can be taken"),
        (
            "trusted_dispatchers_path",
            beside(&settings.trusted_dispatchers_path),
            "no dispatcher can change its certificate",
        ),
    ];
    let mut good = true;
    for (key, found, cost) in all {
        if let Err(reason) = found {
            good = false;
            let elsewhere = || format!("as this user sees it ({})", remedy::elsewhere(settings));
            let cost = if eyes { cost.to_owned() } else { elsewhere() };
            out::line(format!("  State: {reason}: {cost} ({})", settings.place(key)));
        }
    }
    if good {
        let rest = if eyes { "the agent may write to its directories" } else { "for this user" };
        out::line(format!("  State OK ({rest})"));
    }
    eyes.then_some(good)
}

/// Whether files can be put into a directory that nobody would make.
fn in_place(directory: &Path) -> Result<(), FileError> {
    directory.metadata().map_err(|error| FileError::new(directory, "write to", error))?;
    file::could_fill_dir(directory)
}

/// Whether nothing waits that would only be thrown away.
pub(super) fn staged(globals: &Globals, loaded: &Loaded) -> bool {
    let (places, _) = Places::load(&globals.config(), &globals.root());
    let path = loaded.settings.cert_staging_path.display();
    match promote::judge(&places, OffsetDateTime::now_utc()) {
        Ok(false) => true,
        Ok(true) => {
            out::line(format!("  Renewed certificate OK ({path} is taken up at the next start or reload)"));
            true
        }
        Err(error) => {
            let reason = causes::on_one_line(&error);
            out::line(format!("  Renewed certificate: {path} is not taken up: {reason}: remove it, and renew again"));
            false
        }
    }
}
