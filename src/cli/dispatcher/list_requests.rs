//! `list-requests`.

use super::{Globals, approve};
use crate::cli::out;
use crate::cli::table::{self, Table};
use crate::dispatcher::pairing::decide::{self, Waiting};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::store::queue::Form;

const TABLE: Table<5> = Table::new([16, 24, 16, 28, 0]);

/// Nothing.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Shows what waits, oldest first.
pub fn run(_: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let site = globals.site()?;
    let waiting = decide::list(&site).map_err(approve::store_failure)?;
    if waiting.is_empty() {
        out::line("No pending pairing requests.");
        return Ok(Exit::Success);
    }
    out::line(TABLE.row(["ID", "HOSTNAME", "SOURCE IP", "REVERSE DNS", "CODE"]));
    out::line(table::rule(98));
    for one in &waiting {
        rows(one).iter().for_each(out::line);
    }
    out::line("");
    out::line("REVERSE DNS: (ok) the name leads back to the address, (?) it does not, - there is none.");
    out::line("Compare CODE with the agent's display, then: ctrl-exec approve ID, or ctrl-exec deny ID.");
    Ok(Exit::Success)
}

fn rows(waiting: &Waiting) -> Vec<String> {
    let request = &waiting.request;
    let reverse = match (request.reverse_dns.as_str(), request.reverse_confirmed) {
        ("", _) => "-".to_owned(),
        (name, 0) => format!("{name} (?)"),
        (name, _) => format!("{name} (ok)"),
    };
    let source = request.source_ip.to_string();
    let cells = [request.id.as_str(), request.hostname.as_str(), &source, &reverse, &request.code];
    let mut rows = vec![TABLE.row(cells)];
    if request.form == Form::Original {
        rows.push("  Form:     original (the code covers the request only)".to_owned());
    }
    rows.extend(waiting.replaces.as_ref().map(|old| format!("  {}", approve::replaces(old))));
    rows
}
