//! What `/proc` and kill(2) say about processes that the tests have started.

use std::net::TcpListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};

use nix::sys::signal::{self, Signal};
use nix::unistd::{Pid, User};

/// Whether the tests run as root, where agents become `nobody`.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether a test that has rights to give up can run. Where CI is set, none is left out.
pub(crate) fn has_root() -> bool {
    let root = is_root();
    assert!(
        root || std::env::var_os("CI").is_none_or(|set| set.is_empty()),
        "CI runs every test, and this one as root"
    );
    root
}

/// Gives a file that only its owner may read to the account that agents run as.
pub(crate) fn give_to_agent(path: &Path) {
    if is_root() {
        let nobody = User::from_name("nobody").unwrap().expect("an account nobody");
        std::os::unix::fs::chown(path, Some(nobody.uid.as_raw()), Some(nobody.gid.as_raw())).unwrap();
    }
}

/// The same command as an account without rights, where the tests have some to give up. That account need not reach
/// the directory that the program was built in, so the program is copied to `dir`.
pub(crate) fn unprivileged(command: &Command, dir: &Path) -> Command {
    let mut copy = command.get_program().to_owned();
    if is_root() {
        copy = dir.join("ctrl-exec").into_os_string();
        // By another process: this one's forks would otherwise inherit the file while it is open for writing.
        let copied = Command::new("install").args(["-m", "755"]).arg(command.get_program()).arg(&copy).status();
        assert!(copied.unwrap().success());
    }
    let mut changed = Command::new(copy);
    changed.args(command.get_args()).current_dir("/");
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => changed.env(key, value),
            None => changed.env_remove(key),
        };
    }
    if is_root() {
        let nobody = User::from_name("nobody").unwrap().expect("an account nobody");
        changed.uid(nobody.uid.as_raw()).gid(nobody.gid.as_raw());
    }
    changed
}

/// Sends a signal to a process that a test started, or that one of those started.
pub(crate) fn kill(pid: u32, signal: Signal) {
    let _ = signal::kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal);
}

/// A process of the agent's account that listens at `path`. Killed when dropped.
pub(crate) fn listen_as_agent(path: &Path) -> Impostor {
    let listener = std::os::unix::net::UnixListener::bind(path).unwrap();
    give_to_agent(path);
    // The kernel notes who calls listen(2), the last time it is called.
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec perl -e 'listen(STDIN, 9) or die; $| = 1; print 1; sleep 300'"]);
    command.stdin(std::os::fd::OwnedFd::from(listener)).stdout(std::process::Stdio::piped()).uid(65_534).gid(65_534);
    let mut child = command.spawn().unwrap();
    std::io::Read::read_exact(&mut child.stdout.take().unwrap(), &mut [0]).unwrap();
    Impostor(child)
}

/// See [`listen_as_agent`].
#[derive(Debug)]
pub(crate) struct Impostor(std::process::Child);

impl Drop for Impostor {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// How many connections a test opens at once that usually opens so many: fewer where the host's hard limit on descriptors, which
/// nobody here may be able to raise, has the agent let fewer in. Of an address it takes a 32nd of them for handshakes.
pub(crate) fn at_once(usual: usize) -> usize {
    let (_, hard) = nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    usual.min(usize::try_from(hard / 40).unwrap_or(usize::MAX))
}

/// A port that nobody has and that the kernel gives to nobody who does not ask for it: a daemon that is started at it again
/// finds it free, and where no daemon is, none comes.
pub(crate) fn own_port() -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    // Other tests may be under way beside these.
    let start = u16::try_from(std::process::id() % 4096).unwrap();
    super::eventually("a free port", || {
        let port = first.checked_sub(1 + (start + TAKEN.fetch_add(1, Ordering::Relaxed)) % 8192)?;
        (port > 1024 && TcpListener::bind(("127.0.0.1", port)).is_ok()).then_some(port)
    })
}

/// Whether a process is there and no zombie.
pub(crate) fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// Whether a process leads a session of its own.
pub(crate) fn leads_session(pid: u32) -> bool {
    let pid = Pid::from_raw(i32::try_from(pid).unwrap());
    nix::unistd::getsid(Some(pid)).is_ok_and(|session| session == pid)
}

/// Whether a process is in this one's session, as all are that have not made one of their own.
pub(crate) fn shares_session(pid: u32) -> bool {
    let session = |pid| nix::unistd::getsid(pid).ok();
    session(Some(Pid::from_raw(i32::try_from(pid).unwrap()))) == session(None)
}

/// Processes that have this number in a namespace of their own.
pub(crate) fn numbered(number: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| number_within(*pid) == Some(number)).collect()
}

/// The number of a process in a namespace of its own, if it is in one (`NSpid`, `proc_pid_status(5)`).
pub(crate) fn number_within(pid: u32) -> Option<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let numbers: Vec<u32> = text
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?
        .split_whitespace()
        .map(|word| word.parse().unwrap())
        .collect();
    (numbers.len() > 1).then_some(*numbers.last()?)
}

/// Every living process.
pub(crate) fn all() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| alive(*pid)).collect()
}

/// Whether a process is a child, or a child's child, of `top`.
pub(crate) fn descends(mut pid: u32, top: u32) -> bool {
    while let Some((_, above)) = stat(pid).filter(|_| pid > 1) {
        if above == top {
            return true;
        }
        pid = above;
    }
    false
}

/// Living processes with these words on their command line.
pub(crate) fn with_words(wanted: impl Fn(&str) -> bool) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let words = |pid| std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    pids.filter(|pid| wanted(&String::from_utf8_lossy(&words(*pid))) && alive(*pid)).collect()
}

/// The parent of a living process.
pub(crate) fn parent(pid: u32) -> u32 {
    parent_of(pid).expect("a process")
}

/// The same of one that may have ended.
pub(crate) fn parent_of(pid: u32) -> Option<u32> {
    stat(pid).map(|(_, above)| above)
}

/// Living children of a process.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    all_children(parent).filter(|(_, state)| *state != 'Z').map(|(pid, _)| pid).collect()
}

/// How many children of a process have ended and were not waited for.
pub(crate) fn zombies(parent: u32) -> usize {
    all_children(parent).filter(|(_, state)| *state == 'Z').count()
}

fn all_children(parent: u32) -> impl Iterator<Item = (u32, char)> {
    let entries = std::fs::read_dir("/proc").unwrap();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(move |pid| stat(pid).filter(|(_, above)| *above == parent).map(|(state, _)| (pid, state)))
}

/// Largest resident size so far, KiB; 0 for a process that has ended.
pub(crate) fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("0");
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// State and parent, from `/proc/PID/stat` (proc(5)); the name in parentheses may hold anything.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
