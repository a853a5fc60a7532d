//! `pairing-mode [start|stop]`.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::pairing_prompt::{self, Prompt};
use super::{Globals, approve, globals};
use crate::audit::{Event, Level};
use crate::cli::out;
use crate::dispatcher::pairing::background::{Background, BackgroundError, State, Stopped};
use crate::dispatcher::pairing::session::{End, Notice, Options, PORT, Session, SessionError};
use crate::dispatcher::site::Site;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::sys::notify::Notifier;
use crate::sys::process::{self, Launch};

/// How long a session in the background has to open its port.
const OPENING: Duration = Duration::from_secs(30);
/// How long a session has to end once it is told to.
const ENDING: Duration = Duration::from_secs(5);
/// Longest session, in seconds.
const LONGEST: u64 = 600;

/// In the foreground, or in the background.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Open the port in the background, or close it; without a word, stay in the foreground
    #[arg(value_enum)]
    action: Option<Action>,
    /// Seconds after which pairing mode ends by itself (1 to 600)
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    timeout: Option<String>,
    /// Accept agents of the original, whose 6-digit code a relay can forge
    #[arg(long)]
    original: bool,
    /// The session that `start` starts
    #[arg(long, hide = true)]
    detached: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Action {
    Start,
    Stop,
}

/// Runs a session, starts one, or stops one.
pub fn run(args: &Args, globals: &Globals) -> Result<Exit, Failure> {
    let site = globals.site()?;
    if args.action == Some(Action::Stop) {
        return stop(&site);
    }
    let options = options(args, globals, &site)?;
    if args.action == Some(Action::Start) {
        return start(args, globals, (&site, &options));
    }
    if !args.detached {
        return serve(&site, &options, false);
    }
    // A process that leads a group already has a session of its own.
    let _ = process::own_session();
    let claim = Background::of(&site.settings).claim().map_err(failed)?;
    let Some(_claim) = claim else {
        return Err(Failure::new(Exit::Failed, "Pairing mode is already running in the background."));
    };
    serve(&site, &options, true)
}

fn options(args: &Args, globals: &Globals, site: &Site) -> Result<Options, Failure> {
    let timeout = match args.timeout.as_deref() {
        None => site.settings.pairing.timeout,
        Some(text) => Duration::from_secs(seconds(text)?),
    };
    Ok(Options { bind: Vec::new(), port: globals.port.unwrap_or(PORT), timeout, original: args.original })
}

fn seconds(text: &str) -> Result<u64, Failure> {
    let wrong = |text: &'static str| Failure::new(Exit::Usage, text);
    let digits = text.strip_prefix('-').unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong("--timeout must be an integer number of seconds."));
    }
    let seconds = text.parse().ok().filter(|seconds| (1..=LONGEST).contains(seconds));
    seconds.ok_or_else(|| wrong("--timeout must be between 1 and 600 seconds."))
}

fn stop(site: &Site) -> Result<Exit, Failure> {
    out::line(match Background::of(&site.settings).stop(ENDING).map_err(failed)? {
        Stopped::Ended(pid) => {
            site.log.emit(Event::new(Level::Info, "pairing-mode-stop").field("PID", pid));
            format!("Pairing mode stopped (was PID {pid}); pairing port closed.")
        }
        Stopped::Ending(pid) => format!("Sent stop to PID {pid} but it has not exited yet - check syslog."),
        Stopped::Nothing(State::Cleared) => "No background pairing mode is running. (cleared stale pidfile)".to_owned(),
        Stopped::Nothing(_) => "No background pairing mode is running.".to_owned(),
    });
    Ok(Exit::Success)
}

fn start(args: &Args, globals: &Globals, (site, options): (&Site, &Options)) -> Result<Exit, Failure> {
    if let State::Running(pid) = Background::of(&site.settings).state().map_err(failed)? {
        let pid = pid.map_or_else(|| "unknown".to_owned(), |pid| pid.to_string());
        let text = format!("Pairing mode is already running in the background (PID {pid}).");
        return Err(Failure::new(Exit::Failed, text).hint("stop it with: ctrl-exec pairing-mode stop"));
    }
    for (what, path) in [("certificate", &site.settings.cert), ("key", &site.settings.key)] {
        if !path.exists() {
            let text = format!("Cannot start pairing mode: the dispatcher {what} is missing:\n  {}", path.display());
            return Err(Failure::new(Exit::Config, text).hint("make it with: ctrl-exec setup-ctrl-exec"));
        }
    }
    let unavailable = |error: std::io::Error| Failure::new(Exit::Unavailable, error);
    let words = words(args, globals, options).map_err(unavailable)?;
    match process::launch("ctrl-exec", &words, OPENING).map_err(unavailable)? {
        Launch::Ready(pid, port) => {
            out::line(format!("Pairing mode started in the background on port {port} (PID {pid})."));
            out::line(format!("It stops by itself in {}s.", options.timeout.as_secs()));
            out::line("Stop it now with: ctrl-exec pairing-mode stop");
            out::line("Requests: ctrl-exec list-requests, then ctrl-exec approve ID or ctrl-exec deny ID");
            Ok(Exit::Success)
        }
        // It said itself what is wrong, where this command's errors go.
        Launch::Ended(_) => Err(Failure::new(Exit::Unavailable, "Pairing mode failed to start: see above.")),
        Launch::Silent => Err(Failure::new(Exit::Unavailable, "Pairing mode failed to start - check syslog.")),
    }
}

