//! The auth hook: an operator's executable that decides. Context as environment and as JSON on stdin, exit status to
//! decision, within a time limit.
//!
//! **Invariant:** only exit status 0 allows. A hook that is missing, that others than root and the account it runs as could
//! have written or put there, that cannot be started, is killed by a signal or runs out of time denies.

pub mod record;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use serde::Serialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use crate::sys::handover::OF_THE_SERVICE_MANAGER;
use crate::sys::{file, signal};
use crate::wire::causes;
use crate::wire::trace::TraceParent;

/// A configured hook.
#[derive(Clone, Debug)]
pub struct Hook {
    path: PathBuf,
    /// `None` is no limit.
    limit: Option<Duration>,
    /// Taken also where others could have put it.
    anybodys: bool,
}

/// Who started the request that a `status` action asks about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Submitter {
    /// User name at submission.
    pub username: String,
    /// Address at submission.
    pub source_ip: String,
}

/// What the hook is told. Field names are those of its JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Context {
    /// `run`, `cancel`, `ping`, `discovery`, `rotate`, `status` or `api`.
    pub action: String,
    /// Script, or empty.
    pub script: String,
    /// Hosts; empty on an agent.
    pub hosts: Vec<String>,
    /// Arguments.
    pub args: Vec<String>,
    /// Claimed user name.
    pub username: String,
    /// Token.
    pub token: String,
    /// The caller's address.
    pub source_ip: String,
    /// The calling dispatcher's id, on an agent.
    pub dispatcher: String,
    /// The calling dispatcher's certificate serial, on an agent.
    pub dispatcher_serial: String,
    /// Request id, for `status` and `cancel`.
    pub reqid: String,
    /// Who submitted it, for `status` and `cancel`.
    pub submitter: Option<Submitter>,
    /// UTC, `YYYY-MM-DDTHH:MM:SSZ`.
    pub timestamp: String,
    /// The trace that the request is part of. The JSON has it only where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<TraceParent>,
}

/// What the hook decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Exit status 0.
    Allowed,
    /// Anything else: the documented code and reason.
    Denied {
        /// 1 to 255.
        code: u8,
        /// For the caller and the log.
        reason: String,
        /// What went wrong with the hook itself, if anything did.
        fault: Option<Fault>,
    },
}

/// A hook that did not get to decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is no executable regular file.
    NotExecutable,
    /// Others than root and the account that it runs as may write to it, or put another in its place, and so decide.
    Untrusted,
    /// The system could not start it.
    NotStarted,
    /// It was started, and how it ended cannot be found out.
    NotWaitedFor,
    /// A signal has killed it.
    Killed,
    /// It ran out of time, in seconds.
    TimedOut(u64),
}

impl Hook {
    /// A hook with its time limit; a limit of zero is no limit.
    #[must_use]
    pub fn new(path: PathBuf, limit: Duration) -> Self {
        Self { path, limit: (!limit.is_zero()).then_some(limit), anybodys: false }
    }

