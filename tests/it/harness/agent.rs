//! One managed host: a directory that is its `/`, and the agent's process.

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::audit::{self, Line};
use super::executor::{Mode, Service};
use super::groups::Group;
use super::notify::Notify;
use super::pki::Credentials;
use super::process::{Ran, finish, program};
use super::{DEADLINE, binary, eventually, host};

/// A managed host.
#[derive(Debug)]
pub(crate) struct Agent {
    pub(crate) name: String,
    /// Its `/`.
    pub(crate) root: PathBuf,
    /// What it shows in handshakes.
    pub(crate) credentials: Credentials,
    pub(crate) mode: Mode,
    /// The program's file, where it is one of its own.
    pub(crate) file: Option<PathBuf>,
    /// The control group that its processes are started in, where it is one of its own.
    pub(crate) group: Option<PathBuf>,
    process: Option<Process>,
    service: Option<Service>,
    starts: u32,
}

#[derive(Debug)]
struct Process {
    child: Child,
    notify: Notify,
    address: SocketAddr,
    stderr: PathBuf,
}

impl Agent {
    pub(crate) fn new(name: &str, root: PathBuf, credentials: Credentials, mode: Mode) -> Self {
        let (file, group, process, service) = (None, None, None, None);
        Self { name: name.to_owned(), root, credentials, mode, file, group, process, service, starts: 0 }
    }

    /// The socket of the system's executor.
    pub(crate) fn socket(&self) -> PathBuf {
        self.root.join("run/ctrl-exec-agent/exec.sock")
    }

    /// Starts the system's executor and waits until it is ready.
    pub(crate) fn start_service(&mut self) {
        self.starts += 1;
        let command = Service::command_after(&self.first_words(), &self.root, &self.socket());
        self.service = Some(Service::of(command, &self.root, self.starts));
    }

    /// Takes a service of another make for the system's executor.
    pub(crate) fn adopt_service(&mut self, service: Service) {
        self.service = Some(service);
    }

    /// The system's executor.
    pub(crate) fn service(&self) -> &Service {
        self.service.as_ref().expect("the executor runs")
    }

    /// Takes the system's executor away, to end it.
    pub(crate) fn take_service(&mut self) -> Service {
        self.service.take().expect("the executor runs")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.root.join("etc/ctrl-exec-agent/agent.conf")
    }

    pub(crate) fn allowlist(&self) -> PathBuf {
        self.root.join("etc/ctrl-exec-agent/scripts.conf")
    }

    pub(crate) fn trust(&self) -> PathBuf {
        self.root.join("var/lib/ctrl-exec-agent/ctrl-exec-dispatchers")
    }

    pub(crate) fn revoked(&self) -> PathBuf {
        self.root.join("etc/ctrl-exec-agent/revoked-serials")
    }

    /// A place that scripts may write to.
    pub(crate) fn work(&self, name: &str) -> PathBuf {
        self.root.join("work").join(name)
    }

    /// What a script has written there, once it is a whole line.
    pub(crate) fn worked(&self, name: &str) -> String {
        let path = self.work(name);
        let look = || std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'));
        eventually(&format!("{} of {}", name, self.name), look).trim_end().to_owned()
    }

    /// The process whose own number a script has written there.
    pub(crate) fn worked_pid(&self, name: &str) -> u32 {
        eventually(&format!("the process of {name}"), || self.living(name))
    }

    /// The same, if it lives. A confined script does not know the host's numbers.
    pub(crate) fn living(&self, name: &str) -> Option<u32> {
        let number = self.worked(name).parse().unwrap();
        if self.mode == Mode::Private {
            return Some(number).filter(|pid| host::alive(*pid));
        }
        let above = [Some(self.pid()), self.service.as_ref().map(Service::pid)];
        let ours = |pid: &u32| host::alive(*pid) && above.iter().flatten().any(|top| host::descends(*pid, *top));
        host::numbered(number).into_iter().find(ours)
    }

    /// A section of its configuration, with an account where profiles are applied.
    pub(crate) fn profile(&self, name: &str, text: &str) -> String {
        let account = if self.mode == Mode::Private { String::new() } else { format!("run_as = {}\n", Mode::SCRIPTS) };
        format!("[profile {name}]\n{account}{text}")
    }

