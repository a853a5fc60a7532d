//! What the agent's front-end would say to a request, gate by gate. Nothing is asked and nothing is run: where a gate would
//! ask somebody, its line says whom.
//!
//! **Invariant:** the gates and their order come from the table that a request walks along, and each verdict from the
//! function that a connection or a request is judged by.

use std::net::IpAddr;

use super::explain_peer::{Lists, Who};
use super::gate::rules::Rules;
use super::gate::{self, Denial, Facts, Found, Gate, Grounds, Refused, order as gates};
use super::metrics::Verb;
use super::sidecar::{self, Sidecars, Terms};
use super::snapshot;
use crate::conf::RateLimit;
use crate::conf::agent::{Loaded, Schema, Settings};
use crate::conf::scripts::Entry;
use crate::hook::Fault;
use crate::wire::explanation::Line;
use crate::wire::limits;
use crate::wire::name::{RequestId, ScriptName};
use crate::wire::order::{Mode, Order};
use crate::wire::refusal::Refusal;
use crate::wire::run::RunRequest;

/// The gate of the executor's first check, which the front-end makes too before it gives the order.
const ORDER: &str = "order";

/// A request to explain.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What for.
    pub verb: Verb,
    /// Where it comes from.
    pub from: Option<IpAddr>,
    /// Whose it is.
    pub who: Who,
    /// The body of a run's request; of others nothing of it is judged by a gate.
    pub body: Vec<u8>,
}

/// The agent's files.
#[derive(Debug)]
pub struct Files<'a> {
    /// `agent.conf` and `scripts.conf`.
    pub loaded: &'a Loaded,
    /// What stands beside the scripts.
    pub sidecars: &'a Sidecars,
    /// Who may ask, and who may not.
    pub lists: Lists,
    /// The first file of certificate, key and CA that is missing.
    pub unpaired: Option<String>,
    /// Whether they were read with the agent's account; what another may not read, the agent may.
    pub eyes: bool,
}

/// Explains a request: every gate of its verb in their order, with its verdict.
#[must_use]
pub fn explain(asked: &Asked, files: &Files<'_>) -> Vec<Line> {
    let settings = &files.loaded.settings;
    let request = (asked.verb == Verb::Run).then(|| request(&asked.body));
    let run = request.as_ref().and_then(|request| request.as_ref().ok());
    let script = run.map(RunRequest::script);
    let grounds = grounds(files);
    let call = script.as_deref().zip(run.map(|run| run.args.as_slice()));
    let mut facts = Facts { address: asked.from, call, ..Facts::default() };
    let [revocation, trust] = files.lists.lines(&asked.who, &grounds);
    let (mut lines, mut lists) = (Vec::new(), [Some(revocation), Some(trust)]);
    for gate in gates::of(asked.verb) {
        let judged = gate::judge(gate, &grounds, &facts);
        if let Some(Ok(Found::Listed(script))) = &judged {
            facts.listed = Some(script.clone());
        }
        let own = Own { files, listed: facts.listed.as_ref(), judged };
        lines.extend((gate == Gate::Allowlist).then(|| read(asked, request.as_ref())).flatten());
        lines.extend(match gate {
            Gate::Address => Some(address(settings, asked.from, own.judged)),
            Gate::Rate => Some(rate(settings)),
            Gate::Handshake => Some(handshake(settings, files)),
            Gate::Revocation => lists[0].take(),
            Gate::Trust => lists[1].take(),
            Gate::Allowlist | Gate::Contract => Some(own.line(gate)),
            Gate::Hook if request.is_some() && run.is_none() => Some(Line::not_reached(gate.as_str())),
            Gate::Hook => Some(hook(files, asked.verb, run)),
        });
    }
    lines
}

/// What the files say is in force. Certificates are nothing that could be judged here.
fn grounds<'a>(files: &'a Files<'_>) -> Grounds<'a> {
    let Loaded { settings, allowlist, .. } = files.loaded;
    Grounds {
        settings,
        tls: None,
        revoked: files.lists.revoked.read(),
        trust: files.lists.trust.read(),
        rules: Rules { allowlist, sidecars: files.sidecars, schema: settings.schema },
    }
}

