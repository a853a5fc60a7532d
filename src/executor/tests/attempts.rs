//! A script that is this test binary, and tries what it is told to: what a shell has no word for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigEvent, SigevNotify, Signal};
use nix::sys::socket::{AddressFamily, SockFlag, SockType};
use nix::sys::stat::Mode;
use nix::sys::timer::Timer;
use nix::time::ClockId;

use super::harness::Executor;
use crate::sys::{attempt, fdpass, process};

/// Set for such a script: what it tries, one attempt after another, separated by semicolons.
const ATTEMPTS: &str = "CTRL_EXEC_TEST_ATTEMPTS";

/// What such a script does; nothing as a test.
#[test]
fn attempts_role() {
    let Ok(attempts) = std::env::var(ATTEMPTS) else { return };
    for words in attempts.split(';') {
        let words: Vec<&str> = words.split_whitespace().collect();
        let answer = match attempt(&words) {
            Ok(()) => "done".to_owned(),
            Err(error) => format!("{:?}", Errno::from_raw(error.raw_os_error().unwrap_or_default())),
        };
        println!("\nANSWER {answer}");
    }
}

/// One attempt.
fn attempt(words: &[&str]) -> io::Result<()> {
    match *words {
        ["sibling"] => attempt::sibling(),
        ["flood", whose, seconds] => flood(whose, Duration::from_secs(seconds.parse().unwrap())),
        ["timers"] => {
            println!("\nTIMERS {}", std::iter::repeat_with(timer).take_while(Result::is_ok).count());
            Ok(())
        }
        ["timers", some] => (0..some.parse().unwrap()).try_for_each(|_| timer()),
        ["queue-to-init", signal, count] => queue_to_init(signal.parse().unwrap(), count.parse().unwrap()),
        ["terminals", most] => terminals(most.parse().unwrap()),
        ["leave-root", directory, file] => leave_root(directory, file),
        ["wait"] => loop {
            nix::unistd::pause();
        },
        ["stop"] => attempt::stop_as_traced(),
        ["call", name] => attempt::refused(name),
        ["hold-key", name] => attempt::hold_key(name),
        ["read-key", name] => attempt::read_key(name),
        ["loosen", path] => attempt::loosen(Path::new(path)),
        ["loosen-copy", path] => attempt::loosen_a_copy(Path::new(path)).map(drop),
        ["make-in-copy", path, name] => {
            let copy = attempt::loosen_a_copy(Path::new(path))?;
            openat(&copy, name, OFlag::O_CREAT | OFlag::O_WRONLY, Mode::S_IRUSR).map(drop).map_err(io::Error::from)
        }
        ["write", path] => OpenOptions::new().write(true).create(true).truncate(false).open(path)?.write_all(b"x"),
        // No reader is waited for.
        ["fifo", path] => {
            let opened = nix::fcntl::open(path, OFlag::O_WRONLY | OFlag::O_NONBLOCK, Mode::empty())?;
            File::from(opened).write_all(b"x")
        }
        ["fchmod", path, mode] => {
            let mode = std::os::unix::fs::PermissionsExt::from_mode(u32::from_str_radix(mode, 8).unwrap());
            OpenOptions::new().write(true).create(true).truncate(false).open(path)?.set_permissions(mode)
        }
        ["leave-shell-of-root", path] => {
            nix::unistd::setuid(nix::unistd::Uid::from_raw(0))?;
            fs::copy("/bin/sh", path)?;
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o4755))
        }
        ["socket", family] => socket(family),
        ["own", path, uid] => std::os::unix::fs::chown(path, uid.parse().ok(), None),
        ["processes-as", uid, most] => processes_as(uid.parse().unwrap(), most.parse().unwrap()),
        ["bind", address] => TcpListener::bind(address).map(drop),
        ["tcp", address] => TcpStream::connect(address).map(drop),
        ["udp", address] => {
            let socket = UdpSocket::bind("0.0.0.0:0")?;
            socket.send_to(b"x", address).map(drop)
        }
        ["lend", directory, socket] => lend(directory, socket),
        ["unix", path] => UnixStream::connect(path).map(drop),
        ["abstract", name] => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?).map(drop),
        ["files", most] => open_files(most.parse().unwrap()),
        ["raise-files"] => {
            let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
            Ok(setrlimit(Resource::RLIMIT_NOFILE, hard + 1, hard + 1)?)
        }
        _ => panic!("{words:?}"),
    }
}

/// A timer that would send a signal, and is never taken away.
fn timer() -> io::Result<()> {
    let event = SigEvent::new(SigevNotify::SigevSignal { signal: Signal::SIGUSR1, si_value: 0 });
    std::mem::forget(Timer::new(ClockId::CLOCK_MONOTONIC, event)?);
    Ok(())
}

/// Queues so many signals to the first process here, and says so.
fn queue_to_init(signal: i32, count: usize) -> io::Result<()> {
    (0..count).try_for_each(|_| attempt::queue_to_init(signal))?;
    println!("\nQUEUED");
    Ok(())
}

/// Has so many terminals at the same time.
fn terminals(most: usize) -> io::Result<()> {
    let open = |_| OpenOptions::new().read(true).write(true).open("/dev/ptmx");
    (0..most).map(open).collect::<io::Result<Vec<_>>>().map(drop)
}

