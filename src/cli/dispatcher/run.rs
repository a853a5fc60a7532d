//! `run HOST... SCRIPT [-- ARG...]`.

use std::io::IsTerminal as _;

use serde_json::{Value, json};

use super::live::{self, Style};
use super::{Globals, call, results};
use crate::cli::out;
use crate::dispatcher::answer::HostResult;
use crate::dispatcher::call::Fleet;
use crate::dispatcher::resolve::Target;
use crate::dispatcher::site::Site;
use crate::dispatcher::{detached, record, run};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::hook::Context;
use crate::store::runs::Submitter;
use crate::wire::name::RequestId;
use crate::wire::run::RunCall;

/// Hosts, script, arguments.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of its own on the command line")]
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
    /// Do not wait: each agent runs the script as a job and keeps its result ('status', 'wait', 'result', 'cancel')
    #[arg(long = "async", conflicts_with_all = ["stream", "no_stream", "json_lines"])]
    detached: bool,
    /// Show output while it is printed, from a job that goes on if this command or its connection ends. Works with every
    /// agent that takes --async; one that cannot stream a job is asked for its output at the end
    #[arg(long, conflicts_with_all = ["detached", "no_stream", "json"])]
    keep_running: bool,
    /// Arguments of the script, unchanged
    #[arg(last = true, value_name = "ARG")]
    arguments: Vec<String>,
}

impl Args {
    /// Those of a run with no switch of its own.
    #[must_use]
    pub fn plain(words: &[&str], arguments: &[&str]) -> Self {
        let [words, arguments] = [words, arguments].map(|words| words.iter().map(|&word| word.to_owned()).collect());
        Self {
            words,
            arguments,
            stream: false,
            no_stream: false,
            json_lines: false,
            detached: false,
            keep_running: false,
        }
    }
}

/// Runs a script; 0 if every host's exit status was 0. With `--async`, 0 if any host has taken its job.
pub fn run(args: Args, globals: &Globals) -> Result<Exit, Failure> {
    let style = style(&args, globals);
    let Args { mut words, arguments: args, detached, keep_running, .. } = args;
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
        let (username, token) = (globals.username.clone(), globals.token.clone());
        let detached = detached || keep_running;
        let order = RunCall { script, args, reqid: reqid.to_string(), username, token, detached };
        let dispatch = Dispatch { site: &site, globals, fleet: call::fleet(&site, globals)?, targets, order, reqid };
        match (detached, style) {
            (true, Some(style)) => dispatch.keep_running(style).await,
            (true, None) => Ok(dispatch.submit().await),
            (false, style) => dispatch.wait(style, &words).await,
        }
    })?
}

/// A run that may begin.
struct Dispatch<'a> {
    site: &'a Site,
    globals: &'a Globals,
    fleet: Fleet,
    targets: Vec<Target>,
    order: RunCall,
    reqid: RequestId,
}

impl Dispatch<'_> {
    /// An ordinary run.
    async fn wait(self, style: Option<Style>, words: &[String]) -> Result<Exit, Failure> {
        let submitter = self.submitter();
        let Self { site, globals, fleet, targets, order, reqid } = self;
        let script = order.script.clone();
        let results = match style {
            Some(style) => live(&fleet, targets, order, style).await?,
            None => run::run(&fleet, targets, order, |result| show(result, globals)).await,
        };
        record::finished(site, &reqid, (&script, words), &results, submitter);
        let good = results.iter().all(|result| result.exit() == 0);
        if globals.json {
            out::json(&json!({ "ok": 1, "results": values(results) }));
        }
        Ok(if good { Exit::Success } else { Exit::Failed })
    }

    /// Jobs that nobody waits for.
    async fn submit(self) -> Exit {
        record::begin(self.site, &self.reqid, &self.order, &self.targets, self.submitter());
        let Self { site, globals, fleet, targets, order, reqid } = self;
        if !globals.json {
            out::line(format!("Submitted async run  req:{reqid}"));
        }
        let show = |result: &HostResult| {
            if !globals.json {
                out::text(&results::submitted(result));
            }
        };
        let results = detached::submit(&fleet, targets, order, show).await;
        record::submitted(site, &reqid, &results);
        let accepted = results.iter().any(|result| result.text("status") == "accepted");
        if globals.json {
            out::json(&json!({ "ok": 1, "reqid": reqid.as_str(), "results": values(results) }));
        } else {
            out::line(format!("Check progress with: ctrl-exec-dispatcher status {reqid}"));
        }
        if accepted { Exit::Success } else { Exit::Failed }
    }

    /// Jobs that are followed, and go on without us.
    async fn keep_running(self, style: Style) -> Result<Exit, Failure> {
        record::begin(self.site, &self.reqid, &self.order, &self.targets, self.submitter());
        let Self { site, fleet, targets, order, reqid, .. } = self;
        out::error(format!(
            "req:{reqid} keeps running if this command ends; to see it again: ctrl-exec-dispatcher result {reqid} --follow"
        ));
        let results = live(&fleet, targets, order, style).await?;
        record::submitted(site, &reqid, &results);
        let good = results.iter().all(|result| result.exit() == 0);
        Ok(if good { Exit::Success } else { Exit::Failed })
    }

    fn submitter(&self) -> Submitter {
        Submitter { username: self.globals.username.clone(), source_ip: "127.0.0.1".to_owned() }
    }
}

fn values(results: Vec<HostResult>) -> Vec<Value> {
    results.into_iter().map(|result| Value::Object(result.fields)).collect()
}

/// How output is shown while it is printed; `None` where it is shown at the end.
fn style(args: &Args, globals: &Globals) -> Option<Style> {
    if args.json_lines {
        return Some(Style::Json);
    }
    if args.detached {
        return None;
    }
    let wanted =
        args.stream || args.keep_running || (!args.no_stream && !globals.json && std::io::stdout().is_terminal());
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