    /// Puts a script's file in place and returns its path. It is on no allowlist yet.
    pub(crate) fn write_script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.root.join("scripts").join(name);
        write_executable(&path, text);
        path
    }

    /// Puts certificate and key in place.
    pub(crate) fn write_credentials(&mut self, credentials: Credentials) {
        let dir = self.root.join("etc/ctrl-exec-agent");
        std::fs::write(dir.join("agent.crt"), &credentials.cert).unwrap();
        write_key(&dir.join("agent.key"), &credentials.key);
        self.credentials = credentials;
    }

    /// The agent's command line, to its end.
    pub(crate) fn command(&self, words: &[&str]) -> Ran {
        let mut command = program(&binary());
        command.args(["agent", "--root"]).arg(&self.root).args(words).args(self.flag(words));
        finish(command, "")
    }

    /// What makes a verb that root starts do without a root executor.
    fn flag(&self, words: &[&str]) -> Option<&'static str> {
        let asks = words.iter().any(|word| ["serve", "self-check"].contains(word));
        (asks && self.mode == Mode::Private).then_some("--unprivileged")
    }

    /// Starts `serve`, after the system's executor where it has that, and waits until it is ready.
    pub(crate) fn start(&mut self) {
        self.look_after_service();
        self.start_alone();
    }

    /// Starts the system's executor where there is to be one and is none, as the init system would.
    pub(crate) fn look_after_service(&mut self) {
        if self.mode == Mode::System && self.service.as_ref().is_none_or(|service| !host::alive(service.pid())) {
            self.start_service();
        }
    }

    /// Starts `serve` and waits until it is ready.
    pub(crate) fn start_alone(&mut self) {
        self.start_with(&self.first_words(), [Stdio::null(), Stdio::null()]);
    }

    /// What a shell does before it becomes one of its processes.
    fn first_words(&self) -> String {
        self.group.as_deref().map(Group::entering).unwrap_or_default()
    }

    /// As [`Agent::start_alone`], with standard input and output for a shell's words before it runs the program.
    pub(crate) fn start_with(&mut self, words: &str, [stdin, stdout]: [Stdio; 2]) {
        self.starts += 1;
        let stderr = self.root.join(format!("stderr.{}", self.starts));
        let notify = Notify::bind(&self.root.join("notify"));
        // With the limit on descriptors that service managers and login shells set.
        let mut command = program(Path::new("/bin/sh"));
        let file = self.file.clone().unwrap_or_else(binary);
        command.args(["-c", &format!("ulimit -Sn 1024; {words}\nexec \"$@\""), "sh"]).arg(file);
        command.args(["agent", "--root"]).arg(&self.root).arg("serve").args(self.flag(&["serve"]));
        command.env("NOTIFY_SOCKET", notify.path());
        command.stdin(stdin).stdout(stdout).stderr(File::create(&stderr).unwrap());
        let mut child = command.spawn().unwrap();
        let address = announced(&mut child, &notify, &stderr);
        self.process = Some(Process { child, notify, address, stderr });
    }

    /// Ends it with SIGTERM and returns the exit status.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        let mut process = self.process.take()?;
        host::kill(process.child.id(), Signal::SIGTERM);
        eventually("the end of the agent", || process.child.try_wait().unwrap()).code()
    }

    /// Waits for its end and returns the exit status.
    pub(crate) fn wait(&mut self) -> Option<i32> {
        let mut process = self.process.take().unwrap();
        eventually("the end of the agent", || process.child.try_wait().unwrap()).code()
    }

    /// Whether it is not running, by itself or by [`Agent::kill`].
    pub(crate) fn has_ended(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| process.child.try_wait().unwrap().is_some())
    }

    /// Ends it with SIGKILL.
    pub(crate) fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.child.kill().unwrap();
        process.child.wait().unwrap();
    }

    /// SIGHUP, and waits until the reload is over, whichever way it went. Returns its audit line.
    pub(crate) fn reload(&self) -> Line {
        let before = self.lines("reload").len();
        host::kill(self.pid(), Signal::SIGHUP);
        let process = self.process();
        let mut reloading = false;
        eventually("the end of the reload", || {
            let message = process.notify.receive()?;
            let has = |key: &str| message.iter().any(|(known, _)| known == key);
            reloading |= has("RELOADING");
            (reloading && has("READY")).then_some(())
        });
        self.lines("reload").get(before).cloned().expect("an audit line about the reload")
    }

    /// Puts a copy of the program at a path of this agent's own, in place of what is there.
    pub(crate) fn install(&mut self) {
        let file = self.root.join("bin/ctrl-exec");
        // By another process: this one's forks would otherwise inherit the file while it is open for writing.
        let mut command = program(Path::new("install"));
        command.args(["-D", "-m", "755"]).arg(binary()).arg(file.with_extension("new"));
        finish(command, "").exits(0);
        std::fs::rename(file.with_extension("new"), &file).unwrap();
        self.file = Some(file);
    }

    /// SIGUSR2, and waits until the agent has started again as the same process. Returns where it listens now.
    pub(crate) fn upgrade(&self) -> SocketAddr {
        while self.process().notify.receive().is_some() {}
        host::kill(self.pid(), Signal::SIGUSR2);
        self.upgraded()
    }

    /// Waits for the end of an upgrade.
    pub(crate) fn upgraded(&self) -> SocketAddr {
        eventually("the end of the upgrade", || {
            let message = self.process().notify.receive()?;
            message.iter().find(|(key, _)| key == "X_CTRL_EXEC_ADDRESS").map(|(_, address)| address.parse().unwrap())
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process().child.id()
    }

    /// The process of the executor's service.
    pub(crate) fn executor(&self) -> u32 {
        // A monitor, which may have lost its own parent, leads a session; an executor does not.
        let only_child = |of: u32| {
            eventually("one executor", || {
                let services: Vec<u32> =
                    host::children(of).into_iter().filter(|pid| !host::leads_session(*pid)).collect();
                if let [executor] = services[..] { Some(executor) } else { None }
            })
        };
        match self.mode {
            Mode::Private => only_child(self.pid()),
            Mode::Own => only_child(self.keeper()),
            Mode::System => self.service().pid(),
        }
    }

    /// The process that keeps the agent's own root executor alive.
    pub(crate) fn keeper(&self) -> u32 {
        assert_eq!(self.mode, Mode::Own);
        eventually("one keeper", || if let [keeper] = host::children(self.pid())[..] { Some(keeper) } else { None })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.process().address
    }

    /// Where its standard error goes.
    pub(crate) fn stderr_path(&self) -> PathBuf {
        self.process().stderr.clone()
    }

    /// Everything on standard error so far.
    pub(crate) fn stderr(&self) -> String {
        std::fs::read_to_string(&self.process().stderr).unwrap()
    }

    /// Everything that its executor has put on standard error, among other things.
    pub(crate) fn executor_stderr(&self) -> String {
        if self.mode == Mode::System { self.service().stderr() } else { self.stderr() }
    }

    /// The audit lines of this kind so far, the agent's and its executor's.
    pub(crate) fn lines(&self, action: &str) -> Vec<Line> {
        let service = self.service.as_ref().map(Service::stderr).unwrap_or_default();
        audit::lines(&(self.stderr() + &service)).into_iter().filter(|line| line.action() == action).collect()
    }

    /// Waits for an audit line.
    pub(crate) fn line(&self, action: &str) -> Line {
        self.line_where(action, |_| true)
    }

    /// Waits for an audit line with something about it.
    pub(crate) fn line_where(&self, action: &str, mut wanted: impl FnMut(&Line) -> bool) -> Line {
        let what = format!("an audit line '{action}' of {}", self.name);
        eventually(&what, || self.lines(action).into_iter().find(|line| wanted(line)))
    }

    /// A job outlives its agent and its executor, and would outlive its test. Whoever runs one hears of its end here.
    fn cancel_jobs(&self) {
        let entries = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
        let owners = entries(&self.root.join("var/lib/ctrl-exec-agent/runs"));
        let files = owners.flat_map(|owner| entries(&owner).collect::<Vec<_>>());
        for fifo in files.filter(|path| path.extension().is_some_and(|suffix| suffix == "cancel")) {
            // Nobody reads it where the job has ended.
            let _ = ctrl_exec::sys::file::nudge(&fifo);
        }
    }

    fn process(&self) -> &Process {
        self.process.as_ref().expect("the agent runs")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for start in 1..=self.starts {
                let text = std::fs::read_to_string(self.root.join(format!("stderr.{start}"))).unwrap_or_default();
                eprintln!("--- standard error of {} ({start})\n{text}", self.name);
            }
        }
        if let Some(mut process) = self.process.take() {
            host::kill(process.child.id(), Signal::SIGTERM);
            let deadline = Instant::now() + DEADLINE / 4;
            while matches!(process.child.try_wait(), Ok(None)) && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
            drop(process.child.kill());
            drop(process.child.wait());
        }
        self.cancel_jobs();
    }
}