/// The order that a request comes to, if every gate before it lets it through.
///
/// # Errors
/// The refusal of what cannot be ordered; none where there is no request or no name.
pub fn order(body: &[u8]) -> Result<Order, Option<Refusal>> {
    let request = request(body).map_err(|_| None)?;
    let script = ScriptName::parse(&request.script()).map_err(|_| None)?;
    Order::new(script, request.args, RequestId::from_random([0; 8]), Mode::Attached).map_err(Some)
}

/// The refusal of an order that the front-end cannot give, as a line.
#[must_use]
pub fn no_order(refusal: &Refusal) -> Line {
    Line::refuses(ORDER, refusal)
}

fn address(settings: &Settings, from: Option<IpAddr>, judged: Option<Result<Found, Refused>>) -> Line {
    let gate = Gate::Address.as_str();
    let line = match (from, judged) {
        (Some(_), Some(Ok(_))) if settings.allowed_ips.is_none() => Line::passes(gate, "any address may connect"),
        (Some(peer), Some(Ok(_))) => Line::passes(gate, format!("{peer} is in allowed_ips")),
        (Some(peer), Some(Err(refused))) => {
            let text = format!("{peer} is not in allowed_ips: the connection is closed before any handshake");
            Line::refuses(gate, &Refusal::new(refused.code(), text))
        }
        _ => Line::not_judged(gate, "(no --from)"),
    };
    line.at(settings.place("allowed_ips"))
}

fn rate(settings: &Settings) -> Line {
    let budget = |limit: Option<RateLimit>, what: &str| {
        limit.map(|RateLimit { limit, window, block }| {
            format!("{limit} {what} in {} s, then blocked for {} s", window.as_secs(), block.as_secs())
        })
    };
    let volume = budget(settings.rate_limit_volume, "connections that prove to be no dispatcher's");
    let probe = budget(settings.rate_limit_probe, "failed handshakes");
    let budgets: Vec<String> = volume.into_iter().chain(probe).collect();
    let text = if budgets.is_empty() { "no limit".to_owned() } else { format!("at most {}", budgets.join("; ")) };
    let keys = ["rate_limit_disable", "rate_limit_volume", "rate_limit_probe"];
    let key = keys.into_iter().find(|key| settings.lines.of(key).is_some()).unwrap_or("rate_limit_volume");
    Line::not_judged(Gate::Rate.as_str(), text).at(settings.place(key))
}

fn handshake(settings: &Settings, files: &Files<'_>) -> Line {
    let text = match &files.unpaired {
        Some(missing) => format!("this host is not paired, {missing} is missing, so that nobody can connect"),
        None => format!("a certificate that {} has signed, valid now, is asked for", settings.ca.display()),
    };
    Line::not_judged(Gate::Handshake.as_str(), text).at(settings.place("ca"))
}

/// The body, read as a request is.
fn request(body: &[u8]) -> Result<RunRequest, Refusal> {
    if body.len() > limits::REQUEST_BODY {
        let text = format!("{} bytes are more than the {} of a request", body.len(), limits::REQUEST_BODY);
        return Err(Refusal::new("request-too-large", text));
    }
    RunRequest::parse(body).map_err(|reply| Refusal::new("request-malformed", reply.error.unwrap_or_default()))
}

/// What became of reading the body.
fn read(asked: &Asked, request: Option<&Result<RunRequest, Refusal>>) -> Option<Line> {
    Some(match request? {
        Ok(_) => Line::passes("request", format!("{} bytes of at most {}", asked.body.len(), limits::REQUEST_BODY)),
        Err(refusal) => Line::refuses("request", refusal),
    })
}

/// What the agent's own files say of a call.
struct Own<'a> {
    files: &'a Files<'a>,
    listed: Option<&'a ScriptName>,
    judged: Option<Result<Found, Refused>>,
}

