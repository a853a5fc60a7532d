//! `ping HOST...`.

use serde_json::{Value, json};

use super::{Globals, call};
use crate::cli::out;
use crate::cli::table::{self, Table};
use crate::dispatcher::answer::HostResult;
use crate::dispatcher::ping;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::hook::Context;

const TABLE: Table<5> = Table::new([30, 8, 8, 28, 0]);

/// Hosts.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Registered agents, each with an optional :PORT
    #[arg(required = true, value_name = "HOST")]
    hosts: Vec<String>,
}

impl Args {
    /// Those of a ping of these.
    #[must_use]
    pub fn plain(hosts: &[&str]) -> Self {
        Self { hosts: hosts.iter().map(|&host| host.to_owned()).collect() }
    }
}

/// Pings agents; 1 if any did not answer.
pub fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let site = globals.site()?;
    let reqid = call::request_id()?;
    call::block_on(args.hosts.len(), async {
        let context = Context { action: "ping".to_owned(), hosts: args.hosts.clone(), ..Context::default() };
        if let Err(exit) = call::allowed(&site, globals, context).await {
            return Ok(exit);
        }
        let targets = call::targets(&site, &args.hosts, globals.port)?;
        let fleet = call::fleet(&site, globals)?;
        if !globals.json {
            out::line(TABLE.row(["HOST", "STATUS", "RTT", "CERT EXPIRY", "VERSION"]));
            out::line(table::rule(85));
        }
        let show = |result: &HostResult| {
            if !globals.json {
                out::text(&row(result));
            }
        };
        let results = ping::ping(&fleet, targets, reqid.as_str(), show).await;
        let good = results.iter().all(|result| result.text("status") == "ok");
        if globals.json {
            let results: Vec<Value> = results.into_iter().map(|result| Value::Object(result.fields)).collect();
            out::json(&json!({ "ok": 1, "results": results }));
        }
        Ok(if good { Exit::Success } else { Exit::Failed })
    })?
}

/// One row, and the error below it where there is one.
fn row(result: &HostResult) -> String {
    let cell = |key: &str, missing: &'static str| match result.text(key) {
        "" => missing.to_owned(),
        text => text.to_owned(),
    };
    let (status, rtt, expiry) = (cell("status", "error"), cell("rtt", "?"), cell("expiry", "?"));
    let mut text = TABLE.row([result.host.as_str(), &status, &rtt, &expiry, &cell("version", "?")]) + "\n";
    if !result.text("error").is_empty() {
        text.push_str("    ERROR: ");
        text.push_str(result.text("error"));
        text.push('\n');
    }
    text
}
