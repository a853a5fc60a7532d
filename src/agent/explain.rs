//! What the agent's front-end would say to a call, gate by gate. Nothing is asked and nothing is run: where a gate would
//! ask somebody, its line says whom.
//!
//! **Invariant:** each verdict comes from the function that a connection or a request is judged by.

use std::net::IpAddr;

use super::explain_peer::{Lists, Who};
use super::gate;
use super::rules::{Gate, Rules};
use super::sidecar::{self, Sidecars, Terms};
use crate::conf::RateLimit;
use crate::conf::agent::{Loaded, Schema, Settings};
use crate::conf::scripts::Entry;
use crate::wire::explanation::Line;
use crate::wire::limits;
use crate::wire::name::{RequestId, ScriptName};
use crate::wire::order::{Mode, Order};
use crate::wire::refusal::Refusal;
use crate::wire::run::RunRequest;

/// The gate of the executor's first check, which the front-end makes too before it gives the order.
const ORDER: &str = "order";

/// A call to explain.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Where it comes from.
    pub from: Option<IpAddr>,
    /// Whose it is.
    pub who: Who,
    /// The body of the request.
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

/// Explains a call: every gate of the front-end with its verdict.
#[must_use]
pub fn explain(asked: &Asked, files: &Files<'_>) -> Vec<Line> {
    let settings = &files.loaded.settings;
    let mut gates = vec![address(settings, asked.from), rate(settings), handshake(settings, files)];
    gates.extend(files.lists.lines(&asked.who));
    match request(&asked.body) {
        Ok(request) => {
            gates.push(Line::passes(
                "request",
                format!("{} bytes of at most {}", asked.body.len(), limits::REQUEST_BODY),
            ));
            gates.extend(rules(&request, files));
            gates.push(hook(settings, &request));
        }
        Err(refusal) => {
            gates.push(Line::refuses("request", &refusal));
            gates.extend(["allowlist", "contract", "hook"].map(Line::not_reached));
        }
    }
    gates
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

fn address(settings: &Settings, from: Option<IpAddr>) -> Line {
    let line = match (from, &settings.allowed_ips) {
        (None, _) => Line::not_judged("address", "(no --from)"),
        (Some(_), None) => Line::passes("address", "any address may connect"),
        (Some(peer), Some(_)) if gate::admits(settings, peer) => {
            Line::passes("address", format!("{peer} is in allowed_ips"))
        }
        (Some(peer), Some(_)) => {
            let text = format!("{peer} is not in allowed_ips: the connection is closed before any handshake");
            Line::refuses("address", &Refusal::new("ip-block", text))
        }
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
    Line::not_judged("rate", text).at(settings.place(key))
}

fn handshake(settings: &Settings, files: &Files<'_>) -> Line {
    let text = match &files.unpaired {
        Some(missing) => format!("this host is not paired, {missing} is missing, so that nobody can connect"),
        None => format!("a certificate that {} has signed, valid now, is asked for", settings.ca.display()),
    };
    Line::not_judged("handshake", text).at(settings.place("ca"))
}

/// The body, read as a request is.
fn request(body: &[u8]) -> Result<RunRequest, Refusal> {
    if body.len() > limits::REQUEST_BODY {
        let text = format!("{} bytes are more than the {} of a request", body.len(), limits::REQUEST_BODY);
        return Err(Refusal::new("request-too-large", text));
    }
    RunRequest::parse(body).map_err(|reply| Refusal::new("request-malformed", reply.error.unwrap_or_default()))
}

/// Allowlist and argument contract.
fn rules(request: &RunRequest, files: &Files<'_>) -> Vec<Line> {
    let Loaded { settings, allowlist, .. } = files.loaded;
    let rules = Rules { allowlist, sidecars: files.sidecars, schema: settings.schema };
    let judgement = rules.judge(&request.script(), &request.args);
    let script = judgement.script().cloned();
    let entry = script.as_ref().and_then(|name| allowlist.get(name));
    let place = |gate| match (gate, entry) {
        (Gate::Allowlist, Some(entry)) => allowlist.place(entry),
        (Gate::Allowlist, None) => allowlist.file().display().to_string(),
        (Gate::Contract, _) if settings.schema == Schema::Advertise => settings.place("schema"),
        (Gate::Contract, Some(entry)) => sidecar::beside(entry.path()).display().to_string(),
        (Gate::Contract, None) => settings.place("schema"),
    };
    let passing = |gate| match (gate, entry) {
        (Gate::Allowlist, Some(entry)) => format!("'{}' is {}", entry.name(), entry.path().display()),
        (Gate::Contract, Some(entry)) => terms(settings, files.sidecars, entry.name()).to_owned(),
        (_, None) => String::new(),
    };
    let line = |(gate, verdict): (Gate, Result<(), &Refusal>)| {
        let line = match verdict {
            Ok(()) => Line::passes(gate.as_str(), passing(gate)),
            Err(_) if gate == Gate::Contract && !files.eyes && entry.is_some_and(closed) => {
                Line::unseen(gate.as_str(), "this user may not look at the sidecar")
            }
            Err(refusal) => Line::refuses(gate.as_str(), refusal),
        };
        line.at(place(gate))
    };
    let mut lines: Vec<Line> = judgement.gates().into_iter().map(line).collect();
    if script.is_none() {
        lines.push(Line::not_reached(Gate::Contract.as_str()));
    }
    lines
}

/// Whether the sidecar is there for others.
fn closed(entry: &Entry) -> bool {
    let found = std::fs::File::open(sidecar::beside(entry.path()));
    found.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

fn terms(settings: &Settings, sidecars: &Sidecars, script: &ScriptName) -> &'static str {
    if settings.schema == Schema::Advertise {
        return "contracts are shown to callers and not enforced";
    }
    match sidecars.get(script).map(|sidecar| &sidecar.contract) {
        Some(Terms::Contract(_)) => "the contract allows these arguments",
        Some(Terms::Open) => "the sidecar says nothing about arguments",
        Some(Terms::Broken(_)) => "the contract is broken",
        None => "the script has no sidecar, so any arguments pass",
    }
}

fn hook(settings: &Settings, request: &RunRequest) -> Line {
    let line = match &settings.auth_hook {
        None => Line::passes("hook", "there is none"),
        Some(hook) => {
            let user =
                if request.username.is_empty() { "no user name".to_owned() } else { format!("'{}'", request.username) };
            let seconds = settings.auth_hook_timeout.as_secs();
            let path = hook.display();
            Line::not_judged("hook", format!("{path} would be asked about {user}, and denies after {seconds} s"))
        }
    };
    line.at(settings.place("auth_hook"))
}