/// The command line of the session in the background, which works in `/`.
fn words(args: &Args, globals: &Globals, options: &Options) -> std::io::Result<Vec<OsString>> {
    let mut words: Vec<OsString> = vec!["pairing-mode".into(), "--detached".into()];
    let mut add = |name: &str, value: OsString| words.extend([name.into(), value]);
    add("--port", options.port.to_string().into());
    add("--timeout", options.timeout.as_secs().to_string().into());
    let absolute = |path: &Path| std::path::absolute(path).map(std::path::PathBuf::into_os_string);
    if let Some(config) = &globals.config {
        add("--config", absolute(config)?);
    }
    if let Some(root) = &globals.root {
        add("--root", absolute(root)?);
    }
    if args.original {
        words.push("--original".into());
    }
    Ok(words)
}

/// Runs a session to its end.
fn serve(site: &Site, options: &Options, detached: bool) -> Result<Exit, Failure> {
    let unavailable = |error: std::io::Error| Failure::new(Exit::Unavailable, error);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(unavailable)?;
    let end = runtime.block_on(async {
        let mut stopping = stopping().map_err(unavailable)?;
        let (session, notices) = Session::open(site, options).map_err(session_failure)?;
        announce(site, &session, options, detached).map_err(unavailable)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = tokio::spawn(session.run(async move {
            tokio::select! {
                _ = stopping.recv() => {}
                // A sender that is dropped says nothing.
                Ok(()) = stopped => {}
            }
        }));
        attend(site, (notices, serving), stop, detached).await.map_err(|error| Failure::new(Exit::Bug, error))
    });
    // A lookup or a prompt that hangs is not waited for.
    runtime.shutdown_background();
    let end = end?;
    if !detached {
        out::line("");
        out::line(match end {
            End::TimedOut => format!("Pairing mode timed out after {}s. Stopped.", options.timeout.as_secs()),
            End::Stopped => "Pairing mode stopped.".to_owned(),
        });
    }
    Ok(Exit::Success)
}

/// SIGINT and SIGTERM, from now on.
fn stopping() -> std::io::Result<mpsc::Receiver<()>> {
    let (sender, receiver) = mpsc::channel(1);
    for kind in [SignalKind::interrupt(), SignalKind::terminate()] {
        let (mut arriving, sender) = (signal(kind)?, sender.clone());
        tokio::spawn(async move {
            arriving.recv().await;
            // One that was sent already says the same.
            let _ = sender.try_send(());
        });
    }
    Ok(receiver)
}

fn announce(site: &Site, session: &Session, options: &Options, detached: bool) -> std::io::Result<()> {
    let (port, seconds) = (session.port(), options.timeout.as_secs());
    let addresses: Vec<String> = session.addresses().iter().map(SocketAddr::to_string).collect();
    let extra: Vec<(&str, &str)> = addresses.iter().map(|text| ("X_CTRL_EXEC_ADDRESS", text.as_str())).collect();
    // A service manager that does not listen is its own problem.
    let _ = Notifier::from_env().and_then(|notifier| notifier.ready(&format!("pairing on port {port}"), &extra));
    if detached {
        let event = Event::new(Level::Info, "pairing-mode-start").field("PID", std::process::id());
        site.log.emit(event.field("TIMEOUT", seconds));
        process::report_ready(&port.to_string())?;
        site.log.forget_stderr();
        return Ok(());
    }
    out::line(format!("Pairing mode active on port {port} (auto-stops in {seconds}s)."));
    if std::io::stdin().is_terminal() {
        out::line("Ctrl-C or 'quit' to stop.");
        out::line("Waiting for pairing requests...");
    } else {
        out::line("Ctrl-C to stop.");
        out::line("Requests: ctrl-exec list-requests, then ctrl-exec approve ID or ctrl-exec deny ID");
    }
    if options.original || site.settings.pairing.original {
        out::line("Agents of the original are accepted: their 6-digit code protects neither end.");
    }
    Ok(())
}

/// Shows what happens and does what is typed, until the session ends.
async fn attend(
    site: &Site,
    (mut notices, mut serving): (mpsc::UnboundedReceiver<Notice>, tokio::task::JoinHandle<End>),
    stop: oneshot::Sender<()>,
    detached: bool,
) -> Result<End, tokio::task::JoinError> {
    let interactive = !detached && std::io::stdin().is_terminal();
    let mut prompt = Prompt::new(site.clone(), interactive);
    let mut lines = interactive.then(pairing_prompt::lines);
    let mut stop = Some(stop);
    loop {
        let typed = async {
            match &mut lines {
                Some(lines) => lines.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            end = &mut serving => return end,
            Some(notice) = notices.recv() => if !detached { prompt.notice(&notice) },
            line = typed => match line {
                Some(line) if prompt.line(&line).await => {}
                Some(_) => drop(stop.take().map(|stop| stop.send(()))),
                None => {
                    lines = None;
                    prompt.input_ended();
                }
            },
        }
    }
}

fn session_failure(error: SessionError) -> Failure {
    match error {
        SessionError::Site(error) => globals::failed(error),
        SessionError::Store(error) => approve::store_failure(error),
        SessionError::Listen(_) => Failure::new(Exit::Unavailable, error)
            .hint("is pairing mode on already? 'ctrl-exec pairing-mode stop' ends it; --port takes another port"),
        SessionError::TwoCas | SessionError::OwnCertificate(_) => Failure::new(Exit::Config, error),
    }
}

fn failed(error: BackgroundError) -> Failure {
    match &error {
        BackgroundError::File(file) if file.is_permission_denied() => {
            Failure::new(Exit::Permission, error).hint("run it with sudo, or as a member of the group ctrl-exec")
        }
        _ => Failure::new(Exit::Unavailable, error),
    }
}
