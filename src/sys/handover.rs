//! Listening sockets that another process opened for this one: the init system (`sd_listen_fds(3)`), or this same
//! process before it replaced its program ([`super::process::Program`]).
//!
//! Both come as open descriptors, with their numbers in the environment. **Invariant:** what is here is called before
//! this process has opened a descriptor of its own, since a number says nothing about who opened it.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockType, SockaddrLike as _, SockaddrStorage, getsockname, getsockopt,
    sendmsg, sockopt,
};
use nix::unistd;

use super::fdpass::{self, Kind};

/// What a service manager tells its services by. It is for this process, and for none that it starts.
pub const OF_THE_SERVICE_MANAGER: [&str; 9] = [
    "NOTIFY_SOCKET",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_FDNAMES",
    "WATCHDOG_USEC",
    "WATCHDOG_PID",
    KEPT,
    EXECUTOR,
    UNLOGGED,
];

/// What this process tells the program that replaces its own: `PID:NUMBER,NUMBER`, with [`APPOINTED`] behind it where the
/// init system has opened them.
const KEPT: &str = "CTRL_EXEC_LISTEN_FDS";
/// The same of the socket to its executor.
const EXECUTOR: &str = "CTRL_EXEC_EXECUTOR_FD";
/// How many lines of the log went with the program before: `PID:COUNT`.
const UNLOGGED: &str = "CTRL_EXEC_LOG_LOST";

/// The first descriptor that an init system hands over (`SD_LISTEN_FDS_START`, `sd_listen_fds(3)`).
const FIRST: RawFd = 3;
/// Most sockets that are taken: more than a host has addresses worth listening on one by one.
const MOST: u32 = 64;

/// Sockets of the init system's, which says where to listen also after an upgrade: nobody would hear who calls there.
const APPOINTED: &str = ":appointed";

/// Who opened the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Giver {
    /// The init system, which says where to listen.
    InitSystem,
    /// This process itself, when it ran another program.
    Predecessor,
}

/// Listening TCP sockets that were handed over: closed on exec, and not waiting.
#[derive(Debug)]
pub struct Given {
    /// Who opened them.
    pub giver: Giver,
    /// This process has run another program before, which served.
    pub taken_over: bool,
    /// At least one.
    pub sockets: Vec<TcpListener>,
}

/// The TCP sockets that were handed over, `None` where none were.
///
/// # Errors
/// What was handed over is something else, or more than can be meant.
pub fn tcp_listeners() -> io::Result<Option<Given>> {
    let variable = |name: &str| std::env::var(name).ok();
    let word = variable(KEPT);
    let (word, giver) = match word.as_deref().map(|word| (word, word.strip_suffix(APPOINTED))) {
        Some((_, Some(word))) => (Some(word), Giver::InitSystem),
        other => (other.map(|(word, _)| word), Giver::Predecessor),
    };
    let (giver, numbers, taken_over) = match kept(word, std::process::id()) {
        Some(numbers) => (giver, numbers, true),
        None => (Giver::InitSystem, announced(variable, std::process::id())?, false),
    };
    if numbers.is_empty() {
        return Ok(None);
    }
    let sockets = numbers.into_iter().map(tcp_listener).collect::<io::Result<_>>()?;
    Ok(Some(Given { giver, taken_over, sockets }))
}

/// What a process leaves open for the program that replaces its own.
#[derive(Debug, Default)]
pub struct Left<'a> {
    /// Listening sockets.
    pub sockets: Vec<BorrowedFd<'a>>,
    /// Whether the init system has opened them.
    pub appointed: bool,
    /// The socket to a root executor that it has started.
    pub executor: Option<BorrowedFd<'a>>,
    /// Lines that its log has not taken, and nobody will hear of.
    pub unlogged: u64,
}

impl<'a> Left<'a> {
    /// Everything.
    pub(super) fn all(&self) -> impl Iterator<Item = BorrowedFd<'a>> {
        self.sockets.iter().copied().chain(self.executor)
    }
}

/// The socket to the root executor that this process started when it ran another program.
///
/// # Errors
/// It is not what it should be: one end of a pair that root has made.
pub fn executor() -> io::Result<Option<OwnedFd>> {
    let Some(numbers) = kept(std::env::var(EXECUTOR).ok().as_deref(), std::process::id()) else { return Ok(None) };
    let [number] = numbers[..] else { return Err(io::Error::other("there is one socket to an executor, or none")) };
    let socket = taken(number)?;
    if fdpass::peer(&socket)?.uid.is_root() {
        return Ok(Some(socket));
    }
    Err(io::Error::other("the socket to the executor was not made by root"))
}

