//! A front-end that behaves badly, as a process of its own with the agent's account.
//!
//! The kernel notes who connects, so the client must be somebody else than the test: the test binary starts itself
//! again as that user, and the one test that [`client_role`] is then plays its scene.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use ctrl_exec::sys::{fdpass, pipe};
use ctrl_exec::wire::control::{Control, LIMIT};
use ctrl_exec::wire::frame;
use ctrl_exec::wire::limits;
use ctrl_exec::wire::name::{RequestId, ScriptName};
use ctrl_exec::wire::order::{Mode, Order, Report};
use ctrl_exec::wire::outcome::Outcome;

use crate::harness::DEADLINE;
use crate::harness::process::finish;

/// The agent's account.
pub(super) const AGENT: u32 = 65_534;
/// Another account.
pub(super) const STRANGER: u32 = 1;

/// Names the scene, and makes [`client_role`] play it.
const SCENE: &str = "CTRL_EXEC_TEST_SCENE";
const SOCKET: &str = "CTRL_EXEC_TEST_SOCKET";
/// Separates what the test harness prints from what the scene says.
const MARK: &str = "SCENE:";

/// Plays a scene as `uid` and gives back what it saw.
pub(super) fn play(uid: u32, socket: &Path, scene: &str) -> String {
    let mut command = Command::new("/proc/self/exe");
    command.uid(uid).gid(uid);
    play_in(command, socket, scene)
}

/// Plays a scene as `uid` in a process namespace of its own, as a confined script would that has come to the socket.
pub(super) fn play_further_in(uid: u32, socket: &Path, scene: &str) -> String {
    let mut command = Command::new("unshare");
    let uid = uid.to_string();
    command.args(["--pid", "--fork", "setpriv", "--clear-groups", "--reuid", &uid, "--regid", &uid]);
    command.arg(std::env::current_exe().unwrap());
    play_in(command, socket, scene)
}

