//! `request-pairing --dispatcher HOST`.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::{Globals, running};
use crate::agent::older_trust;
use crate::agent::pairing::places::{PlaceError, Places};
use crate::agent::pairing::target::Target;
use crate::agent::pairing::{Confirm, PairFailure, Paired, Progress, Request, keep, request_pairing};
use crate::audit::{Event, Ident, Level, Logger, Sockets};
use crate::cli::out;
use crate::conf::Root;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::sys::host;
use crate::sys::process::{self, Launch};
use crate::wire::hex;
use crate::wire::name::AgentName;
use crate::wire::pair::LookupBy;

/// Longest wait for the resolver to name this host.
const RESOLVER: Duration = Duration::from_secs(5);
/// How long a pairing in the background may take until its request waits.
const QUEUEING: Duration = Duration::from_secs(90);
/// Longest and usual wait in the background, in seconds.
const LONGEST: u64 = 600;
const USUAL: u64 = 30;

/// How to ask.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the request's id once it waits, and go on in the background
    #[arg(long)]
    background: bool,
    /// Seconds to wait in the background (1 to 600) [default: 30]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    timeout: Option<String>,
    /// How the dispatcher should find this host
    #[arg(long, value_name = "ip|hostname")]
    lookup_by: Option<String>,
    /// Address to report instead of the connection's
    #[arg(long, value_name = "A")]
    ip: Option<String>,
    /// Pair with a dispatcher of the original, whose 6-digit code protects neither end
    #[arg(long)]
    original_pairing: bool,
    /// SHA-256 of the dispatcher's CA certificate (openssl x509 -fingerprint -sha256): no code needs to be confirmed
    #[arg(long, value_name = "SHA256")]
    ca_fingerprint: Option<String>,
    /// The process that --background starts
    #[arg(long, hide = true)]
    detached: bool,
}

/// Pairs this host. In the background: 0 paired, 2 nobody answered in time, 3 denied; in the foreground a denial is a
/// failure like others, 1.
pub fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let (places, doubt) = Places::load(&globals.config(), &globals.root());
    let patience = seconds(args)?;
    let request = request(args, globals, &places)?;
    places.check().map_err(place_failure)?;
    if args.background && !args.detached {
        return background(args, globals);
    }
    if let Some(doubt) = doubt {
        out::error(format!("Warning: {doubt}"));
    }
    if matches!(request.confirm, Confirm::No) {
        out::error(
            "Warning: nobody can be asked to compare the code here, so whoever poses as the dispatcher is obeyed.",
        );
        out::error("         Name the CA with --ca-fingerprint, or run this on a terminal.");
    }
    let failed = |error: keep::KeepError| Failure::new(Exit::Failed, error);
    if keep::recover(&places).map_err(failed)? {
        out::error("An earlier pairing was interrupted while it was stored; it is complete now.");
    }
    // The map that this pairing makes would otherwise leave out whom an older file trusts.
    older_trust::take_over(&places, &globals.config(), &globals.root(), || logger(&globals.root()));
    let request = Request { hostname: hostname()?, ..request };
    if args.detached {
        return Ok(detached(&Request { patience: Some(patience), ..request }, &places, &globals.root()));
    }
    foreground(&request, &places, globals)
}

fn request(args: &Args, globals: &Globals, places: &Places) -> Result<Request, Failure> {
    let wrong = |text: &str| Failure::new(Exit::Usage, text);
    let host = globals.dispatcher.as_deref();
    let host = host.ok_or_else(|| wrong("--dispatcher <host> required for request-pairing"))?;
    let port = globals.port.filter(|port| *port != 0).unwrap_or(places.pairing_port);
    let dispatcher = Target::parse(host, port).map_err(|error| Failure::new(Exit::Usage, error))?;
    let lookup_by = args.lookup_by.as_deref().map(|word| LookupBy::parse(word).ok_or(())).transpose();
    let ip = args.ip.as_deref().map(str::parse::<IpAddr>).transpose();
    let confirm = match args.ca_fingerprint.as_deref().map(fingerprint) {
        Some(Some(sha256)) => Confirm::Ca(sha256),
        Some(None) => return Err(wrong("--ca-fingerprint must be a SHA-256 in hex: 64 digits, colons allowed")),
        // In the background nobody can be asked.
        None if args.background || args.detached || !std::io::stdin().is_terminal() => Confirm::No,
        None => Confirm::Code(Arc::new(ask)),
    };
    Ok(Request {
        dispatcher,
        // Found out later, since it may take time.
        hostname: AgentName::parse("localhost").map_err(|error| Failure::new(Exit::Bug, error))?,
        lookup_by: lookup_by.map_err(|()| wrong("--lookup-by must be 'ip' or 'hostname'"))?,
        ip: ip.map_err(|_| wrong("--ip must be an IPv4 or IPv6 address"))?,
        original: args.original_pairing,
        confirm,
        patience: None,
    })
}

