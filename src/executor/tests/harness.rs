//! A front-end for tests: starts an executor, sends orders, hears reports.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command as Process, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::{TempDir, TempPath};

use super::DIRECTORY;
use crate::sys::{fdpass, pipe, poll, user};
use crate::wire::control::{self, Control, Reloaded};
use crate::wire::frame;
use crate::wire::limits;
use crate::wire::name::{RequestId, ScriptName};
use crate::wire::order::{Command, Mode, Order, Report};
use crate::wire::outcome::Outcome;

/// Longer than anything here takes, on any machine.
const PATIENCE: Duration = Duration::from_mins(1);
/// Who the executor is when root runs the tests.
const NOBODY: u32 = 65_534;

pub(super) struct Executor {
    pub(super) control: Option<OwnedFd>,
    pub(super) process: Child,
    directory: TempDir,
}

impl Executor {
    /// With the shell as script `sh`, no time limit and two seconds of grace.
    pub(super) fn start() -> Self {
        Self::with(&json!({"scripts": {"sh": "/bin/sh"}, "kill_grace": 2000}))
    }

    pub(super) fn with(policy: &Value) -> Self {
        let executor = Self::spawn(&policy.to_string(), NOBODY);
        assert_eq!(executor.answer(), Reloaded::Done);
        executor
    }

    /// A root executor, with the shell as script `sh` under a profile of these lines. `{}` in them is the test's own
    /// directory, where `open` may be written to by everyone.
    pub(super) fn root(profile: &str) -> Self {
        Self::root_under(&[], profile)
    }

    /// As [`Executor::root`], started by another program.
    pub(super) fn root_under(starter: &[&str], profile: &str) -> Self {
        let executor = Self::spawn_root(starter, profile);
        assert_eq!(executor.answer(), Reloaded::Done);
        executor
    }

    /// Without waiting for the first answer.
    pub(super) fn spawn_root(starter: &[&str], profile: &str) -> Self {
        Self::spawn_listing(starter, "", profile)
    }

    /// As [`Executor::spawn_root`], with these lines in the allowlist besides.
    pub(super) fn spawn_listing(starter: &[&str], scripts: &str, profile: &str) -> Self {
        assert!(user::is_root(), "these tests need root");
        // Wherever temporary files are otherwise: what scripts see there is what is tested.
        let directory = tempfile::tempdir_in("/tmp").unwrap();
        let place = directory.path().canonicalize().unwrap();
        for name in ["conf", "conf-runs", "open", "open/deep", "other"] {
            fs::create_dir(place.join(name)).unwrap();
            fs::set_permissions(place.join(name), PermissionsExt::from_mode(0o777)).unwrap();
        }
        let [profile, scripts] = [profile, scripts].map(|text| text.replace("{}", place.to_str().unwrap()));
        let scripts = format!("sh = /bin/sh\n{scripts}");
        let conf = |name: &str| place.join("conf").join(name);
        let agent = format!(
            "port = 1\ncert = {c}/crt\nkey = {c}/key\nca = {c}/ca\nuser = daemon\nasync_runs_dir = {c}-runs\n\
            trusted_dispatchers_path = {c}/trusted\nrevoked_serials = {c}/revoked\ncert_staging_path = {c}/staged\n\
            [profile default]\n{profile}\n",
            c = place.join("conf").display()
        );
        for (path, text) in [(conf("agent.conf"), agent.as_str()), (conf("scripts.conf"), &scripts)] {
            File::create_new(path).unwrap().write_all(text.as_bytes()).unwrap();
        }
        Self::spawn_in(directory, "", 0, starter)
    }

    /// Without waiting for the first answer.
    pub(super) fn spawn(policy: &str, uid: u32) -> Self {
        Self::spawn_in(tempfile::tempdir().unwrap(), policy, uid, &[])
    }

    fn spawn_in(directory: TempDir, policy: &str, uid: u32, starter: &[&str]) -> Self {
        fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let (ours, theirs) = fdpass::pair(fdpass::Kind::Messages).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test binary itself, as a process of its own")]
        let mut command = match starter {
            [] => Process::new("/proc/self/exe"),
            [starter, words @ ..] => {
                let mut command = Process::new(starter);
                command.args(words).arg(std::env::current_exe().unwrap());
                command
            }
        };
        command
            .args(["executor::tests::executor_role", "--exact", "--nocapture", "--test-threads=1"])
            .env_clear()
            .envs([("HOME", "/home/x"), ("LANG", "C.UTF-8"), ("SECRET", "s"), ("LD_BIND_NOW", "1")])
            .env(DIRECTORY, directory.path())
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null());
        if user::is_root() && uid != 0 {
            command.uid(uid).gid(uid);
        }
        for (name, text) in [("log", ""), ("pid", ""), ("policy", policy)] {
            let mut file = File::options().write(true).create_new(true).open(directory.path().join(name)).unwrap();
            file.set_permissions(PermissionsExt::from_mode(0o666)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        }
        Self { control: Some(ours), process: command.spawn().unwrap(), directory }
    }