/// The one unix socket that the init system has handed over, `None` where it has not.
///
/// # Errors
/// It handed over something else than one listening unix stream socket.
pub fn unix_listener() -> io::Result<Option<UnixListener>> {
    match announced(|name| std::env::var(name).ok(), std::process::id())?[..] {
        [] => Ok(None),
        [number] => {
            let socket = taken(number)?;
            if !listens(&socket, &[AddressFamily::Unix]) {
                let text = "what the init system handed over is no listening unix stream socket (ListenStream=)";
                return Err(io::Error::other(text));
            }
            let listener = UnixListener::from(socket);
            listener.set_nonblocking(true)?;
            Ok(Some(listener))
        }
        ref more => {
            let more = more.len();
            Err(io::Error::other(format!("the init system handed over {more} sockets, and one is wanted")))
        }
    }
}

/// The variables of this process for the program that replaces its own: without the service manager's word about
/// sockets, and with ours about what is left.
#[must_use]
pub fn environment(left: &Left<'_>) -> Vec<(OsString, OsString)> {
    let stale = |name: &OsStr| {
        name.to_str().is_some_and(|name| name.starts_with("LISTEN_") || [KEPT, EXECUTOR, UNLOGGED].contains(&name))
    };
    let word = |name: &str, sockets: &[BorrowedFd<'_>], more: &str| {
        let numbers: Vec<String> = sockets.iter().map(|socket| socket.as_raw_fd().to_string()).collect();
        let word = format!("{}:{}{more}", std::process::id(), numbers.join(","));
        (!sockets.is_empty()).then(|| (name.into(), word.into()))
    };
    let sockets = word(KEPT, &left.sockets, if left.appointed { APPOINTED } else { "" });
    let unlogged = || (UNLOGGED.into(), format!("{}:{}", std::process::id(), left.unlogged).into());
    let ours = [sockets, word(EXECUTOR, left.executor.as_slice(), ""), (left.unlogged > 0).then(unlogged)];
    std::env::vars_os().filter(|(name, _)| !stale(name)).chain(ours.into_iter().flatten()).collect()
}

/// Lines of the log that this process has lost when it ran another program.
#[must_use]
pub fn unlogged() -> u64 {
    std::env::var(UNLOGGED).ok().and_then(|word| count(&word, std::process::id())).unwrap_or(0)
}

fn count(word: &str, own: u32) -> Option<u64> {
    let (pid, count) = word.split_once(':')?;
    count.parse().ok().filter(|_| pid.parse() == Ok(own))
}

/// The numbers that the init system names, if it means this process.
fn announced(variable: impl Fn(&str) -> Option<String>, own: u32) -> io::Result<Vec<RawFd>> {
    let number = |name| variable(name).and_then(|text| text.parse::<u32>().ok());
    if number("LISTEN_PID") != Some(own) {
        return Ok(Vec::new());
    }
    let count = number("LISTEN_FDS").unwrap_or(0);
    if count > MOST {
        let text = format!("the init system handed over {count} sockets, and {MOST} is the most that can be meant");
        return Err(io::Error::other(text));
    }
    Ok((FIRST..).take(usize::try_from(count).unwrap_or(0)).collect())
}

/// The numbers that this process has left for itself.
fn kept(word: Option<&str>, own: u32) -> Option<Vec<RawFd>> {
    let (pid, numbers) = word?.split_once(':')?;
    let numbers: Option<Vec<RawFd>> =
        numbers.split(',').map(|number| number.parse().ok().filter(|number| *number >= FIRST)).collect();
    numbers.filter(|_| pid.parse() == Ok(own))
}