    /// The same hook, whoever could have put it there: `trusted_paths = no`.
    #[must_use]
    pub fn of_anybody(mut self) -> Self {
        self.anybodys = true;
        self
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Asks the hook. Dropping the future kills it.
    pub async fn ask(&self, context: &Context) -> Decision {
        if let Some((fault, reason)) = self.doubt() {
            return failed(fault, reason);
        }
        let mut child = match self.start(context) {
            Ok(child) => child,
            Err(error) => return failed(Fault::NotStarted, format!("auth hook could not be started: {error}")),
        };
        let mut group = Group(child.id());
        let work = feed_and_wait(&mut child, context);
        let ended = match self.limit {
            None => Some(work.await),
            Some(limit) => tokio::time::timeout(limit, work).await.ok(),
        };
        if ended.is_some() {
            group.0 = None;
        }
        drop(group);
        match ended {
            Some(Ok(status)) => decide(status),
            Some(Err(error)) => failed(Fault::NotWaitedFor, format!("auth hook could not be waited for: {error}")),
            None => failed(Fault::TimedOut(self.limit.unwrap_or_default().as_secs()), "denied"),
        }
    }

    /// Why the hook would not be started, as far as its file and the directories above it tell, and in words.
    #[must_use]
    pub fn doubt(&self) -> Option<(Fault, String)> {
        let path = self.path.display();
        match std::fs::metadata(&self.path) {
            Ok(meta) if meta.is_file() && meta.permissions().mode() & 0o111 != 0 => {}
            _ => return Some((Fault::NotExecutable, format!("auth hook not found or not executable: {path}"))),
        }
        if self.anybodys {
            return None;
        }
        let error = file::check_own(&self.path).err()?;
        Some((Fault::Untrusted, format!("auth hook {}", causes::on_one_line(&error))))
    }

    fn start(&self, context: &Context) -> std::io::Result<Child> {
        #[expect(clippy::disallowed_methods, reason = "this room's purpose is to start the operator's hook")]
        let mut command = Command::new(&self.path);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        for name in OF_THE_SERVICE_MANAGER {
            command.env_remove(name);
        }
        command.envs(environment(context)).kill_on_drop(true);
        command.spawn()
    }
}

/// Kills the hook's whole process group when dropped: at the time limit, and when the request was given up.
///
/// **Invariant:** it is disarmed once the leader was waited for, since its number may then name another group.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.0 {
            signal::kill_group(leader);
        }
    }
}

/// A hook may ignore its stdin: a broken pipe is no failure.
async fn feed_and_wait(child: &mut Child, context: &Context) -> std::io::Result<ExitStatus> {
    if let Some(mut stdin) = child.stdin.take() {
        let text = serde_json::to_vec(context).unwrap_or_default();
        let _ = stdin.write_all(&text).await;
    }
    child.wait().await
}

fn decide(status: ExitStatus) -> Decision {
    match status.code() {
        Some(0) => Decision::Allowed,
        Some(1) => denied(1, "denied"),
        Some(2) => denied(2, "bad credentials"),
        Some(3) => denied(3, "insufficient privilege"),
        Some(code) => denied(u8::try_from(code).unwrap_or(1), format!("hook exited {code}")),
        None => failed(Fault::Killed, "auth hook was killed by a signal"),
    }
}

/// It did not get to decide, which denies.
fn failed(fault: Fault, reason: impl Into<String>) -> Decision {
    Decision::Denied { code: 1, reason: reason.into(), fault: Some(fault) }
}

/// By its own word.
fn denied(code: u8, reason: impl Into<String>) -> Decision {
    Decision::Denied { code, reason: reason.into(), fault: None }
}