fn play_in(mut command: Command, socket: &Path, scene: &str) -> String {
    command.args(["executor_service::client::client_role", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(SCENE, scene).env(SOCKET, socket).current_dir("/");
    let ran = finish(command, "");
    let seen = ran.stderr.split(MARK).nth(1).unwrap_or_else(|| panic!("no scene was played: {ran:?}"));
    seen.lines().next().unwrap().to_owned()
}

/// Not a test but a role, when [`SCENE`] is set.
#[test]
fn client_role() {
    let Ok(scene) = std::env::var(SCENE) else { return };
    let socket = PathBuf::from(std::env::var_os(SOCKET).unwrap());
    let seen = match UnixStream::connect(&socket) {
        Ok(stream) => act(&scene, stream, &socket),
        Err(error) => format!("{:?}", error.kind()),
    };
    eprintln!("{MARK}{seen}");
}

fn act(scene: &str, stream: UnixStream, socket: &Path) -> String {
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let fd = null.as_fd();
    match scene {
        "hello" => send(stream, &word(Control::Hello), &[]),
        "reload" => send(stream, &word(Control::Reload), &[]),
        "hello with a descriptor" => send(stream, &word(Control::Hello), &[fd]),
        "order as a word" => send(stream, &word(Control::Order), &[]),
        "nonsense" => send(stream, b"GET / HTTP/1.1\r\n\r\n", &[]),
        "empty order" => send(stream, &[0, 0, 0, 2, b'{', b'}'], &[fd; 3]),
        "huge order" => send(stream, &[0xff; 64], &[fd; 3]),
        "largest order" => largest(stream),
        "no descriptors" => send(stream, &order("ok"), &[]),
        "two descriptors" => send(stream, &order("ok"), &[fd; 2]),
        "nine descriptors" => send(stream, &order("ok"), &[fd; 9]),
        "many descriptors" => send(stream, &order("ok"), &[fd; 200]),
        "directory" => send(stream, &order("ok"), &[File::open("/").unwrap().as_fd(), fd, fd]),
        "stall" => send(stream, &order("ok")[..7], &[fd; 3]),
        "two orders" => send(stream, &[order("ok"), order("ok")].concat(), &[fd; 3]),
        // A file that this account may read, and none that it could change; and one of its own.
        "foreign input" => send(stream, &order("append"), &[File::open("/etc/passwd").unwrap().as_fd(), fd, fd]),
        "own input" => send(stream, &order("append"), &[tempfile::tempfile().unwrap().as_fd(), fd, fd]),
        "device as input" => send(stream, &order("append"), &[File::open("/dev/zero").unwrap().as_fd(), fd, fd]),
        "unlisted" => send(stream, &order("nope"), &[fd; 3]),
        "order" => send(stream, &order("ok"), &[fd; 3]),
        "output" => output(stream),
        "hang up at once" => hang_up(&stream, &[], &[]),
        "hang up in the middle" => hang_up(&stream, &order("ok")[..9], &[fd; 3]),
        "crowd" => crowd(socket, 40),
        other => panic!("no scene '{other}'"),
    }
}

fn word(word: Control) -> Vec<u8> {
    frame::encode(&word, LIMIT).unwrap()
}

fn order(name: &str) -> Vec<u8> {
    let request = RequestId::from_random([3; 8]);
    let order = Order::new(ScriptName::parse(name).unwrap(), vec![], request, Mode::Attached).unwrap();
    frame::encode(&order, limits::ORDER).unwrap()
}

/// Sends, and tells what comes back before the executor hangs up.
fn send(stream: UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> String {
    // An executor that has hung up already is told of by what can still be read.
    drop(fdpass::send(&stream, bytes, descriptors));
    told(stream)
}

fn told(mut stream: UnixStream) -> String {
    let mut seen = Vec::new();
    let mut prefix = [0; frame::PREFIX];
    while stream.read_exact(&mut prefix).is_ok() {
        let mut body = vec![0; frame::announced(prefix, limits::REPORT).unwrap()];
        stream.read_exact(&mut body).unwrap();
        seen.push(match frame::decode(&body) {
            Ok(Report::Started { .. }) => "started".to_owned(),
            Ok(Report::Ended(Outcome::Refused(refusal))) => format!("refused {}", refusal.code()),
            Ok(Report::Ended(outcome)) => format!("ended {}", outcome.exit()),
            Ok(other) => panic!("nobody has asked for {other:?}"),
            Err(_) => String::from_utf8(body).unwrap(),
        });
    }
    seen.join(", ")
}

/// An order of the largest size that is read, and none of its bytes an order's.
fn largest(mut stream: UnixStream) -> String {
    let size = u32::try_from(limits::ORDER).unwrap();
    stream.write_all(&size.to_be_bytes()).unwrap();
    let piece = vec![b'['; 1 << 20];
    for _ in 0..limits::ORDER / piece.len() {
        stream.write_all(&piece).unwrap();
    }
    told(stream)
}

/// Runs the script `ok` and tells its output.
fn output(stream: UnixStream) -> String {
    let null = File::open("/dev/null").unwrap();
    let (read, write) = pipe::pipe().unwrap();
    let text = order("ok");
    fdpass::send(&stream, &text, &[null.as_fd(), write.as_fd(), write.as_fd()]).unwrap();
    drop(write);
    let seen = told(stream);
    format!("{seen}: {}", std::io::read_to_string(File::from(read)).unwrap().replace('\n', "|"))
}

fn hang_up(stream: &UnixStream, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> String {
    if !bytes.is_empty() {
        fdpass::send(stream, bytes, descriptors).unwrap();
    }
    "gone".to_owned()
}

/// Holds many connections open without a word; counts those that are turned away for it, and greets from among them.
fn crowd(socket: &Path, count: usize) -> String {
    let connect = || {
        let stream = UnixStream::connect(socket).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream
    };
    let early: Vec<UnixStream> = (0..4).map(|_| connect()).collect();
    let reload = send(connect(), &word(Control::Reload), &[]);
    let null = File::options().read(true).write(true).open("/dev/null").unwrap();
    let order = send(connect(), &order("ok"), &[null.as_fd(); 3]);
    let late: Vec<UnixStream> = (0..count).map(|_| connect()).collect();
    let away = late.into_iter().map(told).filter(|seen| seen == "refused busy").count();
    drop(early);
    format!("{reload}, {order}, {}", away > 0)
}