    /// The executor's process id, once it has answered.
    pub(super) fn pid(&self) -> Pid {
        Pid::from_raw(fs::read_to_string(self.path("pid")).unwrap().parse().unwrap())
    }

    pub(super) fn set_policy(&self, policy: &str) {
        let mut file = File::options().write(true).truncate(true).open(self.path("policy")).unwrap();
        file.write_all(policy.as_bytes()).unwrap();
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().canonicalize().unwrap().join(name)
    }

    /// Puts a file that all may read into the test's directory.
    pub(super) fn write(&self, name: &str, text: &str) {
        let mut file = File::create_new(self.path(name)).unwrap();
        // Whatever umask the tests were started with.
        file.set_permissions(PermissionsExt::from_mode(0o644)).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }

    /// An executable file. Another process writes it: while this one had it open for writing, a fork elsewhere in the
    /// test binary could keep it so, and exec would fail.
    pub(super) fn script(&self, name: &str, text: &str) -> PathBuf {
        self.made(name, "printf %s \"$1\" > \"$2\" && chmod 755 \"$2\"", text)
    }

    /// A copy of a program of the host's that has its owner's rights, and the owner is root.
    pub(super) fn set_user_id(&self, name: &str, program: &str) -> PathBuf {
        self.made(name, "cp \"$1\" \"$2\" && chmod 4755 \"$2\"", program)
    }

    /// A copy of a program of the host's that all may execute.
    pub(super) fn program(&self, name: &str, program: &str) -> PathBuf {
        self.made(name, "cp \"$1\" \"$2\" && chmod 755 \"$2\"", program)
    }

