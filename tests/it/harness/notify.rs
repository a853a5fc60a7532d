//! The service manager's end of `NOTIFY_SOCKET`: how a daemon's readiness is known.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// One daemon's socket.
#[derive(Debug)]
pub(crate) struct Notify {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Notify {
    pub(crate) fn bind(path: &Path) -> Self {
        drop(std::fs::remove_file(path));
        let socket = UnixDatagram::bind(path).unwrap();
        // A daemon started as root has become somebody else by the time it tells.
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        Self { socket, path: path.to_owned() }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next message as `KEY=value` pairs; nothing if none came within a moment.
    pub(crate) fn receive(&self) -> Option<Vec<(String, String)>> {
        let mut buffer = vec![0; 64 * 1024];
        let size = self.socket.recv(&mut buffer).ok()?;
        let text = String::from_utf8_lossy(&buffer[..size]).into_owned();
        let pair = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
        Some(text.lines().filter_map(pair).collect())
    }
}