impl Own<'_> {
    fn line(&self, gate: Gate) -> Line {
        let settings = &self.files.loaded.settings;
        let entry = self.listed.and_then(|name| self.files.loaded.allowlist.get(name));
        let line = match (&self.judged, entry) {
            (None, _) => return Line::not_reached(gate.as_str()),
            (Some(_), Some(entry)) if gate == Gate::Contract && self.unseen(entry) => {
                Line::unseen(gate.as_str(), "this user may not look at the sidecar")
            }
            (Some(Ok(_)), Some(entry)) if gate == Gate::Allowlist => {
                Line::passes(gate.as_str(), format!("'{}' is {}", entry.name(), entry.path().display()))
            }
            (Some(Ok(_)), Some(entry)) => {
                Line::passes(gate.as_str(), terms(settings, self.files.sidecars, entry.name()))
            }
            (Some(Ok(_)), None) => Line::passes(gate.as_str(), ""),
            (Some(Err(Refused::Allowlist(refusal) | Refused::Contract(refusal))), _) => {
                Line::refuses(gate.as_str(), refusal)
            }
            (Some(Err(other)), _) => Line::refuses(gate.as_str(), &Refusal::new(other.code(), "")),
        };
        line.at(self.place(gate, entry))
    }

    /// Whether this user cannot say what the agent finds in the sidecar, where that decides.
    fn unseen(&self, entry: &Entry) -> bool {
        self.files.loaded.settings.schema != Schema::Advertise && !self.files.eyes && closed(entry)
    }

    fn place(&self, gate: Gate, entry: Option<&Entry>) -> String {
        let Loaded { settings, allowlist, .. } = self.files.loaded;
        match (gate, entry) {
            (Gate::Allowlist, Some(entry)) => allowlist.place(entry),
            (Gate::Allowlist, None) => allowlist.file().display().to_string(),
            (_, Some(entry)) if settings.schema != Schema::Advertise => {
                sidecar::beside(entry.path()).display().to_string()
            }
            _ => settings.place("schema"),
        }
    }
}

/// Whether the sidecar is there for others.
fn closed(entry: &Entry) -> bool {
    let found = std::fs::File::open(sidecar::beside(entry.path()));
    found.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

fn terms(settings: &Settings, sidecars: &Sidecars, script: &ScriptName) -> String {
    if settings.schema == Schema::Advertise {
        return "contracts are shown to callers and not enforced".to_owned();
    }
    let sidecar = sidecars.get(script);
    match sidecar.map(|sidecar| (&sidecar.contract, &sidecar.skipped)) {
        Some((Terms::Contract(_), _)) => "the contract allows these arguments".to_owned(),
        Some((Terms::Open, Some(reason))) => format!("the sidecar counts as absent, so any arguments pass: {reason}"),
        Some((Terms::Open, None)) => "the sidecar says nothing about arguments".to_owned(),
        Some((Terms::Broken(_), _)) => "the contract is broken".to_owned(),
        None => "the script has no sidecar, so any arguments pass".to_owned(),
    }
}

/// Why a request would be denied without asking the hook, by the function that it is denied by.
fn not_asked(settings: &Settings) -> Option<(Fault, String)> {
    match snapshot::hook(settings) {
        Ok(hook) => hook.and_then(|hook| hook.doubt()),
        Err(error) => Some((Fault::NotExecutable, error.to_string())),
    }
}

fn hook(files: &Files<'_>, verb: Verb, run: Option<&RunRequest>) -> Line {
    let (gate, settings) = (Gate::Hook.as_str(), &files.loaded.settings);
    let line = match &settings.auth_hook {
        None => Line::passes(gate, "there is none"),
        Some(hook) => {
            let about = match run.map(|run| run.username.as_str()) {
                None => format!("'{}'", verb.action()),
                Some("") => "no user name".to_owned(),
                Some(user) => format!("'{user}'"),
            };
            let seconds = settings.auth_hook_timeout.as_secs();
            let path = hook.display();
            match not_asked(settings) {
                None => {
                    Line::not_judged(gate, format!("{path} would be asked about {about}, and denies after {seconds} s"))
                }
                // The account that asks is one of those who may have written it, and may see what others do not.
                Some((_, reason)) if !files.eyes => Line::unseen(gate, format!("as this user sees it: {reason}")),
                Some((fault, reason)) => {
                    let text = format!("it is not asked: {reason}");
                    let refused = Refused::Hook(Denial::Failed { fault, reason });
                    Line::refuses(gate, &Refusal::new(refused.code(), text))
                }
            }
        }
    };
    line.at(settings.place("auth_hook"))
}
