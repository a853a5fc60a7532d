//! `explain`: what would become of a call. Nothing is run: not the script, and not the hook.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::Path;

use serde_json::{Value, json};

use super::explain_text::{self, Explanation};
use super::{Globals, kernel_check, remedy};
use crate::agent::explain::{self as front_end, Asked, Files};
use crate::agent::explain_peer::{List, Lists, Who};
use crate::agent::orders::Kinship;
use crate::agent::serve;
use crate::agent::sidecar::Sidecars;
use crate::agent::snapshot::{self, Places, SnapshotError};
use crate::audit::{Ident, Logger};
use crate::cli::out;
use crate::conf::agent::Loaded;
use crate::executor::{self, Offer, OnDisk};
use crate::exit::Exit;
use crate::failure::Failure;
use crate::sys::file::FileError;
use crate::sys::user;
use crate::wire::explanation::{Line, Summary};
use crate::wire::name::DispatcherId;
use crate::wire::serial::Serial;

/// What `explain` takes.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The script's name on the allowlist
    script: String,
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
    /// Started as root, explain what 'serve --unprivileged' would do
    #[arg(long)]
    unprivileged: bool,
    /// Arguments of the script
    #[arg(last = true, value_name = "ARGS")]
    words: Vec<OsString>,
}

/// Explains; 0 if the call would run, 1 if it would be refused, 77 if this user cannot find out.
pub fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let asked = asked(args, globals)?;
    let places = globals.places();
    let loaded = snapshot::configuration(&places).map_err(|error| broken(error, &places))?;
    let kinship = Kinship::of(&loaded.settings, args.unprivileged);
    if kinship == Kinship::Private {
        // Its executor sees no more than the agent's account does.
        serve::drop_root(&loaded.settings).map_err(|error| Failure::new(Exit::Config, error))?;
    }
    let (executor, process) = executor_text(&kinship);
    let offer = Offer::look(process);
    let host = Host { places: &places, loaded: &loaded, kinship: &kinship, offer: &offer };
    let explanation = Explanation { executor, ..explain(&asked, &host)? };
    let summary = Summary::of(&explanation.gates);
    if args.json {
        out::json(&document(&explanation, &summary));
    } else {
        out::text(&explain_text::text(&explanation, &summary));
    }
    Ok(match summary {
        Summary::WouldRun => Exit::Success,
        Summary::WouldBeRefused { .. } => Exit::Failed,
        Summary::Unknown { .. } => Exit::Permission,
    })
}

fn asked(args: &Args, globals: &Globals) -> Result<Asked, Failure> {
    let usage = |text: String| Failure::new(Exit::Usage, std::io::Error::other(text));
    let who = match (&args.serial, &globals.dispatcher) {
        (None, None) => Who::Anybody,
        (Some(serial), None) => Who::Serial(Serial::parse_hex(serial).map_err(|error| usage(error.to_string()))?),
        (None, Some(id)) => Who::Dispatcher(DispatcherId::parse(id).map_err(|error| usage(error.to_string()))?),
        (Some(_), Some(_)) => return Err(usage("--serial and --dispatcher both say who asks: give one".to_owned())),
    };
    let text = |word: &OsString| word.to_str().map(str::to_owned);
    let words: Option<Vec<String>> = args.words.iter().map(text).collect();
    let words = words.ok_or_else(|| usage("an argument is no UTF-8 text, so that no caller can send it".to_owned()))?;
    let body = json!({ "script": args.script, "args": words, "username": args.username, "token": "" });
    Ok(Asked { from: args.from, who, body: body.to_string().into_bytes() })
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
}

/// The gates and what is behind them.
pub(super) fn explain(asked: &Asked, host: &Host<'_>) -> Result<Explanation, Failure> {
    let Host { places, loaded, kinship, offer } = *host;
    let settings = &loaded.settings;
    let quiet = Logger::to_writer(Ident::Agent, Box::new(std::io::sink()));
    if user::is_root() {
        snapshot::hook(settings).map_err(|error| broken(error, places))?;
    }
    let sidecars = Sidecars::load(&loaded.allowlist, &quiet);
    let files = Files {
        loaded,
        sidecars: &sidecars,
        lists: Lists {
            revoked: seen(&settings.revoked_serials, snapshot::revoked(settings, &quiet), places)?,
            trust: seen(&settings.trusted_dispatchers_path, snapshot::trust(settings, &quiet), places)?,
        },
        unpaired: snapshot::unpaired(settings).map(|path| path.display().to_string()),
    };
    let front_end::Explained { mut gates, order } = front_end::explain(asked, &files);
    let policy = kernel_check::policy(kinship, places).map_err(|text| {
        let text = format!("the executor cannot use the configuration: {text}");
        Failure::new(Exit::Config, std::io::Error::other(text))
    })?;
    let mut surroundings = None;
    match order {
        Ok(order) => {
            let files = executor::Files { policy: &policy, loaded };
            let explained = executor::explain(&order, files, &OnDisk, offer);
            gates.extend(explained.gates);
            gates.push(explained.plan.as_ref().map_or(Line::not_reached("start"), executor::look));
            surroundings = explained.surroundings;
        }
        Err(Some(refusal)) => gates.push(front_end::no_order(&refusal)),
        Err(None) => gates.push(Line::not_reached("order")),
    }
    let call = serde_json::from_slice(&asked.body).unwrap_or_default();
    Ok(Explanation { call, executor: String::new(), gates, surroundings })
}

/// In words, and which process it is, if it runs and says so.
fn executor_text(kinship: &Kinship) -> (String, Option<i32>) {
    match kinship {
        Kinship::Private => ("private: scripts have the agent's own rights and no profile is applied".to_owned(), None),
        Kinship::Own => ("the agent's own, as root".to_owned(), None),
        Kinship::System(path) => match kernel_check::executor(kinship) {
            Ok(process) => (format!("the system's, at {}", path.display()), process),
            Err(reason) => (format!("the system's, which does not answer now: {reason}"), None),
        },
    }
}

/// A list that only others may read is no fault of the configuration.
fn seen<T>(path: &Path, list: Result<T, SnapshotError>, places: &Places) -> Result<List<T>, Failure> {
    let read = list.and_then(|list| Ok((list, snapshot::list_text(path)?)));
    let content = match read {
        Ok(read) => Ok(read),
        Err(SnapshotError::File(error)) if error.is_permission_denied() => {
            Err(format!("this user may not look at {}", error.path().display()))
        }
        Err(error) => return Err(broken(error, places)),
    };
    Ok(List { path: path.to_owned(), content })
}

/// Files that nothing can be explained from.
fn broken(error: SnapshotError, places: &Places) -> Failure {
    let denied = |error: &FileError| error.is_permission_denied();
    if matches!(&error, SnapshotError::File(file) if denied(file)) && !user::is_root() {
        return Failure::new(Exit::Permission, error).hint("run it as root, with sudo");
    }
    let remedy = remedy::of(&error, places);
    let failure = Failure::new(Exit::Config, error);
    match remedy {
        Some(remedy) => failure.hint(remedy),
        None => failure,
    }
}

fn document(explanation: &Explanation, summary: &Summary) -> Value {
    let mut document = json!(summary);
    if let Some(fields) = document.as_object_mut() {
        let call = |key| explanation.call.get(key).cloned().unwrap_or_default();
        fields.insert("script".to_owned(), call("script"));
        fields.insert("args".to_owned(), call("args"));
        fields.insert("executor".to_owned(), json!(explanation.executor));
        fields.insert("gates".to_owned(), json!(explanation.gates));
        fields.insert("surroundings".to_owned(), json!(explanation.surroundings));
    }
    document
}
