//! This process's own file, and the version of it that may be there later: trying it, and becoming it.
//!
//! A process that becomes another program stays what it is to everybody else: its number, its parent, its limits, its
//! rights. That is what lets a service be upgraded without its manager taking part, whichever that is; and the first
//! process of a container cannot be replaced in any other way.

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::AsFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::signal::Signal;
use nix::unistd;

use super::signals::Replaced;
use crate::sys::file::Identity;
use crate::sys::handover::{self, Left, OF_THE_SERVICE_MANAGER};
use crate::sys::poll;

/// Most bytes that are kept of what a trial says.
const SAID: usize = 4096;
/// Time between two looks at a trial that has said everything and has not ended yet, which is a moment.
const LOOK: Duration = Duration::from_millis(2);
/// The file that this process runs, whatever has become of its name.
const RUNNING: &str = "/proc/self/exe";

/// A file and the words that it was started with.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    argv: Vec<OsString>,
}

/// What became of a trial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trial {
    /// It ended with success; what it said.
    Passed(String),
    /// It did not; what it said, or how it ended.
    Failed(String),
    /// It did not end in time and was killed.
    Silent,
}

impl Program {
    /// This process's own, with its words. The path is that of its first word, where that leads to the file that runs
    /// here: a link may lead to another version later. Else it is the file's own.
    ///
    /// **Invariant:** called before the working directory changes.
    ///
    /// # Errors
    /// `/proc` is missing.
    pub fn own(argv: &[OsString]) -> io::Result<Self> {
        let running = Identity::of(Path::new(RUNNING))?;
        let named = argv.first().filter(|name| name.as_bytes().contains(&b'/')).map(Path::new);
        let named = named.filter(|path| Identity::of(path).is_ok_and(|found| found == running));
        let path = named.map_or_else(|| std::fs::read_link(RUNNING), std::path::absolute)?;
        Ok(Self { path, argv: argv.to_vec() })
    }

    /// Another program, at this path and with these words, its own name the first.
    #[must_use]
    pub const fn at(path: PathBuf, argv: Vec<OsString>) -> Self {
        Self { path, argv }
    }

    /// Where the file is, or will be.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs what is at the path now with one word more, and waits for its end at most for `patience`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn attempt(&self, word: &str, patience: Duration) -> io::Result<Trial> {
        let (output, theirs) = io::pipe()?;
        #[expect(clippy::disallowed_methods, reason = "this room starts processes")]
        let mut command = Command::new(&self.path);
        command.args(self.argv.get(1..).unwrap_or_default()).arg(word);
        if let Some(name) = self.argv.first() {
            command.arg0(name);
        }
        for name in OF_THE_SERVICE_MANAGER {
            command.env_remove(name);
        }
        let child = command.stdin(Stdio::null()).stdout(theirs.try_clone()?).stderr(theirs).spawn();
        // The writing ends are the command's, and would keep the pipe open.
        drop(command);
        let mut child = child?;
        let deadline = Instant::now() + patience;
        let said = listen(output, deadline)?;
        let status = if said.is_some() { ended(&mut child, deadline)? } else { None };
        let (Some(said), Some(status)) = (said, status) else {
            child.kill()?;
            child.wait()?;
            return Ok(Trial::Silent);
        };
        Ok(judge(status, said))
    }

    /// Becomes what is at the path now, with the same words; what is `left` stays open for it to take
    /// ([`handover::tcp_listeners`], [`handover::executor`]). Signals of `ignored` do nothing until it has handlers of its own; those of
    /// `ending` end it. Only returns if that fails, and then nothing has changed.
    #[must_use]
    pub fn become_it(&self, left: &Left<'_>, ignored: &[Signal], ending: &[Signal]) -> io::Error {
        let tried = || -> io::Result<std::convert::Infallible> {
            let environment = handover::environment(left);
            let words = self.argv.iter().map(|word| text(word)).collect::<io::Result<Vec<_>>>()?;
            let pair =
                |(name, value): &(OsString, OsString)| text(&[name, OsStr::new("="), value].join(OsStr::new("")));
            let environment = environment.iter().map(pair).collect::<io::Result<Vec<_>>>()?;
            let path = text(self.path.as_os_str())?;
            let _replaced = Replaced::new(ignored, ending)?;
            let _open = Open::new(left)?;
            Ok(unistd::execve(&path, &words, &environment)?)
        };
        match tried() {
            Ok(never) => match never {},
            Err(error) => error,
        }
    }
}

fn text(word: &OsStr) -> io::Result<CString> {
    Ok(CString::new(word.to_owned().into_vec())?)
}