/// Waits for `READY=1` and returns the address that came with it.
fn announced(child: &mut Child, notify: &Notify, stderr: &Path) -> SocketAddr {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let message = notify.receive().unwrap_or_default();
        if let Some((_, address)) = message.iter().find(|(key, _)| key == "X_CTRL_EXEC_ADDRESS") {
            return address.parse().unwrap();
        }
        let said = || std::fs::read_to_string(stderr).unwrap_or_default();
        if let Some(status) = child.try_wait().unwrap() {
            panic!("the agent ended at once, {status}:\n{}", said());
        }
        if Instant::now() >= deadline {
            drop(child.kill());
            panic!("the agent is not ready:\n{}", said());
        }
    }
}

/// Writes a private key as the agent's installer leaves it: for the agent's account alone.
pub(crate) fn write_key(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    host::give_to_agent(path);
}

/// Writes an executable file under its name only when it is complete and closed.
pub(crate) fn write_executable(path: &Path, text: &str) {
    let fresh = path.with_extension("new");
    // By another process: this one's forks would otherwise inherit the file while it is open for writing, and as long as one
    // of them has come no further, nobody could execute it.
    let mut command = program(Path::new("/bin/sh"));
    command.args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"]).arg(&fresh);
    finish(command, text).exits(0);
    std::fs::rename(&fresh, path).unwrap();
}
