//! `list-agents`.

use std::collections::BTreeMap;

use serde_json::Value;
use time::OffsetDateTime;

use super::Globals;
use crate::cli::out;
use crate::cli::table::{self, Table};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::pki::{cert, renewal};
use crate::store::record::AgentRecord;
use crate::store::registry::Registry;

const TABLE: Table<7> = Table::new([30, 16, 5, 8, 22, 24, 0]);

/// Which agents.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only agents with all of these tags: key=value[,key=value...]
    #[arg(long, value_name = "K=V,...")]
    tags: Option<String>,
}

/// Lists the registry. It needs no configuration; where there is one, its `registry_dir` counts.
pub fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let filter = args.tags.as_deref().map(tag_filter).transpose()?;
    let listing = registry(globals)?.list().map_err(|error| {
        if error.is_permission_denied() {
            Failure::new(Exit::Permission, "Cannot access agent registry: permission denied.")
                .hint("sudo ctrl-exec-dispatcher list-agents, or become a member of the group ctrl-exec")
        } else {
            Failure::new(Exit::Unavailable, error)
        }
    })?;
    for broken in &listing.broken {
        out::error(format!("warning: {}", Failure::new(Exit::Failed, std::io::Error::other(broken.to_string()))));
    }
    let known = !listing.records.is_empty();
    let wanted = |record: &AgentRecord| filter.as_ref().is_none_or(|filter| has_tags(record, filter));
    let records: Vec<AgentRecord> = listing.records.into_iter().filter(wanted).collect();
    if globals.json {
        out::json(&Value::Array(records.iter().filter_map(|record| serde_json::to_value(record).ok()).collect()));
    } else if !known {
        out::line("No registered agents.");
    } else if records.is_empty() {
        out::line("No agents match the tag filter.");
    } else {
        print(&records);
    }
    Ok(Exit::Success)
}

fn registry(globals: &Globals) -> Result<Registry, Failure> {
    if globals.config().exists() {
        return globals.site().map(|site| site.registry);
    }
    Ok(Registry::new(globals.root().path("/var/lib/ctrl-exec/agents")))
}

fn print(records: &[AgentRecord]) {
    out::line(TABLE.row(["HOSTNAME", "IP", "PORT", "LOOKUP", "PAIRED", "CERT EXPIRY", "DAYS LEFT"]));
    out::line(table::rule(112));
    for record in records {
        let or = |text: &str| if text.is_empty() { "?".to_owned() } else { text.to_owned() };
        let days = cert::parse_openssl_time(&record.expiry)
            .map_or_else(|| "?".to_owned(), |end| renewal::days_left(end, OffsetDateTime::now_utc()).to_string());
        let (ip, port, paired, expiry) =
            (or(&record.ip), record.port.to_string(), or(&record.paired), or(&record.expiry));
        let lookup = record.lookup_by.0.as_str();
        out::line(TABLE.row([record.hostname.as_str(), &ip, &port, lookup, &paired, &expiry, &days]));
    }
}

fn tag_filter(text: &str) -> Result<BTreeMap<String, String>, Failure> {
    let invalid = |why: String| Failure::new(Exit::Usage, format!("Invalid --tags filter: {why}"));
    let mut filter = BTreeMap::new();
    for piece in text.split(',').filter(|piece| !piece.is_empty()) {
        let Some((key, value)) = piece.split_once('=').filter(|(key, _)| !key.is_empty()) else {
            return Err(invalid(format!("invalid tag filter '{piece}' (expected key=value)")));
        };
        filter.insert(key.to_owned(), value.to_owned());
    }
    if filter.is_empty() {
        return Err(invalid("empty tag filter (expected key=value[,key=value...])".to_owned()));
    }
    Ok(filter)
}

fn has_tags(record: &AgentRecord, filter: &BTreeMap<String, String>) -> bool {
    filter.iter().all(|(key, value)| record.tags.get(key).and_then(Value::as_str) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_wants_every_tag_exactly() {
        let record: AgentRecord =
            serde_json::from_str(r#"{"hostname":"a","tags":{"env":"prod","role":"","x":"a=b"}}"#).unwrap();
        for (text, want) in [("env=prod", true), ("env=prod,role=", true), ("x=a=b", true), ("env=dev", false)] {
            assert_eq!(has_tags(&record, &tag_filter(text).unwrap()), want, "{text}");
        }
        assert!(tag_filter("env").unwrap_err().to_string().contains("invalid tag filter 'env' (expected key=value)"));
        assert!(tag_filter(",").unwrap_err().to_string().contains("empty tag filter"));
    }
}