/// What comes until the end; `None` where that does not come in time. Of a long text, the beginning.
fn listen(output: io::PipeReader, deadline: Instant) -> io::Result<Option<String>> {
    let mut output = File::from(std::os::fd::OwnedFd::from(output));
    let (mut said, mut buffer) = (Vec::new(), [0; 1024]);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // Also one that never stops talking has its time.
        if left.is_zero() {
            return Ok(None);
        }
        let [ready] = poll::readable([Some(output.as_fd())], Some(left))?;
        if !ready.readable {
            continue;
        }
        let size = output.read(&mut buffer)?;
        if size == 0 {
            return Ok(Some(String::from_utf8_lossy(&said).trim().to_owned()));
        }
        said.extend(buffer.iter().take(size.min(SAID.saturating_sub(said.len()))));
    }
}

/// How one that has closed its output ended, which it may never do; `None` where it has not in time.
fn ended(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    loop {
        match child.try_wait()? {
            None if Instant::now() < deadline => std::thread::sleep(LOOK),
            found => return Ok(found),
        }
    }
}

fn judge(status: ExitStatus, said: String) -> Trial {
    match (status.success(), said.is_empty()) {
        (true, _) => Trial::Passed(said),
        (false, false) => Trial::Failed(said),
        (false, true) => Trial::Failed(status.to_string()),
    }
}

/// What stays open over exec, as long as this lives.
struct Open<'a>(&'a Left<'a>);

impl<'a> Open<'a> {
    fn new(left: &'a Left<'a>) -> io::Result<Self> {
        let open = Self(left);
        for descriptor in left.all() {
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(open)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        for descriptor in self.0.all() {
            // It is open, so this cannot fail.
            let _ = fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::sys::process::tests::in_a_process;

    fn left(listener: &TcpListener) -> Left<'_> {
        Left { sockets: vec![listener.as_fd()], ..Left::default() }
    }

    const LONG: Duration = Duration::from_mins(1);

    fn sh(script: &str) -> Program {
        let argv = ["sh", "-c", script].map(OsString::from).to_vec();
        Program { path: "/bin/sh".into(), argv }
    }

    #[test]
    fn a_trial_passes_fails_or_is_ended() {
        let passed = sh("echo $0; echo aside >&2").attempt("word", LONG).unwrap();
        assert_eq!(passed, Trial::Passed("word\naside".to_owned()));
        assert_eq!(sh("echo why; exit 3").attempt("", LONG).unwrap(), Trial::Failed("why".to_owned()));
        assert_eq!(sh("exit 3").attempt("", LONG).unwrap(), Trial::Failed("exit status: 3".to_owned()));
        for endless in ["exec sleep 300", "exec yes", "exec >&- 2>&-; exec sleep 300"] {
            assert_eq!(sh(endless).attempt("", Duration::from_millis(50)).unwrap(), Trial::Silent, "{endless}");
        }
        let long = sh("yes | head -c 100000").attempt("", LONG).unwrap();
        assert!(matches!(long, Trial::Passed(text) if text.len() <= SAID));
        let missing = Program { path: "/no/such/file".into(), argv: Vec::new() };
        assert_eq!(missing.attempt("", LONG).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_first_word_that_leads_elsewhere_is_a_name_alone() {
        let own = std::env::current_exe().unwrap();
        for word in ["/bin/sh", "sh", "/no/such/file"] {
            assert_eq!(Program::own(&[word.into()]).unwrap().path(), own, "{word}");
        }
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert_eq!(Program::own(&[link.clone().into()]).unwrap().path(), link);
    }

    #[test]
    fn a_program_that_is_not_there_changes_nothing() {
        let text = in_a_process("absent", || {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let missing = Program { path: "/no/such/file".into(), argv: Vec::new() };
            let error = missing.become_it(&left(&listener), &[Signal::SIGUSR2], &[Signal::SIGPIPE]);
            let flags = FdFlag::from_bits_truncate(fcntl(&listener, FcntlArg::F_GETFD).unwrap());
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap().trim();
            let ignored = u64::from_str_radix(ignored, 16).unwrap();
            let is_ignored = |signal: Signal| ignored & (1 << (signal as u64 - 1)) != 0;
            let [first, second] = [Signal::SIGUSR2, Signal::SIGPIPE].map(is_ignored);
            format!("{:?} {} {first} {second}", error.kind(), flags == FdFlag::FD_CLOEXEC)
        });
        assert_eq!(text, "NotFound true false true");
    }

    #[test]
    fn the_next_program_gets_the_sockets_and_the_same_number() {
        let text = in_a_process("become", || {
            let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let script = "exec >&2; echo ANSWER:$(readlink /proc/$$/fd/${FD#*:} | \
                          cut -c1-6) ${FD%:*} $$";
            let script = format!("FD=$CTRL_EXEC_LISTEN_FDS; {script}");
            format!("{}", sh(&script).become_it(&left(&listener), &[], &[]))
        });
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!((words[0], words[1]), ("socket", words[2]), "{text}");
    }
}