fn seconds(args: &Args) -> Result<Duration, Failure> {
    let Some(text) = args.timeout.as_deref() else { return Ok(Duration::from_secs(USUAL)) };
    let seconds = text.parse().ok().filter(|seconds| (1..=LONGEST).contains(seconds));
    let wrong = || Failure::new(Exit::Usage, "--timeout must be between 1 and 600 seconds");
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

/// `AA:BB:...`, also as `openssl x509 -fingerprint` prints it: `sha256 Fingerprint=AA:BB:...`.
fn fingerprint(text: &str) -> Option<[u8; 32]> {
    let digits = text.rsplit('=').next().unwrap_or(text).trim();
    hex::decode(&digits.replace(':', ""))
}

/// The name to register, with a warning where it is not fully qualified.
fn hostname() -> Result<AgentName, Failure> {
    let name = host::fqdn(RESOLVER);
    if !name.contains('.') {
        out::error(format!("Warning: no fully qualified name was found for this host; '{name}' will be registered."));
        out::error("         The dispatcher may not be able to resolve it.");
        out::error("         Give the host a full name (hostnamectl set-hostname, or /etc/hosts), or");
        out::error("         let the dispatcher use the address: --lookup-by ip");
    }
    AgentName::parse(&name)
        .map_err(|error| Failure::new(Exit::Config, error).hint("give the host a valid name: hostnamectl set-hostname"))
}

/// Asks at the terminal.
fn ask(code: &str) -> bool {
    out::text(&format!("Does the dispatcher show this code, {code}? [y/N] "));
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

fn foreground(request: &Request, places: &Places, globals: &Globals) -> Result<Exit, Failure> {
    let (host, dispatcher) = (&request.hostname, request.dispatcher.host());
    let show = |step: Progress| match step {
        Progress::Connecting => out::line(format!("Connecting to ctrl-exec at {dispatcher} for pairing...")),
        Progress::Generating => out::line(format!("Generating key and CSR for '{host}'...")),
        Progress::Code(code, original) => {
            out::line(format!("Pairing code: {code}"));
            out::line("Verify that the dispatcher shows the same code before it is approved there.");
            if original {
                out::error("Warning: this is the original's code; it protects neither end against a relay.");
            }
            out::line("");
        }
        Progress::Pending(reqid) => out::line(format!("Waiting for approval: request {reqid}.")),
        Progress::Warning(text) => out::error(format!("Warning: {text}")),
    };
    let runtime = runtime()?;
    let result = runtime.block_on(request_pairing(request, places, &show));
    // A question at the terminal cannot be taken back.
    runtime.shutdown_background();
    match result {
        Ok(paired) => {
            log_complete(&logger(&globals.root()), request, &paired);
            complete(&paired, globals);
            Ok(Exit::Success)
        }
        Err(failure) => {
            // The question may still stand on the line.
            let line_end = if matches!(request.confirm, Confirm::Code(_)) { "\n" } else { "" };
            out::error(format!("{line_end}Pairing failed: {}", failure.describe()));
            remedy(&failure).into_iter().for_each(out::error);
            // A denial has a status of its own only in the background, where the reason is in the log alone.
            Ok(if matches!(failure, PairFailure::Denied(_)) { Exit::Failed } else { status(&failure) })
        }
    }
}

/// What to do about a dispatcher that is not there.
fn remedy(failure: &PairFailure) -> Option<&'static str> {
    match failure {
        PairFailure::Unresolved(_) => Some("hint: check the name behind --dispatcher, or give an address"),
        PairFailure::Unreachable { .. } | PairFailure::NotListening { .. } => Some(
            "hint: is pairing mode on there? It is opened with 'ctrl-exec pairing-mode', and closes by itself; --port \
             names a port other than 7444",
        ),
        _ => None,
    }
}

fn status(failure: &PairFailure) -> Exit {
    match failure {
        PairFailure::Denied(_) => Exit::Denied,
        PairFailure::Unresolved(_)
        | PairFailure::Unreachable { .. }
        | PairFailure::NotListening { .. }
        | PairFailure::Lost { .. } => Exit::Unavailable,
        _ => Exit::Failed,
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::new(Exit::Unavailable, error))
}

fn logger(root: &Root) -> Logger {
    Logger::open(Ident::Agent, Sockets::new(|place| root.path(place)))
}

/// The original's line, field by field; and one for what it has no field for.
fn log_complete(log: &Logger, request: &Request, paired: &Paired) {
    let event = |action| Event::new(Level::Info, action).field("DISPATCHER_HOST", request.dispatcher.host());
    // The original's code confirms nothing, whoever compared it.
    let by_code = matches!(request.confirm, Confirm::Code(_));
    let confirmed = if paired.original && by_code { "no" } else { request.confirm.as_str() };
    let confirmation = event("pair-confirmation").field("CONFIRMED", confirmed);
    log.emit(confirmation.maybe("FORM", paired.original.then_some("original")));
    let complete = event("pair-complete").field("STATUS", "approved");
    log.emit(complete.maybe("DISPATCHER", paired.dispatcher.as_ref()));
}

fn complete(paired: &Paired, globals: &Globals) {
    out::line("Pairing complete. Certificates stored.");
    if !paired.registered && !paired.original {
        out::error("Warning: the dispatcher did not confirm that it has registered this host.");
        out::error("         If 'ctrl-exec list-agents' does not show it there, pair again.");
    }
    out::line("");
    let (root, config) = (globals.root(), globals.config());
    let there = |path: &str| root.path(path).exists();
    next_steps(there, running::under_procd, || running::processes(&config)).iter().for_each(out::line);
    out::line("Then verify with: ctrl-exec-agent self-ping");
}

/// The control group of a service that runs: with one hierarchy, with two, and of old (systemd's `CGROUP_DELEGATION`).
const UNIT: [&str; 3] = [
    "/sys/fs/cgroup/system.slice/ctrl-exec-agent.service",
    "/sys/fs/cgroup/unified/system.slice/ctrl-exec-agent.service",
    "/sys/fs/cgroup/systemd/system.slice/ctrl-exec-agent.service",
];

/// How the agent is started here; or, where it runs already, how it takes up what was stored. `there` looks for a file,
/// `procd` asks procd, `by_hand` looks for processes.
fn next_steps(
    there: impl Fn(&str) -> bool,
    procd: impl FnOnce() -> bool,
    by_hand: impl FnOnce() -> Vec<u32>,
) -> Vec<String> {
    let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    if UNIT.iter().any(|place| there(place)) {
        return lines(&["The agent is running. Restart it:", "  systemctl restart ctrl-exec-agent"]);
    }
    if there("/run/openrc/started/ctrl-exec-agent") {
        return lines(&["The agent is running. Restart it:", "  rc-service ctrl-exec-agent restart"]);
    }
    let of_procd = there("/etc/rc.common") && there("/etc/init.d/ctrl-exec-agent");
    if of_procd && procd() {
        return lines(&["The agent is running. Have it reload:", "  /etc/init.d/ctrl-exec-agent reload"]);
    }
    let processes = by_hand().iter().fold(String::new(), |text, process| format!("{text} {process}"));
    if !processes.is_empty() {
        return vec!["The agent is running. Have it reload:".to_owned(), format!("  kill -HUP{processes}")];
    }
    lines(if there("/run/systemd/system") {
        &["Start the agent:", "  systemctl enable --now ctrl-exec-agent"]
    } else if there("/run/openrc") {
        &["Start the agent:", "  rc-update add ctrl-exec-agent", "  rc-service ctrl-exec-agent start"]
    } else if of_procd {
        &["Start the agent:", "  /etc/init.d/ctrl-exec-agent enable", "  /etc/init.d/ctrl-exec-agent start"]
    } else {
        &["Start the agent:", "  ctrl-exec-agent serve"]
    })
}

/// Starts this command once more, prints the id that it reports, and leaves it.
fn background(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let unavailable = |error: std::io::Error| Failure::new(Exit::Unavailable, error);
    let words = words(args, globals).map_err(unavailable)?;
    match process::launch("ctrl-exec-agent", &words, QUEUEING).map_err(unavailable)? {
        Launch::Ready(_, reqid) => {
            out::line(reqid);
            Ok(Exit::Success)
        }
        // It said itself what went wrong, where this command's errors go.
        Launch::Ended(Some(3)) => Ok(Exit::Denied),
        Launch::Ended(Some(2)) => Ok(Exit::Pending),
        Launch::Ended(_) => Ok(Exit::Failed),
        Launch::Silent => Err(Failure::new(Exit::Unavailable, "the dispatcher did not queue the request in time")),
    }
}

/// The command line of the process in the background, which works in `/`.
fn words(args: &Args, globals: &Globals) -> std::io::Result<Vec<OsString>> {
    let mut words: Vec<OsString> = vec!["request-pairing".into(), "--detached".into()];
    let absolute = |path: &PathBuf| std::path::absolute(Path::new(path)).map(PathBuf::into_os_string);
    let text = |value: &Option<String>| value.clone().map(OsString::from);
    let valued = [
        ("--dispatcher", text(&globals.dispatcher)),
        ("--port", globals.port.map(|port| port.to_string().into())),
        ("--config", globals.config.as_ref().map(absolute).transpose()?),
        ("--root", globals.root.as_ref().map(absolute).transpose()?),
        ("--timeout", text(&args.timeout)),
        ("--lookup-by", text(&args.lookup_by)),
        ("--ip", text(&args.ip)),
        ("--ca-fingerprint", text(&args.ca_fingerprint)),
    ];
    for (name, value) in valued {
        words.extend(value.into_iter().flat_map(|value| [name.into(), value]));
    }
    if args.original_pairing {
        words.push("--original-pairing".into());
    }
    Ok(words)
}

/// The process in the background: once its request waits, the log is all that hears of it.
fn detached(request: &Request, places: &Places, root: &Root) -> Exit {
    // A process that leads a group already has a session of its own.
    let _ = process::own_session();
    let log = logger(root);
    let waiting = Mutex::new(None);
    let reqid = || waiting.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let show = |step: Progress| match step {
        Progress::Pending(id) => {
            *waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(id.to_string());
            // Whoever started this may be gone; the pairing goes on.
            let _ = process::report_ready(id.as_str());
        }
        Progress::Warning(text) => log.emit(Event::new(Level::Warning, "pair-warning").field("REASON", text)),
        _ => {}
    };
    let runtime = match runtime() {
        Ok(runtime) => runtime,
        Err(failure) => {
            out::error(format!("Pairing failed: {failure}"));
            return failure.exit();
        }
    };
    let result = runtime.block_on(request_pairing(request, places, &show));
    runtime.shutdown_background();
    match result {
        Ok(paired) => {
            log_complete(&log, request, &paired);
            Exit::Success
        }
        Err(failure) => {
            let reason = failure.describe();
            let (event, exit) = match &failure {
                PairFailure::TimedOut(_) => (Event::new(Level::Warning, "pair-timeout"), Exit::Pending),
                PairFailure::Denied(_) => (Event::new(Level::Warning, "pair-denied"), Exit::Denied),
                other => (Event::new(Level::Warning, "pair-failed"), status(other)),
            };
            // Of one that is out of time, the name says why.
            let told = Some(&reason).filter(|_| !matches!(failure, PairFailure::TimedOut(_)));
            log.emit(event.maybe("REASON", told).maybe("REQID", reqid()));
            out::error(format!("Pairing failed: {reason}"));
            remedy(&failure).into_iter().for_each(out::error);
            exit
        }
    }
}

fn place_failure(error: PlaceError) -> Failure {
    let exit = match error {
        PlaceError::Missing(_) => Exit::Config,
        PlaceError::ReadOnly(_) => Exit::Permission,
        PlaceError::State(_) => Exit::Unavailable,
    };
    Failure::new(exit, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_init_system_has_its_own_next_steps_and_a_running_agent_is_told_of() {
        let steps = |files: &[&str]| next_steps(|path| files.contains(&path), || false, Vec::new).join("\n");
        let openrc = ["/run/openrc", "/etc/init.d/ctrl-exec-agent"];
        let procd = ["/etc/rc.common", "/etc/init.d/ctrl-exec-agent"];
        assert!(steps(&["/run/systemd/system"]).ends_with("systemctl enable --now ctrl-exec-agent"));
        for unit in UNIT {
            let said = steps(&["/run/systemd/system", unit]);
            assert!(said.starts_with("The agent is running. Restart it:\n  systemctl"), "{unit}: {said}");
        }
        assert!(steps(&openrc).contains("rc-update add ctrl-exec-agent"));
        assert!(
            steps(&[openrc[0], "/run/openrc/started/ctrl-exec-agent"]).contains("running. Restart it:\n  rc-service")
        );
        assert!(steps(&procd).ends_with("/etc/init.d/ctrl-exec-agent start"));
        let running = next_steps(|path| procd.contains(&path), || true, Vec::new).join("\n");
        assert_eq!(running, "The agent is running. Have it reload:\n  /etc/init.d/ctrl-exec-agent reload");
        let by_hand = next_steps(|path| procd.contains(&path), || false, || vec![7, 1234]).join("\n");
        assert_eq!(by_hand, "The agent is running. Have it reload:\n  kill -HUP 7 1234");
        assert_eq!(steps(&[]), "Start the agent:\n  ctrl-exec-agent serve");
    }
}