    /// What a shell's words make of the second of their arguments.
    fn made(&self, name: &str, words: &str, from: &str) -> PathBuf {
        let path = self.path(name);
        #[expect(clippy::disallowed_methods, reason = "a process that writes what this one must not have open")]
        let mut shell = Process::new("/bin/sh");
        assert!(shell.args(["-c", words, "sh", from]).arg(&path).status().unwrap().success());
        path
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.path("log")).unwrap()
    }

    pub(super) fn control(&self) -> &OwnedFd {
        self.control.as_ref().unwrap()
    }

    pub(super) fn say(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) {
        fdpass::send(self.control(), bytes, descriptors).unwrap();
    }

    pub(super) fn answer(&self) -> Reloaded {
        let [ready] = poll::readable([Some(self.control().as_fd())], Some(PATIENCE)).unwrap();
        assert!(ready.readable, "no answer");
        let mut buffer = vec![0; control::LIMIT];
        let message = fdpass::receive(self.control(), &mut buffer, 0).unwrap();
        assert!(message.size > 0, "the executor is gone: {}", self.log());
        serde_json::from_slice(&buffer[..message.size]).unwrap()
    }

    pub(super) fn reload(&self) -> Reloaded {
        self.say(&serde_json::to_vec(&Control::Reload).unwrap(), &[]);
        self.answer()
    }

    /// An order's connection, with nothing sent on it yet.
    pub(super) fn connect(&self) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(PATIENCE)).unwrap();
        self.say(&serde_json::to_vec(&Control::Order).unwrap(), &[theirs.as_fd()]);
        ours
    }

    /// Makes an empty directory of the test's a link of root's.
    pub(super) fn lead(&self, name: &str, to: impl AsRef<Path>) {
        fs::remove_dir(self.path(name)).unwrap();
        symlink(to, self.path(name)).unwrap();
    }

    /// Everything that a shell text prints, errors too; `{}` in it is the test's own directory.
    pub(super) fn says(&self, text: &str) -> String {
        let place = self.path("");
        let text = format!("exec 2>&1\n{}", text.replace("{}/", place.to_str().unwrap()));
        let (outcome, out, _) = self.shell(&text, &[]).finish();
        assert!(outcome.started(), "{outcome:?}");
        out
    }

    /// Runs the script `sh` with `-c text` and further arguments.
    pub(super) fn shell(&self, text: &str, args: &[&str]) -> Run {
        self.run(&order("sh", &[&["-c", text], args].concat(), Mode::Attached))
    }

    pub(super) fn run(&self, order: &Order) -> Run {
        Run::on(self.connect(), order)
    }

    /// Lets the executor know that the front-end is gone, and waits for its end.
    pub(super) fn finish(mut self) -> ExitStatus {
        self.control = None;
        self.process.wait().unwrap()
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(super) fn order(name: &str, args: &[&str], mode: Mode) -> Order {
    let args = args.iter().map(|arg| (*arg).to_owned()).collect();
    Order::new(ScriptName::parse(name).unwrap(), args, RequestId::from_random([7; 8]), mode).unwrap()
}

/// An order on its way, as its front-end sees it.
pub(super) struct Run {
    pub(super) connection: UnixStream,
    pub(super) stdin: Option<File>,
    pub(super) stdout: File,
    pub(super) stderr: File,
    pub(super) status: File,
    /// A file that the monitor of a detached order keeps locked.
    lock: TempPath,
    /// The writing end of the FIFO of a detached order.
    pub(super) cancel: File,
}

impl Run {
    /// Gives it on this connection.
    pub(super) fn on(connection: UnixStream, order: &Order) -> Self {
        let (stdin, write_in) = pipe::pipe().unwrap();
        let (read_out, stdout) = pipe::pipe().unwrap();
        let (read_err, stderr) = pipe::pipe().unwrap();
        let (status, lock) = (tempfile::tempfile().unwrap(), tempfile::NamedTempFile::new().unwrap());
        lock.as_file().try_lock().unwrap();
        let (fifo, cancel) = pipe::pipe().unwrap();
        let lock_fd = lock.as_file().as_fd();
        let all = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), status.as_fd(), lock_fd, fifo.as_fd()];
        let bytes = frame::encode(order, limits::ORDER).unwrap();
        let sent = fdpass::send(&connection, &bytes, &all[..order.descriptors()]).unwrap();
        (&connection).write_all(&bytes[sent..]).unwrap();
        let (stdout, stderr) = (File::from(read_out), File::from(read_err));
        let lock = lock.into_temp_path();
        Self { connection, stdin: Some(File::from(write_in)), stdout, stderr, status, lock, cancel: cancel.into() }
    }

    /// The next report; `None` when the monitor has closed.
    pub(super) fn report(&self) -> Option<Report> {
        report(&self.connection)
    }

    /// Waits for [`Report::Started`]; the process id.
    pub(super) fn started(&self) -> i32 {
        match self.report() {
            Some(Report::Started { pid }) => pid,
            other => panic!("not started: {other:?}"),
        }
    }

    /// The one outcome, after which nothing may follow.
    pub(super) fn outcome(&self) -> Outcome {
        ended(&self.connection)
    }

    pub(super) fn cancel(&self) {
        (&self.connection).write_all(&frame::encode(&Command::Cancel, 64).unwrap()).unwrap();
    }

    /// Whether somebody holds the order's lock.
    pub(super) fn is_locked(&self) -> bool {
        File::open(&self.lock).unwrap().try_lock().is_err()
    }

    /// Reads one line of standard output, byte by byte so that nothing more is taken.
    pub(super) fn line(&mut self) -> String {
        let mut line = Vec::new();
        let mut byte = [0];
        while self.stdout.read(&mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(byte[0]);
        }
        String::from_utf8(line).unwrap()
    }

    /// Everything that is left on standard output.
    pub(super) fn rest(&mut self) -> String {
        let mut text = String::new();
        self.stdout.read_to_string(&mut text).unwrap();
        text
    }

    /// Whether, right now, no process holds standard output: all that ever ran for this order are gone.
    pub(super) fn everyone_is_gone(&mut self) -> bool {
        self.everyone_is_gone_but_for(&mut Vec::new())
    }

    /// The same, and what they have left to be read.
    pub(super) fn everyone_is_gone_but_for(&mut self, left: &mut Vec<u8>) -> bool {
        pipe::set_nonblocking(&self.stdout, true).unwrap();
        self.stdout.read_to_end(left).is_ok()
    }

    /// Closes standard input, and gives back outcome, output and errors.
    pub(super) fn finish(mut self) -> (Outcome, String, String) {
        self.stdin = None;
        let outcome = self.outcome();
        let errors = std::io::read_to_string(&self.stderr).unwrap();
        (outcome, self.rest(), errors)
    }
}

pub(super) fn report(mut connection: &UnixStream) -> Option<Report> {
    let mut prefix = [0; frame::PREFIX];
    // A monitor that ends with bytes unread resets the connection; for a reader that is the end too.
    connection.read_exact(&mut prefix).ok()?;
    let mut body = vec![0; frame::announced(prefix, limits::REPORT).unwrap()];
    connection.read_exact(&mut body).unwrap();
    Some(frame::decode(&body).unwrap())
}

/// Reads to the end: at most one start, exactly one outcome, nothing behind it.
pub(super) fn ended(connection: &UnixStream) -> Outcome {
    let mut reports: Vec<Report> = std::iter::from_fn(|| report(connection)).collect();
    let last = reports.pop();
    let Some(Report::Ended(outcome)) = last else { panic!("no outcome: {reports:?} {last:?}") };
    assert!(reports.len() <= 1 && reports.iter().all(|report| matches!(report, Report::Started { .. })), "{reports:?}");
    outcome
}

/// Waits for something that gives no sign when it happens.
pub(super) fn until(what: &str, test: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !test() {
        assert!(Instant::now() < deadline, "{what} never came true");
        std::thread::yield_now();
    }
}
