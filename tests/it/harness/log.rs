//! The system's log, as a socket below an agent's root.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::DEADLINE;

/// A listening log daemon.
#[derive(Debug)]
pub(crate) struct Log(UnixDatagram);

impl Log {
    /// Listens at `place` below `root`.
    pub(crate) fn listen(root: &Path, place: &str) -> Self {
        let path = root.join(place);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let socket = UnixDatagram::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self(socket)
    }

    /// Waits for a datagram that holds this text.
    pub(crate) fn with(&self, text: &str) -> String {
        let mut buffer = vec![0; 256 * 1024];
        loop {
            let size = self.0.recv(&mut buffer).expect("a line in the log");
            let line = String::from_utf8_lossy(&buffer[..size]).into_owned();
            if line.contains(text) {
                return line;
            }
        }
    }
}
