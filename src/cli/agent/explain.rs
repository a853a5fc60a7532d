//! `explain`: what would become of a request. Nothing is run: not the script, and not the hook.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::explain_text::{self, Explanation};
use super::whose::{self, Known, Whose};
use super::{Globals, kernel_check, remedy, self_check};
use crate::agent::explain::{self as front_end, Asked, Files};
use crate::agent::explain_peer::{List, Lists, Who};
use crate::agent::gate::Gate;
use crate::agent::metrics::Verb;
use crate::agent::orders::Kinship;
use crate::agent::serve;
use crate::agent::sidecar::Sidecars;
use crate::agent::snapshot::{self, Places, SnapshotError};
use crate::audit::{Ident, Logger};
use crate::cli::out;
use crate::conf::agent::{Loaded, Settings};
use crate::executor::{self, Offer, OnDisk};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::store::jobs::Jobs;
use crate::sys::file::FileError;
use crate::sys::user;
use crate::wire::causes;
use crate::wire::explanation::{Line, Summary, Surroundings, Verdict};
use crate::wire::name::DispatcherId;
use crate::wire::refusal::Refusal;
use crate::wire::serial::Serial;

/// The front-end's last gate.
const HOOK: &str = Gate::Hook.as_str();
/// The executor's gate before the order is looked at.
const ROOM: &str = "room";

/// What `explain` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The script's name on the allowlist, for a run
    #[arg(required_unless_present = "verb")]
    script: Option<String>,
    /// What is asked for: run, ping, capabilities (or discovery), result, cancel, renew, renew-complete, rotate-serial (or
    /// rotate)
    #[arg(long, value_name = "VERB", default_value = Verb::Run.as_str(), value_parser = verb, hide_default_value = false)]
    verb: Verb,
    /// Address that the call comes from
    #[arg(long, value_name = "ADDRESS")]
    from: Option<IpAddr>,
    /// Serial of the certificate that the caller shows; or give the caller's id with --dispatcher
    #[arg(long, value_name = "HEX")]
    serial: Option<String>,
    /// User name that the caller claims
    #[arg(long, value_name = "NAME", default_value = "")]
    username: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
    /// Explain what 'serve --unprivileged' would do, whoever asks
    #[arg(long)]
    unprivileged: bool,
    /// Arguments of the script
    #[arg(last = true, value_name = "ARGS")]
    words: Vec<OsString>,
}

/// The verb of this name, in the words of requests or in those of hooks.
fn verb(name: &str) -> Result<Verb, String> {
    let known = Verb::ALL.into_iter().filter(|verb| *verb != Verb::Unknown);
    let found = known.clone().find(|verb| verb.as_str() == name || verb.action() == name);
    let names = || known.map(Verb::as_str).collect::<Vec<_>>().join(", ");
    found.ok_or_else(|| format!("there is no such verb; known are {}, discovery, rotate", names()))
}

/// Explains; 0 if the call would run, 1 if it would be refused, 77 if this user cannot find out.
pub fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let asked = asked(args, globals)?;
    let places = globals.places();
    let mut loaded = snapshot::configuration(&places).map_err(|error| broken(error, &places))?;
    // With the rights that are given up next.
    let whose = whose::look(&loaded.settings, &places.config, args.unprivileged);
    whose.settle(&mut loaded.settings);
    let kinship = &whose.kinship;
    if *kinship == Kinship::Private {
        // Its executor sees no more than the agent's account does.
        agents_eyes(&loaded)?;
    }
    if let (Verb::Run, Known::Not(doubt)) = (asked.verb, &whose.known) {
        let unknown = std::io::Error::other(doubt.text.clone());
        return Err(Failure::new(Exit::Permission, unknown).hint(doubt.hint));
    }
    let (executor, process) = match asked.verb {
        Verb::Run => executor_text(&whose),
        _ => (None, None),
    };
    let offer = Offer::look(process);
    let eyes = || agents_eyes(&loaded);
    let host = Host { places: &places, loaded: &loaded, kinship, offer: &offer, eyes: &eyes };
    let explanation = Explanation { executor, ..explain(&asked, &host)? };
    let summary = summary(&explanation);
    if args.json {
        out::json(&document(&explanation, &summary));
    } else {
        out::text(&explain_text::text(&explanation, &summary));
    }
    Ok(match summary {
        Summary::WouldRun | Summary::WouldBeAnswered => Exit::Success,
        Summary::WouldBeRefused { .. } => Exit::Failed,
        Summary::Unknown { .. } => Exit::Permission,
    })
}

/// What the gates come to; nothing but a run runs.
fn summary(explanation: &Explanation) -> Summary {
    match Summary::of(&explanation.gates) {
        Summary::WouldRun if explanation.verb != Verb::Run => Summary::WouldBeAnswered,
        summary => summary,
    }
}

