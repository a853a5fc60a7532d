//! `run HOST... SCRIPT [-- ARG...]`.

use serde_json::{Value, json};

use super::{Globals, call, results};
use crate::cli::out;
use crate::dispatcher::answer::HostResult;
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
    /// Arguments of the script, unchanged
    #[arg(last = true, value_name = "ARG")]
    args: Vec<String>,
}

/// Runs a script; 0 if every host's exit status was 0.
pub fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let Args { mut words, args } = args;
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
        let show = |result: &HostResult| {
            if !globals.json {
                out::text(&results::block(result));
            }
        };
        let results = run::run(&call::fleet(&site)?, targets, order, show).await;
        let good = results.iter().all(|result| result.exit() == 0);
        if globals.json {
            let results: Vec<Value> = results.into_iter().map(|result| Value::Object(result.fields)).collect();
            out::json(&json!({ "ok": 1, "results": results }));
        }
        Ok(if good { Exit::Success } else { Exit::Failed })
    })?
}
