//! The system's log, as a socket below an agent's root.

use std::cell::RefCell;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use super::DEADLINE;

/// A listening log daemon.
#[derive(Debug)]
pub(crate) struct Log {
    socket: UnixDatagram,
    seen: RefCell<Vec<String>>,
}

impl Log {
    /// Listens at `place` below `root`.
    pub(crate) fn listen(root: &Path, place: &str) -> Self {
        let path = root.join(place);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let socket = UnixDatagram::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o777)).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Self { socket, seen: RefCell::default() }
    }

    /// Waits for a datagram that holds this text; one that came before counts as well.
    pub(crate) fn with(&self, text: &str) -> String {
        let mut seen = self.seen.borrow_mut();
        let mut buffer = vec![0; 256 * 1024];
        loop {
            if let Some(line) = seen.iter().find(|line| line.contains(text)) {
                return line.clone();
            }
            let size = self.socket.recv(&mut buffer).expect("a line in the log");
            seen.push(String::from_utf8_lossy(&buffer[..size]).into_owned());
        }
    }
}