fn asked(args: &Args, globals: &Globals) -> Result<Asked, Failure> {
    let usage = |text: String| Failure::new(Exit::Usage, std::io::Error::other(text));
    let who = match (&args.serial, &globals.dispatcher) {
        (None, None) => Who::Anybody,
        (Some(serial), None) => Who::Serial(Serial::parse_hex(serial).map_err(|error| usage(error.to_string()))?),
        (None, Some(id)) => Who::Dispatcher(DispatcherId::parse(id).map_err(|error| usage(error.to_string()))?),
        (Some(_), Some(_)) => return Err(usage("--serial and --dispatcher both say who asks: give one".to_owned())),
    };
    let verb = args.verb;
    if verb != Verb::Run {
        if args.script.is_some() || !args.words.is_empty() || !args.username.is_empty() {
            let text = format!("SCRIPT, ARGS and --username belong to a run: there is none in '{}'", verb.as_str());
            return Err(usage(text));
        }
        return Ok(Asked { verb, from: args.from, who, body: Vec::new() });
    }
    let script = args.script.as_ref().ok_or_else(|| usage("a run needs the name of a script".to_owned()))?;
    let text = |word: &OsString| word.to_str().map(str::to_owned);
    let words: Option<Vec<String>> = args.words.iter().map(text).collect();
    let words = words.ok_or_else(|| usage("an argument is no UTF-8 text, so that no caller can send it".to_owned()))?;
    let body = json!({ "script": script, "args": words, "username": args.username, "token": "" });
    Ok(Asked { verb, from: args.from, who, body: body.to_string().into_bytes() })
}

/// What a call is explained from.
pub(super) struct Host<'a> {
    /// Where the files are.
    pub(super) places: &'a Places,
    /// What is in them.
    pub(super) loaded: &'a Loaded,
    /// Which executor it is about.
    pub(super) kinship: &'a Kinship,
    /// What confinement can be made of.
    pub(super) offer: &'a Offer,
    /// Takes the account that the agent has, if this process can; says whether it has it now.
    pub(super) eyes: &'a dyn Fn() -> Result<bool, Failure>,
}

/// The gates and what is behind them.
///
/// **Invariant:** the executor's part is looked at with the caller's rights, the front-end's with the agent's, as both are
/// when the call comes: a file that only root can read would seem to be in order.
pub(super) fn explain(asked: &Asked, host: &Host<'_>) -> Result<Explanation, Failure> {
    let (behind, surroundings) = if asked.verb == Verb::Run { behind(asked, host)? } else { (Vec::new(), None) };
    let eyes = (host.eyes)()?;
    let mut gates = before(asked, host, eyes)?;
    gates.extend(behind);
    let call = serde_json::from_slice(&asked.body).unwrap_or_default();
    Ok(Explanation { verb: asked.verb, call, executor: None, gates, surroundings })
}

/// The front-end's gates.
fn before(asked: &Asked, host: &Host<'_>, eyes: bool) -> Result<Vec<Line>, Failure> {
    let Host { places, loaded, .. } = *host;
    let settings = &loaded.settings;
    let quiet = Logger::to_writer(Ident::Agent, Box::new(std::io::sink()));
    if eyes {
        snapshot::configuration(places).map_err(|error| fault(error, places))?;
        snapshot::hook(settings).map_err(|error| fault(error, places))?;
    }
    let sidecars = Sidecars::load(&loaded.allowlist, &quiet);
    let seen = |path: &Path| Sight { places, path: path.to_owned(), eyes };
    let files = Files {
        loaded,
        sidecars: &sidecars,
        lists: Lists {
            revoked: seen(&settings.revoked_serials).of(snapshot::revoked(settings, &quiet).map(|(list, _)| list))?,
            trust: seen(&settings.trusted_dispatchers_path).of(snapshot::trust(settings, &quiet))?,
        },
        unpaired: snapshot::unpaired(settings).map(|path| path.display().to_string()),
        eyes,
    };
    let mut gates = front_end::explain(asked, &files);
    if let Some(why) = settings.auth_hook.as_ref().and_then(|hook| self_check::hook_unstartable(hook)) {
        let denied = Refusal::new("not-authorised", format!("{why}: every call is denied"));
        let asked = |line: &&mut Line| line.gate == HOOK && line.verdict == Verdict::NotJudged;
        gates
            .iter_mut()
            .filter(asked)
            .for_each(|line| *line = Line::refuses(HOOK, &denied).at(settings.place("auth_hook")));
    }
    Ok(gates)
}