fn tcp_listener(number: RawFd) -> io::Result<TcpListener> {
    let socket = taken(number).map_err(|error| {
        io::Error::other(format!("descriptor {number} was to be a listening socket, and cannot be used: {error}"))
    })?;
    if !listens(&socket, &[AddressFamily::Inet, AddressFamily::Inet6]) {
        let text =
            format!("descriptor {number}, which was handed over, is no listening TCP socket (ListenStream=PORT)");
        return Err(io::Error::other(text));
    }
    let listener = TcpListener::from(socket);
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Whether this is a stream socket of such a family that listens.
fn listens(socket: &OwnedFd, families: &[AddressFamily]) -> bool {
    let family = getsockname::<SockaddrStorage>(socket.as_raw_fd()).ok().and_then(|address| address.family());
    family.is_some_and(|family| families.contains(&family))
        && getsockopt(socket, sockopt::SockType).is_ok_and(|kind| kind == SockType::Stream)
        && getsockopt(socket, sockopt::AcceptConn).is_ok_and(|listens| listens)
}

/// The descriptor of this number, which nobody in this process owns yet: sent to ourselves over a socket pair, so that
/// what arrives has an owner and closes on exec, and then closed under its old number.
fn taken(number: RawFd) -> io::Result<OwnedFd> {
    // Else the pair below could get this very number.
    std::fs::symlink_metadata(format!("/proc/self/fd/{number}"))?;
    let (ours, theirs) = fdpass::pair(Kind::Messages)?;
    let (bytes, numbers) = ([io::IoSlice::new(b"x")], [number]);
    let rights = [ControlMessage::ScmRights(&numbers)];
    sendmsg::<()>(ours.as_fd().as_raw_fd(), &bytes, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    let mut descriptors = fdpass::receive(&theirs, &mut [0], 1)?.descriptors;
    unistd::close(number)?;
    descriptors.pop().ok_or_else(|| io::Error::other("a descriptor was lost on its way"))
}

#[cfg(test)]
mod tests {
    use std::os::fd::IntoRawFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::sys::process;

    #[test]
    fn numbers_for_another_process_are_none_and_too_many_are_an_error() {
        let say = |pid: &'static str, count: &'static str| {
            move |name: &str| Some(if name == "LISTEN_PID" { pid } else { count }.to_owned())
        };
        assert_eq!(announced(say("7", "2"), 7).unwrap(), [3, 4]);
        for (pid, count) in [("8", "2"), ("", "2"), ("7", "0"), ("7", "-1"), ("7", "two")] {
            assert_eq!(announced(say(pid, count), 7).unwrap(), [0; 0], "{pid} {count}");
        }
        assert!(announced(say("7", "65"), 7).unwrap_err().to_string().contains("65 sockets"));
        assert_eq!(announced(|_| None, 7).unwrap(), [0; 0]);
    }

    #[test]
    fn only_what_this_process_left_for_itself_is_taken_for_its_own() {
        assert_eq!(kept(Some("7:5,17"), 7).unwrap(), [5, 17]);
        for word in ["8:5", "7:", "7:2", "7:5,", "7:-5", "7", "", ":5"] {
            assert_eq!(kept(Some(word), 7), None, "{word}");
        }
        assert_eq!(kept(None, 7), None);
    }

    #[test]
    fn what_is_left_for_the_next_program_replaces_the_service_manager_s_word() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let left = Left { sockets: vec![listener.as_fd()], ..Left::default() };
        let environment = environment(&left);
        assert!(environment.iter().all(|(name, _)| !name.to_string_lossy().starts_with("LISTEN_")));
        let own = std::process::id();
        let (_, word) = environment.iter().find(|(name, _)| name == KEPT).unwrap();
        assert_eq!(kept(word.to_str(), own).unwrap(), [listener.as_raw_fd()]);
        assert!(environment.iter().all(|(name, _)| name != UNLOGGED), "nothing is lost");
        let environment = super::environment(&Left { unlogged: 7, ..left });
        let (_, word) = environment.iter().find(|(name, _)| name == UNLOGGED).unwrap();
        let counted = |pid| count(word.to_str().unwrap(), pid);
        assert_eq!((counted(own), counted(own + 1), count("7", 7), count("7:-1", 7)), (Some(7), None, None, None));
    }

    #[test]
    fn a_descriptor_gets_an_owner() {
        let text = process::tests::in_a_process("taken", || {
            let (one, other) = UnixStream::pair().unwrap();
            let number = one.into_raw_fd();
            let owned = taken(number).unwrap();
            assert!(!listens(&owned, &[AddressFamily::Unix]));
            let gone = taken(number).is_err();
            fdpass::send(&other, b"x", &[]).unwrap();
            let size = fdpass::receive(&owned, &mut [0; 2], 0).unwrap().size;
            format!("{gone} {} {size}", owned.as_raw_fd() == number)
        });
        assert_eq!(text, "true false 1");
    }

    #[test]
    fn only_a_listening_tcp_socket_is_taken_for_one() {
        let text = process::tests::in_a_process("tcp", || {
            let tcp = TcpListener::bind(("127.0.0.1", 0)).unwrap();
            let address = tcp.local_addr().unwrap();
            let connected = std::net::TcpStream::connect(address).unwrap();
            let (unix, _other) = UnixStream::pair().unwrap();
            let file = std::fs::File::open("/dev/null").unwrap();
            let wrong = [connected.into_raw_fd(), unix.into_raw_fd(), file.into_raw_fd(), 9999];
            assert!(wrong.into_iter().all(|number| tcp_listener(number).is_err()));
            tcp_listener(tcp.into_raw_fd()).is_ok_and(|taken| taken.local_addr().unwrap() == address).to_string()
        });
        assert_eq!(text, "true");
    }
}
