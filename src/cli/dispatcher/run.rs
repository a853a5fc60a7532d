//! `run HOST... SCRIPT [-- ARG...]`.

use std::io::IsTerminal as _;

use serde_json::{Value, json};

use super::live::{self, Style};
use super::{Globals, call, results};
use crate::cli::out;
use crate::dispatcher::answer::HostResult;
use crate::dispatcher::call::Fleet;
use crate::dispatcher::resolve::Target;
use crate::dispatcher::run;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::hook::Context;
use crate::wire::run::RunCall;

/// Hosts, script, arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Registered agents, each with an optional :PORT, and last the script's name
    #[arg(required = true, num_args = 2.., value_names = ["HOST", "SCRIPT"])]
    words: Vec<String>,
    /// Show output while it is printed; the default on a terminal
    #[arg(long, conflicts_with_all = ["no_stream", "json"])]
    stream: bool,
    /// Show each host's output when it has ended; the default elsewhere
    #[arg(long)]
    no_stream: bool,
    /// Print one JSON event a line: output while it is printed, then each host's result
    #[arg(long, conflicts_with_all = ["no_stream", "stream", "json"])]
    json_lines: bool,
    /// Arguments of the script, unchanged
    #[arg(last = true, value_name = "ARG")]
    arguments: Vec<String>,
}

/// Runs a script; 0 if every host's exit status was 0.
pub fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let style = style(&args, globals);
    let Args { mut words, arguments: args, .. } = args;
    let Some(script) = words.pop().filter(|_| !words.is_empty()) else {
        return Err(Failure::new(Exit::Usage, "Need at least one host and a script name"));
    };
    let site = globals.site()?;
    let reqid = call::request_id()?;
    call::block_on(words.len(), async {
        let context = Context {
            action: "run".to_owned(),
            script: script.clone(),
            hosts: words.clone(),
            args: args.clone(),
            ..Context::default()
        };
        if let Err(exit) = call::allowed(&site, globals, context).await {
            return Ok(exit);
        }
        let targets = call::targets(&site, &words, globals.port)?;
        let order = RunCall {
            script,
            args,
            reqid: reqid.to_string(),
            username: globals.username.clone(),
            token: globals.token.clone(),
        };
        let fleet = call::fleet(&site)?;
        let results = match style {
            Some(style) => live(&fleet, targets, order, style).await?,
            None => run::run(&fleet, targets, order, |result| show(result, globals)).await,
        };
        let good = results.iter().all(|result| result.exit() == 0);
        if globals.json {
            let results: Vec<Value> = results.into_iter().map(|result| Value::Object(result.fields)).collect();
            out::json(&json!({ "ok": 1, "results": results }));
        }
        Ok(if good { Exit::Success } else { Exit::Failed })
    })?
}

/// How output is shown while it is printed; `None` where it is shown at the end.
fn style(args: &Args, globals: &Globals) -> Option<Style> {
    if args.json_lines {
        return Some(Style::Json);
    }
    let wanted = args.stream || (!args.no_stream && !globals.json && std::io::stdout().is_terminal());
    let hosts = args.words.len().saturating_sub(1);
    wanted.then_some(if hosts == 1 { Style::Raw } else { Style::Prefixed })
}

async fn live(fleet: &Fleet, targets: Vec<Target>, order: RunCall, style: Style) -> Result<Vec<HostResult>, Failure> {
    let (sender, printing) = live::start(style).map_err(|error| Failure::new(Exit::Unavailable, error))?;
    let results = run::run_live(fleet, targets, order, sender).await;
    // The last line is printed before the process ends.
    let _ = printing.join();
    Ok(results)
}

fn show(result: &HostResult, globals: &Globals) {
    if !globals.json {
        out::text(&results::block(result));
    }
}
