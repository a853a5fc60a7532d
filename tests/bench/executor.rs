//! An executor without an agent, of each kind, and orders straight to it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ctrl_exec::sys::fdpass::{self, Kind};
use ctrl_exec::wire::control::{self, Control};
use ctrl_exec::wire::name::{RequestId, ScriptName};
use ctrl_exec::wire::order::{Mode, Order, Report};
use ctrl_exec::wire::outcome::Outcome;
use ctrl_exec::wire::{frame, limits};

use crate::process;

/// Who a private executor runs as, and who gives orders to the system's.
const NOBODY: u32 = 65_534;

/// A configuration and its scripts, all of it root's alone.
pub(crate) struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    /// With one static program that does nothing, `idle`, under a profile that asks for everything.
    pub(crate) fn new() -> Self {
        // Everyone may write to the directory for temporary files, so that nothing in it is trusted.
        let dir = tempfile::tempdir_in("/var/lib").unwrap();
        std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let root = dir.path().to_owned();
        for name in ["a", "b", "bin", "etc", "run"] {
            std::fs::create_dir(root.join(name)).unwrap();
        }
        let host = Self { dir };
        let (source, program) = (root.join("idle.c"), host.program());
        std::fs::write(&source, "int main(void) { return 0; }\n").unwrap();
        let made = Command::new("cc").arg("-static").arg("-o").arg(&program).arg(&source).status().unwrap();
        assert!(made.success());
        let root = root.display();
        let top = format!("port = 7443\ncert = {root}/etc/a.crt\nkey = {root}/etc/a.key\nca = {root}/etc/ca.crt\n");
        let own = "user = nobody\nmax_children = 64\n[profile default]\nrun_as = daemon\n";
        let full = format!("writable = {root}/a:{root}/b\nreadable = {root}/bin:/usr\ncaps = CAP_NET_BIND_SERVICE\n");
        std::fs::write(host.config(), format!("{top}{own}{full}")).unwrap();
        std::fs::write(host.allowlist(), format!("idle = {}\n", program.display())).unwrap();
        host
    }

    /// The program that does nothing.
    pub(crate) fn program(&self) -> PathBuf {
        self.dir.path().join("bin/idle")
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("etc/agent.conf")
    }

    fn allowlist(&self) -> PathBuf {
        self.dir.path().join("etc/scripts.conf")
    }
}

/// A running executor.
pub(crate) struct Executor {
    child: Child,
    way: Way,
}

enum Way {
    Line(OwnedFd),
    Socket(PathBuf),
}

impl Executor {
    /// A child with nobody's rights, which confines nothing.
    pub(crate) fn private(binary: &Path, host: &Host) -> Self {
        Self::child(binary, host, "serve-private", |command| command.uid(NOBODY).gid(NOBODY))
    }

    /// A child with root's.
    pub(crate) fn own(binary: &Path, host: &Host) -> Self {
        Self::child(binary, host, "serve-own", |command| command)
    }

    fn child(binary: &Path, host: &Host, role: &str, rights: fn(&mut Command) -> &mut Command) -> Self {
        let (ours, theirs) = fdpass::pair(Kind::Messages).unwrap();
        let mut command = Command::new(binary);
        command.arg(role).arg(host.config()).arg(host.allowlist()).arg(host.dir.path()).arg("1024");
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let child = rights(&mut command).spawn().unwrap();
        drop(command);
        let mut answer = [0; 4096];
        let size = fdpass::receive(&ours, &mut answer, 0).unwrap().size;
        assert_eq!(String::from_utf8_lossy(answer.get(..size).unwrap()), "\"done\"");
        Self { child, way: Way::Line(ours) }
    }

    /// A service of the system.
    pub(crate) fn system(binary: &Path, host: &Host) -> Self {
        let socket = host.dir.path().join("run/exec.sock");
        let mut command = Command::new(binary);
        command.arg("serve-executor").arg(&socket).arg(host.config()).arg(host.allowlist()).arg("nobody");
        command.env("CTRL_EXEC_ROOT", host.dir.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(&socket).is_err() {
            assert!(Instant::now() < deadline, "the executor does not listen");
            std::thread::yield_now();
        }
        Self { child, way: Way::Socket(socket) }
    }

    /// The process that was started.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until no monitor is left.
    pub(crate) fn settle(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !process::children(self.pid()).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Has `idle` run, and waits for its outcome.
    pub(crate) fn order(&self) {
        let name = ScriptName::parse("idle").unwrap();
        let order = Order::new(name, vec![], RequestId::from_random([7; 8]), Mode::Attached).unwrap();
        let bytes = frame::encode(&order, limits::ORDER).unwrap();
        let null = File::options().read(true).write(true).open("/dev/null").unwrap();
        let connection = self.connect();
        assert_eq!(fdpass::send(&connection, &bytes, &[null.as_fd(); 3]).unwrap(), bytes.len());
        let mut connection = UnixStream::from(connection);
        loop {
            match report(&mut connection) {
                Report::Started { .. } => {}
                Report::Ended(outcome) => return assert_eq!(outcome, Outcome::Exited { code: 0 }),
                Report::Free(_) | Report::Declined => unreachable!("nobody has asked for it"),
            }
        }
    }

    /// Has it read its configuration again, and waits until it has.
    pub(crate) fn reload(&self) {
        let answer = match &self.way {
            Way::Socket(_) => {
                let mut connection = UnixStream::from(self.connect());
                connection.write_all(&frame::encode(&Control::Reload, control::LIMIT).unwrap()).unwrap();
                body(&mut connection)
            }
            Way::Line(line) => {
                fdpass::send(line, &serde_json::to_vec(&Control::Reload).unwrap(), &[]).unwrap();
                let mut answer = vec![0; control::LIMIT];
                let size = fdpass::receive(line, &mut answer, 0).unwrap().size;
                answer.truncate(size);
                answer
            }
        };
        assert_eq!(String::from_utf8_lossy(&answer), "\"done\"");
    }

    fn connect(&self) -> OwnedFd {
        match &self.way {
            Way::Socket(path) => UnixStream::connect(path).unwrap().into(),
            Way::Line(control) => {
                let (ours, theirs) = fdpass::pair(Kind::Stream).unwrap();
                let word = serde_json::to_vec(&Control::Order).unwrap();
                fdpass::send(control, &word, &[theirs.as_fd()]).unwrap();
                ours
            }
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        // A child of its own kind ends with its line; a keeper that is killed would leave its service behind.
        if let Way::Line(control) = &self.way {
            let _ =
                nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(control), nix::sys::socket::Shutdown::Both);
        } else {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}

fn report(connection: &mut UnixStream) -> Report {
    frame::decode(&body(connection)).unwrap()
}

fn body(connection: &mut UnixStream) -> Vec<u8> {
    let mut prefix = [0; frame::PREFIX];
    connection.read_exact(&mut prefix).unwrap();
    let mut body = vec![0; frame::announced(prefix, limits::REPORT).unwrap()];
    connection.read_exact(&mut body).unwrap();
    body
}