/// Reads a file behind the root directory that this process has, by making another one its own.
fn leave_root(directory: &str, file: &str) -> io::Result<()> {
    let root = File::open("/")?;
    nix::unistd::chroot(directory)?;
    nix::unistd::fchdir(&root)?;
    for _ in 0..32 {
        nix::unistd::chdir("..")?;
    }
    File::open(file).map(drop)
}

/// Makes processes faster than anybody buries them, and goes on while others do so.
fn flood(whose: &str, length: Duration) -> io::Result<()> {
    // Their number is bounded nevertheless: the machine is not what is tried.
    setrlimit(Resource::RLIMIT_NPROC, 300, 300)?;
    let how = if whose == "siblings" { nix::libc::CLONE_PARENT } else { 0 };
    if attempt::flood(how, 24, length)? {
        // Nobody else is there whose lock it could be.
        nix::unistd::write(io::stdout(), b"\nOUTRUN\n")?;
        process::end(0);
    }
    Ok(())
}

/// Becomes this account, which may be its own already, and has so many processes at the same time.
fn processes_as(uid: u32, most: usize) -> io::Result<()> {
    let own = nix::unistd::Uid::from_raw(uid);
    nix::unistd::setresuid(own, own, own)?;
    let sleeper = || {
        #[expect(clippy::disallowed_methods, reason = "a process that does nothing")]
        let mut sleep = std::process::Command::new("sleep");
        sleep.arg("1000").spawn()
    };
    let mut made = Vec::new();
    let ended = (0..most).try_for_each(|_| sleeper().map(|one| made.push(one)));
    for mut one in made {
        one.kill()?;
        one.wait()?;
    }
    ended
}

/// Sends a directory to whoever listens at a socket.
fn lend(directory: &str, socket: &str) -> io::Result<()> {
    let directory = File::options().read(true).custom_flags(OFlag::O_DIRECTORY.bits()).open(directory)?;
    fdpass::send(&UnixStream::connect(socket)?, b"d", &[directory.as_fd()]).map(drop)
}

/// A socket of a family by name.
pub(super) fn socket(family: &str) -> io::Result<()> {
    let (family, kind) = match family {
        "vsock" => (AddressFamily::Vsock, SockType::Stream),
        "alg" => (AddressFamily::Alg, SockType::SeqPacket),
        "packet" => (AddressFamily::Packet, SockType::Datagram),
        "netlink" => (AddressFamily::Netlink, SockType::Raw),
        "inet6" => (AddressFamily::Inet6, SockType::Stream),
        other => panic!("{other}"),
    };
    nix::sys::socket::socket(family, kind, SockFlag::empty(), None).map(drop).map_err(io::Error::from)
}

/// Has as many files open at the same time as are asked for, those that were open before included.
fn open_files(most: usize) -> io::Result<()> {
    let open = fs::read_dir("/proc/self/fd")?.map(|entry| Ok(entry?.path()));
    // The last of them was the directory itself.
    let before = open.collect::<io::Result<Vec<_>>>()?.len() - 1;
    (before..most).map(|_| File::open("/dev/null")).collect::<io::Result<Vec<_>>>().map(drop)
}

/// This binary where every account can execute it: a copy, if it was built in a directory that is closed to others.
fn binary() -> &'static Path {
    static BINARY: OnceLock<(PathBuf, Option<Child>)> = OnceLock::new();
    let (path, _) = BINARY.get_or_init(|| {
        let own = std::env::current_exe().unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode();
        if mode(&own) & 0o5 == 0o5 && own.ancestors().skip(1).all(|above| mode(above) & 0o1 != 0) {
            return (own, None);
        }
        let (path, keeper) = copied(&own);
        (path, Some(keeper))
    });
    path
}

/// A copy, and a process that takes it away when this one ends, however that comes: it waits for the end of its standard input.
/// Another process makes it: while this one had it open for writing, a fork elsewhere could keep it so, and exec would fail.
fn copied(own: &Path) -> (PathBuf, Child) {
    let place = tempfile::tempdir_in("/var/lib").unwrap().keep();
    fs::set_permissions(&place, PermissionsExt::from_mode(0o755)).unwrap();
    let words = "install -m 755 \"$1\" \"$2/unit\" && echo; cat > /dev/null; rm -rf \"$2\"";
    #[expect(clippy::disallowed_methods, reason = "a process that writes what this one must not have open")]
    let mut command = Command::new("/bin/sh");
    command.args(["-c", words, "sh"]).args([own, &place]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut keeper = command.spawn().unwrap();
    // The line that says that it is there.
    keeper.stdout.take().unwrap().read_exact(&mut [0]).unwrap();
    (place.join("unit"), keeper)
}

/// A shell's words that make its own process one that tries these.
pub(super) fn become_one(attempts: &[&str]) -> String {
    let binary = binary();
    let role = "executor::tests::attempts::attempts_role --exact --nocapture --test-threads=1";
    format!("export {ATTEMPTS}='{}'; exec {} {role}", attempts.join(";"), binary.display())
}

/// How each attempt of a script under this profile ends: `done`, or the name of its error.
pub(super) fn tries(executor: &Executor, attempts: &[&str]) -> Vec<String> {
    let said = executor.says(&format!("({})", become_one(attempts)));
    let answers: Vec<String> =
        said.lines().filter_map(|line| line.strip_prefix("ANSWER ")).map(str::to_owned).collect();
    assert_eq!(answers.len(), attempts.len(), "{said}");
    answers
}