/// The executor's gates, and what the script would find.
fn behind(asked: &Asked, host: &Host<'_>) -> Result<(Vec<Line>, Option<Surroundings>), Failure> {
    let Host { places, loaded, kinship, offer, .. } = *host;
    let policy = kernel_check::policy(kinship, places).map_err(|text| {
        let text = format!("the executor cannot use the configuration: {text}");
        Failure::new(Exit::Config, std::io::Error::other(text))
    })?;
    Ok(match front_end::order(&asked.body) {
        Ok(order) => {
            let files = executor::Files { policy: &policy, loaded };
            let mut explained = executor::explain(&order, files, &OnDisk, offer);
            let start = explained.plan.as_ref().map(|plan| executor::start(plan, &order, files));
            explained.gates.push(start.unwrap_or(Line::not_reached("start")));
            explained.gates.insert(0, room(&loaded.settings));
            (explained.gates, explained.surroundings)
        }
        Err(Some(refusal)) => (vec![front_end::no_order(&refusal)], None),
        Err(None) => (vec![Line::not_reached("order")], None),
    })
}

/// Whether the executor has room for another script, as far as anybody but the agent can know.
fn room(settings: &Settings) -> Line {
    let most = settings.max_children;
    let jobs = Jobs::new(settings.async_runs_dir.to_path_buf(), settings.max_output).alive();
    let line = match jobs {
        Ok(alive) if alive >= most => Line::refuses(ROOM, &executor::busy(most)),
        Ok(alive) => {
            let rest = "runs that are waited for count too, and the running agent alone knows them";
            Line::passes(ROOM, format!("{alive} of at most {most} scripts run as detached jobs; {rest}"))
        }
        Err(error) => {
            Line::not_judged(ROOM, format!("the jobs that run are not known: {}", causes::on_one_line(&error)))
        }
    };
    line.at(settings.place("max_children"))
}

/// Becomes the agent's account, if started as root; whether this process has that account.
fn agents_eyes(loaded: &Loaded) -> Result<bool, Failure> {
    let settings = &loaded.settings;
    if user::is_root() {
        serve::drop_root(settings).map_err(|error| {
            let failure = Failure::new(Exit::Config, error);
            // Nor could a root executor do its work then.
            match executor::able() {
                Err(unable) => failure.hint(causes::on_one_line(&unable)),
                Ok(()) => failure,
            }
        })?;
        return Ok(true);
    }
    Ok(remedy::is_agent(settings))
}

/// In words, and which process it is, if it runs and says so.
fn executor_text(whose: &Whose) -> (Option<String>, Option<i32>) {
    if !matches!(whose.kinship, Kinship::System(_)) {
        return (Some(whose.text()), None);
    }
    match kernel_check::executor(&whose.kinship) {
        Ok(process) => (Some(whose.text()), process),
        Err(reason) => (Some(format!("the system's, which does not answer now: {reason}")), None),
    }
}

/// How a list is looked at.
struct Sight<'a> {
    places: &'a Places,
    path: PathBuf,
    eyes: bool,
}

impl Sight<'_> {
    /// A list that only others may read is no fault of the configuration, unless it is the agent that may not.
    fn of<T>(self, list: Result<T, SnapshotError>) -> Result<List<T>, Failure> {
        let read = list.and_then(|list| Ok((list, snapshot::list_text(&self.path)?)));
        let content = match read {
            Ok(read) => Ok(read),
            Err(SnapshotError::File(error)) if error.is_permission_denied() && !self.eyes => {
                Err(format!("this user may not look at {}", error.path().display()))
            }
            Err(error) => return Err(fault(error, self.places)),
        };
        Ok(List { path: self.path, content })
    }
}

/// Files that nothing can be explained from.
fn broken(error: SnapshotError, places: &Places) -> Failure {
    let denied = |error: &FileError| error.is_permission_denied();
    if matches!(&error, SnapshotError::File(file) if denied(file)) && !user::is_root() {
        return Failure::new(Exit::Permission, error).hint("run it as root, with sudo");
    }
    fault(error, places)
}

/// As serving ends with it.
fn fault(error: SnapshotError, places: &Places) -> Failure {
    let remedy = remedy::of(&error, places);
    let failure = Failure::new(Exit::Config, error);
    match remedy {
        Some(remedy) => failure.hint(remedy),
        None => failure,
    }
}

fn document(explanation: &Explanation, summary: &Summary) -> Value {
    let mut document = json!(summary);
    let Some(fields) = document.as_object_mut() else { return document };
    fields.insert("verb".to_owned(), json!(explanation.verb.as_str()));
    if explanation.verb == Verb::Run {
        let call = |key| explanation.call.get(key).cloned().unwrap_or_default();
        fields.insert("script".to_owned(), call("script"));
        fields.insert("args".to_owned(), call("args"));
        fields.insert("executor".to_owned(), json!(explanation.executor));
        fields.insert("surroundings".to_owned(), json!(explanation.surroundings));
    }
    fields.insert("gates".to_owned(), json!(explanation.gates));
    document
}