fn environment(context: &Context) -> Vec<(&'static str, String)> {
    let submitter = context.submitter.as_ref();
    vec![
        ("ENVEXEC_ACTION", context.action.clone()),
        ("ENVEXEC_SCRIPT", context.script.clone()),
        ("ENVEXEC_HOSTS", context.hosts.join(",")),
        ("ENVEXEC_ARGS", context.args.join(" ")),
        ("ENVEXEC_ARGS_JSON", serde_json::to_string(&context.args).unwrap_or_default()),
        ("ENVEXEC_USERNAME", context.username.clone()),
        ("ENVEXEC_TOKEN", context.token.clone()),
        ("ENVEXEC_SOURCE_IP", context.source_ip.clone()),
        ("ENVEXEC_DISPATCHER", context.dispatcher.clone()),
        ("ENVEXEC_DISPATCHER_SERIAL", context.dispatcher_serial.clone()),
        ("ENVEXEC_REQID", context.reqid.clone()),
        ("ENVEXEC_SUBMITTER", submitter.map(|s| s.username.clone()).unwrap_or_default()),
        ("ENVEXEC_SUBMITTER_IP", submitter.map(|s| s.source_ip.clone()).unwrap_or_default()),
        ("ENVEXEC_TIMESTAMP", context.timestamp.clone()),
        ("ENVEXEC_TRACEPARENT", context.traceparent.as_ref().map(ToString::to_string).unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Site {
        dir: tempfile::TempDir,
    }

    impl Site {
        fn hook(body: &str, seconds: u64) -> (Self, Hook) {
            // Not below the temporary directory, where anybody may put something.
            let dir = tempfile::tempdir_in("/var/lib").unwrap();
            let path = dir.path().join("hook");
            // Another process writes it: while this one had it open for writing, a fork elsewhere in the test binary could
            // keep it so, and exec would fail.
            #[expect(clippy::disallowed_methods, reason = "see above")]
            let mut shell = std::process::Command::new("/bin/sh");
            shell.args(["-c", "printf '#!/bin/sh\\n%s\\n' \"$1\" > \"$2\" && chmod 755 \"$2\"", "sh", body]).arg(&path);
            assert!(shell.status().unwrap().success());
            (Self { dir }, Hook::new(path, Duration::from_secs(seconds)))
        }
    }

    async fn reason(body: &str) -> (u8, String) {
        let (_site, hook) = Site::hook(body, 60);
        match hook.ask(&Context::default()).await {
            Decision::Denied { code, reason, .. } => (code, reason),
            Decision::Allowed => (0, String::new()),
        }
    }

    #[tokio::test]
    async fn exit_statuses_have_their_documented_meaning() {
        assert_eq!(reason("exit 0").await, (0, String::new()));
        assert_eq!(reason("exit 1").await, (1, "denied".into()));
        assert_eq!(reason("exit 2").await, (2, "bad credentials".into()));
        assert_eq!(reason("exit 3").await, (3, "insufficient privilege".into()));
        assert_eq!(reason("exit 77").await, (77, "hook exited 77".into()));
    }

    #[tokio::test]
    async fn a_hook_killed_by_a_signal_never_allows() {
        for signal in ["KILL", "SEGV", "TERM"] {
            assert_eq!(reason(&format!("kill -{signal} $$")).await.0, 1);
        }
    }

    #[tokio::test]
    async fn a_hook_that_hangs_is_killed_with_everything_it_started() {
        // On a busy machine it may take more than a second until it has started anything.
        for seconds in [1, 5, 30] {
            let (site, hook) = Site::hook("sleep 1000 & echo $! > \"${0%/*}/pid\"; wait", seconds);
            let decision = hook.ask(&Context::default()).await;
            let Decision::Denied { code: 1, fault: Some(Fault::TimedOut(told)), .. } = decision else {
                panic!("{decision:?}")
            };
            assert_eq!(told, seconds);
            let text = std::fs::read_to_string(site.dir.path().join("pid")).unwrap_or_default();
            let Some(pid) = text.strip_suffix('\n') else { continue };
            let stat = format!("/proc/{pid}/stat");
            let deadline = std::time::Instant::now() + Duration::from_mins(1);
            while std::fs::read_to_string(&stat).is_ok_and(|text| !text.contains(") Z ")) {
                assert!(std::time::Instant::now() < deadline, "the hook's child is still alive");
                tokio::task::yield_now().await;
            }
            return;
        }
        panic!("the hook never got as far as to start anything");
    }

    #[tokio::test]
    async fn a_missing_hook_denies_and_names_the_path() {
        let hook = Hook::new("/nonexistent/hook".into(), Duration::from_secs(1));
        let Decision::Denied { code, reason, fault } = hook.ask(&Context::default()).await else { panic!() };
        assert_eq!((code, fault), (1, Some(Fault::NotExecutable)));
        assert!(reason.contains("/nonexistent/hook"));
    }

    #[tokio::test]
    async fn a_hook_that_others_may_write_decides_nothing() {
        let (_site, hook) = Site::hook("exit 0", 60);
        for (mode, expected) in
            [(0o777, false), (0o757, false), (0o775, false), (0o720, false), (0o755, true), (0o700, true)]
        {
            std::fs::set_permissions(hook.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(hook.clone().of_anybody().ask(&Context::default()).await, Decision::Allowed);
            match hook.ask(&Context::default()).await {
                Decision::Allowed => assert!(expected, "{mode:o}"),
                Decision::Denied { reason, fault, .. } => {
                    assert_eq!((fault, expected), (Some(Fault::Untrusted), false), "{mode:o} {reason}");
                    assert!(reason.starts_with("auth hook /") && reason.contains(" cannot be trusted: "), "{reason}");
                    assert!(
                        reason.ends_with(&format!(" has mode {mode:04o}, writable by others than root (chmod go-w)"))
                    );
                }
            }
        }
    }

    #[tokio::test]
    async fn a_hook_of_somebody_else_or_where_others_may_put_one_decides_nothing() {
        let (site, hook) = Site::hook("exit 0", 60);
        let denied = async |part: &str| match hook.ask(&Context::default()).await {
            Decision::Allowed => panic!("{part}"),
            Decision::Denied { reason, fault, .. } => {
                assert_eq!(fault, Some(Fault::Untrusted));
                assert!(reason.contains(part), "{part}: {reason}");
            }
        };
        std::os::unix::fs::chown(hook.path(), Some(12_345), None).unwrap();
        denied("/hook belongs to uid 12345").await;
        std::os::unix::fs::chown(hook.path(), Some(0), None).unwrap();
        for mode in [0o777, 0o1777, 0o770] {
            std::fs::set_permissions(site.dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            denied(&format!("{} has mode {mode:04o}", site.dir.path().display())).await;
        }
        std::fs::set_permissions(site.dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::os::unix::fs::chown(site.dir.path(), Some(12_345), None).unwrap();
        denied("belongs to uid 12345").await;
        std::os::unix::fs::chown(site.dir.path(), Some(0), None).unwrap();
        assert_eq!(hook.ask(&Context::default()).await, Decision::Allowed);
    }

    #[tokio::test]
    async fn environment_and_json_say_the_same() {
        let body = r#"cat > "${0%/*}/json"; printf '%s' "$ENVEXEC_ARGS_JSON" > "${0%/*}/env""#;
        let (site, hook) = Site::hook(body, 60);
        let args = vec!["a b".to_owned(), "é\n\"".to_owned()];
        let context = Context { action: "run".into(), args: args.clone(), ..Context::default() };
        assert_eq!(hook.ask(&context).await, Decision::Allowed);
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(site.dir.path().join("json")).unwrap()).unwrap();
        let env: Vec<String> = serde_json::from_slice(&std::fs::read(site.dir.path().join("env")).unwrap()).unwrap();
        assert_eq!(env, args);
        assert_eq!(json["args"], serde_json::json!(args));
        assert!(json["submitter"].is_null());
    }

    #[tokio::test]
    async fn a_hook_that_ignores_its_stdin_decides_all_the_same() {
        let (_site, hook) = Site::hook("exit 0", 60);
        let context = Context { args: vec!["x".repeat(100_000)], ..Context::default() };
        assert_eq!(hook.ask(&context).await, Decision::Allowed);
    }

    #[tokio::test]
    async fn what_an_environment_would_cut_off_denies_and_starts_nothing() {
        let (site, hook) = Site::hook("echo > \"${0%/*}/asked\"", 60);
        let text = || "a\0b".to_owned();
        for context in [
            Context { args: vec![text()], ..Context::default() },
            Context { script: text(), ..Context::default() },
            Context { username: text(), ..Context::default() },
            Context { token: text(), ..Context::default() },
            Context { reqid: text(), ..Context::default() },
            Context { hosts: vec![text()], ..Context::default() },
        ] {
            let Decision::Denied { reason, .. } = hook.ask(&context).await else { panic!("{context:?}") };
            assert!(reason.starts_with("auth hook could not be started"), "{reason}");
        }
        assert!(!site.dir.path().join("asked").exists());
    }

    #[tokio::test]
    async fn arguments_too_large_for_an_environment_deny_and_say_so() {
        let (_site, hook) = Site::hook("exit 0", 60);
        let context = Context { args: vec!["x".repeat(200_000)], ..Context::default() };
        let Decision::Denied { reason, .. } = hook.ask(&context).await else { panic!() };
        assert!(reason.starts_with("auth hook could not be started"), "{reason}");
    }
}
